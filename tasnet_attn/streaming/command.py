"""`tasnet-attn stream`: sound from standard input, its sources out while it comes."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tasnet_attn.audio.names import distinct
from tasnet_attn.audio.pipes import Layout, blocks, coded, header, opened
from tasnet_attn.audio.resampling import Resampler
from tasnet_attn.errors import UserError
from tasnet_attn.files import touching
from tasnet_attn.storage import load
from tasnet_attn.streaming.separator import StreamingSeparator, cannot_stream
from tasnet_attn.terminal import say

PIPE = Path("-")


def stream(
    model: str,
    out: Path = PIPE,
    source: str | None = None,
    rate: int | None = None,
    channels: int = 2,
    coding: str = "f32",
    block: float = 10.0,
    source_pipe: BinaryIO | None = None,
    target_pipe: BinaryIO | None = None,
) -> None:
    """Separate standard input while it arrives; says at the end what each block took.

    Args:
        model: what `load` takes; it must be able to stream.
        out: "-": one source to standard output; else a folder, a file or FIFO of each source's name in it.
        source: which, where standard output takes one; None with a folder: all.
        rate: Hz of raw samples; None: the model's. A wav says its own.
        channels: of raw samples, interleaved.
        coding: of raw samples: f32, s16 or s32, little-endian. Outputs have the input's.
        block: milliseconds that go through at once.
        source_pipe: standard input.
        target_pipe: standard output.

    Raises:
        UserError: a model that cannot stream, no such source, a wav of another kind.
    """
    if not (math.isfinite(block) and block > 0):
        raise UserError(f"--block {block} must be a number of milliseconds above 0")
    for name, value in (("--rate", rate), ("--channels", channels)):
        if value is not None and value < 1:
            raise UserError(f"{name} {value} must be at least 1")
    network = load(model).eval()
    names = [source] if source is not None else network.sources
    if source is not None and source not in network.sources:
        raise UserError(f"this model has no source {source!r}; it separates {', '.join(network.sources)}")
    if out == PIPE and len(names) != 1:
        raise UserError(f"standard output takes one source; choose it with --source ({', '.join(names)}), or use --out")
    if why := cannot_stream(network):
        raise UserError(f"{model}: this model cannot stream: {why}")
    torch.set_num_threads(1)  # a block's matrices are too small to share
    pipe = source_pipe or sys.stdin.buffer
    layout, before = opened(pipe, Layout(rate or network.sample_rate, channels, coding))
    separator = StreamingSeparator(network, layout.channels)
    size = max(1, round(block / 1000 * layout.sample_rate))
    live, clipped = Live(separator, layout.sample_rate), 0
    clock = Clock(size / layout.sample_rate)
    with _outputs(out, names, layout, target_pipe or sys.stdout.buffer) as files:
        which = [network.sources.index(name) for name in names]
        for samples in blocks(pipe, layout, size, before):
            with clock:
                estimates = live.feed(samples)
            clipped += _write(estimates[which], layout, files)
        clipped += _write(live.flush()[which], layout, files)
    delay = 1000 * separator.latency / network.sample_rate
    resampled = (
        "" if layout.sample_rate == network.sample_rate else f"; resampled from {layout.sample_rate} Hz and back"
    )
    say(f"{clock}; latency {delay:.1f} ms of the model and {block:g} ms of the block{resampled}")
    if clipped:
        say(f"{clipped} samples were louder than {layout.coding} holds and were cut to full scale")


class Live:
    """A `StreamingSeparator` for sound of any rate: resampled in and out, as long in all as what came in."""

    def __init__(self, separator: StreamingSeparator, rate: int) -> None:
        self.separator, self.fed, self.given = separator, 0, 0
        inner, channels = separator.model.sample_rate, separator.channels
        self.way_in = Resampler(rate, inner, [channels])
        self.way_out = Resampler(inner, rate, [len(separator.model.sources), channels])

    def feed(self, samples: Tensor) -> Tensor:
        """[C, t] -> what is final, [S, C, t']."""
        self.fed += samples.shape[-1]
        return self._given(self.way_out.feed(self.separator.feed(self.way_in.feed(samples))))

    def flush(self) -> Tensor:
        """The rest."""
        rest = [self.separator.feed(self.way_in.flush()), self.separator.flush()]
        out = self.way_out.feed(torch.cat(rest, dim=-1), last=True)
        return self._given(F.pad(out, (0, max(0, self.fed - self.given - out.shape[-1]))))

    def _given(self, estimates: Tensor) -> Tensor:
        estimates = estimates[..., : self.fed - self.given]
        self.given += estimates.shape[-1]
        return estimates


class Clock:
    """How long blocks take, in memory that does not grow: counts of durations, 100 to a decade from a microsecond on.

    Args:
        limit: seconds after which a block is late.
    """

    def __init__(self, limit: float) -> None:
        self.limit, self.late, self.counts = limit, 0, np.zeros(900, dtype=np.int64)

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        took = time.perf_counter() - self.began
        self.late += took > self.limit
        self.counts[min(len(self.counts) - 1, max(0, int(100 * math.log10(max(took, 1e-9) / 1e-6))))] += 1

    def percentile(self, part: float) -> float:
        """The duration in seconds that this part of the blocks did not exceed."""
        place = int(np.searchsorted(self.counts.cumsum(), part * self.counts.sum()))
        return 1e-6 * 10 ** ((place + 1) / 100)

    def __str__(self) -> str:
        total = int(self.counts.sum())
        if not total:
            return "0 blocks"
        p50, p99 = (1000 * self.percentile(part) for part in (0.5, 0.99))
        return f"{total} blocks of {1000 * self.limit:g} ms: p50 {p50:.2f} ms, p99 {p99:.2f} ms, {self.late} late"


@contextlib.contextmanager
def _outputs(out: Path, names: Sequence[str], layout: Layout, standard: BinaryIO) -> Iterator[list[BinaryIO]]:
    """A file, a FIFO or standard output for each source, with a wav's header where the input had one."""
    with contextlib.ExitStack() as stack:
        files = [standard]
        if out != PIPE:
            ending = "wav" if layout.wav else "raw"
            paths = [out / f"{name}.{ending}" for name in distinct(names)]
            with touching(out):
                out.mkdir(parents=True, exist_ok=True)
                files = [stack.enter_context(path.open("wb")) for path in paths]
        for file in files:
            with touching(out):
                file.write(header(layout))
        yield files


def _write(estimates: Tensor, layout: Layout, files: list[BinaryIO]) -> int:
    """[S, C, t] to the files; how many samples were cut to full scale."""
    clipped = 0
    for estimate, file in zip(estimates, files, strict=True):
        data, cut = coded(estimate.cpu(), layout)
        clipped += cut
        with touching(Path(getattr(file, "name", "standard output"))):
            file.write(data)
            file.flush()
    return clipped
