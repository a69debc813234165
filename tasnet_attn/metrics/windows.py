"""Correlations of references and estimates in windows and over all samples, in one pass if the windows cover them.

Shapes: S sources, C channels, T samples, K = S * C, L = 512 taps.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from tasnet_attn.metrics.projection import TAPS, correlate
from tasnet_attn.metrics.signals import Signals

KEPT = 1 << 27  # bytes of windows' correlations to keep; further ones are computed twice


class Windows:
    """Windows of `size` samples, `hop` apart, as far as they are complete.

    Args:
        references: [S, C, T].
        estimates: [S, C, T].
        size: samples, at most T.
        hop: samples.

    Attributes:
        total: [K, 2 * K, L], correlations of the references with themselves and with the estimates, over all samples.
    """

    def __init__(self, references: Signals, estimates: Signals, size: int, hop: int) -> None:
        self._signals = references, estimates
        self._ends = [(start, start + size) for start in range(0, references.length - size + 1, hop)]
        self._kept: list[Tensor] = []
        if size != hop:
            self.total = _lags(*self._signals)
            return
        self.total = torch.zeros((), dtype=torch.float64, device=references.device)
        for start in range(0, references.length, size):
            lags = _lags(*self._cut(start, min(start + size, references.length)))
            self.total = self.total + lags + (self._seam(start) if start else 0)
            if start + size <= references.length and (len(self._kept) + 1) * lags.nbytes <= KEPT:
                self._kept.append(lags.contiguous())  # a copy: the view holds all 4096 lags of its FFT

    def __iter__(self) -> Iterator[tuple[Signals, Signals, Tensor]]:
        """References and estimates in each window, and their correlations as in `total`."""
        for number, ends in enumerate(self._ends):
            signals = self._cut(*ends)
            yield *signals, self._kept[number] if number < len(self._kept) else _lags(*signals)

    def _cut(self, start: int, stop: int) -> tuple[Signals, Signals]:
        references, estimates = (signals.cut(start, stop) for signals in self._signals)
        return references, estimates

    def _seam(self, place: int) -> Tensor:
        """The products of samples on both sides of a window's border, which the windows lack."""
        before = self._signals[0].read(max(0, place - TAPS + 1), place).double().flatten(0, 1)
        after = torch.cat([signals.read(place, place + TAPS - 1).double() for signals in self._signals]).flatten(0, 1)
        first = torch.fft.rfft(before, n=2 * TAPS)
        second = torch.fft.rfft(pad(after, (before.shape[-1], 0)), n=2 * TAPS)
        return torch.fft.irfft(first.conj()[:, None] * second, n=2 * TAPS)[..., :TAPS]


def _lags(references: Signals, estimates: Signals) -> Tensor:
    def every(start: int, stop: int) -> Tensor:
        return torch.cat([signals.read(start, stop).double() for signals in (references, estimates)]).flatten(0, 1)

    sources, channels, length = references.shape
    return correlate(Signals(every, length), sources * channels)
