"""Normal equations of delayed references: their matrix is block Toeplitz and therefore cheap to factorise.

Shapes: K channels, L taps, n = L * K. The matrix's rows and columns run over the taps, then over the channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SINGULAR = 1e-10  # reciprocal of the condition number above which least squares are regularised
ROWS = 32  # of the factor per step: with fewer, the calls would cost more than their arithmetic


class Solver:
    """Solves the normal equations by Cholesky and a step of refinement.

    If the matrix's condition number is above 1 / SINGULAR, iterated Tikhonov regularisation (two steps) gives a
    solution
    close to the minimum norm: the component of eigenvalue v is scaled by 1 - (d / (v + d))**2, with d = SINGULAR times
    the largest eigenvalue.

    Args:
        lags: [K, K, L], the references' correlations, see `correlate`.
        ridge: [K], added to the diagonal.
        singular: the matrix is known to be singular.
    """

    def __init__(self, lags: Tensor, ridge: Tensor, singular: bool = False) -> None:
        self.lags, self.shift = lags.clone(), 0.0
        self.lags[..., 0].diagonal().add_(ridge)
        largest = self._largest()
        factor = None if singular else cholesky(self.lags)
        if factor is not None:
            self.factor = factor
        if factor is None or largest * self._inverse() > 1 / SINGULAR:
            self.shift = SINGULAR * largest
            self.lags[..., 0].diagonal().add_(self.shift)
            factor = cholesky(self.lags)
            if factor is None:
                raise ArithmeticError("the regularised Gram matrix is not positive definite")
            self.factor = factor

    def solve(self, right: Tensor) -> Tensor:
        """[K, L, m] -> [K, L, m]."""
        x = self._refined(right)
        return self._refined(right + self.shift * x) if self.shift else x

    def _refined(self, right: Tensor) -> Tensor:
        x = self._substitute(right)
        return x + self._substitute(right - self._times(x))

    def _substitute(self, right: Tensor) -> Tensor:
        # like torch.cholesky_solve, which copies the factor each time
        rows = right.transpose(0, 1).flatten(0, 1)
        half = torch.linalg.solve_triangular(self.factor.mT, rows, upper=False)
        rows = torch.linalg.solve_triangular(self.factor, half, upper=True)
        return rows.unflatten(0, (right.shape[1], -1)).transpose(0, 1)

    def _times(self, x: Tensor) -> Tensor:
        """The matrix times x [K, L, m], by FFT."""
        taps = self.lags.shape[-1]
        both = torch.cat([self.lags, torch.zeros_like(self.lags[..., :1]), self._before()], dim=-1)
        spectra = torch.fft.rfft(both).permute(2, 0, 1), torch.fft.rfft(x, n=2 * taps, dim=1).transpose(0, 1)
        return torch.fft.irfft((spectra[0] @ spectra[1]).transpose(0, 1), n=2 * taps, dim=1)[:, :taps]

    def _before(self) -> Tensor:
        """The correlations at lags 1 - L .. -1, [K, K, L - 1]."""
        return self.lags.transpose(0, 1)[..., 1:].flip(-1)

    def _largest(self) -> float:
        """The matrix's largest eigenvalue, from below, by power iteration."""
        probe = self._probe()
        for _ in range(10):
            probe = self._times(probe / probe.norm())
        return float(probe.norm())

    def _inverse(self) -> float:
        """The largest eigenvalue of the inverse, from below, by inverse iteration."""
        probe = self._probe()
        for _ in range(2):
            probe = self._substitute(probe / probe.norm())
        return float(probe.norm())

    def _probe(self) -> Tensor:
        shape = len(self.lags), self.lags.shape[-1], 1
        return torch.randn(shape, dtype=self.lags.dtype, generator=torch.Generator().manual_seed(0)).to(self.lags)


def cholesky(lags: Tensor) -> Tensor | None:
    """The Cholesky factor of the matrix with lags[i, j, a - b] at (a, i), (b, j), in n**2 K steps instead of n**3.

    The matrix minus itself, shifted down and right by a block, equals P' P - N' N, where P and N have as many rows as
    the block. Block by block the two are rotated until N's first block is zero: then P is the factor's next block row.

    Args:
        lags: [K, K, L]; at negative lags lags[j, i, -lag].

    Returns:
        [n, n], the upper triangular factor (below the diagonal is anything), whose transpose times itself is the
        matrix; None if the matrix is not positive definite.

    Source: Kailath & Sayed 1995, section 4 (Schur's algorithm); the order of the two products, which keeps it stable,
    after Chandrasekaran & Sayed 1996.
    """
    channels, _, taps = lags.shape
    many = math.gcd(taps, max(1, ROWS // channels))
    size, total = many * channels, taps * channels
    both = torch.cat([lags[..., 1:many].flip(-1), lags.transpose(0, 1)], dim=-1)  # lags of b - a, from 1 - many on
    first = both.unfold(-1, taps, 1).flip(2).permute(2, 0, 3, 1).reshape(size, total)
    factor = lags.new_empty(total, total)
    corner, failed = torch.linalg.cholesky_ex(first[:, :size])
    if failed:
        return None
    positive = factor[:size] = torch.linalg.solve_triangular(corner, first, upper=False)
    negative = positive[:, size:]
    one = torch.eye(size, dtype=lags.dtype, device=lags.device)
    for start in range(size, total, size):
        positive = positive[:, :-size]  # the block shifted right
        turn = torch.linalg.solve_triangular(positive[:, :size], negative[:, :size], upper=True, left=False)
        c, failed = torch.linalg.cholesky_ex(torch.stack([one - turn.mT @ turn, one - turn @ turn.mT]))
        if failed.any():
            return None
        inverse = torch.linalg.solve_triangular(c[0], torch.cat([one, turn.mT], dim=1), upper=False)
        rows = factor[start : start + size, start:]
        torch.mm(inverse[:, :size], positive, out=rows)
        rows.addmm_(inverse[:, size:], negative, alpha=-1)
        back = torch.linalg.solve_triangular(c[1], turn @ c[0], upper=False)
        negative = (c[1].mT @ negative[:, size:]).addmm_(back, rows[:, size:], alpha=-1)
        positive = rows
    return factor
