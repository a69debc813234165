"""BSSEval: splits an estimate into its source, other sources and artefacts, allowing filters of 512 taps.

An estimate is projected on the references delayed by 0 .. 511 samples: on its own source only, and on all of them. The
scores are energy ratios of the projections. Version 4 (music campaigns since 2018) computes the filters once, on the
whole signals, and scores windows; `bss_eval_sources` of version 3 (NSDR, SIR, SAR) scores whole signals and allows a
filtered source. The numbers equal museval's; `Projection` describes the cases where museval's are not unique.

Sources: Vincent, Gribonval & Fevotte 2006; Stoeter, Liutkus & Ito 2018.

Shapes: S sources, C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tasnet_attn.metrics.energies import DIGITS, Filters, direct, resynthesised
from tasnet_attn.metrics.projection import Projection
from tasnet_attn.metrics.signals import Signals
from tasnet_attn.metrics.windows import Windows


def bss_eval(
    references: Tensor, estimates: Tensor, sample_rate: float, window: float | None = 1.0, hop: float | None = 1.0
) -> dict[str, Tensor]:
    """BSSEval v4 (images, global filters): the scores of windows in dB.

    Args:
        references: [S, C, T], any real type; computed in float64, on their device.
        estimates: [S, C, T].
        sample_rate: Hz.
        window: seconds; None, or longer than the signal: the whole signal. As in museval, samples after the last whole
            window are not scored.
        hop: seconds between windows; None: the window.

    Returns:
        SDR, ISR, SIR and SAR, each [S, windows], float64, on the CPU. NaN for all sources in a window where one
        reference or estimate is silent (its channels sum to zero throughout), as in museval. If a reference or estimate
        is silent from beginning to end, where museval raises, only that source is NaN. Infinite if the denominator is
        zero.

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


IMAGES = ("true", "distortion"), ("true", "spatial"), ("target", "interference"), ("explained", "artefacts")
SOURCES = ("target", "rest"), ("target", "interference"), ("explained", "artefacts")


class BSSEval:
    """Scores for any number of estimates of the same references; shared computations are done once.

    Args:
        references: [S, C, T].
    """

    def __init__(self, references: Tensor | Signals) -> None:
        references = _checked(references, "references")
        self.shape, self.heard = references.shape, ~silent(references)
        self.references = self._heard(references)
        self.projection: Projection | None = None  # made for the first estimates; None if all sources are silent

    def images(
        self, estimates: Tensor | Signals, window: int | None = None, hop: int | None = None
    ) -> dict[str, Tensor]:
        """Version 4: SDR, ISR, SIR, SAR, each [S, windows]; window and hop in samples, None as in `bss_eval`."""
        signals, scored = self._prepare(estimates)
        length = signals.length
        size = length if window is None else min(window, length)
        hop = size if hop is None else hop
        if size < 1 or hop < 1:
            raise ValueError(f"window and hop must have at least one sample; got {window} and {hop}")
        scores = torch.full((4, signals.shape[0], (length - size) // hop + 1), torch.nan).double()
        if signals.shape[0]:
            windows = Windows(self.references, signals, size, hop)
            filters = self._filters(windows.total)
            for number, (references, pieces, lags) in enumerate(windows):
                if not (silent(references).any() or silent(pieces)[scored].any()):
                    scores[..., number] = _ratios(IMAGES, references, pieces, lags, filters)
        return self._named(("SDR", "ISR", "SIR", "SAR"), scores, scored)

    def sources(self, estimates: Tensor | Signals) -> dict[str, Tensor]:
        """Version 3, `bss_eval_sources`: SDR, SIR, SAR, each [S]."""
        signals, scored = self._prepare(estimates)
        scores = torch.full((3, signals.shape[0]), torch.nan, dtype=torch.float64)
        if signals.shape[0]:
            lags = Windows(self.references, signals, signals.length, signals.length).total
            scores = _ratios(SOURCES, self.references, signals, lags, self._filters(lags))
        return self._named(("SDR", "SIR", "SAR"), scores, scored)

    def _filters(self, lags: Tensor) -> Filters:
        """The filters for estimates, from their correlations over the whole signals."""
        own, cross = lags[:, : len(lags)], lags[:, len(lags) :]
        if self.projection is None:
            self.projection = Projection(own, self.references.shape[0])
        together, alone = self.projection.filters(cross)
        # a single source: both projections are equal, and the interference is exactly zero
        return Filters(together if self.references.shape[0] > 1 else alone, alone)

    def _prepare(self, estimates: Tensor | Signals) -> tuple[Signals, Tensor]:
        """The estimates of the sources that are not silent, and which of these estimates are not silent."""
        estimates = _checked(estimates, "estimates").map(lambda piece: piece.to(self.references.device))
        if estimates.shape != self.shape:
            shapes = f"estimates are {list(estimates.shape)}, references {list(self.shape)}"
            raise ValueError(f"{shapes}: sources, channels and samples must agree")
        estimates = self._heard(estimates)
        return estimates, ~silent(estimates)

    def _heard(self, signals: Signals) -> Signals:
        return signals if self.heard.all() else signals.map(lambda piece: piece[self.heard])

    def _named(self, names: tuple[str, ...], scores: Tensor, scored: Tensor) -> dict[str, Tensor]:
        """Scores [metrics, sources that are not silent, ...] by name, for all sources; NaN for those without one."""
        every = torch.full((len(names), self.shape[0], *scores.shape[2:]), torch.nan, dtype=torch.float64)
        scores[:, ~scored] = torch.nan
        every[:, self.heard.cpu()] = scores.cpu()
        return dict(zip(names, every, strict=True))


def _ratios(which: Sequence[tuple[str, str]], s: Signals, e: Signals, lags: Tensor, filters: Filters) -> Tensor:
    """Ratios of energies in a window, [ratios, S], dB; from the signals if an energy would be too inaccurate."""
    found, lost = filters.energies(lags, direct(s, e))
    if not all((getattr(lost, n) <= DIGITS * getattr(found, n)).all() for ratio in which for n in ratio):
        found = resynthesised(s, e, filters.together, filters.alone)
    return torch.stack([_db(getattr(found, over), getattr(found, under)) for over, under in which])


def silent(signals: Tensor | Signals) -> Tensor:
    """Which signals are silent by museval's rule, the channels sum to zero throughout: [..., C, T] -> [...]."""
    signals = Signals.of(signals)
    heard = torch.zeros(signals.shape[:-2], dtype=torch.bool, device=signals.device)
    for piece in signals.pieces():
        heard |= piece[..., ::997].sum(-2).any(-1)  # a few samples suffice most of the time
        if not heard.all():
            heard |= piece.sum(-2).any(-1)
        if heard.all():
            break
    return ~heard


def _db(part: Tensor, other: Tensor) -> Tensor:
    """The ratio in dB; infinite if the denominator is zero, as in museval."""
    return torch.where(other == 0, torch.inf, 10 * torch.log10(part / other))


def _checked(signals: Tensor | Signals, name: str) -> Signals:
    if len(signals.shape) != 3 or 0 in signals.shape:
        raise ValueError(f"{name} must be [sources, channels, samples], none of them zero; got {list(signals.shape)}")
    signals = Signals.of(signals)
    if not all(torch.stack(torch.aminmax(piece)).isfinite().all() for piece in signals.pieces()):
        raise ValueError(f"{name} contain NaN or infinite samples")
    return signals.map(lambda piece: piece if piece.is_floating_point() else piece.double())
