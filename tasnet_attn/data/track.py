"""A track: a song or an utterance with its references, listed before any file is opened."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tasnet_attn.audio.reading import AudioInfo, audio_info, read_audio
from tasnet_attn.audio.stem_files import read_stem_file, stem_file_info
from tasnet_attn.errors import UserError
from tasnet_attn.files import touching

Split = Literal["train", "valid", "test"]
MIXTURE, REST = "mixture", "rest"  # other contents of a part than a source; the rest is noise, for example
BLOCK = 1 << 19  # samples read at once
SYSTEM = (".", "__MACOSX", "@eaDir")  # beginnings of the names of files that the system adds to a folder


class Part(NamedTuple):
    """One signal of a track.

    Attributes:
        file: its path.
        holds: the name of a source or of a stem, MIXTURE or REST.
        stream: of a `.stem.mp4`.
        channel: of a file whose channels are different signals; None: all channels are one signal.
    """

    file: Path
    holds: str
    stream: int | None = None
    channel: int | None = None


class Fault(NamedTuple):
    """A problem with a file: one word, what it is, and what to do."""

    kind: str
    what: str
    fix: str


class Track:
    """One song or utterance with its references; its files are opened when length or sound are first needed.

    A track without files (synthetic sound) overrides `read` and needs neither this constructor nor parts: name, sources
    and sample rate are enough; setting a length saves a first reading. A long one overrides `blocks`.

    Args:
        name: unique in its split.
        sources: names, in the order of `read`.
        sample_rate: Hz of the samples that `read` returns, also required of its files unless they are `resampled`.
        parts: the signals; without a MIXTURE among them, the mixture is the sum of the sources.
        stems: {source: contents of the parts whose sum it is}; other sources have a part with their name.
        length: required length of the files, samples; None: equal lengths.
        channels: required number of channels; None: equal numbers.
        problem: a problem that is known already, one line.

    Attributes:
        resampled: its files have any rate; `read` resamples.
        made: how the mixture is made, if no part contains it.
        utterance: the sources are utterances: they may occur in several mixtures of a split, at other levels and cut to
            other lengths, but not in two splits.
        again: a track of an earlier split, used here on purpose.
        rest_remixed: in a remix the rest comes from a separate draw, like a source; otherwise it stays with the first.
        variant: what else, apart from files, sources and stems, determines the result of `read`, to identify decoded
            copies.
    """

    name: str
    sources: list[str]
    sample_rate: int
    parts: Sequence[Part] = ()
    stems: Mapping[str, Sequence[str]] | None = None
    file_length: int | None = None
    file_channels: int | None = None
    problem: str | None = None
    resampled = utterance = again = rest_remixed = False
    made = "sum"
    variant: object = None

    def __init__(
        self,
        name: str,
        sources: list[str],
        sample_rate: int,
        parts: Sequence[Part],
        stems: Mapping[str, Sequence[str]] | None = None,
        *,
        length: int | None = None,
        channels: int | None = None,
        problem: str | None = None,
    ) -> None:
        self.name, self.sources, self.sample_rate, self.parts, self.stems = name, sources, sample_rate, parts, stems
        self.file_length, self.file_channels, self.problem = length, channels, problem

    def __str__(self) -> str:
        return str(self.files[0]) if self.files else self.name

    @cached_property
    def files(self) -> list[Path]:
        """Each file once; errors name the first one."""
        return list(dict.fromkeys(part.file for part in self.parts))

    def made_of(self, which: int) -> Sequence[str]:
        """The contents of the parts whose sum is source number `which`."""
        source = self.sources[which]
        return (self.stems or {}).get(source, (source,))

    # ---- headers

    @cached_property
    def header(self) -> AudioInfo:
        """Of its files, once they have been compared; of a track without files: from reading it.

        Raises:
            UserError: a file is missing, unreadable, or not of the required rate, length or channel count.
        """
        if not self.parts:
            channels, length = self.read()[0].shape
            return AudioInfo(self.sample_rate, length, channels)
        infos, faults = self.headers()
        for fault in faults:
            raise UserError(f"{fault.what}; {fault.fix}".replace("?;", "?"))
        return infos[self.files[0]]

    @property
    def file_rate(self) -> int:
        """Hz of its first file."""
        return self._info(self.files[0]).sample_rate

    def _info(self, file: Path) -> AudioInfo:
        in_streams = any(part.file == file and part.stream is not None for part in self.parts)
        return stem_file_info(file) if in_streams else audio_info(file)

    @cached_property
    def length(self) -> int:
        """Samples at `sample_rate`; known without opening the files if the length is required."""
        if self.file_length is not None and not self.resampled:
            return self.file_length
        return round(self.header.length * self.sample_rate / self.header.sample_rate)

    @cached_property
    def channels(self) -> int:
        """The number of channels that `read` returns."""
        if any(part.channel is not None for part in self.parts):
            return 1
        return self.file_channels or self.header.channels

    def headers(self) -> tuple[dict[Path, AudioInfo], list[Fault]]:
        """The readable headers, and all problems of the files that headers show."""
        infos: dict[Path, AudioInfo] = {}
        faults: list[Fault] = []
        for file in self.files:
            try:
                infos[file] = self._info(file)
            except UserError as error:
                there = os.path.isfile(file)  # False also in a folder that cannot be read
                fix = "make or copy this file again" if there else "put it there, or set data.init_args.root"
                faults.append(Fault("file", str(error), f"{fix}, or remove its track"))
        return infos, [*faults, *self._compare(infos)]

    def _compare(self, infos: dict[Path, AudioInfo]) -> Iterator[Fault]:
        if not infos:
            return
        in_rate = {file: i.length for file, i in infos.items() if self.resampled or i.sample_rate == self.sample_rate}
        mixture = next((part.file for part in self.parts if part.holds == MIXTURE), None)
        longest = max(in_rate, key=in_rate.__getitem__, default=None)
        model = mixture if mixture in in_rate else longest  # whose length the others must have
        length = self.file_length or (in_rate[model] if model else 0)
        channels = self.file_channels or Counter(info.channels for info in infos.values()).most_common(1)[0][0]
        for file, info in infos.items():
            if info.channels != channels:
                what = f"{file}: has {info.channels} channel(s), not {channels}"
                yield Fault("channels", what, f"convert it: ffmpeg -i {file.name} -ac {channels} NEW.wav")
            if file not in in_rate:
                what = f"{file}: sampled at {info.sample_rate} Hz, but the model has {self.sample_rate} Hz"
                fix = f"resample it: ffmpeg -i {file.name} -ar {self.sample_rate} NEW.wav"
                yield Fault(
                    "rate", what, f"{fix}; or, if all are like that, set model.sample_rate to {info.sample_rate}"
                )
            elif info.length != length and self.file_length:
                what = f"{file}: has {info.length} samples, the metadata say {length}"
                yield Fault("length", what, "make the data set again, or this track's files and its line")
            elif info.length != length and model:
                what = f"{file}: has {info.length} samples, but {model.name} has {length}"
                yield Fault("length", what, "export this track's files again, all with the same length")
            elif not info.length:
                yield Fault("length", f"{file}: has no samples", "remove this track")

    # ---- samples

    def read(self, start: int = 0, length: int | None = None) -> tuple[Tensor, Tensor]:
        """Samples start .. start + length (None: to the end): mixture [C, T], references [S, C, T]."""
        sums = [self.made_of(which) for which in range(len(self.sources))]
        stems = list(dict.fromkeys(stem for stems in sums for stem in stems))
        mixed = self.beside(MIXTURE)
        signals = self._signals([MIXTURE, *stems] if mixed else stems, start, length)
        references = torch.stack([sum_of(signals, stems) for stems in sums])
        return signals[MIXTURE] if mixed else references.sum(0), references

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """`read` from the start to the end in blocks; all at once if a subclass overrides `read`."""
        if type(self).read is not Track.read:
            yield self.read()
            return
        for start in range(0, self.header.length, BLOCK):
            yield self.read(start, min(BLOCK, self.header.length - start))

    def read_source(self, which: int, start: int, length: int) -> Tensor:
        """Reference number `which` alone, [C, length]."""
        if not self.parts:
            return self.read(start, length)[1][which]
        return sum_of(self._signals(self.made_of(which), start, length), self.made_of(which))

    def read_rest(self, start: int, length: int) -> Tensor:
        """The part of the mixture that is not a source, for example noise, [C, length] or a scalar 0."""
        return self._signals([REST], start, length)[REST] if self.beside(REST) else torch.zeros(())

    def speaker(self, which: int) -> str | None:
        """The speaker of source number `which`, for remixes; None: unlike any other source."""
        return None

    def beside(self, what: str) -> bool:
        """Whether a part is MIXTURE or REST (which may also be a stem's name)."""
        stems = (self.made_of(which) for which in range(len(self.sources)))
        return any(part.holds == what for part in self.parts) and not any(what in names for names in stems)

    def _signals(self, holds: Sequence[str], start: int, length: int | None) -> dict[str, Tensor]:
        """The samples of some parts, each [C, length]; files are compared before the first samples are read."""
        if not self.parts:
            raise UserError(self.problem or f"{self.name}: has neither files (parts) nor its own `read`")
        header = self.header
        length = header.length - start if length is None else length
        signals: dict[str, Tensor] = {}
        for file in self.files:
            if here := [part for part in self.parts if part.file == file and part.holds in holds]:
                signals |= read_parts(here, start, length)
        return signals


def read_parts(parts: Sequence[Part], start: int, length: int) -> dict[str, Tensor]:
    """The samples of the parts of one file, each [C, length], at the file's rate.

    Raises:
        UserError: the file is missing, damaged or shorter.
    """
    file = parts[0].file
    if parts[0].stream is not None:
        streams = [part.stream for part in parts if part.stream is not None]
        return dict(zip([part.holds for part in parts], read_stem_file(file, streams, start, length), strict=True))
    audio = read_audio(file, start, length)
    return {p.holds: audio if p.channel is None else audio[p.channel : p.channel + 1] for p in parts}


def sum_of(signals: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """The sum of the named tensors, which have equal shapes."""
    return torch.stack([signals[name] for name in names]).sum(0)


def visible(folder: Path) -> list[Path]:
    """The entries of a folder, by name, without those of the system (`.ipynb_checkpoints`, `__MACOSX`, `._x.wav`).

    Raises:
        UserError: the folder cannot be read.
    """
    with touching(folder):
        return [path for path in sorted(folder.iterdir()) if not path.name.startswith(SYSTEM)]
