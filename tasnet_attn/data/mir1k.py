"""MIR-1K: 1000 clips of amateur karaoke, `root/Wavfile/<singer>_<song>_<clip>.wav`, accompaniment left, voice right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tasnet_attn.audio.reading import read_audio
from tasnet_attn.audio.resampling import resample
from tasnet_attn.data.augment import Augmentation
from tasnet_attn.data.base import SegmentedData
from tasnet_attn.data.segments import Segments
from tasnet_attn.data.track import Part, Split, Track, visible
from tasnet_attn.errors import UserError
from tasnet_attn.files import touching

CHANNELS = {"accompaniment": 0, "vocals": 1}
TRAINING_SINGERS = ("abjones", "amy")  # 175 of the 1000 clips; the other 825 are for testing


class MIR1KClip(Track):
    """A clip, mono, resampled to the model's rate.

    Args:
        file: two channels, music left and voice right.
        sources: "accompaniment" and "vocals", in any order, or one of them.
        sample_rate: Hz to resample to.
        mixture: "sum" or "mean" of the channels.
        again: a training clip used for validation.
    """

    resampled = True

    def __init__(
        self, file: Path, sources: list[str], sample_rate: int, mixture: Literal["sum", "mean"], again: bool = False
    ) -> None:
        parts = [Part(file, source, channel=channel) for source, channel in CHANNELS.items()]
        super().__init__(file.stem, sources, sample_rate, parts, channels=2)
        self.mixture, self.made, self.again = mixture, "sum" if mixture == "sum" else "mean, -6.0 dB", again

    def read(self, start: int = 0, length: int | None = None) -> tuple[Tensor, Tensor]:
        """Read the whole clip of a few seconds, because resampling an excerpt would change its ends."""
        stop = self.length if length is None else start + length
        audio = read_audio(self.files[0])
        if self.header.sample_rate != self.sample_rate:
            audio = resample(audio, self.header.sample_rate, self.sample_rate)
        audio = torch.nn.functional.pad(audio, (0, self.length - audio.shape[-1]))
        mixture = audio.sum(0) if self.mixture == "sum" else audio.mean(0)
        references = audio[[CHANNELS[source] for source in self.sources], None]
        return mixture[None, start:stop], references[..., start:stop]

    def read_source(self, which: int, start: int, length: int) -> Tensor:
        return self.read(start, length)[1][which]

    def read_rest(self, start: int, length: int) -> Tensor:
        mixture, references = self.read(start, length)
        return mixture - references.sum(0)


class ClipSegments(Segments):
    """Segments together with the clip that each is cut from, for encoders that divide by the clip's maximum.

    Args:
        per_clip: every pass takes each clip once, in random order, at a random start (Park et al. 2018); otherwise
            every start of every clip is equally likely, so that long clips occur more often.
        tracks: see `Segments`.
        length: see `Segments`.
        size: see `Segments`.
        seed: see `Segments`.
        augmentation: see `Segments`.
    """

    def __init__(
        self,
        tracks: Sequence[Track],
        length: int,
        size: int | None,
        seed: int,
        per_clip: bool,
        augmentation: Augmentation,
    ) -> None:
        super().__init__(tracks, length, size, seed, "all", augmentation)
        self.per_clip = per_clip

    def draw(self, epoch: int, index: int) -> tuple[Track, int]:
        """Clip and start of segment `index` of `epoch`: a pure function."""
        if not (self.per_clip and self.random):
            return super().draw(epoch, index)
        which, position = divmod(epoch * self.size + index, len(self.tracks))
        track = self.tracks[np.random.default_rng([self.seed, which]).permutation(len(self.tracks))[position]]
        start = np.random.default_rng([self.seed, epoch, index]).integers(track.length - self.segment + 1)
        return track, int(start)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, ...]:  # type: ignore[override]
        """The segment (epoch, index): mixture [1, T], references [S, 1, T]; and the whole clip's mixture."""
        track, start = self.draw(*key)
        mixture, references = track.read()
        cut = slice(start, start + self.segment)
        if self.random and any(self.augmentation):  # only this segment of the clip changes
            changed, references = super().__getitem__(key)
            return changed, references, torch.cat([mixture[:, :start], changed, mixture[:, cut.stop :]], dim=-1)
        return mixture[:, cut], references[..., cut], mixture


class MIR1K(SegmentedData):
    """MIR-1K with the published split: `abjones` and `amy` train, the others test.

    The data set has no validation split. By default the training clips are used, cut end to end; this curve shows the
    fit, not how well the model does on other songs.

    Args:
        sources: "accompaniment" and "vocals"; `train` takes them from the model.
        sample_rate: Hz, 8000 in the papers; the files' 16,000 are resampled. `train` takes it from the model.
        root: the data set's folder, with `Wavfile` in it.
        mixture: "sum" of the sources, for masks in [0, 1]; or "mean" of the channels with unscaled sources, as in
            Park's training, which needs masks up to 2.
        sampling: "starts": every start of every clip is equally likely; "clips": see `ClipSegments`.
        held_out: number of training clips, the last by name, to use for validation only.
        segment: seconds; the default gives 64 frames of 256 samples at 8 kHz.
        settings: `SegmentedData`'s others; the published training has no augmentation, and "mean" allows none.
    """

    fixed = ("channels", "swap", "cache")
    obtain = """\
MIR-1K is available from its authors, Chao-Ling Hsu and Jyh-Shing Roger Jang ("MIR-1K Dataset"). Unpack it to
data/MIR-1K, so that data/MIR-1K/Wavfile has 1000 files <singer>_<song>_<clip>.wav, music left, voice right.
For another place set data.init_args.root."""

    def __init__(
        self,
        sources: list[str],
        sample_rate: int,
        root: Path = Path("data/MIR-1K"),
        mixture: Literal["sum", "mean"] = "sum",
        sampling: Literal["starts", "clips"] = "starts",
        held_out: int = 0,
        segment: float = 2.016,
        **settings: Any,
    ) -> None:
        super().__init__(sources, sample_rate, segment, channels="all", swap=0.0, cache=None, **settings)
        if unknown := set(sources) - set(CHANNELS):
            raise UserError(f"MIR-1K has no source {sorted(unknown)[0]!r}; it has {', '.join(CHANNELS)}")
        if mixture not in ("sum", "mean") or sampling not in ("starts", "clips"):
            raise ValueError(f"mixture: 'sum' or 'mean', sampling: 'starts' or 'clips'; got {mixture!r}, {sampling!r}")
        if mixture == "mean" and any(self.augmentation):
            on = (name for name, value in self.augmentation._asdict().items() if value)
            raise ValueError(f"mixture 'mean' takes no augmentation; set it to 'sum' or turn {next(on)} off")
        self.root, self.mixture, self.sampling, self.held_out = Path(root), mixture, sampling, held_out

    @property
    def additive(self) -> bool:
        return self.mixture == "sum"

    def list_tracks(self, split: Split) -> list[Track]:
        again = split == "valid" and not self.held_out
        with touching(self.root):  # a folder in it may be unreadable
            return [MIR1KClip(file, self.sources, self.sample_rate, self.mixture, again) for file in self._find(split)]

    def _find(self, split: Split) -> list[Path]:
        """The clips of a split."""
        folder = self.root / "Wavfile"
        files = [path for path in visible(folder) if path.suffix == ".wav"] if folder.is_dir() else []
        if not files:
            raise UserError(f"{folder}: no .wav files there; set data.init_args.root to the folder with Wavfile")
        training = [file for file in files if file.stem.startswith(TRAINING_SINGERS)]
        if not 0 <= self.held_out < len(training):
            raise UserError(f"held_out {self.held_out} must be less than the {len(training)} training clips")
        kept = len(training) - self.held_out
        chosen = {
            "train": training[:kept],
            "valid": training[kept:] or training,
            "test": [file for file in files if not file.stem.startswith(TRAINING_SINGERS)],
        }[split]
        if not chosen:
            raise UserError(
                f"{folder}: no clips of the {split} split; train: {' and '.join(TRAINING_SINGERS)}, test: others"
            )
        return chosen

    def segments(self, split: Split) -> Segments:
        tracks, length = self.tracks(split), round(self.segment * self.sample_rate)
        size = self.epoch_size(tracks, length) if split == "train" else None
        return ClipSegments(tracks, length, size, self.seed, self.sampling == "clips", self.augmentation)
