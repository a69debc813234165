"""The scores of one track, by either backend, with the same treatment of silence.

Shapes: S sources, C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tasnet_attn.audio.resampling import resample
from tasnet_attn.errors import UserError
from tasnet_attn.metrics.base import Metric
from tasnet_attn.metrics.bss_eval import BSSEval, silent
from tasnet_attn.metrics.matching import best_permutation
from tasnet_attn.metrics.si_snr import FLOOR, si_snr_by_pieces
from tasnet_attn.metrics.signals import Signals

Backend = Literal["fast", "museval"]
FRAMES = ("SDR", "ISR", "SIR", "SAR")  # BSSEval v4, a score for each window
V3 = ("NSDR", "SIR v3", "SAR v3")  # BSSEval v3, where requested
WHOLE = ("SI-SNR", "SI-SNRi", *V3)  # one score for the track; the user's own as well


class TrackScores(NamedTuple):
    """The scores of a track.

    Attributes:
        frames: {metric: [S, windows]}, BSSEval v4, dB; NaN where there is no score.
        whole: {metric: [S]}, dB.
        silent: [2, S, windows], whether references and estimates are silent in the window.
    """

    frames: dict[str, Tensor]
    whole: dict[str, Tensor]
    silent: Tensor


def score(
    mixture: Tensor | Signals,
    references: Tensor | Signals,
    estimates: Tensor | Signals,
    window: int | None,
    hop: int | None,
    v3: bool = False,
    backend: Backend = "fast",
    metrics: Sequence[Metric] = (),
    sample_rate: int = 1,
    beside: Sequence[int] = (),
) -> TrackScores:
    """Score one track, piece by piece; museval and the user's own metrics need it whole.

    Args:
        mixture: [C, T]; improvements are relative to it.
        references: [S, C, T].
        estimates: [S, C, T], in the order of the references.
        window: samples; None: the whole track.
        hop: samples between windows.
        v3: also NSDR, SIR and SAR of BSSEval v3; doubles the cost.
        backend: "fast", ours, or "museval" itself (slow), for BSSEval; SI-SNR is always ours.
        metrics: the user's own, scored as well.
        sample_rate: Hz; for these metrics, and for `beside`.
        beside: more rates, in Hz, for additional scores of whole tracks.

    Raises:
        UserError: one of the user's metrics does not return {name: [S]}, or uses an existing name.
    """
    mixture, references, estimates = (Signals.of(x).map(Tensor.double) for x in (mixture, references, estimates))
    count = references.shape[0]
    tool = TOOLS[backend](references)
    frames = tool.images(estimates, window, hop)
    whole = _whole(mixture, references, estimates, tool if v3 else None)
    for rate in beside:
        mixed, alone, separated = (_at(rate, x, sample_rate) for x in (mixture, references, estimates))
        scores = _whole(mixed, alone, separated, TOOLS[backend](alone) if v3 else None)
        whole |= {at_rate(name, rate): values for name, values in scores.items()}
    for metric in metrics:
        found = metric(mixture.read(), references.read(), estimates.read(), sample_rate)
        _add(whole, metric, found, count)
    size = references.length if window is None else min(window, references.length)
    starts = range(0, references.length - size + 1, hop or size)
    mute = torch.zeros(2, count, len(starts), dtype=torch.bool)
    for row, signals in zip(mute, (references, estimates), strict=True):
        for number, start in enumerate(starts):
            row[:, number] = silent(signals.cut(start, start + size))
    return TrackScores(frames, whole, mute)


def _whole(
    mixture: Signals, references: Signals, estimates: Signals, tool: BSSEval | MusEval | None
) -> dict[str, Tensor]:
    """The scores of the whole track, {metric: [S]}; those of BSSEval v3 if there is a tool."""
    count = references.shape[0]
    mixtures = mixture.map(lambda piece: piece.expand(count, -1, -1))
    snr = _mean_si_snr(references, estimates)
    whole = {"SI-SNR": snr, "SI-SNRi": snr - _mean_si_snr(references, mixtures)}
    if tool is not None:
        sources, before = tool.sources(estimates), tool.sources(mixtures)
        whole |= {"NSDR": sources["SDR"] - before["SDR"], "SIR v3": sources["SIR"], "SAR v3": sources["SAR"]}
    return whole


def _at(rate: int, signals: Signals, sample_rate: int) -> Signals:
    """The same at another rate, whole in memory."""
    return Signals.of(resample(signals.read().cpu(), sample_rate, rate))


def at_rate(metric: str, rate: int) -> str:
    """A metric's name at another rate than the scored one."""
    return f"{metric} at {rate / 1000:g} kHz"


def offered(v3: bool, beside: Sequence[int] = ()) -> list[str]:
    """The names of all scores of `score`, without the user's metrics."""
    whole = WHOLE if v3 else WHOLE[:2]
    return [*FRAMES, *whole, *(at_rate(metric, rate) for rate in beside for metric in whole)]


def _add(whole: dict[str, Tensor], metric: Metric, found: Any, count: int) -> None:
    """Add the scores [S] of a user's metric."""
    owner = type(metric).__name__
    if not isinstance(found, dict):
        raise UserError(f"metric {owner}: returned a {type(found).__name__}, not {{name: scores of the sources}}")
    for name, scores in found.items():
        if name in whole or name in FRAMES:
            raise UserError(f"metric {owner}: {name!r} is the name of another metric; rename it")
        if not isinstance(scores, Tensor) or scores.shape != (count,):
            shape = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise UserError(
                f"metric {owner}: {name!r} is {shape}; it must be a tensor [{count}], a score for each source"
            )
        whole[name] = scores.detach().double()


def best_order(estimates: Tensor | Signals, references: Tensor | Signals) -> list[int]:
    """For each reference its estimate: the permutation with the highest mean SI-SNR.

    Silent channels count with the ratio's floor, so that the order is defined for silence too.
    """
    rows, columns = Signals.of(references), Signals.of(estimates)
    pairs = si_snr_by_pieces(rows.map(lambda x: x.unsqueeze(1)), columns.map(lambda x: x.unsqueeze(0)), FLOOR)
    return best_permutation(pairs.mean(-1))


def _mean_si_snr(references: Signals, estimates: Signals) -> Tensor:
    """[S]: the mean over the channels where the reference is not constant; NaN if all references or estimates are."""
    ratios = si_snr_by_pieces(references, estimates, floor=0.0)
    first, heard = references.read(0, 1), torch.zeros_like(ratios, dtype=torch.bool)
    for piece in references.pieces():
        heard |= (piece != first).any(-1)
        if heard.all():
            break
    return ratios.where(heard, 0).sum(-1) / heard.sum(-1)


class MusEval:
    """museval in place of `BSSEval`, with the same treatment of silence; museval itself raises on silent sources."""

    def __init__(self, references: Signals) -> None:
        self.references, self.heard = references.read(), ~silent(references)

    def images(self, estimates: Signals, window: int | None = None, hop: int | None = None) -> dict[str, Tensor]:
        """See `BSSEval.images`."""
        length = estimates.length
        size = min(window or length, length)
        hop = hop or size
        return self._scores(estimates, (length - size) // hop + 1, window=size, hop=hop)

    def sources(self, estimates: Signals) -> dict[str, Tensor]:
        """See `BSSEval.sources`."""
        inf = float("inf")
        scores = self._scores(estimates, 1, window=inf, hop=inf, framewise_filters=True, bsseval_sources_version=True)
        return {name: scores[name][:, 0] for name in ("SDR", "SIR", "SAR")}

    def _scores(self, signals: Signals, count: int, **options: Any) -> dict[str, Tensor]:
        from tasnet_attn.compat import museval

        estimates = signals.read()
        scores = torch.full((4, len(estimates), count), torch.nan, dtype=torch.float64)
        if self.heard.any():
            mute = silent(estimates)
            stand_in = torch.where(mute[:, None, None], self.references, estimates)  # its scores are discarded
            kept = [x[self.heard].transpose(1, 2).cpu().numpy() for x in (self.references, stand_in)]
            values = museval.metrics.bss_eval(*kept, **options)[:4]
            scores[:, self.heard.cpu()] = torch.from_numpy(np.stack(values))
            scores[:, mute.cpu()] = torch.nan
        return dict(zip(FRAMES, scores, strict=True))


TOOLS: dict[Backend, type[BSSEval] | type[MusEval]] = {"fast": BSSEval, "museval": MusEval}
