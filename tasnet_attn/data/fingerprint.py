"""A run's fingerprint of its data, `data.json`: what tells a data set from a changed one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from tasnet_attn.data.base import SegmentedData
from tasnet_attn.data.track import Split
from tasnet_attn.errors import UserError
from tasnet_attn.files import write_text

RECORD = "data.json"  # in a run folder


def digest(lines: Iterable[str]) -> str:
    """16 hexadecimal digits for lines in any order; earlier runs' records hold them."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def record(data: SegmentedData) -> dict[str, Any]:
    """What tells a data set from a changed one at no cost: names and sizes of its files; none is opened.

    Returns:
        "data": the class, "splits": for each the number of tracks and a digest of its files, or None where it is not
        there, and "sound": None; `check-data` puts its digest of the decoded samples there.
    """
    splits: dict[str, Any] = {}
    for split in get_args(Split):
        try:
            tracks = data.list_tracks(split)
        except UserError:  # no test set, for example: training does without, and check-data says so
            splits[split] = None
            continue
        lines = [f"{t.name}/{f.name} {f.stat().st_size if f.is_file() else None}" for t in tracks for f in t.files]
        lines += [track.name for track in tracks if not track.files and not track.problem]
        splits[split] = {"tracks": len(tracks), "files": digest(lines)}
    return {"data": type(data).__name__, "splits": splits, "sound": None}


def differences(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What changed between two records, in words; equal sound is no difference, however its files are named."""
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


def read_record(run: Path) -> dict[str, Any] | None:
    """The record in a run folder, if there is one."""
    file = run / RECORD
    return json.loads(file.read_text()) if file.is_file() else None


def remember(now: dict[str, Any], run: Path) -> list[str]:
    """Write a record into a run folder, unless the run has one that it began with.

    Returns:
        What changed since then.
    """
    file, earlier = run / RECORD, read_record(run)
    if earlier is not None:
        changed = differences(earlier, now)
        if changed and (run / "config.yml").is_file():  # the run began with other data: its record stays
            return changed
        if not changed and not now["sound"]:  # the record may say more than this one
            return []
    write_text(file, json.dumps(now, indent=2) + "\n")
    return []
