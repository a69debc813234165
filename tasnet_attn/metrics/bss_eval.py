"""BSSEval: how much of an estimate is its source, other sources, and artefacts, where filters of 512 taps are forgiven.

An estimate is projected on the references delayed by 0 .. 511 samples: on its own source alone, and on all of them.
Energy ratios of what the projections explain are the scores. Version 4 (music campaigns since 2018) finds the filters
once, on the whole signals, and scores windows; `bss_eval_sources` of version 3 (NSDR, SIR, SAR) scores the whole signals
and forgives a filtered source. The numbers are museval's; `Projection` says what is done where it has none.

Sources: Vincent, Gribonval & Fevotte 2006; Stoeter, Liutkus & Ito 2018.

Shapes: S sources, C channels, T samples.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tasnet_attn.metrics.projection import Projection, convolve


def bss_eval(
    references: Tensor, estimates: Tensor, sample_rate: float, window: float | None = 1.0, hop: float | None = 1.0
) -> dict[str, Tensor]:
    """BSSEval v4 (images, global filters): the scores of windows in dB.

    Args:
        references: [S, C, T], any real type; computed in float64, on the device where they are.
        estimates: [S, C, T].
        sample_rate: Hz.
        window: seconds; None, or more than there is: the whole signal. As in museval, samples after the last whole
            window are not scored.
        hop: seconds between windows; None: the window.

    Returns:
        SDR, ISR, SIR and SAR, each [S, windows]. NaN for all sources in a window where one reference or estimate is
        silent (its channels sum to zero throughout), as in museval. Where museval raises, on a reference or estimate
        that is silent from beginning to end, that source alone is NaN. Infinite where nothing is left to divide by.

    Raises:
        ValueError: shapes that differ, no samples, NaN or infinite samples, a window or hop below one sample.
    """
    size = None if window is None else int(window * sample_rate)
    return BSSEval(references).images(estimates, size, size if hop is None else int(hop * sample_rate))


def bss_eval_sources(references: Tensor, estimates: Tensor) -> dict[str, Tensor]:
    """BSSEval v3 `bss_eval_sources`, in the given order: SDR, SIR and SAR of the whole signals, each [S], in dB.

    Arguments and errors as for `bss_eval`; NaN for a source that is silent, or whose estimate is.
    """
    return BSSEval(references).sources(estimates)


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


class BSSEval:
    """Scores for any number of estimates of the same references; what is costly is done once.

    Args:
        references: [S, C, T].
    """

    def __init__(self, references: Tensor) -> None:
        self.references = _checked(references, "references")
        self.heard = ~silent(self.references)
        self.projection = Projection(self.references[self.heard])

    def images(self, estimates: Tensor, window: int | None = None, hop: int | None = None) -> dict[str, Tensor]:
        """Version 4: SDR, ISR, SIR, SAR, each [S, windows]; window and hop in samples, None as in `bss_eval`."""
        estimates, filters, scored = self._prepare(estimates)
        length = estimates.shape[-1]
        size = length if window is None else min(window, length)
        hop = size if hop is None else hop
        if size < 1 or hop < 1:
            raise ValueError(f"window and hop must have at least one sample; got {window} and {hop}")
        scores = estimates.new_full((4, len(estimates), (length - size) // hop + 1), torch.nan)
        for number in range(scores.shape[-1]):
            part = slice(number * hop, number * hop + size)
            references, pieces = self.references[..., part], estimates[..., part]
            if not (silent(references)[self.heard].any() or silent(pieces)[scored].any()):
                e = self._energies(references, pieces, filters)
                ratios = (
                    (e.true, e.distortion),
                    (e.true, e.spatial),
                    (e.target, e.interference),
                    (e.explained, e.artefacts),
                )
                scores[:, scored, number] = torch.stack([_db(*ratio)[scored] for ratio in ratios])
        return dict(zip(("SDR", "ISR", "SIR", "SAR"), scores, strict=True))

    def sources(self, estimates: Tensor) -> dict[str, Tensor]:
        """Version 3, `bss_eval_sources`: SDR, SIR, SAR, each [S]."""
        estimates, filters, scored = self._prepare(estimates)
        e = self._energies(self.references, estimates, filters)
        scores = [_db(e.target, e.rest), _db(e.target, e.interference), _db(e.explained, e.artefacts)]
        return {name: score.where(scored, torch.nan) for name, score in zip(("SDR", "SIR", "SAR"), scores, strict=True)}

    def _prepare(self, estimates: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """The estimates in float64, their filters, and which sources [S] are scored."""
        estimates = _checked(estimates, "estimates").to(self.references.device)
        if estimates.shape != self.references.shape:
            raise ValueError(
                f"estimates are {list(estimates.shape)}, references {list(self.references.shape)}: sources, channels and "
                "samples must agree"
            )
        return estimates, self.projection.filters(estimates[self.heard]), self.heard & ~silent(estimates)

    def _energies(self, references: Tensor, estimates: Tensor, filters: tuple[Tensor, ...]) -> Energies:
        """The energies in a window of the signals, [S, C, t] each; the projections ring on for 511 samples after it."""
        heard, length = self.heard, references.shape[-1]
        count = int(heard.sum())
        signals = references.flatten(0, 1)[self.projection.live]
        sums = [references.new_zeros(len(references)) for _ in Energies._fields]
        s, e = references[heard], estimates[heard]
        sums[0][heard], sums[1][heard] = _energy(s), _energy(e - s)
        # a single source: both projections are one, and the interference is exactly zero
        stacked = torch.cat(filters if count > 1 else filters[:1]).flatten(0, 1)
        for start, pieces in convolve(signals, stacked):
            b, a = pieces.unflatten(0, (-1, count, references.shape[1]))[[0, -1]]
            if start == length:  # after the window there is only the projections' tail
                parts = a, a, a, b - a, b, b
            else:
                now = slice(start, start + pieces.shape[-1])
                parts = a - s[..., now], a, e[..., now] - a, b - a, b, e[..., now] - b
            for total, part in zip(sums[2:], parts, strict=True):
                total[heard] += _energy(part)
        return Energies(*sums)


def silent(signals: Tensor) -> Tensor:
    """Which signals are silent by museval's rule, the channels sum to zero throughout: [..., C, T] -> [...]."""
    return (signals.sum(-2) == 0).all(-1)


def _energy(signals: Tensor) -> Tensor:
    return signals.square().sum((-2, -1))


def _db(part: Tensor, other: Tensor) -> Tensor:
    """The ratio in dB; infinite if nothing is in the denominator, as in museval."""
    return torch.where(other == 0, torch.inf, 10 * torch.log10(part / other))


def _checked(signals: Tensor, name: str) -> Tensor:
    if signals.dim() != 3 or 0 in signals.shape:
        raise ValueError(f"{name} must be [sources, channels, samples], none of them zero; got {list(signals.shape)}")
    if not signals.isfinite().all():
        raise ValueError(f"{name} hold NaN or infinite samples")
    return signals.to(torch.float64)
