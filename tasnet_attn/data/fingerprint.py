"""A run's fingerprint of its data, `data.json`: it shows whether a data set has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from tasnet_attn.config import read_json
from tasnet_attn.data.base import SegmentedData
from tasnet_attn.data.track import Split
from tasnet_attn.errors import UserError
from tasnet_attn.files import touching, write_text

RECORD = "data.json"  # in a run folder


def digest(lines: Iterable[str]) -> str:
    """16 hexadecimal digits for lines in any order; records of earlier runs contain them."""
    text = "\n".join(sorted(lines)).encode("utf-8", "surrogateescape")  # file names may be any bytes
    return hashlib.sha256(text).hexdigest()[:16]


def record(data: SegmentedData) -> dict[str, Any]:
    """A cheap fingerprint: names and sizes of the files, without opening any.

    Returns:
        "data": the class; "splits": for each the number of tracks and a digest of its files, or None if it does not
        exist; "sound": None, which `check-data` replaces by its digest of the decoded samples.
    """
    splits: dict[str, Any] = {}
    for split in get_args(Split):
        try:
            tracks = data.list_tracks(split)
        except UserError:  # no test set, for example: training does not need one, and check-data reports it
            splits[split] = None
            continue
        with touching(Path(RECORD)):
            lines = [f"{t.name}/{f.name} {f.stat().st_size if f.is_file() else None}" for t in tracks for f in t.files]
        lines += [track.name for track in tracks if not track.files and not track.problem]
        splits[split] = {"tracks": len(tracks), "files": digest(lines)}
    return {"data": type(data).__name__, "splits": splits, "sound": None}


def differences(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What changed between two records, in words; equal sound in other files is no change."""
    if earlier["data"] != now["data"]:
        return [f"{now['data']} instead of {earlier['data']}"]
    if earlier["sound"] and now["sound"]:
        return [] if earlier["sound"] == now["sound"] else _splits(earlier, now) or ["other sound in the same files"]
    return _splits(earlier, now)


def _splits(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    found = []
    for split, new in now["splits"].items():
        old = earlier["splits"].get(split)
        if old != new:
            before, after = (f"{x['tracks']} tracks" if x else "none" for x in (old, new))
            found.append(f"{split}: {before}, now {after}" if before != after else f"{split}: other names or sizes")
    return found


def _waiting(run: Path) -> Path:
    """Where a record is kept until its run begins: next to the folder, in which a check leaves nothing."""
    return run.parent / f".{run.name}.{RECORD}"


def read_record(run: Path) -> dict[str, Any] | None:
    """The record of a run folder, if there is one, or the one kept for it.

    Raises:
        UserError: it is damaged.
    """
    file = next((file for file in (run / RECORD, _waiting(run)) if file.is_file()), None)
    if file is None:
        return None
    fix = "restore it, or remove it: the run's data are then described as they are now"
    found = read_json(file, dict, fix)
    if not {"data", "splits", "sound"} <= found.keys() or not isinstance(found["splits"], dict):
        raise UserError(f"{file}: damaged (describes no data); {fix}")
    return found


def remember(now: dict[str, Any], run: Path, begins: bool = True) -> list[str]:
    """Write a record to a run folder, unless the run already has one from its start.

    Args:
        now: the record.
        run: the folder.
        begins: the run begins now; otherwise keep the record for a run that has not begun yet.

    Returns:
        What has changed since the run began.
    """
    if run.exists():
        with touching(run):
            run.mkdir(exist_ok=True)  # it is a folder
    begun, earlier = (run / "config.yml").is_file(), read_record(run)
    if earlier is not None:
        changed = differences(earlier, now)
        if changed and begun:  # with other data: its record stays
            return changed
        if not changed and not now["sound"]:
            now = earlier  # it may contain more
    inside = begun or begins
    if now is not earlier or not (run / RECORD).is_file():
        write_text(run / RECORD if inside else _waiting(run), json.dumps(now, indent=2) + "\n")
    if inside:
        _waiting(run).unlink(missing_ok=True)
    return []
