"""Resampling a stream of blocks by soxr's band-limited streaming resampler."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor


def resampled(blocks: Iterable[Tensor], rate_in: int, rate_out: int) -> Iterator[Tensor]:
    """Resample a stream of [..., t] from `rate_in` to `rate_out` Hz; equal rates pass through."""
    import soxr

    if rate_in == rate_out:
        yield from blocks
        return
    resampler, shape = None, torch.Size()
    for block in blocks:
        if resampler is None:
            shape = block.shape[:-1]
            resampler = soxr.ResampleStream(rate_in, rate_out, shape.numel(), dtype="float32")
        yield _through(resampler, block, shape, last=False)
    if resampler is not None:
        yield _through(resampler, torch.zeros(*shape, 0), shape, last=True)


def resample(audio: Tensor, rate_in: int, rate_out: int) -> Tensor:
    """Resample whole signals [..., T], in one piece."""
    import soxr

    flat = audio.reshape(-1, audio.shape[-1])
    return torch.from_numpy(soxr.resample(flat.T.numpy(), rate_in, rate_out).T).unflatten(0, audio.shape[:-1])


def _through(resampler: Any, block: Tensor, shape: torch.Size, last: bool) -> Tensor:
    samples = block.reshape(shape.numel(), -1).T.contiguous().numpy()
    if shape.numel() == 1:
        samples = samples[:, 0]
    out = torch.from_numpy(resampler.resample_chunk(samples, last=last))
    return out.reshape(-1, shape.numel()).T.reshape(*shape, -1)


def exactly(blocks: Iterable[Tensor], length: int) -> Iterator[Tensor]:
    """Cut or zero-fill a stream of [..., t] to `length` samples: resampling there and back may end a sample off."""
    block, left = torch.empty(0), length
    for block in blocks:
        yield block[..., :left]
        left -= min(left, block.shape[-1])
    if left:
        yield block.new_zeros(*block.shape[:-1], left)
