"""From the runs of a sweep to statements: means with 95 % intervals, paired differences, verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

# column of cells.csv: (what figures and tables call it, whether more is better); metrics of tracks are SPLIT:METRIC
QUANTITIES = {
    "valid_si_snr": ("best validation SI-SNR (dB)", True),
    "valid_loss": ("best validation loss", False),
    "parameters": ("parameters", False),
    "macs_per_second": ("multiply-accumulates per second of audio", False),
    "epochs_to_best": ("epochs to convergence", False),
    "epoch_seconds": ("seconds of an epoch", False),
    "seconds_to_best": ("training time to convergence (s)", False),
    "real_time_factor": ("real-time factor on one thread", False),
}
TIMES = ("epoch_seconds", "seconds_to_best", "real_time_factor")  # what differs when the sweep is run again


def label(quantity: str) -> str:
    """How a quantity is written beside an axis."""
    if quantity in QUANTITIES:
        return QUANTITIES[quantity][0]
    split, _, metric = quantity.partition(":")
    return f"{metric} on {split} (dB)"


def more_is_better(quantity: str) -> bool:
    """Whether larger values are the better ones; so for every metric of tracks."""
    return QUANTITIES.get(quantity, ("", True))[1]


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, NaN below two values."""

    mean: float
    low: float
    high: float
    count: int


def estimate(values: Sequence[float] | np.ndarray) -> Estimate:
    """The mean of independent values and Student's t-interval around it.

    >>> round(estimate([1.0, 2.0, 3.0]).high, 3)  # 2 + 4.303 / sqrt(3)
    4.484
    """
    array = np.asarray(values, dtype=float)
    finite = array[np.isfinite(array)]
    if len(finite) < 2:
        return Estimate(float(finite[0]) if len(finite) else math.nan, math.nan, math.nan, len(finite))
    mean, half = float(finite.mean()), float(stats.t.ppf(0.975, len(finite) - 1) * stats.sem(finite))
    return Estimate(mean, mean - half, mean + half, len(finite))


def overlap(a: Estimate, b: Estimate) -> bool:
    """Whether two intervals have a point in common; those of single values do, for nothing is known of them."""
    return not (a.high < b.low or b.high < a.low)


@dataclass(frozen=True)
class Comparison:
    """Two cells on one quantity.

    Attributes:
        difference: first minus second, paired.
        p: two-sided, of the paired t-test (seeds) or of Wilcoxon's (tracks); NaN where there is none.
        paired: "seeds" or "tracks".
        verdict: "better", "worse" or "undecided": the cells' own intervals overlap, or the paired one holds 0.
    """

    difference: Estimate
    p: float
    paired: str
    verdict: str


def compare(ours: dict[Any, float], theirs: dict[Any, float], paired: str, more: bool) -> Comparison:
    """Compare two cells by what both were measured on, seeds or tracks.

    Args:
        ours: {seed or track: value}.
        theirs: likewise.
        paired: "seeds" or "tracks".
        more: larger values are better.
    """
    common = [key for key in ours if key in theirs and math.isfinite(ours[key]) and math.isfinite(theirs[key])]
    a, b = (np.array([values[key] for key in common], dtype=float) for values in (ours, theirs))
    difference = estimate(a - b)
    decided = not overlap(estimate(a), estimate(b)) and not difference.low <= 0 <= difference.high
    verdict = "undecided" if not decided else "better" if (difference.mean > 0) == more else "worse"
    return Comparison(difference, _p(a - b, paired), paired, verdict)


def _p(differences: np.ndarray, paired: str) -> float:
    if len(differences) < 2:
        return math.nan
    if not differences.any():
        return 1.0
    if paired == "tracks":
        return float(stats.wilcoxon(differences).pvalue)
    return float(stats.ttest_1samp(differences, 0).pvalue) if np.ptp(differences) else 0.0  # else t is infinite


def judge(kind: str, comparisons: Sequence[Comparison], within: float) -> str:
    """What a sweep says to a claim: "agrees", "disagrees" or "undecided".

    Args:
        kind: "better" (than every other cell) or "equal" (to every other cell, `within` so much).
        comparisons: of the claim's cell with each of the others.
        within: the margin of "equal".
    """
    answers = {_answer(kind, comparison, within) for comparison in comparisons}
    return "disagrees" if "disagrees" in answers else "agrees" if answers == {"agrees"} else "undecided"


def _answer(kind: str, comparison: Comparison, within: float) -> str:
    if kind == "better":
        return {"better": "agrees", "worse": "disagrees"}.get(comparison.verdict, "undecided")
    low, high = comparison.difference.low, comparison.difference.high
    if -within <= low and high <= within:
        return "agrees"
    return "disagrees" if low > within or high < -within else "undecided"
