"""Least-squares projection of signals on delayed references: the heart of BSSEval.

Shapes: S sources, C channels, T samples, K <= S * C reference channels that are not silent, L = 512 taps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

TAPS = 512
FFT = 4096  # length of the blocks' FFT, and how many at once: both fit the processor's cache
BLOCK = FFT - TAPS + 1
CHUNK = 16 * BLOCK
RIDGE = torch.finfo(torch.float64).eps  # museval adds it to the diagonal of the Gram matrix, so it belongs to the score
SINGULAR = 1e-12  # eigenvalues below this part of the largest one count as zero


class Projection:
    """Filters of 512 taps that make estimates, as nearly as they can, of the references.

    The normal equations hold correlations of the references (the Gram matrix, block Toeplitz) and of references with
    estimates. Where the Gram matrix is singular, as with a source that is a filtered copy of another one, many filters
    are equally good: those of minimum norm are taken, with every reference channel scaled to unit energy first, so that
    a quiet source counts like a loud one. A silent channel has no filter.

    Args:
        references: [S, C, T], float64.
    """

    def __init__(self, references: Tensor) -> None:
        self.channels = references.shape[1]
        flat = references.flatten(0, 1)
        energy = flat.square().sum(-1)
        self.live = energy > 0  # [S * C]
        self.signals = flat[self.live]
        self.level = energy[self.live].sqrt()
        self.sources = torch.arange(len(references), device=flat.device).repeat_interleave(self.channels)[self.live]
        lags = correlate(self.signals, self.signals) / (self.level[:, None] * self.level)[..., None]
        gram = _gram(lags)
        gram.diagonal().add_((RIDGE / self.level.square()).repeat_interleave(TAPS))
        self.together = Solver(gram)
        self.alone = [Solver(gram[rows, rows]) for rows in map(self._rows, range(len(references)))]

    def filters(self, estimates: Tensor) -> tuple[Tensor, Tensor]:
        """The filters for estimates [S, C, T].

        Returns:
            [S, C, K, L] from all references to each estimate, and the same from its own source only, zero elsewhere.
        """
        sources, channels, _ = estimates.shape
        lags = correlate(self.signals, estimates.flatten(0, 1)) / self.level[:, None, None]  # [K, S * C, L]
        right = lags.transpose(1, 2).flatten(0, 1)  # [K * L, S * C]
        together = self.together.solve(right)
        alone = torch.zeros_like(together)
        for source, solver in enumerate(self.alone):
            rows, columns = self._rows(source), slice(source * channels, (source + 1) * channels)
            alone[rows, columns] = solver.solve(right[rows, columns])
        scale = self.level[:, None, None]
        together, alone = (x.unflatten(0, (-1, TAPS)) / scale for x in (together, alone))
        return tuple(x.permute(2, 0, 1).unflatten(0, (sources, channels)) for x in (together, alone))

    def _rows(self, source: int) -> slice:
        """The rows of the Gram matrix that belong to a source."""
        first, count = int((self.sources < source).sum()), int((self.sources == source).sum())
        return slice(first * TAPS, (first + count) * TAPS)


class Solver:
    """Solves gram @ x = right for symmetric positive semidefinite matrices of which the lower triangle is given.

    By Cholesky; by eigenvectors, for the minimum norm, if the condition number is above 1 / SINGULAR.
    """

    def __init__(self, gram: Tensor) -> None:
        self.factor, info = torch.linalg.cholesky_ex(gram)
        self.values: Tensor | None = None
        if info or self._condition() > 1 / SINGULAR:
            values, vectors = torch.linalg.eigh(gram)
            keep = values > SINGULAR * values[-1]
            self.values, self.factor = values[keep], vectors[:, keep]

    def _condition(self) -> float:
        """Estimate the condition number from above, within sqrt(n): largest eigenvalue times Frobenius norm of the inverse."""
        n = len(self.factor)
        probe = torch.randn(n, 2, dtype=self.factor.dtype, generator=torch.Generator().manual_seed(0)).to(self.factor)
        inverse = torch.cholesky_solve(probe, self.factor).square().sum(0).mean().sqrt()
        largest = probe.new_zeros(())
        for _ in range(3):
            probe = self.factor @ (self.factor.T @ (probe / probe.norm()))
            largest = probe.norm()
        return float(largest * inverse) if n else 1.0

    def solve(self, right: Tensor) -> Tensor:
        """[n, m] -> [n, m]."""
        if self.values is None:
            return torch.cholesky_solve(right, self.factor)
        return self.factor @ ((self.factor.T @ right) / self.values[:, None])


def correlate(x: Tensor, y: Tensor) -> Tensor:
    """r[i, j, lag] = sum over t of x[i, t] * y[j, t + lag] for lags 0 .. 511; x [I, T], y [J, T] -> [I, J, L].

    By FFT of blocks: x without, y with the 511 samples that follow its block.
    """
    total = x.new_zeros(FFT // 2 + 1, len(x), len(y), dtype=torch.complex128)
    for start in range(0, x.shape[-1], CHUNK):
        size = min(CHUNK, x.shape[-1] - start)
        count = math.ceil(size / BLOCK)
        first = pad(x[:, start : start + size], (0, count * BLOCK - size)).unflatten(-1, (count, BLOCK))
        stop = start + count * BLOCK + TAPS - 1
        second = pad(y[:, start:stop], (0, max(0, stop - y.shape[-1]))).unfold(-1, FFT, BLOCK)
        spectra = torch.fft.rfft(first, n=FFT).conj().permute(2, 0, 1), torch.fft.rfft(second).permute(2, 1, 0)
        total.baddbmm_(*(s.resolve_conj().contiguous() for s in spectra))
    return torch.fft.irfft(total.permute(1, 2, 0), n=FFT)[..., :TAPS]


def _gram(lags: Tensor) -> Tensor:
    """The lower triangle of [K * L, K * L] with element (i, a), (j, b) = sum over t of x[i, t - a] * x[j, t - b]."""
    count = len(lags)
    gram = lags.new_zeros(count, TAPS, count, TAPS)
    for i in range(count):
        for j in range(i + 1):
            both = torch.cat([lags[i, j].flip(-1), lags[j, i, 1:]])  # lag 511 .. -511
            gram[i, :, j] = both.unfold(-1, TAPS, 1).flip(0)
    return gram.flatten(2).flatten(0, 1)


def convolve(signals: Tensor, filters: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Sums of filtered signals, piece by piece: signals [K, T], filters [M, K, L] -> (start, [M, t]), T + 511 in all."""
    spectra = torch.fft.rfft(filters, n=FFT).permute(2, 1, 0).contiguous()  # [F, K, M]
    tail = signals.new_zeros(len(filters), TAPS - 1)
    for start in range(0, signals.shape[-1], CHUNK):
        size = min(CHUNK, signals.shape[-1] - start)
        count = math.ceil(size / BLOCK)
        blocks = pad(signals[:, start : start + size], (0, count * BLOCK - size)).unflatten(-1, (count, BLOCK))
        product = torch.fft.rfft(blocks, n=FFT).permute(2, 1, 0).contiguous() @ spectra  # [F, count, M]
        pieces = torch.fft.irfft(product.permute(2, 1, 0).contiguous(), n=FFT)
        out = pad(pieces[..., :BLOCK].flatten(1), (0, TAPS - 1))
        out[:, : count * BLOCK].unflatten(1, (count, BLOCK))[:, 1:, : TAPS - 1] += pieces[:, :-1, BLOCK:]
        out[:, count * BLOCK :] = pieces[:, -1, BLOCK:]
        out[:, : TAPS - 1] += tail
        yield start, out[:, :size]
        tail = out[:, size : size + TAPS - 1]
    yield signals.shape[-1], tail
