"""Statistics of a sweep: means with 95 % intervals, paired differences, verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, NaN below two values."""

    mean: float
    low: float
    high: float
    count: int


def estimate(values: Sequence[float] | np.ndarray) -> Estimate:
    """The mean of independent values and Student's t-interval around it.

    Examples:
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
    """Whether two intervals overlap; intervals of single values are unknown and count as overlapping."""
    return not (a.high < b.low or b.high < a.low)


@dataclass(frozen=True)
class Comparison:
    """Two cells compared in one quantity.

    Attributes:
        difference: first minus second, paired; relative: in percent of the second.
        p: two-sided, of the paired t-test (seeds) or of Wilcoxon's test (tracks); NaN if there is none.
        paired: "seeds" or "tracks".
        verdict: "better", "worse" or "undecided": the cells' intervals overlap, or the paired interval contains 0.
    """

    difference: Estimate
    p: float
    paired: str
    verdict: str


def compare(
    ours: dict[Any, float], theirs: dict[Any, float], paired: str, more: bool, relative: bool = False
) -> Comparison:
    """Compare two cells on the seeds or tracks that both have.

    Args:
        ours: {seed or track: value}.
        theirs: the other cell's values, in the same form.
        paired: "seeds" or "tracks".
        more: larger values are better.
        relative: differences are percentages.
    """
    common = [key for key in ours if key in theirs and math.isfinite(ours[key]) and math.isfinite(theirs[key])]
    a, b = (np.array([values[key] for key in common], dtype=float) for values in (ours, theirs))
    if relative:  # of the absolute value, so that more is positive where values are negative too; nothing of 0
        difference = estimate(np.divide(100 * (a - b), abs(b), out=np.full_like(b, math.nan), where=b != 0))
    else:
        difference = estimate(a - b)
    decided = not overlap(estimate(a), estimate(b)) and (difference.low > 0 or difference.high < 0)
    verdict = "undecided" if not decided else "better" if (difference.mean > 0) == more else "worse"
    return Comparison(difference, _p(a - b, paired), paired, verdict)


def _p(differences: np.ndarray, paired: str) -> float:
    if len(differences) < 2:
        return math.nan
    if not differences.any():
        return 1.0
    if paired == "tracks":
        return float(stats.wilcoxon(differences).pvalue)
    return float(stats.ttest_1samp(differences, 0).pvalue) if np.ptp(differences) else 0.0  # otherwise t is infinite


def judge(comparisons: Sequence[Comparison], bounds: tuple[float, float] | None = None) -> str:
    """The result for a claim: "holds", "fails" or "undecided".

    Args:
        comparisons: of the claim's cell with each of the others.
        bounds: of the difference in every comparison; None: the cell must be better than every other.
    """
    answers = {_answer(comparison, bounds) for comparison in comparisons}
    return "fails" if "fails" in answers else "holds" if answers == {"holds"} else "undecided"


def _answer(comparison: Comparison, bounds: tuple[float, float] | None) -> str:
    if bounds is None:
        return {"better": "holds", "worse": "fails"}.get(comparison.verdict, "undecided")
    low, high = comparison.difference.low, comparison.difference.high
    if bounds[0] <= low and high <= bounds[1]:
        return "holds"
    return "fails" if low > bounds[1] or high < bounds[0] else "undecided"
