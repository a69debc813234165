"""Losses: ``loss(separation, references, model) -> scalar``, in the waveform or in the representation domain.

Every loss computes a matrix of costs, estimate i against reference j, averages it over the channels C, and then
matches: named sources keep their order, interchangeable ones (speakers) get the cheapest permutation. The loss of a
batch is the mean of its items' losses, so it does not depend on the distribution over processes or on accumulation.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from tasnet_attn.config import Configurable
from tasnet_attn.errors import UserError
from tasnet_attn.heads import Magnitude, Mask
from tasnet_attn.metrics.matching import best_permutation
from tasnet_attn.metrics.si_snr import si_snr
from tasnet_attn.model import Separation, SourceSeparator

MOST_OUTPUTS, MOST_WAYS = 8, 1 << 16  # of MixIT
QUIET = 1e-15  # silence up to here: some programs add noise of 1e-18 to silent tracks; float32 cannot divide its energy


class Loss(Configurable):
    """A training objective; lower is better. `scale_free`: it does not depend on the level of the estimates."""

    abstract = True
    scale_free = False

    def __call__(self, separation: Separation, references: Tensor, model: SourceSeparator) -> Tensor:
        """The scalar for a batch; references [B, S, C, T]."""
        raise NotImplementedError

    def check(self, model: SourceSeparator, data_sources: list[str]) -> None:
        """Check that it can train a model on a data set with references of these names.

        Raises:
            UserError: it cannot.
        """
        if len(data_sources) != len(model.sources):
            raise UserError(
                f"task.loss: {type(self).__name__} needs a reference for each of the model's {len(model.sources)} "
                f"sources; the data have {', '.join(data_sources)}: set task.loss to MixIT"
            )

    def matched(self, estimates: Tensor, references: Tensor, model: SourceSeparator) -> Tensor:
        """The estimates [B, S, C, T] in the order of the references [B, S, C, T]."""
        if not model.interchangeable:
            return estimates
        pairs = si_snr(references.unsqueeze(2), estimates.unsqueeze(1)).mean(-1)  # [B, reference, estimate]
        orders = [best_permutation(item) for item in pairs.nan_to_num()]
        return torch.stack([item[order] for item, order in zip(estimates, orders, strict=True)])


def widened(x: Tensor) -> Tensor:
    """In float32 (float64 unchanged): decibels need more than bfloat16's 8 bits of mantissa."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def heard(references: Tensor) -> Tensor:
    """Whether signals [..., T] are not silent; a constant is."""
    return references.amax(-1) - references.amin(-1) > QUIET


def match(costs: Tensor, interchangeable: bool, counts: Tensor | None = None) -> Tensor:
    """The mean over the batch of each item's mean cost of matched pairs.

    Args:
        costs: [B, S, S], estimate i (row) against reference j (column).
        interchangeable: use each item's cheapest permutation.
        counts: [B, S], weights of the references; None: all equal. A reference with weight 0 costs nothing.

    Returns:
        A scalar; an item whose references all have weight 0 adds 0.
    """
    weights = costs.new_ones(costs.shape[::2]) if counts is None else counts.to(costs)
    costs = costs * weights[:, None, :]
    if interchangeable:
        gains = -costs.detach().transpose(1, 2).nan_to_num()  # [B, reference, estimate]; NaN stays NaN
        orders = torch.tensor([best_permutation(item) for item in gains], device=costs.device)
        matched = costs.gather(1, orders.unsqueeze(1)).sum(dim=(1, 2))
    else:
        matched = costs.diagonal(dim1=1, dim2=2).sum(-1)
    return (matched / weights.sum(-1).clamp_min(torch.finfo(costs.dtype).tiny)).mean()


class SISNR(Loss):
    """Negative SI-SNR, the mean over sources, in dB; without silent references.

    Args:
        cap: dB that no source's ratio exceeds, see `si_snr`; None: no cap.
    """

    scale_free = True
    least = {"cap": -math.inf}

    def __init__(self, cap: float | None = None) -> None:
        self.cap = cap

    def check(self, model: SourceSeparator, data_sources: list[str]) -> None:
        super().check(model, data_sources)
        _check_gradient(model)

    def __call__(self, separation: Separation, references: Tensor, model: SourceSeparator) -> Tensor:
        estimates, references = widened(separation.estimates), widened(references)
        if model.interchangeable:
            costs = -self.ratio(references.unsqueeze(1), estimates.unsqueeze(2))  # [B, S, S, C]
        else:
            paired = -self.ratio(references, estimates)  # [B, S, C]
            costs = torch.diag_embed(paired.transpose(1, 2)).permute(0, 2, 3, 1)
        audible = heard(references).to(costs)  # [B, S, C]
        counts = audible.sum(-1)
        costs = (costs * audible.unsqueeze(1)).sum(-1) / counts.clamp_min(1).unsqueeze(1)
        return match(costs, model.interchangeable, counts)

    def ratio(self, references: Tensor, estimates: Tensor) -> Tensor:
        """What is to become large, dB; the last axis, time, is gone."""
        return si_snr(references, estimates, self.cap)


class SNR(SISNR):
    """Negative SNR: like SI-SNR, but the estimates learn the references' level, too.

    Args:
        cap: dB that no source's ratio exceeds, the soft threshold of Wisdom et al. 2020, arXiv 2006.12701, equation 2.
    """

    scale_free = False
    cap: float

    def __init__(self, cap: float = 30.0) -> None:
        super().__init__(cap)

    def ratio(self, references: Tensor, estimates: Tensor) -> Tensor:
        return -snr_cost(references.square().sum(-1), (references - estimates).square().sum(-1), self.cap)


def _check_gradient(model: SourceSeparator) -> None:
    """Check that a loss of waveforms reaches the separator."""
    if isinstance(model.head, Magnitude) and model.head.kind == "binary":
        raise UserError(
            "model.head.mask: binary masks have no gradient for a loss of waveforms; set task.loss to Spectral, or "
            "train with wiener and evaluate --mask binary"
        )


class Spectral(Loss):
    """Distance between predicted and true features, every stage matched separately, summed over the stages.

    The references are encoded with the mixture's scale, so that both sides have the same units. With a head that makes
    masks (`Mask`), the features must be magnitudes themselves: the mask that divides |X|**power among the sources is
    not the one that divides X. The decoder must have nothing to learn.

    Args:
        distance: "l1", mean absolute, or "l2", mean squared.
    """

    def __init__(self, distance: Literal["l1", "l2"] = "l1") -> None:
        if distance not in ("l1", "l2"):
            raise ValueError(f"distance {distance!r} is neither 'l1' nor 'l2'")
        self.distance = distance

    def check(self, model: SourceSeparator, data_sources: list[str]) -> None:
        super().check(model, data_sources)
        if any(parameter.requires_grad for parameter in model.decoder.parameters()):
            raise UserError(
                f"task.loss: Spectral compares features and does not train the decoder {type(model.decoder).__name__}: "
                "use STFTEncoder and STFTDecoder, or set task.loss to SISNR or SNR"
            )
        power = getattr(model.encoder, "power", 1.0)
        if isinstance(model.head, Mask) and power != 1:
            raise UserError(
                f"task.loss: Spectral compares masked features, and a mask for |X|**{power:g} does not fit X: set "
                "model.encoder.power to 1, or model.head to Magnitude with the encoder's power"
            )

    def stages(self, separation: Separation, references: Tensor, model: SourceSeparator) -> list[Tensor]:
        """The loss of each stage."""
        batch, sources, channels, _ = references.shape
        folded = references.transpose(1, 2).flatten(0, 1)  # [N, S, T]
        scale = separation.encoded.scale.repeat_interleave(sources, dim=0)
        truth = model.encoder(folded.flatten(0, 1), scale).features.unflatten(0, (-1, sources))
        losses = []
        for prediction in separation.predictions:
            if model.interchangeable:
                costs = self._distance(prediction.unsqueeze(2) - truth.unsqueeze(1))  # [N, S, S, F, L] -> [N, S, S]
            else:
                costs = torch.diag_embed(self._distance(prediction - truth))
            losses.append(match(costs.unflatten(0, (batch, channels)).mean(1), model.interchangeable))
        return losses

    def _distance(self, error: Tensor) -> Tensor:
        return (error.abs() if self.distance == "l1" else error.square()).mean(dim=(-2, -1))

    def __call__(self, separation: Separation, references: Tensor, model: SourceSeparator) -> Tensor:
        return torch.stack(self.stages(separation, references, model)).sum()


class MixIT(Loss):
    """Mixture invariant training: learns from mixtures of mixtures, without known sources.

    The input is the sum of the references, which are mixtures. Each of the model's outputs is assigned to one of them
    so that the loss is smallest; unused outputs learn to be silent. The loss is the negative SNR in dB, the mean over
    the references that are not silent.

    Args:
        cap: maximum SNR of a reference in dB: the paper's soft threshold.

    Source: Wisdom et al. 2020, arXiv 2006.12701, equations 2 and 3. The paper also projects the outputs so that they
    sum to the input; here that is left to the head.
    """

    least = {"cap": -math.inf}

    def __init__(self, cap: float = 30.0) -> None:
        self.cap = cap

    def check(self, model: SourceSeparator, data_sources: list[str]) -> None:
        _check_gradient(model)
        count = len(model.sources)
        if count % 2 or count > MOST_OUTPUTS:
            raise UserError(
                f"model.sources: MixIT distributes {count} over two mixtures; name an even number, twice as many as a "
                f"recording has sources, {MOST_OUTPUTS} at most"
            )

    def matched(self, estimates: Tensor, references: Tensor, model: SourceSeparator) -> Tensor:
        return remixed(estimates, references, self.cap, empty=False)

    def __call__(self, separation: Separation, references: Tensor, model: SourceSeparator) -> Tensor:
        references = widened(references)
        estimates = remixed(widened(separation.estimates), references, self.cap)
        return negative_snr(references.square().sum(-1), (references - estimates).square().sum(-1), self.cap).mean()


def negative_snr(signal: Tensor, noise: Tensor, cap: float) -> Tensor:
    """The mean over references and channels of `snr_cost`.

    Args:
        signal: energies [..., R, C].
        noise: likewise.
        cap: dB.
    """
    audible = signal > QUIET**2
    return snr_cost(signal, noise, cap).sum((-2, -1)) / audible.sum((-2, -1)).clamp_min(1)


def snr_cost(signal: Tensor, noise: Tensor, cap: float) -> Tensor:
    """10 log10(noise / signal + 10 ** (-cap / 10)) of energies, dB; 0 without a signal."""
    audible = signal > QUIET**2
    ratio = torch.where(audible, noise / torch.where(audible, signal, 1), 1) + 10 ** (-cap / 10)
    return 10 * torch.log10(ratio) * audible


def remixed(estimates: Tensor, references: Tensor, cap: float = 30.0, empty: bool = True) -> Tensor:
    """Each estimate added to one reference, with the assignment of smallest loss among all R ** M.

    Args:
        estimates: [B, M, C, T].
        references: [B, R, C, T].
        cap: of the loss, see `MixIT`.
        empty: a reference may get no estimate, as in the paper; scores need at least one.

    Returns:
        [B, R, C, T].

    Raises:
        UserError: too many assignments to try.

    Source: Wisdom et al. 2020, equation 3. The energies of all errors follow from scalar products of the signals, so
    only the best remix is computed.
    """
    outputs, mixtures = estimates.shape[1], references.shape[1]
    if mixtures**outputs > MOST_WAYS:
        raise UserError(f"{outputs} outputs in {mixtures} references: {mixtures**outputs} ways to try are too many")
    least = 1 if empty else min(outputs, mixtures)
    dealt = [each for each in product(range(mixtures), repeat=outputs) if len(set(each)) >= least]
    ways = torch.tensor(dealt, device=estimates.device)
    ways = torch.nn.functional.one_hot(ways, mixtures).mT.to(references)  # [K, R, M]
    with torch.no_grad():
        given = estimates.to(references)
        among, across = (
            torch.einsum("bmct,bnct->bcmn", given, given),
            torch.einsum("brct,bmct->brcm", references, given),
        )
        signal = references.square().sum(-1)
        own = torch.einsum("krm,bcmn,krn->bkrc", ways, among, ways)
        noise = signal.unsqueeze(1) - 2 * torch.einsum("krm,brcm->bkrc", ways, across) + own
        best = negative_snr(signal.unsqueeze(1), noise.clamp_min(0), cap).argmin(1)
    return torch.einsum("brm,bmct->brct", ways[best].to(estimates), estimates)
