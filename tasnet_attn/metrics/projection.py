"""Least-squares projection of signals on delayed references, the core of BSSEval.

Shapes: S sources, C channels, T samples, K <= S * C reference channels that are not silent, L = 512 taps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from tasnet_attn.metrics.signals import Signals
from tasnet_attn.metrics.toeplitz import Solver

TAPS = 512
FFT = 4096  # length of the blocks' FFT, and how many at once: both fit the processor's cache
BLOCK = FFT - TAPS + 1
CHUNK = 16 * BLOCK
RIDGE = torch.finfo(torch.float64).eps  # museval adds it to the diagonal of the Gram matrix, so it is part of the score


class Projection:
    """Filters of 512 taps that approximate estimates by the references.

    The normal equations contain correlations of references (the Gram matrix, block Toeplitz), and of references with
    estimates. Every reference channel is scaled to unit energy, so that quiet sources count as much as loud ones. If
    the Gram matrix is still singular, for band-limited signals or if a source is a filtered copy of another one, many
    filters are equally good, and those of (nearly) minimum norm are used: see `Solver`. A silent channel has no filter.

    Args:
        lags: [S * C, S * C, L], the references' correlations, see `correlate`.
        sources: S.
    """

    def __init__(self, lags: Tensor, sources: int) -> None:
        level = lags[..., 0].diagonal().sqrt()
        self.live = level > 0  # of S * C
        self.level = level[self.live]
        self.sources = torch.arange(sources, device=lags.device).repeat_interleave(len(lags) // sources)[self.live]
        lags = lags[self.live][:, self.live] / (self.level[:, None] * self.level)[..., None]
        ridge = RIDGE / self.level.square()
        groups = [self._rows(source) for source in range(sources)]
        self.alone = [Solver(lags[group, group], ridge[group]) for group in groups]
        # a matrix's condition is never better than that of its diagonal blocks
        self.together = Solver(lags, ridge, singular=any(solver.shift for solver in self.alone))

    def filters(self, lags: Tensor) -> tuple[Tensor, Tensor]:
        """The filters for estimates with these correlations with the references, [S * C, S * C, L].

        Returns:
            [S, C, S * C, L] from all references to each estimate, and the same from its own source only, else zero.
        """
        right = (lags[self.live] / self.level[:, None, None]).transpose(1, 2)  # [K, L, S * C]
        together, alone = self.together.solve(right), torch.zeros_like(right)
        channels = lags.shape[1] // len(self.alone)
        for source, solver in enumerate(self.alone):
            rows, columns = self._rows(source), slice(source * channels, (source + 1) * channels)
            alone[rows, :, columns] = solver.solve(right[rows, :, columns])
        found = lags.new_zeros(2, lags.shape[1], *lags[..., :TAPS].shape[::2])
        found[:, :, self.live] = torch.stack([together, alone]).permute(0, 3, 1, 2) / self.level[:, None]
        return tuple(found.unflatten(1, (-1, channels)))

    def _rows(self, source: int) -> slice:
        """The rows of the Gram matrix of a source, for each tap."""
        first, count = int((self.sources < source).sum()), int((self.sources == source).sum())
        return slice(first, first + count)


def correlate(signals: Tensor | Signals, count: int) -> Tensor:
    """Correlations r[i, j, lag] = sum over t of x[i, t] * x[j, t + lag], for lags 0 .. 511.

    By FFT of blocks: one without, the other with the 511 samples that follow the block.

    Args:
        signals: [J, T].
        count: I, the number of first signals that are correlated with all.

    Returns:
        [I, J, L].
    """
    signals = Signals.of(signals)
    total: Tensor | None = None
    for start in range(0, signals.length, CHUNK):
        blocks = _blocks(signals.length - start)
        stop = start + blocks * BLOCK
        x = _cut(signals, start, stop + TAPS - 1)
        first = torch.fft.rfft(x[:count, : blocks * BLOCK].unflatten(-1, (blocks, BLOCK)), n=FFT).conj_physical_()
        second = torch.fft.rfft(x.unfold(-1, FFT, BLOCK)).permute(2, 1, 0).contiguous()
        first = first.permute(2, 0, 1).contiguous()  # [F, I, blocks]
        total = first @ second if total is None else total.baddbmm_(first, second)
    assert total is not None
    return torch.fft.irfft(total.permute(1, 2, 0), n=FFT)[..., :TAPS]


def _blocks(samples: int) -> int:
    """The number of blocks to process at once, given the remaining samples."""
    return math.ceil(min(CHUNK, samples) / BLOCK)


def _cut(signals: Signals, start: int, stop: int) -> Tensor:
    """Samples start .. stop in float64, with zeros after the end."""
    missing = stop - signals.length
    part = signals.read(start, stop).double()
    return pad(part, (0, missing)) if missing > 0 else part


def convolve(signals: Tensor | Signals, filters: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Sums of filtered signals, piece by piece: [K, T], filters [M, K, L] -> (start, [M, t]), T + 511 samples."""
    signals = Signals.of(signals)
    spectra = torch.fft.rfft(filters, n=FFT).permute(2, 1, 0).contiguous()  # [F, K, M]
    tail = filters.new_zeros(len(filters), TAPS - 1)
    for start in range(0, signals.shape[-1], CHUNK):
        count = _blocks(signals.shape[-1] - start)
        length, size = count * BLOCK, min(CHUNK, signals.shape[-1] - start)
        blocks = torch.fft.rfft(_cut(signals, start, start + length).unflatten(-1, (count, BLOCK)), n=FFT)
        product = blocks.permute(2, 1, 0).contiguous() @ spectra  # [F, count, M]
        pieces = torch.fft.irfft(product.permute(2, 1, 0).contiguous(), n=FFT)
        out = torch.cat([pieces[..., :BLOCK].flatten(1), pieces[:, -1, BLOCK:]], dim=-1)
        out[:, :length].unflatten(1, (count, BLOCK))[:, 1:, : TAPS - 1] += pieces[:, :-1, BLOCK:]
        out[:, : TAPS - 1] += tail
        yield start, out[:, :size]
        tail = out[:, size : size + TAPS - 1]
    yield signals.shape[-1], tail
