"""A stream at the rate of a device or a file, and the time of its blocks."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tasnet_attn.audio.resampling import Resampler
from tasnet_attn.streaming.separator import StreamingSeparator

PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


class Live:
    """A `StreamingSeparator` for sound of any rate: resampled in and out, in total as long as the input."""

    def __init__(self, separator: StreamingSeparator, rate: int) -> None:
        self.separator, self.fed, self.given = separator, 0, 0
        inner, channels = separator.steps.sample_rate, separator.channels
        self.way_in = Resampler(rate, inner, [channels])
        self.way_out = Resampler(inner, rate, [len(separator.steps.sources), channels])

    def feed(self, samples: Tensor) -> Tensor:
        """[C, t] -> the final samples, [S, C, t']."""
        self.fed += samples.shape[-1]
        return self._given(self.way_out.feed(self.separator.feed(self.way_in.feed(samples))))

    def flush(self) -> Tensor:
        """The remaining samples."""
        rest = [self.separator.feed(self.way_in.flush()), self.separator.flush()]
        out = self.way_out.feed(torch.cat(rest, dim=-1), last=True)
        return self._given(F.pad(out, (0, max(0, self.fed - self.given - out.shape[-1]))))

    def _given(self, estimates: Tensor) -> Tensor:
        estimates = estimates[..., : self.fed - self.given]
        self.given += estimates.shape[-1]
        return estimates


class Durations:
    """A histogram of durations in constant memory, 100 bins per decade from a microsecond on."""

    def __init__(self) -> None:
        self.counts = np.zeros(900, dtype=np.int64)

    def add(self, seconds: float) -> None:
        """Add a duration."""
        self.counts[min(len(self.counts) - 1, max(0, int(100 * math.log10(max(seconds, 1e-9) / 1e-6))))] += 1

    def percentile(self, part: float) -> float:
        """The quantile of the durations, seconds."""
        place = int(np.searchsorted(self.counts.cumsum(), part * self.counts.sum()))
        return 1e-6 * 10 ** ((place + 1) / 100)


class Clock:
    """Times of blocks, by the clock and in CPU time of this thread, which other programs do not affect.

    Args:
        limit: seconds after which a block is late.
    """

    def __init__(self, limit: float) -> None:
        self.limit, self.late, self.wall, self.cpu = limit, 0, Durations(), Durations()

    def __enter__(self) -> None:
        self.began = time.perf_counter(), time.thread_time()

    def __exit__(self, *error: object) -> None:
        took, worked = time.perf_counter() - self.began[0], time.thread_time() - self.began[1]
        self.late += took > self.limit
        self.wall.add(took)
        self.cpu.add(worked)

    def __str__(self) -> str:
        total = int(self.wall.counts.sum())
        if not total:
            return "0 blocks"
        shown = ", ".join(f"{name} {1000 * self.wall.percentile(part):.2f}" for name, part in PERCENTILES.items())
        cpu = f"{1000 * self.cpu.percentile(0.999):.2f} of CPU"
        return f"{total} block{'s' * (total != 1)} of {1000 * self.limit:g} ms: {shown} ms ({cpu}), {self.late} late"
