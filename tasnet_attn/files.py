"""Atomic file writing; digests; file names from any text; folders locked by one process."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from filelock import FileLock, Timeout

from tasnet_attn.errors import UserError

LONGEST = 100  # bytes of a generated file name
WORK = re.compile(r"\.work-[0-9a-f]{12}")  # names of workspaces
PART = re.compile(r"\.[0-9a-f]{12}\.part(\..+)?")  # and of what is being written


@contextmanager
def touching(path: Path) -> Iterator[None]:
    """Operating system errors inside the block become one line with the path and the reason."""
    try:
        yield
    except OSError as error:
        raise refusal(error, path) from error


def refusal(error: OSError, path: Path) -> UserError:
    """One line for an error of the operating system; `path` if it names none."""
    name = error.filename2 or error.filename  # of a renaming, the new name
    where = os.fsdecode(name) if name and not isinstance(name, int) else path
    return UserError(f"{where}: {error.strerror or error}", status=1)


def standard(stream: TextIO | None, name: str) -> BinaryIO:
    """The bytes of `sys.stdin` or `sys.stdout`.

    Raises:
        UserError: it was closed before the start.
    """
    if stream is None:
        raise UserError(f"standard {name}: is closed", status=1)
    return stream.buffer


@contextmanager
def whole(path: Path, suffix: str = "") -> Iterator[Path]:
    """Write to the path that this yields; it becomes `path` if the block succeeds, and is removed otherwise.

    The file is on disk before it gets its name, so that it is complete even if the machine stops.

    Args:
        path: the file; its folder is created if necessary.
        suffix: of the temporary path, for writers that depend on it.
    """
    part = path.with_name(f".{secrets.token_hex(6)}.part{suffix}")
    with touching(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            with part.open("rb") as written:
                os.fsync(written.fileno())
            part.replace(path)
        except UserError as error:  # the user knows only `path`
            raise UserError(str(error).replace(str(part), str(path)), error.status) from error
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Like `whole` for a folder, which replaces an earlier one."""
    part = path.with_name(f".{secrets.token_hex(6)}.part")
    with touching(path):
        part.mkdir(parents=True)
        try:
            yield part
            shutil.rmtree(path, ignore_errors=True)
            part.replace(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def unfinished(folder: Path) -> list[Path]:
    """What `whole` and `whole_folder` of killed processes left in a folder, in which no other process writes now."""
    return [path for path in folder.glob(".*.part*") if PART.fullmatch(path.name)]


@contextmanager
def workspace(folder: Path) -> Iterator[Path]:
    """A folder inside `folder` for unfinished files, protected by a lock; it is removed after the block.

    Workspaces of killed processes are removed, those of running ones are kept.
    """
    with touching(folder):
        folder.mkdir(parents=True, exist_ok=True)
        clear(folder)
        part = folder / f".work-{secrets.token_hex(6)}"
        part.mkdir()
        lock = FileLock(part / "lock", thread_local=False)  # `separate` releases it in another thread
        try:
            with lock.acquire(timeout=10):
                yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)


def clear(folder: Path, age: float = 0.2) -> None:
    """Remove workspaces of killed processes in a folder; those of running ones are kept, and so is all else.

    Args:
        folder: where the workspaces are.
        age: seconds since a workspace changed before it is examined: a younger one may be about to be locked.
    """
    for left in folder.glob(".work-*"):
        if not WORK.fullmatch(left.name) or left.is_symlink() or not left.is_dir():
            continue
        lock = FileLock(left / "lock")
        try:
            locked, since = (left / "lock").exists(), time.time() - left.stat().st_mtime
            if since < (age if locked else 60):
                continue
            with lock.acquire(timeout=0):
                pass
            shutil.rmtree(left, ignore_errors=True)
        except (Timeout, FileNotFoundError, PermissionError):  # a running process, another clears, another user's
            continue


@contextmanager
def holding(folder: Path, lock: str, busy: str) -> Iterator[None]:
    """Lock a folder, created if necessary, for one process; the lock is released however the process ends.

    The lock file is removed after the block, and so is a folder that was created for it and is still empty.

    Args:
        folder: for one process at a time.
        lock: the name of a file in it.
        busy: the message if another process has the lock.

    Raises:
        UserError: another process has the lock, or it cannot be written.
    """
    with touching(folder):
        ours = not folder.exists() or (folder / lock).exists()  # left by a killed process
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / lock)
        try:
            held.acquire(timeout=0)
        except Timeout:
            raise UserError(busy) from None
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / lock).unlink()
            if ours:
                folder.rmdir()  # if it is empty
        held.release()


def terminated(number: int, frame: object) -> None:
    """A signal handler: like `sys.exit`, so that unfinished files are removed; a second signal ends at once."""
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(128 + number)


def write_text(path: Path, text: str) -> Path:
    """Write a UTF-8 text file atomically; returns the path."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8", newline="")
    return path


def digest(parts: Iterable[bytes | str], size: int = 8) -> str:
    """A hash of parts in their order, as 2 * `size` hexadecimal digits; {"ab", "c"} and {"a", "bc"} differ."""
    hashed = hashlib.blake2b(digest_size=size)
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        hashed.update(len(data).to_bytes(8, "little"))
        hashed.update(data)
    return hashed.hexdigest()


def file_name(name: str) -> str:
    """Any text as one file name of at most 100 bytes: forbidden characters and a leading dot become %XX."""
    safe = re.sub(r'[/\\:*?"<>|%\x00-\x1f\x7f]|^\.|^$', lambda found: f"%{ord(found[0] or '%'):02X}", name)
    encoded = os.fsencode(safe)
    if len(encoded) <= LONGEST:
        return safe
    return encoded[: LONGEST - 9].decode("utf-8", "ignore") + "~" + digest([name], 4)
