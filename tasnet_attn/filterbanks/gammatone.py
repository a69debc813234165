"""The multi-phase gammatone filterbank."""

from __future__ import annotations

import math

import torch
from asteroid_filterbanks import Encoder as Analysis
from asteroid_filterbanks import Filterbank
from torch import Tensor

from tasnet_attn.filterbanks.learned import FrameEncoder


def erb_number(frequency: float) -> float:
    """E(f) = 9.265 ln(1 + f / (24.7 * 9.265)), the ERB-number scale; f in Hz."""
    return 9.265 * math.log1p(frequency / (24.7 * 9.265))


def erb_frequency(number: float) -> float:
    """The frequency in Hz of an ERB number: the inverse of `erb_number`."""
    return 24.7 * 9.265 * math.expm1(number / 9.265)


class GammatoneBank(Filterbank):
    """The multi-phase gammatone filters: g(t) = t^(p-1) exp(-2 pi b t) cos(2 pi f t + phi), order p = 2.

    Rows are ordered by centre: P phases phi_j = j pi / P, then the exact negatives of those P filters.

    Raises:
        ValueError: odd `n_filters`, fewer than two filters per centre, or centres above Nyquist.
    """

    def __init__(
        self,
        n_filters: int,
        kernel_size: int,
        sample_rate: int,
        stride: int | None = None,
        n_centres: int | None = None,
        f_min: float = 100.0,
        erb_step: float = 1.0,
    ) -> None:
        super().__init__(n_filters, kernel_size, stride=stride, sample_rate=sample_rate)
        if n_filters % 2:
            raise ValueError(f"n_filters must be even, because every filter has its negative; got {n_filters}")
        if not 0 < f_min < sample_rate / 2:
            raise ValueError(f"f_min {f_min} Hz must lie between 0 and Nyquist, {sample_rate / 2} Hz")
        room = 1 + math.floor((erb_number(sample_rate / 2) - erb_number(f_min)) / erb_step)
        n_centres = room if n_centres is None else n_centres
        if n_centres > room:
            raise ValueError(f"only {room} centres fit below {sample_rate / 2} Hz; {n_centres} were requested")
        if n_filters < 2 * n_centres:
            raise ValueError(f"{n_centres} centres need at least {2 * n_centres} filters; got {n_filters}")
        self.centres = [erb_frequency(erb_number(f_min) + k * erb_step) for k in range(n_centres)]
        self.register_buffer("_filters", self._generate(), persistent=False)

    def _generate(self) -> Tensor:
        times = torch.arange(1, self.kernel_size + 1, dtype=torch.float64) / self.sample_rate
        pairs, extra = divmod(self.n_filters // 2, len(self.centres))
        rows = []
        for k, centre in enumerate(self.centres):
            n_phases = pairs + (k < extra)  # the lowest centres get the remaining filters
            bandwidth = (24.7 + 0.108 * centre) / (math.pi / 2)  # b = ERB / (pi/2) for order 2
            envelope = times * torch.exp(-2 * math.pi * bandwidth * times)
            phases = torch.arange(n_phases, dtype=torch.float64)[:, None] * math.pi / n_phases
            filters = envelope * torch.cos(2 * math.pi * centre * times + phases)
            rows += [filters, -filters]
        bank = torch.cat(rows)
        rms = bank.square().mean(dim=1, keepdim=True).sqrt()
        return (bank * rms.max() / rms).float().unsqueeze(1)

    def filters(self) -> Tensor:
        """The bank, [n_filters, 1, kernel_size]."""
        return self._filters


class GammatoneEncoder(FrameEncoder):
    """Multi-phase gammatone encoder, relu(filterbank * x), without trainable parameters.

    The separator sees the code of L2-normalised segments over filters of unit energy, so that the levels of the input
    and of the published filters (about 1e-3) do not matter; the paper leaves this open.

    Args:
        n_filters: F, even, at least 2 * n_centres.
        kernel_size: samples in a filter.
        sample_rate: Hz.
        stride: samples between frames; None: the kernel size.
        n_centres: centre frequencies; None: as many as fit below Nyquist; 24: the published bank.
        f_min: the lowest centre, Hz.
        erb_step: distance of the centres on the ERB-number scale.

    Source: Ditter & Gerkmann 2020.
    """

    def __init__(
        self,
        n_filters: int,
        kernel_size: int,
        sample_rate: int,
        stride: int | None = None,
        n_centres: int | None = None,
        f_min: float = 100.0,
        erb_step: float = 1.0,
    ) -> None:
        super().__init__(n_filters, kernel_size, stride)
        bank = GammatoneBank(n_filters, kernel_size, sample_rate, self.stride, n_centres, f_min, erb_step)
        self.analysis = Analysis(bank)
        energy = bank.filters()[0].square().sum().sqrt()  # the same for every filter
        self.energy: Tensor
        self.register_buffer("energy", energy, persistent=False)

    def filters(self) -> Tensor:
        """The bank, [n_filters, 1, kernel_size]."""
        return self.analysis.filters()

    def code(self, padded: Tensor, scale: Tensor) -> Tensor:
        return torch.relu(self.analysis(padded)) / (scale * self.energy)
