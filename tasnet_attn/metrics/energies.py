"""Energies of an estimate's parts in a window: from correlations or, where these lose digits, from the signals.

Shapes: S sources, C channels, T samples, K = S * C reference channels, L = 512 taps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tasnet_attn.metrics.projection import convolve
from tasnet_attn.metrics.signals import Signals

DIGITS = 1e-10  # largest accepted relative error of an energy: 4e-10 dB
ROUNDING = 4 * torch.finfo(torch.float64).eps  # of correlations and of filters' products, relative to their largest


class Energies(NamedTuple):
    """Energies [S] of the parts of estimates e of references s; a: projected on its own source, b: on all of them."""

    true: Tensor  # s
    distortion: Tensor  # e - s
    spatial: Tensor  # a - s
    target: Tensor  # a
    rest: Tensor  # e - a
    interference: Tensor  # b - a
    explained: Tensor  # b
    artefacts: Tensor  # e - b


class Filters:
    """The filters' part of every window's energies, computed once.

    The energy of a sum of filtered references is a quadratic form of the filters and, equivalently, a linear form of
    the references' correlations: the sum over channels i, j and lags of r[i, j] times the filters' own correlation at
    that lag.

    Args:
        together: [S, C, K, L], see `Projection.filters`.
        alone: [S, C, K, L].
    """

    def __init__(self, together: Tensor, alone: Tensor) -> None:
        sources, channels, count, taps = together.shape
        self.together, self.alone = together, alone
        own = torch.eye(count, dtype=together.dtype, device=together.device).view(sources, channels, count)
        spatial = alone.clone()
        spatial[..., 0] -= own
        parts = torch.stack([spatial, alone, together - alone, together])  # [4, S, C, K, L]
        spectra = torch.fft.rfft(parts, n=2 * taps).permute(0, 1, 4, 3, 2)  # [4, S, F, K, C]
        products = torch.fft.irfft((spectra @ spectra.mH).movedim(2, -1), n=2 * taps)[..., :taps]
        norms = parts.square().sum(-1)  # [4, S, C, K]
        self.sizes = products.square().sum(-1).sqrt().flatten(0, 1).flatten(1)  # [4 * S, K * K]
        self.gains = torch.einsum("pscik,pscjk->psij", *[norms.sqrt().unsqueeze(-1)] * 2).flatten(0, 1).flatten(1)
        products[..., 1:] *= 2  # also lags of j against i, which are those of i against j reversed
        self.products = products.flatten(0, 1).flatten(1)  # [4 * S, K * K * L]

    def energies(self, lags: Tensor, direct: Tensor) -> tuple[Energies, Energies]:
        """The energies in a window, and bounds of their errors.

        Args:
            lags: [K, K + S * C, L], correlations of the references in the window with themselves and with the
                estimates.
            direct: [3, S], the energies of s, e - s and e in the window.
        """
        true, distortion, energy = direct
        own, cross = lags[:, : len(lags)], lags[:, len(lags) :]
        found = (self.products @ own.flatten()).view(4, -1)
        levels = own[..., 0].diagonal().sqrt()
        lost = self.sizes @ torch.outer(levels, levels).flatten() + self.gains @ own.square().sum(-1).sqrt().flatten()
        lost = ROUNDING * lost.view(4, -1)
        spatial, target, interference, explained = found
        # <e, a> and <e, b>, of the channels of a source together
        across = cross.transpose(0, 1).unflatten(0, (len(true), -1))  # [S, C, K, L]
        with_a, with_b = ((h * across).sum((1, 2, 3)) for h in (self.alone, self.together))
        rest, artefacts = energy - 2 * with_a + target, energy - 2 * with_b + explained
        none, whole = torch.zeros_like(true), ROUNDING * energy
        return (
            Energies(true, distortion, spatial, target, rest, interference, explained, artefacts),
            Energies(none, none, lost[0], lost[1], lost[1] + whole, lost[2], lost[3], lost[3] + whole),
        )


def resynthesised(s: Signals, e: Signals, together: Tensor, alone: Tensor) -> Energies:
    """The energies in a window of references and estimates; projections ring on for 511 samples after it."""
    sums = [together.new_zeros(s.shape[0]) for _ in Energies._fields]
    filters = torch.stack([together, alone]).flatten(0, 2)
    for start, pieces in convolve(s.map(lambda piece: piece.flatten(0, 1)), filters):
        b, a = pieces.unflatten(0, (2, *s.shape[:2]))
        if start == s.length:  # only the projections' tail remains
            parts = {2: a, 3: a, 4: a, 5: b - a, 6: b, 7: b}
        else:
            x, y = (signal.read(start, start + pieces.shape[-1]).double() for signal in (s, e))
            parts = dict(enumerate((x, y - x, a - x, a, y - a, b - a, b, y - b)))
        for index, part in parts.items():
            sums[index] += energy(part)
    return Energies(*sums)


def direct(s: Signals, e: Signals) -> Tensor:
    """The energies of s, e - s and e, [3, S]."""
    sums = torch.zeros(3, s.shape[0], dtype=torch.float64, device=s.device)
    for x, y in zip(s.pieces(), e.pieces(), strict=True):
        x, y = x.double(), y.double()
        sums += torch.stack([energy(part) for part in (x, y - x, y)])
    return sums


def energy(signals: Tensor) -> Tensor:
    """[S, C, T] -> [S]."""
    return torch.linalg.vector_norm(signals, dim=(-2, -1)).square()  # in one pass
