"""A run folder: one process trains in it at a time, and its files say how far the training came."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pytorch_lightning.utilities import rank_zero_only

from tasnet_attn.errors import UserError
from tasnet_attn.files import touching, write_text

FINISHED = "finished"  # this file in a run folder says that its training came to its end
HISTORY = "history.json"  # what changed in a run's settings, and where it comes from
LOCK = ".training"


@contextmanager
def holding(out: Path) -> Iterator[None]:
    """Hold a run folder from the first moment on; the process's end releases it, however it ends.

    A folder in which no run began goes with the block. The other processes of one training pass.

    Raises:
        UserError: another process trains in it.
    """
    if getattr(rank_zero_only, "rank", 0) != 0:
        yield
        return
    with touching(out):
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"{out}: another process is training in this folder; wait for it, or give another --out"
            ) from None
    try:
        yield
    finally:
        if {path.name for path in out.iterdir()} <= {LOCK}:
            (out / LOCK).unlink(missing_ok=True)
            with suppress(OSError):
                out.rmdir()
        lock.release()


def read_history(out: Path) -> list[dict[str, Any]]:
    """A run's history, oldest first: its parent, and every setting that was changed, at which step."""
    file = out / HISTORY
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []


def add_history(out: Path, entries: list[dict[str, Any]]) -> None:
    """Append entries that are new."""
    earlier = read_history(out)
    if new := [entry for entry in entries if entry not in earlier]:
        write_text(out / HISTORY, json.dumps([*earlier, *new], indent=1) + os.linesep)
