"""From the scores of tracks to the figures that are published: every convention by its name, with its uncertainty.

A score table is {source: {metric: [tracks, windows]}}: ragged, so a list of one-dimensional arrays for each metric.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

CONVENTIONS = {
    "median of medians": "median over tracks of the median over windows (SiSEC 2018, Open-Unmix)",
    "mean of medians": "mean over tracks of the median over windows",
    "mean of means": "mean over tracks of the mean over windows",
    "length-weighted": "mean over tracks of the mean over windows, weighted by the tracks' lengths (GNSDR, GSIR, GSAR)",
}
RESAMPLES = 2000


def finite(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Those that are scores: neither NaN (silence) nor infinite (nothing left over)."""
    array = np.asarray(values, dtype=float)
    return array[np.isfinite(array)]


def track_value(windows: Sequence[float] | np.ndarray, convention: str) -> float:
    """A track's value by a convention; NaN if no window has a score."""
    scores = finite(windows)
    if not len(scores):
        return math.nan
    return float(np.median(scores) if convention.endswith("medians") else np.mean(scores))


def summarise(tracks: Sequence[Sequence[float]], seconds: Sequence[float]) -> dict[str, dict[str, Any]]:
    """A metric of a source by every convention, each with a 95 % bootstrap interval over the tracks.

    Args:
        tracks: the scores of each track's windows (one, for metrics of whole tracks), dB.
        seconds: lengths of the tracks.

    Returns:
        {convention: {"value", "low", "high", "tracks"}}; None: no score, or fewer than two tracks.
    """
    rows = {}
    for convention in CONVENTIONS:
        values = np.array([track_value(windows, convention) for windows in tracks])
        keep = np.isfinite(values)
        weights = np.asarray(seconds, dtype=float)[keep] if convention == "length-weighted" else np.ones(keep.sum())
        rows[convention] = _with_interval(values[keep], weights, np.median if convention.startswith("median") else None)
    return rows


def _with_interval(values: np.ndarray, weights: np.ndarray, statistic: Any) -> dict[str, Any]:
    def over(indices: np.ndarray) -> np.ndarray:
        if statistic is not None:
            return statistic(values[indices], axis=-1)
        return (values[indices] * weights[indices]).sum(-1) / weights[indices].sum(-1)

    count = len(values)
    if not count:
        return {"value": None, "low": None, "high": None, "tracks": 0}
    low = high = None
    if count > 1:
        draws = over(np.random.default_rng(0).integers(count, size=(RESAMPLES, count)))
        low, high = (float(x) for x in np.percentile(draws, [2.5, 97.5]))
    return {"value": float(over(np.arange(count))), "low": low, "high": high, "tracks": count}


def compare(ours: dict[str, float], theirs: dict[str, float]) -> dict[str, Any]:
    """Paired comparison of two systems on the tracks that both have: Wilcoxon's signed-rank test.

    Args:
        ours: {track: score}, dB.
        theirs: likewise.

    Returns:
        "tracks", "difference" (median of ours - theirs, dB), "better" (tracks where ours is higher) and "p" (two-sided;
        None below two tracks; 1 if no track differs).
    """
    from scipy.stats import wilcoxon

    common = [name for name in ours if name in theirs and math.isfinite(ours[name]) and math.isfinite(theirs[name])]
    differences = np.array([ours[name] - theirs[name] for name in common])
    if not common:
        return {"tracks": 0, "difference": None, "better": 0, "p": None}
    p: float | None = None
    if len(common) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy says that it switches from the exact to the normal p-value at ties
            p = float(wilcoxon(differences).pvalue) if differences.any() else 1.0
    return {
        "tracks": len(common),
        "difference": float(np.median(differences)),
        "better": int((differences > 0).sum()),
        "p": p,
    }
