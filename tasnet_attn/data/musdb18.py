"""MUSDB18: 150 songs in four stems, as `.stem.mp4` files or, MUSDB18-HQ, as folders of wav files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tasnet_attn.audio.reading import AudioInfo, audio_info, check_finite, read_audio
from tasnet_attn.data.base import SegmentedData, Split, Track
from tasnet_attn.data.files import Entry, Part
from tasnet_attn.errors import UserError

STREAMS = ("mixture", "drums", "bass", "other", "vocals")  # of a .stem.mp4, in this order
PARTS = {stem: (stem,) for stem in STREAMS[1:]} | {"accompaniment": ("drums", "bass", "other")}
SUFFIX = ".stem.mp4"
PREROLL = 4096  # samples decoded before a cut: an AAC frame (1024) overlaps the one before it

# the official validation tracks, a part of the folder `train`
VALIDATION = (
    "ANiMAL - Rockshow",
    "Actions - One Minute Smile",
    "Alexander Ross - Goodbye Bolero",
    "Clara Berry And Wooldog - Waltz For My Victims",
    "Fergessen - Nos Palpitants",
    "James May - On The Line",
    "Johnny Lokke - Promises & Lies",
    "Leaf - Summerghost",
    "Meaxic - Take A Step",
    "Patrick Talbot - A Reason To Leave",
    "Skelpolu - Human Mistakes",
    "Traffic Experiment - Sirens",
    "Triviul - Angelsaint",
    "Young Griffo - Pennies",
)


class Song(Track):
    """A song of either layout; the mixture is the one that the file holds, not the sum of the stems.

    Args:
        path: a `.stem.mp4`, or a folder with `mixture.wav` and the stems.
        sources: stems, or "accompaniment", the sum of all but the vocals.
        sample_rate: Hz that the file must have.

    Raises:
        UserError: unreadable, not stereo, another rate, or wav files of different lengths; names the file.
    """

    def __init__(self, path: Path, sources: list[str], sample_rate: int) -> None:
        self.path, self.sources, self.sample_rate = path, sources, sample_rate
        self.name = path.name.removesuffix(SUFFIX)
        self.hq = path.is_dir()
        if self.hq:
            files = [path / f"{stem}.wav" for stem in STREAMS]
            infos = [audio_info(file) for file in files]
        else:
            files, infos = [path], [stem_file_info(path)]
        for file, info in zip(files, infos, strict=True):
            if info.channels != 2:
                raise UserError(f"{file}: has {info.channels} channel(s); MUSDB18 is stereo")
            if info.sample_rate != sample_rate:
                raise UserError(
                    f"{file}: sampled at {info.sample_rate} Hz, but the model takes {sample_rate} Hz; "
                    "resample the data or set model.sample_rate"
                )
            if info.length != infos[0].length:
                raise UserError(
                    f"{file}: {info.length} samples, but {files[0].name} beside it has {infos[0].length}; "
                    "is the file truncated?"
                )
        self.files, self.length, self.channels = files, infos[0].length, infos[0].channels

    def read(self, start: int = 0, length: int | None = None) -> tuple[Tensor, Tensor]:
        length = self.length - start if length is None else length
        needed = ["mixture", *dict.fromkeys(stem for source in self.sources for stem in PARTS[source])]
        stems = dict(zip(needed, self._read(needed, start, length), strict=True))
        return stems["mixture"], torch.stack([sum_of([stems[s] for s in PARTS[source]]) for source in self.sources])

    def read_source(self, which: int, start: int, length: int) -> Tensor:
        return sum_of(self._read(PARTS[self.sources[which]], start, length))

    def _read(self, stems: Sequence[str], start: int, length: int) -> list[Tensor]:
        if self.hq:
            return [read_audio(self.path / f"{stem}.wav", start, length) for stem in stems]
        return read_stem_file(self.path, [STREAMS.index(stem) for stem in stems], start, length)


def sum_of(signals: Sequence[Tensor]) -> Tensor:
    """The sum of equal shapes."""
    return torch.stack(list(signals)).sum(0)


def song_parts(path: Path) -> tuple[Part, ...]:
    """Where the mixture and the stems of a song lie, of either layout."""
    if path.is_dir():
        return tuple(Part(path / f"{stem}.wav", stem) for stem in STREAMS)
    return tuple(Part(path, stem, stream=number) for number, stem in enumerate(STREAMS))


def stem_file_info(path: Path) -> AudioInfo:
    """Read a `.stem.mp4` file's header; where streams differ in length, the shortest counts.

    Raises:
        UserError: missing, not readable, or not five AAC streams of one rate.
    """
    import av

    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with av.open(str(path)) as container:
            streams: Sequence[Any] = container.streams.audio
            if len(streams) != len(STREAMS):
                raise UserError(
                    f"{path}: holds {len(streams)} audio streams, not {len(STREAMS)} ({', '.join(STREAMS)})"
                )
            kinds = {(stream.codec_context.name, stream.rate, stream.channels) for stream in streams}
            if len(kinds) > 1 or streams[0].codec_context.name != "aac":
                raise UserError(f"{path}: its streams are not all AAC of one rate and channel count: {sorted(kinds)}")
            if any(stream.duration is None or stream.time_base is None for stream in streams):
                raise UserError(f"{path}: does not say how long its streams are; the file is damaged")
            rate = streams[0].rate
            length = min(round(stream.duration * stream.time_base * rate) for stream in streams)
            return AudioInfo(rate, length, streams[0].channels)
    except av.FFmpegError as error:
        raise UserError(f"{path}: cannot be read as a stem file: {error.strerror}; is it truncated?") from error


def read_stem_file(path: Path, which: Sequence[int], start: int, length: int) -> list[Tensor]:
    """Decode streams `which` of a `.stem.mp4` file from sample `start` on, each [C, length], by seeking.

    Raises:
        UserError: damaged, or the sound ends before the header says.
    """
    import av

    try:
        with av.open(str(path)) as container:
            streams: list[Any] = [container.streams.audio[index] for index in which]
            channels, rate = streams[0].channels, streams[0].rate
            audio = {stream.index: torch.zeros(channels, length) for stream in streams}
            reached = dict.fromkeys(audio, start)
            if start > PREROLL:
                container.seek(int((start - PREROLL) / rate / streams[0].time_base), stream=streams[0])
            for packet in container.demux(streams):
                index = packet.stream.index
                if reached[index] >= start + length:
                    if min(reached.values()) >= start + length:
                        break
                    continue
                frames: list[Any] = packet.decode()  # PyAV's types allow for video and subtitles
                for frame in frames:
                    first = round(frame.pts * frame.time_base * rate)
                    last = min(first + frame.samples, start + length)
                    if last > start:
                        samples = torch.from_numpy(frame.to_ndarray())
                        begin = max(first, start)
                        audio[index][:, begin - start : last - start] = samples[:, begin - first : last - first]
                        reached[index] = max(reached[index], last)
    except av.FFmpegError as error:
        raise UserError(f"{path}: cannot be decoded: {error.strerror}; is it truncated?") from error
    if missing := start + length - min(reached.values()):
        raise UserError(f"{path}: ends {missing} samples before its header says; the file is truncated")
    for signal in audio.values():
        check_finite(signal, path, start)
    return list(audio.values())


class MUSDB18(SegmentedData):
    """MUSDB18 or MUSDB18-HQ: `root/train` and `root/test` hold `<track>.stem.mp4`, or `<track>/vocals.wav` and so on.

    Args:
        sources: of vocals, drums, bass, other and accompaniment (all but vocals); `train` takes them from the model.
        sample_rate: Hz, the files'; `train` takes it from the model.
        root: the folder.
        split: "official": the 14 validation tracks that the field uses, 86 train; "random": of the folder `train`, in
            an order drawn once, four fifths train and a fifth validates (the LTL paper's 80/20).
        fraction: part of the training and of the validation tracks used, one each at least (the LTL paper: 0.1).
        split_seed: of that order; not the run's seed, so that runs can be compared.
        settings: `SegmentedData`'s others.
    """

    obtain = """\
MUSDB18, 150 songs for research, is given out by Zenodo, as .stem.mp4 files (record MUSDB18) or wav files (MUSDB18-HQ).
Unpack either to data/MUSDB18, so that data/MUSDB18/train and data/MUSDB18/test hold <track>.stem.mp4, or
<track>/{mixture,vocals,drums,bass,other}.wav. Anywhere else: set data.init_args.root."""

    def __init__(
        self,
        sources: list[str],
        sample_rate: int,
        root: Path = Path("data/MUSDB18"),
        split: Literal["official", "random"] = "official",
        fraction: float = 1.0,
        split_seed: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(sources, sample_rate, **settings)
        if unknown := set(sources) - set(PARTS):
            raise UserError(f"MUSDB18 has no source {sorted(unknown)[0]!r}; it has {', '.join(PARTS)}")
        if split not in ("official", "random"):
            raise ValueError(f"split {split!r} is neither 'official' nor 'random'")
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction {fraction} must lie above 0, at most 1")
        self.root, self.split, self.fraction, self.split_seed = Path(root), split, fraction, split_seed

    def list_tracks(self, split: Split) -> list[Track]:
        return [Song(path, self.sources, self.sample_rate) for path in self._find(split).values()]

    def entries(self, split: Split) -> list[Entry]:
        return [Entry(name, song_parts(path), self.sample_rate, 2) for name, path in self._find(split).items()]

    def _find(self, split: Split) -> dict[str, Path]:
        """The songs of a split by name."""
        folder = self.root / ("test" if split == "test" else "train")
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; set data.init_args.root to the one that holds train and test")
        found = {path.name.removesuffix(SUFFIX): path for path in sorted(folder.iterdir()) if _is_song(path)}
        if not found:
            raise UserError(f"{folder}: neither <track>{SUFFIX} files nor <track>/mixture.wav folders there")
        names = list(found) if split == "test" else self._choose(split, list(found))
        if not names:
            hint = "none of the official validation tracks" if split == "valid" else "no tracks left to train on"
            raise UserError(f"{folder}: {hint} in it; set data.init_args.split to random")
        return {name: found[name] for name in names}

    def _choose(self, split: Split, names: list[str]) -> list[str]:
        """The names of a split, of all in `train`."""
        order = [names[i] for i in np.random.default_rng(self.split_seed).permutation(len(names))]
        if self.split == "official":
            chosen = [name for name in order if (name in VALIDATION) == (split == "valid")]
        else:
            border = len(names) - max(1, round(len(names) / 5)) if len(names) > 1 else 0
            chosen = order[:border] if split == "train" else order[border:]
        return sorted(chosen[: max(1, round(self.fraction * len(chosen)))])


def _is_song(path: Path) -> bool:
    return path.name.endswith(SUFFIX) or (path / "mixture.wav").is_file()
