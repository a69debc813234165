"""The base of data sets: tracks in splits, and batches of their segments for training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mode
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import rank_zero_info
from torch.utils.data import DataLoader, SequentialSampler, default_collate

from tasnet_attn.config import Configurable
from tasnet_attn.data.augment import Augmentation
from tasnet_attn.data.cache import with_copies
from tasnet_attn.data.segments import Channels, Segments
from tasnet_attn.data.track import Split, Track
from tasnet_attn.errors import UserError


def collate(batch: list[Any] | UserError) -> Any:
    """Stack mixtures and references; list anything else that a segment has. A user's mistake is passed on."""
    if isinstance(batch, UserError):
        return batch
    stacked = default_collate([segment[:2] for segment in batch])
    return [*stacked, *map(list, zip(*[segment[2:] for segment in batch], strict=True))]


class EpochSampler(SequentialSampler):
    """Keys (epoch, index), so that data sets need no state; each of `world` processes takes every `world`-th.

    Sequential in Lightning's view, which replaces other samplers when it overfits batches.

    Batch b of all processes together equals batch b of one process with a batch size `world` times as large. The last
    processes may get one key less than `len` states. Lightning calls `set_epoch`; `skip` keys are skipped once, after a
    resume.

    Args:
        size: of an epoch, of all processes.
        rank: of this process.
        world: number of processes.
        same: repeat the first epoch.
    """

    def __init__(self, size: int, rank: int = 0, world: int = 1, same: bool = False) -> None:
        super().__init__(range(size))
        self.size, self.rank, self.world, self.same = size, rank, world, same
        self.epoch = self.skip = 0

    def __len__(self) -> int:
        return -(-self.size // self.world)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the following keys."""
        self.epoch = 0 if self.same else epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]
        first, self.skip = self.skip, 0
        for index in range(first * self.world + self.rank, self.size, self.world):
            yield self.epoch, index


class ResumableLoader(DataLoader):
    """A DataLoader that can resume mid-epoch: Lightning stores and restores its state."""

    first = handed = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # batches of this epoch that the checkpointed run has already used are not read
        first, self.first = min(self.first, len(self)), 0  # an epoch of fewer tracks may be over
        self.handed = first
        if first:
            assert isinstance(self.sampler, EpochSampler) and self.batch_size is not None
            self.sampler.skip = first * self.batch_size
        for self.handed, batch in enumerate(super().__iter__(), start=first + 1):
            if isinstance(batch, UserError):
                raise batch
            yield batch
        if self.handed < len(self):  # the other processes take one batch more: an empty one
            yield [part[:0] for part in batch]

    def state_dict(self) -> dict[str, int]:
        """Number of batches of this epoch so far."""
        return {"handed": self.handed % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume after them."""
        self.first = state["handed"]


class SegmentedData(Configurable, LightningDataModule):
    """Base of all data modules: a subclass lists the tracks of a split.

    Attributes:
        obtain: how to obtain the data set and where to put it; `check-data` prints it if nothing is there.

    Args:
        sources: names, in the model's order (`train` takes them from the model).
        sample_rate: Hz, from the model like the sources.
        segment: seconds of a training segment, drawn uniformly over all valid starts.
        batch_size: segments in a batch, per process.
        segments_per_epoch: training segments per epoch; "data": the total length of the tracks divided by the
            segment's, so that an epoch is about one pass over the data.
        channels: "all": every channel goes through the model separately; "mean": train on the channels' mean;
            "random": on a mean with random weights.
        workers: processes that read ahead; 0: read in the training process.
        seed: of the random segments (`train` takes it from seed_everything).
        remix: probability that a training segment is a new mixture, every source from an independently drawn segment.
        gain: dB; every source of a training segment is amplified by -gain to gain, drawn uniformly.
        swap: probability that the channels of a source of a training segment are rotated (stereo: swapped).
        polarity: probability that the sign of a source of a training segment is flipped.
        speed: every source of a training segment is played faster by a factor of 1 / (1 + speed) to 1 + speed.
        reverb: probability that a training segment and its sources get the reverberation of a small synthetic room.
        noise: probability that a training segment's mixture gets noise, 10 to 40 dB below it.
        cache: a folder for decoded copies of compressed tracks, made when training begins; None: decode every time.

    All but `reverb` (one room) and `noise` is drawn independently for every source; the mixture changes with them.
    """

    abstract = True
    given = ("sources", "sample_rate", "seed")
    obtain = ""

    def __init__(
        self,
        sources: list[str],
        sample_rate: int,
        segment: float = 20.0,
        batch_size: int = 4,
        segments_per_epoch: int | Literal["data"] = 1000,
        channels: Channels = "all",
        workers: int = 0,
        seed: int = 0,
        remix: float = 0.0,
        gain: float = 0.0,
        swap: float = 0.0,
        polarity: float = 0.0,
        speed: float = 0.0,
        reverb: float = 0.0,
        noise: float = 0.0,
        cache: Path | None = None,
    ) -> None:
        super().__init__()
        self.sources, self.sample_rate = list(sources), sample_rate
        self.segment, self.batch_size, self.segments_per_epoch = segment, batch_size, segments_per_epoch
        self.channels, self.workers, self.seed, self.cache = channels, workers, seed, cache
        least = {"batch_size": 1, "segments_per_epoch": 1, "workers": 0}
        if segments_per_epoch == "data":
            del least["segments_per_epoch"]
        if wrong := [name for name in least if getattr(self, name) < least[name]]:
            raise ValueError(f"{wrong[0]} {getattr(self, wrong[0])} must be at least {least[wrong[0]]}")
        if not 0 < segment < math.inf:
            raise ValueError(f"segment {segment} s must be longer than 0 and finite")
        if not round(segment * sample_rate):
            raise ValueError(f"segment {segment} s is less than a sample at {sample_rate} Hz; make it longer")
        self.augmentation = Augmentation(remix, gain, swap, polarity, speed, reverb, noise).check()
        self.cached: dict[str, list[Track]] = {}

    @property
    def additive(self) -> bool:
        """Whether a mixture is the sum of its sources, so that the last source is the mixture minus the others."""
        return True

    def list_tracks(self, split: Split) -> list[Track]:
        """The tracks of a split, unopened; training, evaluation, check-data and the fingerprint use this list.

        Raises:
            UserError: the split does not exist.
        """
        raise UserError(f"{type(self).__name__}: lists no tracks; give the class a method `list_tracks`")

    def check(self, track: Track) -> None:
        """Check a track against the model, as far as possible without opening it.

        Raises:
            UserError: it is damaged, has other sources or another order of them, or another sample rate.
        """
        self._check(track)
        if track.sample_rate != self.sample_rate:
            raise UserError(
                f"{track}: sampled at {track.sample_rate} Hz, but the model has {self.sample_rate} Hz; "
                "resample the data or set model.sample_rate"
            )

    def _check(self, track: Track) -> None:
        if track.problem:
            raise UserError(track.problem)
        if list(track.sources) != self.sources:
            ours, its = ", ".join(self.sources), ", ".join(track.sources)
            raise UserError(f"{track}: its sources are {its}, the model's {ours}; give it these, in this order")

    def tracks(self, split: Split, own_rate: bool = False) -> list[Track]:
        """The tracks of a split, checked against the model, and opened if metadata do not state their length.

        Args:
            split: "train", "valid" or "test".
            own_rate: each at the rate of its files, which may differ from the model's: evaluation resamples.

        Raises:
            UserError: there are none, or one does not fit or is damaged; names the file.
        """
        if own_rate:
            return self._opened(split, own_rate)
        if split not in self.cached:
            self.cached[split] = self._opened(split)
        return self.cached[split]

    def _opened(self, split: Split, own_rate: bool = False) -> list[Track]:
        tracks = self.list_tracks(split)
        if not tracks:
            raise UserError(f"{type(self).__name__}: lists no tracks of the {split} split")
        for track in tracks:
            if own_rate and track.sample_rate != self.sample_rate:
                self._check(track)
            else:
                self.check(track)
            if own_rate and track.parts:
                track.sample_rate = track.file_rate
        if tracks[0].parts:
            _ = tracks[0].header  # a wrong root fails at once
        _ = [track.length for track in tracks]
        return tracks

    def epoch_size(self, tracks: Sequence[Track], length: int) -> int:
        """Number of training segments of `length` samples in an epoch."""
        if self.segments_per_epoch != "data":
            return self.segments_per_epoch
        return sum(track.length // length for track in tracks)

    def segments(self, split: Split) -> Segments:
        """The data set of a split: random segments for "train", otherwise consecutive ones."""
        tracks, length = self.tracks(split), round(self.segment * self.sample_rate)
        size = self.epoch_size(tracks, length) if split == "train" else None
        if self.channels == "all" or self.augmentation.remix:
            usual = mode(track.channels for track in tracks)
            for track in tracks:
                if track.channels != usual:
                    raise UserError(
                        f"{track}: has {track.channels} channel(s), the other tracks {usual}; a batch needs equally "
                        "many: convert it, or set data.init_args.channels to mean and remix to 0"
                    )
        if self.cache is not None:
            tracks = with_copies(tracks, self.cache, rank_zero_info)
        return Segments(tracks, length, size, self.seed, self.channels, self.augmentation)

    def prepare_data(self) -> None:
        if self.cache is not None:  # Lightning calls this in one process per machine; the others wait
            for split in ("train", "valid"):
                self.segments(split)

    def setup(self, stage: str) -> None:
        if stage == "fit":
            rank_zero_info(f"augmentation: {self.augmentation.describe()}; channels: {self.channels}")

    def _loader(self, split: Split) -> ResumableLoader:
        segments = self.segments(split)
        rank, world, same = 0, 1, False
        if self.trainer:
            rank, world, same = self.trainer.global_rank, self.trainer.world_size, self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        if len(segments) < world:
            raise UserError(f"{split}: {len(segments)} segment(s) for {world} processes; each needs at least one")
        # training skips the last size % world segments, so that all processes have full batches
        size = len(segments) // world * world if split == "train" else len(segments)
        return ResumableLoader(
            segments,
            batch_size=self.batch_size,
            sampler=EpochSampler(size, rank, world, same),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            drop_last=split == "train" and len(segments) // world >= self.batch_size,
            generator=torch.Generator(),  # separate: workers' seeds must not depend on the number of resumes
        )

    def train_dataloader(self) -> ResumableLoader:
        return self._loader("train")

    def val_dataloader(self) -> ResumableLoader:
        return self._loader("valid")

    def test_dataloader(self) -> ResumableLoader:
        return self._loader("test")

    predict_dataloader = test_dataloader
