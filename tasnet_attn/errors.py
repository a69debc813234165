"""The exception for problems that the user can fix."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")


class UserError(Exception):
    """A mistake in the input (a file, a key, a value); its text says what is wrong and what to do.

    Args:
        text: one line.
        status: the command's exit status: 2, or 1 for a system error.
    """

    def __init__(self, text: str, status: int = 2) -> None:
        super().__init__(text)
        self.status = status

    def __reduce__(self) -> tuple[type, tuple[str, int]]:
        """From another process with its status."""
        return type(self), (str(self), self.status)


def reported(name: str) -> Callable[[Callable[P, int]], Callable[P, int]]:
    """For the `main` of a script: a UserError is one line that begins with the script's name, and the exit status."""

    def decorate(main: Callable[P, int]) -> Callable[P, int]:
        @wraps(main)
        def called(*args: P.args, **kwargs: P.kwargs) -> int:
            try:
                return main(*args, **kwargs)
            except UserError as error:
                print(f"{name}: {printable(error)}", file=sys.stderr)
                return error.status

        return called

    return decorate


def at_least(least: float, **values: float | None) -> None:
    """Reject settings that are too small.

    Raises:
        ValueError: names the first.
    """
    for name, value in values.items():
        if value is not None and not value >= least:
            raise ValueError(f"{name} {value} must be at least {least}")


def printable(text: object) -> str:
    """Text for a terminal, with control characters escaped."""
    shown = "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in str(text))
    return shown.encode("utf-8", "backslashreplace").decode()


def one_line(text: object) -> str:
    """Text for a terminal, on one line: file names can contain anything."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def first_line(error: BaseException) -> str:
    """The message of another library's exception, as part of one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
