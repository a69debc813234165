"""Least-squares projection of signals on delayed references: the heart of BSSEval.

Shapes: S sources, C channels, T samples, K <= S * C reference channels that are not silent, L = 512 taps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from tasnet_attn.metrics.signals import Signals

TAPS = 512
FFT = 4096  # length of the blocks' FFT, and how many at once: both fit the processor's cache
BLOCK = FFT - TAPS + 1
CHUNK = 16 * BLOCK
RIDGE = torch.finfo(torch.float64).eps  # museval adds it to the diagonal of the Gram matrix, so it belongs to the score
SINGULAR = 1e-10  # reciprocal of the condition number from which on least squares are regularised


class Projection:
    """Filters of 512 taps that make estimates, as nearly as they can, of the references.

    The normal equations hold correlations of references (the Gram matrix, block Toeplitz), and of references with
    estimates. Every reference channel is scaled to unit energy, so that quiet sources count like loud ones. Where the
    Gram matrix is singular then, in band-limited signals or when a source is a filtered copy of another one, many
    filters are equally good, and those of (nearly) minimum norm are taken: see `Solver`. A silent channel has none.

    Args:
        references: [S, C, T], real.
    """

    def __init__(self, references: Tensor | Signals) -> None:
        references = Signals.of(references)
        level = torch.zeros(math.prod(references.shape[:-1]), dtype=torch.float64, device=references.device)
        for piece in references.pieces():  # in place: see `si_snr_by_pieces`
            torch.hypot(level, torch.linalg.vector_norm(piece, dim=-1, dtype=torch.float64).flatten(), out=level)
        live = level > 0
        self.live = slice(None) if live.all() else live  # of S * C; copies nothing if it need not
        self.level = level[self.live]
        self.signals = self.of_live(references)
        each = torch.arange(references.shape[0], device=level.device).repeat_interleave(references.shape[1])
        self.sources = each[self.live]
        lags = correlate(self.signals, self.signals) / (self.level[:, None] * self.level)[..., None]
        ridge = RIDGE / self.level.square()
        groups = [slice(row.start // TAPS, row.stop // TAPS) for row in map(self._rows, range(references.shape[0]))]
        self.alone = [Solver(lags[group, group], ridge[group]) for group in groups]
        # no matrix is conditioned better than a diagonal block of it
        self.together = Solver(lags, ridge, singular=any(solver.shift for solver in self.alone))

    def of_live(self, signals: Signals) -> Signals:
        """[S, C, T] -> [K, T], without the channels that are silent in the references."""
        return signals.map(lambda piece: piece.flatten(0, 1)[self.live])

    def filters(self, estimates: Tensor | Signals) -> tuple[Tensor, Tensor]:
        """The filters for estimates [S, C, T].

        Returns:
            [S, C, K, L] from all references to each estimate, and the same from its own source only, zero elsewhere.
        """
        sources, channels, _ = estimates.shape
        flat = Signals.of(estimates).map(lambda piece: piece.flatten(0, 1))
        lags = correlate(self.signals, flat) / self.level[:, None, None]  # [K, S * C, L]
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
    """Solves the normal equations by Cholesky.

    If the Gram matrix's condition number is above 1 / SINGULAR, the solution comes of iterated Tikhonov regularisation
    (two steps), close to the minimum norm: a direction of eigenvalue v counts 1 - (d / (v + d))**2 of what it would,
    with d = SINGULAR times the largest eigenvalue.

    Args:
        lags: [K, K, L], the references' correlations, see `correlate`.
        ridge: [K], added to the diagonal.
        singular: the matrix is known to be.
    """

    def __init__(self, lags: Tensor, ridge: Tensor, singular: bool = False) -> None:
        largest = _largest(lags)
        self.shift = 0.0
        if not singular:
            self.factor = _gram(lags, ridge)
            singular = not _cholesky(self.factor) or largest * self._inverse() > 1 / SINGULAR
        if singular:
            self.shift = SINGULAR * largest
            self.factor = _gram(lags, ridge + self.shift)
            if not _cholesky(self.factor):
                raise ArithmeticError("the regularised Gram matrix is not positive definite")

    def _inverse(self) -> float:
        """The largest eigenvalue of the inverse, from below, by inverse iteration."""
        probe = _probe(self.factor, len(self.factor), 1)
        for _ in range(2):
            probe = self._substitute(probe / probe.norm())
        return float(probe.norm())

    def _substitute(self, right: Tensor) -> Tensor:
        # as torch.cholesky_solve, which copies the factor each time
        half = torch.linalg.solve_triangular(self.factor, right, upper=False)
        return torch.linalg.solve_triangular(self.factor.mT, half, upper=True)

    def solve(self, right: Tensor) -> Tensor:
        """[K * L, m] -> [K * L, m]."""
        x = self._substitute(right)
        return self._substitute(right + self.shift * x) if self.shift else x


def _probe(like: Tensor, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=like.dtype, generator=torch.Generator().manual_seed(0)).to(like.device)


def _largest(lags: Tensor) -> float:
    """The Gram matrix's largest eigenvalue, from below: power iteration, the matrix applied by FFT."""
    both = torch.cat([lags, torch.zeros_like(lags[..., :1]), lags.transpose(0, 1)[..., 1:].flip(-1)], dim=-1)
    symbol = torch.fft.rfft(both)  # [K, K, L + 1]
    probe = _probe(lags, len(lags), TAPS)
    for _ in range(10):
        product = torch.einsum("ijf,jf->if", symbol, torch.fft.rfft(probe / probe.norm(), n=2 * TAPS))
        probe = torch.fft.irfft(product, n=2 * TAPS)[..., :TAPS]
    return float(probe.norm())


def correlate(x: Tensor | Signals, y: Tensor | Signals) -> Tensor:
    """r[i, j, lag] = sum over t of x[i, t] * y[j, t + lag] for lags 0 .. 511; x [I, T], y [J, T] -> [I, J, L].

    By FFT of blocks: x without, y with the 511 samples that follow its block.
    """
    x, y = Signals.of(x), Signals.of(y)
    total = torch.zeros(FFT // 2 + 1, x.shape[0], y.shape[0], dtype=torch.complex128, device=x.device)
    for start in range(0, x.shape[-1], CHUNK):
        count = _blocks(x.shape[-1] - start)
        stop = start + count * BLOCK
        first = torch.fft.rfft(_cut(x, start, stop).unflatten(-1, (count, BLOCK)), n=FFT)
        second = torch.fft.rfft(_cut(y, start, stop + TAPS - 1).unfold(-1, FFT, BLOCK))
        total.baddbmm_(first.permute(2, 0, 1).contiguous(), second.conj_physical_().permute(2, 1, 0).contiguous())
    return torch.fft.irfft(total.conj_physical_().permute(1, 2, 0), n=FFT)[..., :TAPS]


def _blocks(samples: int) -> int:
    """How many blocks are taken at once when so many samples are left."""
    return math.ceil(min(CHUNK, samples) / BLOCK)


def _cut(signals: Signals, start: int, stop: int) -> Tensor:
    """Samples start .. stop in float64, with zeros after the end."""
    missing = stop - signals.length
    part = signals.read(start, stop).double()
    return pad(part, (0, missing)) if missing > 0 else part


def _gram(lags: Tensor, ridge: Tensor) -> Tensor:
    """[K * L, K * L]: at (i, a), (j, b) the sum over t of x[i, t - a] * x[j, t - b]; blocks i < j are not set."""
    count = len(lags)
    gram = lags.new_empty(count, TAPS, count, TAPS)
    for i in range(count):
        for j in range(i + 1):
            both = torch.cat([lags[i, j].flip(-1), lags[j, i, 1:]])  # at a - b = 511 .. -511
            gram[i, :, j] = both.unfold(-1, TAPS, 1).flip(0)
        gram[i, :, i].diagonal().add_(ridge[i])
    return gram.flatten(2).flatten(0, 1)


def _cholesky(gram: Tensor) -> bool:
    """Replace the lower triangle by its Cholesky factor, block column by block column; False if that fails.

    In place, without the copies of torch.linalg.cholesky, which cost as much as its arithmetic.
    """
    for start in range(0, len(gram), TAPS):
        stop = start + TAPS
        column, done = gram[start:, start:stop], gram[start:stop, :start]
        column.addmm_(gram[start:, :start], done.mT, alpha=-1)
        top, failed = torch.linalg.cholesky_ex(column[:TAPS])
        if failed:
            return False
        column[:TAPS] = top
        column[TAPS:] = torch.linalg.solve_triangular(top.mT, column[TAPS:], upper=True, left=False)
    return True


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
