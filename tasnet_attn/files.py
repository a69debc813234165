"""Files that appear whole or not at all; digests; file names made of any text; folders that one process holds."""

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

from filelock import FileLock, Timeout

from tasnet_attn.errors import UserError

LONGEST = 100  # bytes of a file name that is made


@contextmanager
def touching(path: Path) -> Iterator[None]:
    """What the operating system refuses inside the block is one line that names the path and the reason."""
    try:
        yield
    except OSError as error:
        name = error.filename2 or error.filename  # of a renaming, what it should have become
        where = os.fsdecode(name) if name else path
        raise UserError(f"{where}: {error.strerror or error}", status=1) from error


@contextmanager
def whole(path: Path, suffix: str = "") -> Iterator[Path]:
    """Write to the path that this hands out; it becomes `path` when the block ends well, and is removed otherwise.

    The file is on the disk before it takes its name, so that it is whole even if the machine stops.

    Args:
        path: the file; its folder is made if need be.
        suffix: what the handed-out path ends in, for writers that look at it.
    """
    part = path.with_name(f".{secrets.token_hex(6)}.part{suffix}")
    with touching(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            with part.open("rb") as written:
                os.fsync(written.fileno())
            part.replace(path)
        except UserError as error:  # what is known to the user is `path`
            raise UserError(str(error).replace(str(part), str(path)), error.status) from error
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """As `whole` for a folder, which takes the place of an earlier one."""
    part = path.with_name(f".{secrets.token_hex(6)}.part")
    with touching(path):
        part.mkdir(parents=True)
        try:
            yield part
            shutil.rmtree(path, ignore_errors=True)
            part.replace(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)


@contextmanager
def workspace(folder: Path) -> Iterator[Path]:
    """A folder inside `folder` for what is not whole yet, held by a lock; it goes with the block.

    What killed processes left of theirs is cleared; what a living one holds stays.
    """
    with touching(folder):
        folder.mkdir(parents=True, exist_ok=True)
        clear(folder)
        part = folder / f".work-{secrets.token_hex(6)}"
        part.mkdir()
        lock = FileLock(part / "lock", thread_local=False)  # `separate` leaves it in another thread
        try:
            with lock.acquire(timeout=10):
                yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)


def clear(folder: Path, age: float = 0.2) -> None:
    """Remove what killed processes left of their workspaces in a folder; what a living one holds stays.

    Args:
        folder: where the workspaces are.
        age: seconds since a workspace changed, from which it is looked at: a younger one may be about to be locked.
    """
    for left in folder.glob(".work-*"):
        lock = FileLock(left / "lock")
        try:
            locked, since = (left / "lock").exists(), time.time() - left.stat().st_mtime
            if since < (age if locked else 60):
                continue
            with lock.acquire(timeout=0):
                pass
            shutil.rmtree(left, ignore_errors=True)
        except (Timeout, FileNotFoundError):
            continue


@contextmanager
def holding(folder: Path, lock: str, busy: str) -> Iterator[None]:
    """Hold a folder, made if need be, from the first moment on; the process's end releases it, however it ends.

    The lock's file goes with the block, and so does a folder that was made for it and stays empty.

    Args:
        folder: what one process at a time works in.
        lock: the name of a file in it.
        busy: what to say where another process holds it.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    with touching(folder):
        ours = not folder.exists() or (folder / lock).exists()  # a killed process left it
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
    """A signal handler: as `sys.exit`, so that what is not whole is removed; asked again, the process ends at once."""
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(128 + number)


def write_text(path: Path, text: str) -> Path:
    """Write a UTF-8 text file that appears whole or not at all; returns the path."""
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
    """Any text as one file name of at most 100 bytes: what no file system takes becomes %XX, as does a leading dot."""
    safe = re.sub(r'[/\\:*?"<>|%\x00-\x1f\x7f]|^\.|^$', lambda found: f"%{ord(found[0] or '%'):02X}", name)
    encoded = os.fsencode(safe)
    if len(encoded) <= LONGEST:
        return safe
    return encoded[: LONGEST - 9].decode("utf-8", "ignore") + "~" + digest([name], 4)
