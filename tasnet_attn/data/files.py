"""Where the sound of a data set lies on disk: what `check-data` looks at and a run's fingerprint is made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tasnet_attn.errors import UserError

Split = Literal["train", "valid", "test"]
MIXTURE, REST = "mixture", "rest"  # what a part may hold beside a source; the rest is noise, for example
RECORD = "data.json"  # in a run folder


@dataclass(frozen=True)
class Part:
    """One signal of a track.

    Attributes:
        file: where it lies.
        holds: a source's name, MIXTURE or REST.
        stream: of a `.stem.mp4`.
        channel: of a file whose channels are different signals; None: all of them are one signal.
    """

    file: Path
    holds: str
    stream: int | None = None
    channel: int | None = None


@dataclass(frozen=True)
class Entry:
    """A track before anything of it is opened: a damaged one has an entry too.

    Attributes:
        name: the track's.
        parts: its signals; without a MIXTURE among them, the data set makes the mixture itself.
        sample_rate: Hz that its files must have; None: they are resampled.
        channels: that they must have; None: equally many.
        length: samples that they must have; None: equally many.
        problem: what is wrong already, one line.
        made: how the mixture is made, if no part holds it.
        utterance: the sources are utterances: they may come in several mixtures of a split, at other levels and cut to
            other lengths, but none in two splits.
        again: a track of an earlier split that stands in, knowingly.
    """

    name: str
    parts: tuple[Part, ...]
    sample_rate: int | None
    channels: int | None = None
    length: int | None = None
    problem: str | None = None
    made: str = "sum"
    utterance: bool = False
    again: bool = False

    @property
    def files(self) -> list[Path]:
        """Each file once."""
        return list(dict.fromkeys(part.file for part in self.parts))


def digest(lines: Iterable[str]) -> str:
    """16 hexadecimal digits for lines in any order."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def record(data: Any) -> dict[str, Any]:
    """What tells a data set from a changed one at no cost: names and sizes of its files; none is opened.

    Returns:
        "data": the class, "splits": for each the number of tracks and a digest of its files, or None where it is not
        there, and "sound": None; `check-data` puts its digest of the decoded samples there.
    """
    splits: dict[str, Any] = {}
    for split in get_args(Split):
        try:
            entries = data.entries(split)
        except UserError:  # no test set, for example: training does without, and check-data says so
            splits[split] = None
            continue
        lines = [f"{e.name}/{f.name} {f.stat().st_size if f.is_file() else None}" for e in entries for f in e.files]
        splits[split] = {"tracks": len(entries), "files": digest(lines)}
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


def remember(now: dict[str, Any], run: Path) -> list[str]:
    """Write a record into a run folder, unless the run has one that it began with.

    Returns:
        What changed since then.
    """
    file = run / RECORD
    earlier = json.loads(file.read_text()) if file.is_file() else None
    if earlier is not None:
        changed = differences(earlier, now)
        if changed and (run / "config.yml").is_file():  # the run began with other data: its record stays
            return changed
        if not changed and not now["sound"]:  # the record may say more than this one
            return []
    run.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(now, indent=2) + "\n")
    return []
