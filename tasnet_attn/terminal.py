"""The output of commands: levels, lines, bars, tables, and the log for messages of libraries.

Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from tasnet_attn.errors import UserError, printable

QUIET, NORMAL, VERBOSE = range(3)  # errors and results only; also progress; also details and timings
LOG = "log.txt"  # in a command's folder
EVERY = 30.0  # seconds between progress lines without a terminal

_level = NORMAL
_apart: _Libraries | None = None


@contextmanager
def showing(level: int) -> Iterator[None]:
    """Set the level of output inside the block, and keep libraries' messages separate."""
    global _level
    before, _level = _level, level
    try:
        with libraries_apart():
            yield
    finally:
        _level = before


def say(line: str) -> None:
    """Print a progress line, above a bar if there is one."""
    if _level > QUIET:
        _print(line)


def detail(line: str) -> None:
    """Print a line only with `--verbose`."""
    if _level >= VERBOSE:
        _print(line)


def result(line: str) -> None:
    """Print the result of one of several inputs to standard output, above a bar if there is one."""
    if _level > QUIET:
        _print(line, sys.stdout)


def warn(line: str) -> None:
    """Print one of our warnings, on something that the user may want to change. `--quiet` does not hide it."""
    _print(f"tasnet-attn: warning: {line}")


def _print(line: str, stream: Any = None) -> None:
    stream, tqdm = stream or sys.stderr, sys.modules.get("tqdm")
    if tqdm is not None:
        tqdm.tqdm.write(printable(line), stream)
        stream.flush()
    else:
        print(printable(line), file=stream, flush=True)


def lost() -> UserError | None:
    """The reason if standard output takes no more: nobody reads it, or a disk is full. It is /dev/null from then on.

    Otherwise Python would try to write the rest at its end and report the error again.
    """
    try:
        if sys.stdout is not None:  # it is None if it was closed before the start
            sys.stdout.flush()
    except OSError as error:
        with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return UserError(f"standard output: {error.strerror or error}", status=1)
    return None


def live() -> bool:
    """Whether to draw bars: in a terminal and without `--quiet`."""
    return _level > QUIET and sys.stderr.isatty()


def quiet() -> bool:
    """Whether to print only errors and results."""
    return _level == QUIET


# ---- bars -----------------------------------------------------------------------------------------------------------


def bar(total: float, unit: str, about: str) -> Any:
    """A bar with the remaining time; without a terminal, an occasional line. Has `update(n)`; a context manager.

    Args:
        total: the sum of all updates.
        unit: for example "s" or "files".
        about: the task.
    """
    if not live():
        return _Lines(total, unit, about)
    from tqdm import tqdm

    form = "{desc} {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} {unit}, {remaining} left{postfix}"
    return tqdm(desc=printable(about), total=total, unit=unit, leave=False, dynamic_ncols=True, bar_format=form)


def duration(seconds: float) -> str:
    """A duration in words.

    Examples:
        >>> duration(48.2), duration(123), duration(7260)
        ('48 s', '2 min 3 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class _Lines:
    """`bar` without a terminal."""

    def __init__(self, total: float, unit: str, about: str) -> None:
        self.total, self.unit, self.about, self.n, self.more = total, unit, about, 0.0, ""
        self.began = self.said = time.monotonic()

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def update(self, n: float = 1) -> None:
        self.n += n
        now = time.monotonic()
        if now - self.said >= EVERY and 0 < self.n < self.total:
            self.said = now
            left = (now - self.began) / self.n * (self.total - self.n)
            say(f"{self.about}: {self.n:.0f} of {self.total:.0f} {self.unit}, {duration(left)} left{self.more}")

    def set_postfix_str(self, text: str) -> None:
        self.more = f", {text}"


# ---- tables ---------------------------------------------------------------------------------------------------------


def columns() -> int:
    """The terminal's width; wide without a terminal."""
    return shutil.get_terminal_size((100, 24)).columns


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Text in columns, the first to the left, the others to the right; a table that is too wide continues below.

    Examples:
        >>> print(table(["", "SDR", "SI-SNRi"], [["vocals", "6.32", "7.1"]], width=14))
                 SDR
        vocals  6.32
        <BLANKLINE>
                SI-SNRi
        vocals      7.1
    """
    cells = [[printable(cell) for cell in row] for row in (heads, *rows)]
    wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
    blocks: list[list[int]] = [[]]
    used = wide[0]
    for index in range(1, len(wide)):
        if blocks[-1] and used + 2 + wide[index] > (width or columns()):
            blocks.append([])
            used = wide[0]
        blocks[-1].append(index)
        used += 2 + wide[index]

    def line(row: list[str], block: list[int]) -> str:
        return "  ".join([row[0].ljust(wide[0]), *(row[index].rjust(wide[index]) for index in block)]).rstrip()

    return "\n\n".join("\n".join(line(row, block) for row in cells) for block in blocks)


# ---- messages of libraries ------------------------------------------------------------------------------------------


class _Libraries(logging.Handler):
    """Collects libraries' warnings and log lines: to a file once it is known, with `--verbose` to the terminal too."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self.waiting: list[str] = []
        self.file: Path | None = None

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        detail(line)
        self.waiting.append(line)
        self.write()

    def write(self) -> None:
        """Write waiting lines to the file. A full disk ends the command elsewhere, with its own message."""
        if self.file is not None and self.waiting and self.file.parent.is_dir():
            with suppress(OSError), self.file.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write("".join(f"{line}\n" for line in self.waiting))
                self.waiting.clear()

    def warned(
        self, message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any
    ) -> None:
        """Replaces `warnings.showwarning`."""
        text = f"{filename}:{lineno}: {category.__name__}: {message}"
        self.handle(logging.LogRecord("warnings", logging.WARNING, filename, lineno, text, None, None))

    def ended(self, thread: threading.ExceptHookArgs) -> None:
        """Replaces `threading.excepthook`: our threads pass their errors on, libraries' threads print tracebacks."""
        raised = (thread.exc_type, thread.exc_value or thread.exc_type(), thread.exc_traceback)
        text = f"{thread.thread and thread.thread.name} ended"
        self.handle(logging.LogRecord("threading", logging.ERROR, __file__, 0, text, None, raised))


@contextmanager
def libraries_apart() -> Iterator[None]:
    """Inside the block, libraries' warnings and log lines wait for a `log` instead of going to the terminal."""
    global _apart
    if _apart is not None:
        yield
        return
    _apart = _Libraries()
    found = [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    loggers = [logging.root, *found]
    hook = threading.excepthook
    theirs = [(logger, each) for logger in loggers for each in logger.handlers if type(each) is logging.StreamHandler]
    ours = {logging.root, *(logger for logger, _ in theirs if not logger.propagate)}
    for logger, handler in theirs:
        logger.removeHandler(handler)
    for logger in ours:
        logger.addHandler(_apart)
    try:
        with warnings.catch_warnings():
            warnings.showwarning, threading.excepthook = _apart.warned, _apart.ended
            yield
    finally:
        threading.excepthook = hook
        for logger in ours:
            logger.removeHandler(_apart)
        for logger, handler in theirs:
            logger.addHandler(handler)
        _apart = None


@contextmanager
def log(file: Path) -> Iterator[None]:
    """Inside the block, libraries' messages since the command began, and new ones, are appended to this file.

    The file is created when there is something to write and its folder exists; of nested blocks the outermost counts.
    """
    if _apart is None or _apart.file is not None:
        yield
        return
    _apart.file = file
    _apart.write()
    try:
        yield
    finally:
        _apart.write()
        _apart.file = None


def log_file() -> Path | None:
    """The present log file; None: there is none."""
    return None if _apart is None else _apart.file


_kept = ExitStack()


def serve(file: Path | None) -> None:
    """For a command's subprocess, until it ends: libraries' messages go to the command's log."""
    _kept.enter_context(libraries_apart())
    if file is not None:
        _kept.enter_context(log(file))
