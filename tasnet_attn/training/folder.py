"""A run folder: only one process trains in it at a time, and its files show the progress."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_only

from tasnet_attn import config, files
from tasnet_attn.files import write_text
from tasnet_attn.terminal import LOG

FINISHED = "finished"  # this file marks a completed training
BOARD = "tensorboard"  # a folder
HISTORY = "history.json"  # a run's parent and changed settings
BUSY = "another process is training in this folder; wait for it, or give another --out"


@contextmanager
def holding(out: Path) -> Iterator[None]:
    """Lock a run folder from the start; the lock is released however the process ends.

    A new folder in which no run began is removed after the block, with libraries' files in it. The other processes of
    the same training do nothing.

    Raises:
        UserError: another process trains in it.
    """
    if getattr(rank_zero_only, "rank", 0) != 0:
        yield
        return
    with files.holding(out, ".training", f"{out}: {BUSY}"):
        new = len(list(out.iterdir())) == 1  # the lock
        try:
            yield
        finally:
            if new and not (out / "config.yml").exists():
                (out / LOG).unlink(missing_ok=True)
                shutil.rmtree(out / BOARD, ignore_errors=True)


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The complete rows of a `metrics.csv`, oldest first; none if there is no such file.

    The last line may be cut off if the run was killed or the disk was full.
    """
    if not file.is_file():
        return []
    text = file.read_text(encoding="utf-8", errors="replace")
    rows = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
    return [row for row in rows if (row.get("step") or "").isdecimal()]


def read_history(out: Path) -> list[dict[str, Any]]:
    """A run's history, oldest first: its parent, and every changed setting with its step.

    Raises:
        UserError: the file is damaged.
    """
    file = out / HISTORY
    if not file.is_file():
        return []
    entries = config.read_json(file, list, "restore it, or move it away if the run's history may be forgotten")
    return [entry for entry in entries if isinstance(entry, dict)]


def add_history(out: Path, entries: list[dict[str, Any]]) -> None:
    """Append entries that are new."""
    earlier = read_history(out)
    if new := [entry for entry in entries if entry not in earlier]:
        write_text(out / HISTORY, json.dumps([*earlier, *new], indent=1) + os.linesep)
