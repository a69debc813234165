"""Resampling a stream of blocks by soxr's band-limited streaming resampler."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

MOST = 1 << 20  # samples to make at once of a channel: a file of 1 Hz would become 44,100 times as large


def resampled(blocks: Iterable[Tensor], rate_in: int, rate_out: int) -> Iterator[Tensor]:
    """Resample a stream of [..., t] from `rate_in` to `rate_out` Hz; equal rates pass through.

    A block that would become long is given in several.
    """
    if rate_in == rate_out:
        yield from blocks
        return
    resampler = None
    for block in blocks:
        resampler = resampler or Resampler(rate_in, rate_out, block.shape[:-1])
        for part in block.split(max(1, MOST * rate_in // rate_out), dim=-1):
            yield from resampler.feed(part).split(MOST, dim=-1)  # soxr collects some hundred samples of its own accord
    if resampler is not None:
        yield from resampler.flush().split(MOST, dim=-1)


class Resampler:
    """Blocks [*shape, t] from one rate to another; each returns its final samples. Equal rates pass through."""

    def __init__(self, rate_in: int, rate_out: int, shape: Sequence[int]) -> None:
        import soxr

        self.shape, self.rows = tuple(shape), math.prod(shape)
        same = rate_in == rate_out
        self.stream = None if same else soxr.ResampleStream(rate_in, rate_out, self.rows, dtype="float32")

    def feed(self, block: Tensor, last: bool = False) -> Tensor:
        """The next block; `last`: with all remaining samples."""
        if self.stream is None:
            return block
        samples = block.reshape(self.rows, -1).T.contiguous().numpy()
        if self.rows == 1:
            samples = samples[:, 0]
        out = torch.from_numpy(self.stream.resample_chunk(samples, last=last))
        return out.reshape(-1, self.rows).T.reshape(*self.shape, -1)

    def flush(self) -> Tensor:
        """The remaining samples."""
        return self.feed(torch.zeros(*self.shape, 0), last=True)


def resample(audio: Tensor, rate_in: int, rate_out: int) -> Tensor:
    """Resample whole signals [..., T], in one piece."""
    import soxr

    flat = audio.reshape(-1, audio.shape[-1])
    return torch.from_numpy(soxr.resample(flat.T.numpy(), rate_in, rate_out).T).unflatten(0, audio.shape[:-1])


def exactly(blocks: Iterable[Tensor], length: int) -> Iterator[Tensor]:
    """Cut or zero-fill a stream of [..., t] to `length` samples: resampling back and forth may be off by a sample."""
    block, left = torch.empty(0), length
    for block in blocks:
        yield block[..., :left]
        left -= min(left, block.shape[-1])
    if left:
        yield block.new_zeros(*block.shape[:-1], left)
