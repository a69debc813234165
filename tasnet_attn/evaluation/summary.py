"""From scores of tracks to published figures: every convention by name, with its uncertainty."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.stats import bootstrap, wilcoxon

Convention = Literal["median of medians", "mean of medians", "mean of means", "length-weighted"]
CONVENTIONS = {
    "median of medians": "median over tracks of the median over windows (SiSEC 2018, Open-Unmix)",
    "mean of medians": "mean over tracks of the median over windows",
    "mean of means": "mean over tracks of the mean over windows",
    "length-weighted": "mean over tracks of the mean over windows, weighted by the tracks' lengths (GNSDR, GSIR, GSAR)",
}
RESAMPLES = 2000


def summarise(tracks: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """A metric of a source by every convention, each with a 95 % bootstrap interval over the tracks.

    Args:
        tracks: a row per track: "score" (median over its windows) and "mean", dB, NaN if none; "seconds", its length.

    Returns:
        {convention: {"value", "low", "high", "tracks"}}; None: no score, or fewer than two tracks.
    """
    tracks = tracks[np.isfinite(tracks["score"])]
    found = {}
    for convention in CONVENTIONS:
        values = tracks["score" if convention.endswith("medians") else "mean"].to_numpy(float)
        weights = tracks["seconds"].to_numpy(float) if convention == "length-weighted" else np.ones(len(values))
        found[convention] = _with_interval(values, weights, convention.startswith("median"))
    return found


def _with_interval(values: np.ndarray, weights: np.ndarray, median: bool) -> dict[str, Any]:
    def statistic(values: np.ndarray, weights: np.ndarray, axis: int = -1) -> Any:
        return np.median(values, axis) if median else (values * weights).sum(axis) / weights.sum(axis)

    count = len(values)
    if not count:
        return {"value": None, "low": None, "high": None, "tracks": 0}
    low = high = None
    if count > 1:
        draws = {"n_resamples": RESAMPLES, "method": "percentile", "rng": np.random.default_rng(0)}
        low, high = map(float, bootstrap((values, weights), statistic, paired=True, **draws).confidence_interval)
    return {"value": float(statistic(values, weights)), "low": low, "high": high, "tracks": count}


def compare(ours: dict[str, float], theirs: dict[str, float]) -> dict[str, Any]:
    """Paired comparison of two systems on the tracks that both have: Wilcoxon's signed-rank test.

    Args:
        ours: {track: score}, dB.
        theirs: the other's, in the same form.

    Returns:
        "tracks", "difference" (median of ours - theirs, dB), "better" (tracks where ours is higher) and "p" (two-sided;
        None below two tracks; 1 if no track differs).
    """
    differences = np.array([ours[track] - theirs[track] for track in ours if track in theirs])
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        return {"tracks": 0, "difference": None, "better": 0, "p": None}
    p: float | None = None
    if len(differences) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy warns that it switches from the exact to the normal p-value at ties
            p = float(wilcoxon(differences).pvalue) if differences.any() else 1.0
    return {
        "tracks": len(differences),
        "difference": float(np.median(differences)),
        "better": int((differences > 0).sum()),
        "p": p,
    }
