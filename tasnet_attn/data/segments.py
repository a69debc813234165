"""Segments of tracks, a pure function of (seed, epoch, index), augmentation included."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tasnet_attn.audio.resampling import resample
from tasnet_attn.data.augment import Augmentation
from tasnet_attn.data.track import Track
from tasnet_attn.errors import UserError

Channels = Literal["all", "mean", "random"]


def played_at(track: Track, which: int, start: int, length: int, factor: float) -> Tensor:
    """Source number `which` of a track from about `start` on, played `factor` times as fast, [C, length].

    A track that is too short for the factor is played at the nearest possible one.
    """
    taken = min(round(length * factor), track.length)
    audio = track.read_source(which, min(start, track.length - taken), taken)
    if taken == length:
        return audio
    audio = resample(audio, taken, length)[..., :length]
    return torch.nn.functional.pad(audio, (0, length - audio.shape[-1]))


class Segments(Dataset):
    """Segments of tracks.

    Args:
        tracks: tracks to cut segments from; those shorter than a segment are skipped.
        length: samples in a segment.
        size: number of segments per epoch; None: cut the tracks into consecutive segments, for validation.
        seed: of the random starts.
        channels: "all": keep them; "mean": their mean, [1, T]; "random": random segments have a randomly weighted mean.
        augmentation: of random segments.
    """

    def __init__(
        self,
        tracks: Sequence[Track],
        length: int,
        size: int | None,
        seed: int,
        channels: Channels,
        augmentation: Augmentation,
    ) -> None:
        self.tracks = [track for track in tracks if track.length >= length]
        self.segment, self.seed, self.channels, self.augmentation = length, seed, channels, augmentation
        self.random = size is not None
        # random: every valid start of every track is equally likely; else: segments end to end
        choices = [t.length - length + 1 if self.random else t.length // length for t in self.tracks]
        self.ends = list(accumulate(choices))
        if not self.ends:
            longest = max((track.length for track in tracks), default=0)
            raise UserError(f"all tracks are shorter than a segment of {length} samples (the longest has {longest})")
        self.size = self.ends[-1] if size is None else size

    def __len__(self) -> int:
        return self.size

    def draw(self, epoch: int, index: int) -> tuple[Track, int]:
        """Track and start of segment `index` of `epoch`: a pure function, equal in all processes."""
        if self.random:
            choice = int(np.random.default_rng([self.seed, epoch, index]).integers(self.ends[-1]))
        else:
            choice = index
        return self._place(choice)

    def _place(self, choice: int) -> tuple[Track, int]:
        which = bisect_right(self.ends, choice)
        offset = choice - (self.ends[which - 1] if which else 0)
        return self.tracks[which], offset if self.random else offset * self.segment

    def draw_remix(self, epoch: int, index: int) -> list[tuple[Track, int]]:
        """Where each source of segment `index` of `epoch` comes from, and the rest if it is remixed too.

        Empty if the segment is not changed.
        """
        rng = np.random.default_rng([self.seed, epoch, index, 1])
        if not self.random or rng.random() >= self.augmentation.remix:
            return []
        first = self.draw(epoch, index)
        for _ in range(100):
            others = rng.integers(self.ends[-1], size=len(first[0].sources) - 1 + first[0].rest_remixed)
            drawn = [first, *(self._place(int(choice)) for choice in others)]
            sources = drawn[: len(first[0].sources)]
            speakers = [speaker for s, (track, _) in enumerate(sources) if (speaker := track.speaker(s)) is not None]
            if len(set(speakers)) == len(speakers):  # no speaker twice
                return drawn
        raise UserError(
            f"{first[0]}: no other speaker or recording in 100 draws to mix it with; add some, cut long ones, or if "
            "the data have their own mixtures, set data.init_args.remix to 0"
        )

    def _read(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The segment (epoch, index) from the files, remixed or at other speeds."""
        drawn, length = self.draw_remix(*key), self.segment
        if not drawn and not (self.random and self.augmentation.speed):
            track, start = self.draw(*key)
            return track.read(start, length)
        places = drawn or [self.draw(*key)] * len(self.tracks[0].sources)
        sources = places[: len(places[0][0].sources)]
        if self.random and self.augmentation.speed:
            factors = self.augmentation.factors(len(sources), np.random.default_rng([self.seed, *key, 3]))
        else:
            factors = np.ones(len(sources))
        played = [played_at(t, s, start, length, factors[s]) for s, (t, start) in enumerate(sources)]
        references = torch.stack(played)
        if drawn:
            track, start = drawn[-1] if len(drawn) > len(sources) else drawn[0]
            return references.sum(0) + track.read_rest(start, length), references
        mixture, before = places[0][0].read(places[0][1], length)
        return mixture + (references - before).sum(0), references

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The segment (epoch, index): mixture [C, T], references [S, C, T]."""
        mixture, references = self._read(key)
        rng = np.random.default_rng([self.seed, *key, 2])
        if self.random:
            changed = self.augmentation.change(references, rng)
            if self.augmentation.reverb:
                rate = self.tracks[0].sample_rate
                changed = self.augmentation.place(changed, rate, np.random.default_rng([self.seed, *key, 4]))
            if changed is not references:  # add only the change: noise and other rests stay in the mixture
                mixture, references = mixture + (changed - references).sum(0), changed
            if self.augmentation.noise:
                mixture = self.augmentation.disturb(mixture, np.random.default_rng([self.seed, *key, 5]))
        if self.channels == "all":
            return mixture, references
        weights = torch.full((len(mixture), 1), 1 / len(mixture))
        if self.random and self.channels == "random":
            weights = torch.from_numpy(rng.dirichlet(np.ones(len(mixture)))).float()[:, None]
        return (weights * mixture).sum(0, keepdim=True), (weights * references).sum(1, keepdim=True)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[Any] | UserError:
        """For the DataLoader. A user's mistake is returned, not raised.

        torch would wrap an exception of a worker process in that process's traceback; `ResumableLoader` raises this
        one.
        """
        try:
            return [self[key] for key in keys]
        except UserError as error:
            return error
