"""Recordings: any sound files, without stems, mixed in pairs for training (MixIT)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from hashlib import sha256
from math import gcd
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from tasnet_attn.audio.names import find_audio
from tasnet_attn.audio.reading import AudioInfo, read_audio
from tasnet_attn.audio.resampling import resample
from tasnet_attn.data.base import SegmentedData
from tasnet_attn.data.track import BLOCK, Fault, Part, Split, Track, visible
from tasnet_attn.errors import UserError
from tasnet_attn.files import file_name

MIXTURES = ("mixture1", "mixture2")  # in a mixture of mixtures
MARGIN = 0.1  # seconds around an excerpt that resampling needs


class Excerpts(Track):
    """Two recordings as the two sources, or the same one twice, from which `remix` makes pairs.

    Samples are mono, at the model's rate, and as long as the shorter recording.

    Args:
        name: the track's.
        first: a file.
        second: another one, or the same.
        sample_rate: Hz.
    """

    resampled = True

    def __init__(self, name: str, first: Path, second: Path, sample_rate: int) -> None:
        pair = first != second
        parts = [Part(first, MIXTURES[0]), *([Part(second, MIXTURES[1])] if pair else [])]
        stems = None if pair else dict.fromkeys(MIXTURES, MIXTURES[:1])
        super().__init__(name, list(MIXTURES), sample_rate, parts, stems, channels=1)
        self.utterance = pair  # it may come in several pairs
        self.variant = sample_rate  # of the samples, not of the files

    @cached_property
    def infos(self) -> dict[Path, AudioInfo]:
        """Of its files.

        Raises:
            UserError: one is missing, unreadable or empty.
        """
        infos, faults = self.headers()
        for fault in faults:
            raise UserError(f"{fault.what}; {fault.fix}")
        return infos

    @cached_property
    def length(self) -> int:
        return min(info.length * self.sample_rate // info.sample_rate for info in self.infos.values())

    def _compare(self, infos: dict[Path, AudioInfo]) -> Iterator[Fault]:
        for file, info in infos.items():
            if not info.length:
                yield Fault("length", f"{file}: has no samples", "remove it")

    def read(self, start: int = 0, length: int | None = None) -> tuple[Tensor, Tensor]:
        length = self.length - start if length is None else length
        references = torch.stack([self.read_source(which, start, length) for which in range(len(MIXTURES))])
        return references.sum(0), references

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, self.length, BLOCK):
            yield self.read(start, min(BLOCK, self.length - start))

    def read_source(self, which: int, start: int, length: int) -> Tensor:
        file = self.files[min(which, len(self.files) - 1)]
        info = self.infos[file]
        if info.sample_rate == self.sample_rate:
            return read_audio(file, start, length).mean(0, keepdim=True)
        step = gcd(info.sample_rate, self.sample_rate)
        theirs, ours = info.sample_rate // step, self.sample_rate // step  # equal durations
        margin = -(-round(MARGIN * self.sample_rate) // ours)
        first, last = max(0, start // ours - margin), -(-(start + length) // ours) + margin
        audio = read_audio(file, first * theirs, min(last * theirs, info.length) - first * theirs)
        audio = resample(audio.mean(0, keepdim=True), info.sample_rate, self.sample_rate)
        audio = audio[:, start - first * ours :][:, :length]
        return torch.nn.functional.pad(audio, (0, length - audio.shape[-1]))

    def speaker(self, which: int) -> str:
        return str(self.files[0])  # never mix a recording with itself


class Recordings(SegmentedData):
    """Any recordings in a folder: songs, talks, meetings. Training uses sums of excerpts of two of them (MixIT).

    The folder's subfolders `train`, `valid` and `test` are the splits. Without them, a tenth of the files (at least
    two) is for validation and as many for the test, chosen by their names. All files below are used, of any format,
    rate and number of channels, and read as mono. In validation and test each recording is paired with the next.

    Args:
        sources: names of the model's outputs; `train` takes them from the model.
        sample_rate: Hz; `train` takes it from the model.
        root: the folder.
        settings: `SegmentedData`'s others.

    Source: Wisdom et al. 2020, arXiv 2006.12701, section 3.
    """

    fixed = ("channels", "swap", "remix")
    obtain = """\
Put your own recordings, such as songs or talks, into data/recordings, in any format that `separate` reads.
Use its subfolders train, valid and test, or one place for all: some are then kept for validation and test.
For another place set data.init_args.root."""

    def __init__(
        self, sources: list[str], sample_rate: int, root: Path = Path("data/recordings"), **settings: Any
    ) -> None:
        super().__init__(list(MIXTURES), sample_rate, channels="all", swap=0.0, remix=1.0, **settings)
        self.root = Path(root)

    def list_tracks(self, split: Split) -> list[Track]:
        files = self._find(split)
        if len(files) < 2:
            raise UserError(f"{self.root}: {split} has {len(files)} recording(s); at least two are needed")
        if split == "train":
            return [Excerpts(file_name(name), file, file, self.sample_rate) for name, file in files.items()]
        names = list(files)
        pairs = [(names[i], names[(i + 1) % len(names)]) for i in range(0, len(names), 2)]
        return [Excerpts(file_name(f"{a} + {b}"), files[a], files[b], self.sample_rate) for a, b in pairs]

    def _find(self, split: Split) -> dict[str, Path]:
        """The recordings of a split by their names."""
        splits = get_args(Split)
        if not self.root.is_dir():
            raise UserError(f"{self.root}: no such folder; set data.init_args.root to the folder of your recordings")
        if any((self.root / each).is_dir() for each in splits):
            if not (self.root / split).is_dir():
                raise UserError(
                    f"{self.root / split}: no such folder; put recordings there, or all of them into one folder"
                )
            return _sounds(self.root / split)
        misspelt = [path.name for path in visible(self.root) if path.is_dir() and path.name.casefold() in splits]
        if len(misspelt) > 1:  # a single one may be a band's; together they would be mixed and split anew
            raise UserError(f"{self.root}: rename {' and '.join(misspelt)}; the splits are {', '.join(splits)}")
        files = _sounds(self.root)
        names = sorted(files, key=lambda name: sha256(name.encode("utf-8", "surrogatepass")).digest())
        if len(names) < 2 * len(splits):
            raise UserError(f"{self.root}: has {len(names)} recording(s); six are needed, two for each of three splits")
        kept = max(2, len(names) // 10)
        chosen = {"valid": names[:kept], "test": names[kept : 2 * kept], "train": names[2 * kept :]}[split]
        return {name: files[name] for name in sorted(chosen)}


def _sounds(folder: Path) -> dict[str, Path]:
    found = find_audio([folder])
    if found.failed:
        raise found.failed[0]
    return found.sounds
