"""Conventions, intervals and paired comparison."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon

from tasnet_attn.evaluation.summary import CONVENTIONS, compare, summarise

NAN = math.nan


def table(tracks, seconds=None):
    """Rows as in scores.csv, of each track's windows, by numpy."""
    kept = [[x for x in windows if math.isfinite(x)] or [NAN] for windows in tracks]
    columns = {"score": [np.median(x) for x in kept], "mean": [np.mean(x) for x in kept]}
    return pd.DataFrame({**columns, "seconds": seconds or [1.0] * len(kept)})


def test_conventions_are_what_their_names_say():
    tracks = [[1.0, 2.0, 9.0], [4.0, NAN, 6.0], [0.0, 0.0, 3.0, 5.0]]  # medians 2, 5, 1.5; means 4, 5, 2
    found = {name: row["value"] for name, row in summarise(table(tracks, [10.0, 20.0, 30.0])).items()}
    assert found == {
        "median of medians": 2.0,
        "mean of medians": pytest.approx(8.5 / 3),
        "mean of means": pytest.approx(11 / 3),
        "length-weighted": pytest.approx((40 + 100 + 60) / 60),
    }
    assert list(found) == list(CONVENTIONS)


def test_what_has_no_score_does_not_count():
    row = summarise(table([[NAN, NAN], [math.inf, 3.0], [-math.inf]]))["median of medians"]
    assert row == {"value": 3.0, "low": None, "high": None, "tracks": 1}
    nothing = summarise(table([[NAN]]))["mean of means"]
    assert nothing == {"value": None, "low": None, "high": None, "tracks": 0}


def test_intervals_cover_the_mean_as_often_as_they_claim():
    rng = np.random.default_rng(0)
    hits, trials = 0, 100
    for _ in range(trials):
        row = summarise(table([[x] for x in rng.normal(5.0, 2.0, size=40)]))["mean of means"]
        hits += row["low"] <= 5.0 <= row["high"]
        assert row["low"] <= row["value"] <= row["high"]
    assert 0.89 < hits / trials < 0.99  # 95 %, less the bootstrap's known optimism at 40 tracks


def test_intervals_are_percentiles_of_seeded_draws():
    """The published figures: 2,000 draws of the tracks by default_rng(0)."""
    values, seconds = np.random.default_rng(1).normal(5.0, 2.0, size=9), list(range(1, 10))
    found = summarise(table([[x] for x in values], seconds))
    draws = np.random.default_rng(0).integers(9, size=(2000, 9))
    weights = np.array(seconds)[draws]
    expected = {
        "median of medians": np.median(values[draws], -1),
        "mean of means": values[draws].mean(-1),
        "length-weighted": (values[draws] * weights).sum(-1) / weights.sum(-1),
    }
    for name, statistics in expected.items():
        assert [found[name]["low"], found[name]["high"]] == pytest.approx(np.percentile(statistics, [2.5, 97.5]))


def test_comparison_is_wilcoxons_on_common_tracks():
    ours = {"a": 3.0, "b": 5.0, "c": 1.0, "d": 2.5, "e": NAN, "only ours": 9.0}
    theirs = {"a": 1.0, "b": 4.5, "c": 1.5, "d": 2.0, "e": 1.0, "only theirs": 0.0}
    found = compare(ours, theirs)
    assert (found["tracks"], found["better"], found["difference"]) == (4, 3, 0.5)
    assert found["p"] == pytest.approx(wilcoxon([2.0, 0.5, -0.5, 0.5]).pvalue)
    assert compare({"a": 1.0}, {"a": 2.0})["p"] is None
    assert compare(ours, ours)["p"] == 1.0
    assert compare(ours, {})["tracks"] == 0
