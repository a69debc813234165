"""Intervals, comparisons and verdicts against scipy and against cases worked out by hand."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tasnet_attn.ablation.quantities import label, more_is_better, needs_v3
from tasnet_attn.ablation.settings import Claim, Settings
from tasnet_attn.ablation.statistics import Estimate, compare, estimate, judge, overlap
from tasnet_attn.ablation.tables import Found, _averages, _scores, score_rows
from tasnet_attn.evaluation.results import COLUMNS


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=9))
def test_the_interval_is_student_s(values):
    found = estimate(values)
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    if error > 1e-9:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), error)
        assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_95_of_100_intervals_hold_the_truth():
    rng = np.random.default_rng(0)
    found = [estimate(rng.normal(3, 2, size=4).tolist()) for _ in range(300)]
    assert np.mean([e.low <= 3 <= e.high for e in found]) == pytest.approx(0.95, abs=0.04)


def test_what_is_not_known_is_nan():
    assert math.isnan(estimate([1.5]).low) and math.isnan(estimate([1.5]).high)
    assert estimate([1.5]).mean == 1.5 and math.isnan(estimate([]).mean)
    assert estimate([1.0, math.nan, 3.0]) == estimate([1.0, 3.0])
    assert overlap(estimate([1.5]), estimate([100.0]))  # nothing is known of single values


def test_overlap():
    assert overlap(Estimate(0, -1, 1, 3), Estimate(1.5, 1, 2, 3))
    assert not overlap(Estimate(0, -1, 1, 3), Estimate(2, 1.1, 3, 3))


A = {0: 5.0, 1: 5.1, 2: 4.9}
B = {0: 3.0, 1: 3.2, 2: 3.1}
C = {0: 4.9, 1: 5.0, 2: 4.8}


def test_a_comparison_is_paired_and_decided_only_without_overlap():
    clear = compare(A, B, "seeds", more=True)
    assert clear.verdict == "better" and clear.difference.mean == pytest.approx(1.9)
    assert clear.p == pytest.approx(stats.ttest_rel(list(A.values()), list(B.values())).pvalue)
    assert compare(B, A, "seeds", more=True).verdict == "worse" == compare(A, B, "seeds", more=False).verdict
    # always 0.1 dB apart, seed for seed: the paired test is sure, the cells' own intervals overlap
    close = compare(A, C, "seeds", more=True)
    assert close.verdict == "undecided" and close.p < 1e-6 and close.difference.low == pytest.approx(0.1)
    assert compare({0: 1.0}, {0: 9.0}, "seeds", more=True).verdict == "undecided"
    assert compare({0: 1.0, 1: 2.0, 7: 1e9}, {0: 1.0, 1: 2.0}, "seeds", more=True).difference.count == 2


def test_percentages_are_of_the_size_of_a_value():
    """A lower loss is better, whether it is above or below 0; nothing is known in percent of 0."""
    for low, high in (({0: -10.0, 1: -10.2}, {0: -8.0, 1: -8.1}), ({0: 8.0, 1: 8.1}, {0: 10.0, 1: 10.2})):
        found = compare(low, high, "seeds", more=False, relative=True)
        assert found.verdict == "better" and found.difference.mean == pytest.approx(np.mean(
            [100 * (low[seed] - high[seed]) / abs(high[seed]) for seed in low]))  # fmt: skip
    assert compare(A, dict.fromkeys(A, 0.0), "seeds", more=True, relative=True).verdict == "undecided"


def test_tracks_are_compared_by_wilcoxon():
    rng = np.random.default_rng(0)
    ours = {f"song {i}": value for i, value in enumerate(rng.normal(5, 1, size=20))}
    theirs = {name: value - rng.uniform(0, 0.5) for name, value in ours.items()}
    expected = stats.wilcoxon([ours[name] - theirs[name] for name in ours]).pvalue
    assert compare(ours, theirs, "tracks", more=True).p == pytest.approx(expected)


def test_claims():
    better, worse, open_ = (compare(*pair, "seeds", more=True) for pair in ((A, B), (B, A), (A, C)))
    assert judge([better]) == "holds" and judge([worse]) == "fails"
    assert judge([better, open_]) == "undecided" and judge([worse, open_]) == "fails"
    assert judge([open_], (-0.2, 0.2)) == "holds"  # the difference is 0.1, to the last bit
    assert judge([open_], (-0.05, 0.05)) == "fails" and judge([better], (-1.9, 1.9)) == "undecided"
    assert judge([compare({0: 1.0}, {0: 1.0}, "seeds", more=True)], (-1, 1)) == "undecided"  # one run says nothing


@pytest.mark.parametrize(
    ("plus", "within", "theirs", "answer"),
    [
        (0.25, 0.1, {seed: value - 0.25 for seed, value in A.items()}, "holds"),
        (0.25, 0.1, {seed: value - 0.5 for seed, value in A.items()}, "fails"),  # better, but not by so much
        (0.25, 0.1, B, "fails"),
        (0.25, 3.0, {0: 5.0, 1: 3.0, 2: 6.0}, "undecided"),
        ("-11 %", "0.5 %", {seed: value / 0.89 for seed, value in A.items()}, "holds"),
        ("-53 %", "5 %", {seed: value / 0.89 for seed, value in A.items()}, "fails"),
        ("+43 %", "1 %", {0: 3.4, 1: 3.6, 2: 3.5}, "undecided"),
    ],
)
def test_claims_of_a_size(plus, within, theirs, answer):
    """+0.25 dB, -11 %, ...: the whole interval of the difference lies within the tolerance, or outside."""
    claim = Claim("it is so much more", equal="a", to=["b"], plus=plus, within=within)
    assert judge([compare(A, theirs, "seeds", True, claim.relative)], claim.bounds) == answer


def test_names_of_quantities():
    assert label("test:SDR:vocals") == "SDR of vocals on test (dB)"
    assert label("valid_si_snr:vocals") == "best validation SI-SNR of vocals (dB)"
    assert needs_v3(["test:SDR", "test:SIR v3:vocals"]) and not needs_v3(["test:SDR", "valid_loss"])
    assert label("test:SI-SNRi") == "SI-SNRi on test (dB)" and more_is_better("test:SI-SNRi")
    assert label("parameters") == "parameters" and not more_is_better("real_time_factor")


@pytest.mark.parametrize("average", ["median of medians", "length-weighted"])
@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_the_table_says_what_its_scores_of_tracks_are(average, seeds):
    """With one seed, the mean over the tracks, whose interval it shows; else the mean of the runs' averages."""
    runs = [
        pd.DataFrame({"track": ["a", "b", "c"], "score": [1.0, 2.0, 6.0], "mean": [2.0, 3.0, 7.0]}).assign(
            cell="x", seed=seed, quantity="test:SDR", seconds=[8.0, 1.0, 1.0]
        )
        for seed in seeds
    ]
    averages = _averages(pd.concat(runs), average)
    rows = pd.DataFrame([{"cell": "x", "seed": seed, "state": "finished", **averages["x", seed]} for seed in seeds])
    settings = Settings([], seeds=seeds, metric="test:SDR", evaluate=["test"], scores=["SDR"], average=average)
    cell = SimpleNamespace(name="x", parameters=1, macs=1.0)
    sweep = SimpleNamespace(settings=settings, baseline=cell, cells=[cell])
    (row,), note = score_rows(Found(sweep, rows, pd.DataFrame(), pd.concat(runs), {}))
    shown = float(row["SDR on test (dB)"].partition(" ")[0])
    if len(seeds) > 1:
        assert shown == pytest.approx(averages["x", 0]["test:SDR"]) and f"{average}, over tracks" in note
    else:
        how, expected = ("median", 3.0) if average == "median of medians" else ("mean", 4.0)
        assert shown == expected and f"mean over the tracks of the {how} over windows" in note and average not in note


def test_masks_of_an_earlier_evaluation_are_no_scores_of_this_one(tmp_path):
    for place, masks in ((tmp_path, ["wiener"]), (tmp_path / "masks/wiener", []), (tmp_path / "masks/binary", [])):
        place.mkdir(parents=True, exist_ok=True)
        (place / "scores.csv").write_text(f"{','.join(COLUMNS)}\na,vocals,SDR,1,1,1,0,1\n")
        known = {"name": "x", "tracks": ["a"], "seconds": 1.0, "window": 1.0, "backend": "fast", "sample_rate": 8000}
        known |= {"version": "0.2.0", "conventions": {}, "scores": {}, "mean over sources": {}, "silence": {}}
        (place / "summary.json").write_text(json.dumps(known | {"masks": masks}))
    assert [table["metric"].item() for table in _scores(tmp_path)] == ["SDR", "SDR, wiener masks"]
