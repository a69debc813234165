"""SI-SNR, the scale-invariant signal-to-noise ratio."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tasnet_attn.metrics.signals import Signals

FLOOR = 1e-8  # of the estimate's energy: ratios stay within +-80 dB at any level
TINY = 1e-30


def si_snr(references: Tensor, estimates: Tensor, cap: float | None = None, floor: float = FLOOR) -> Tensor:
    """Zero-mean scale-invariant signal-to-noise ratio in dB; finite, with finite gradients, also on silence.

    A silent reference or estimate gives the constant floor, about -80 dB, without gradient (0 dB if both are silent):
    mask silent references in a loss, as `tasnet_attn.losses` does, and report them separately in an evaluation.

    Args:
        references: [..., T].
        estimates: [..., T]; leading dimensions broadcast against the references'.
        cap: dB that the ratio approaches but never exceeds, so that a nearly solved source does not dominate the
            gradient. None: no cap.
        floor: part of the estimate's energy that is added to both sides of the ratio. 0 gives the exact ratio, for
            evaluation: infinite for a perfect estimate, NaN if reference or estimate is silent.

    Returns:
        [...], dB.

    Source: Luo & Mesgarani 2018, equations 7-9; the cap as in Wisdom et al. 2020 (MixIT), section 3.1.

    Examples:
        >>> tone = torch.sin(torch.arange(8000.0))
        >>> noise = torch.cos(torch.arange(8000.0))
        >>> round(si_snr(tone, 5 * tone + 0.5 * noise).item())
        20
    """
    tiny = TINY if floor else 0.0
    estimate = estimates - estimates.mean(dim=-1, keepdim=True)
    reference = references - references.mean(dim=-1, keepdim=True)
    scale = (estimate * reference).sum(-1, keepdim=True) / (reference.square().sum(-1, keepdim=True) + tiny)
    target = scale * reference
    signal, noise = target.square().sum(-1), (estimate - target).square().sum(-1)
    if cap is not None:
        noise = noise + 10 ** (-cap / 10) * signal
    added = floor * estimate.square().sum(-1).detach() + tiny
    return 10 * torch.log10((signal + added) / (noise + added))


def si_snr_by_pieces(references: Signals, estimates: Signals, floor: float = FLOOR) -> Tensor:
    """`si_snr` of signals that do not fit into memory, in float64: three passes, for means, scales and ratios.

    Args:
        references: [..., T].
        estimates: [..., T]; leading dimensions broadcast against the references'.
        floor: see `si_snr`.
    """
    tiny, count = TINY if floor else 0.0, references.length
    # sums in place: small tensors kept between freed large ones would make the heap grow with the length
    means = [torch.zeros(x.shape[:-1], dtype=torch.float64, device=x.device) for x in (references, estimates)]
    for x, mean in zip((references, estimates), means, strict=True):
        for piece in x.pieces():
            mean += piece.double().sum(-1) / count

    def centred() -> Iterator[tuple[Tensor, Tensor]]:
        for pair in zip(references.pieces(), estimates.pieces(), strict=True):
            reference, estimate = (x.double() - mean.unsqueeze(-1) for x, mean in zip(pair, means, strict=True))
            yield reference, estimate

    shape = torch.broadcast_shapes(*(mean.shape for mean in means))
    dot, power, energy, signal, noise = means[0].new_zeros(5, *shape)
    for reference, estimate in centred():
        dot += (estimate * reference).sum(-1)
        power += reference.square().sum(-1)
        energy += estimate.square().sum(-1)
    scale = (dot / (power + tiny)).unsqueeze(-1)
    for reference, estimate in centred():
        target = scale * reference
        signal += target.square().sum(-1)
        noise += (estimate - target).square().sum(-1)
    added = floor * energy + tiny
    return 10 * torch.log10((signal + added) / (noise + added))
