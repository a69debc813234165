"""Intervals, comparisons and verdicts against scipy and against cases worked out by hand; costs against true counts."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from conftest import tasnet_model
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.utils.flop_counter import FlopCounterMode

from tasnet_attn.ablation.cost import macs_per_second, real_time_factor
from tasnet_attn.ablation.statistics import Estimate, compare, estimate, judge, label, more_is_better, overlap
from tasnet_attn.filterbanks import STFTDecoder, STFTEncoder
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import LTL, TasNet


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
    found = [estimate(rng.normal(3, 2, size=4).tolist()) for _ in range(2000)]
    assert np.mean([e.low <= 3 <= e.high for e in found]) == pytest.approx(0.95, abs=0.015)


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


def test_tracks_are_compared_by_wilcoxon():
    rng = np.random.default_rng(0)
    ours = {f"song {i}": value for i, value in enumerate(rng.normal(5, 1, size=20))}
    theirs = {name: value - rng.uniform(0, 0.5) for name, value in ours.items()}
    expected = stats.wilcoxon([ours[name] - theirs[name] for name in ours]).pvalue
    assert compare(ours, theirs, "tracks", more=True).p == pytest.approx(expected)


def test_claims():
    better, worse, open_ = (compare(*pair, "seeds", more=True) for pair in ((A, B), (B, A), (A, C)))
    assert judge("better", [better], 0.1) == "agrees" and judge("better", [worse], 0.1) == "disagrees"
    assert judge("better", [better, open_], 0.1) == "undecided" and judge("better", [worse, open_], 0.1) == "disagrees"
    assert judge("equal", [open_], 0.2) == "agrees"  # the difference is 0.1, to the last bit
    assert judge("equal", [open_], 0.05) == "disagrees" and judge("equal", [better], 1.9) == "undecided"


def test_names_of_quantities():
    assert label("test:SI-SNRi") == "SI-SNRi on test (dB)" and more_is_better("test:SI-SNRi")
    assert label("parameters") == "parameters" and not more_is_better("real_time_factor")


def on_meta(make):
    with torch.device("meta"):
        return make()


@pytest.mark.parametrize(
    "separator",
    [
        partial(LTL, hidden=8, heads=2, ffn=12, transformer_layers=2, lstm_before=2, lstm_after=1),
        partial(
            LTL, hidden=8, heads=2, lstm_before=0, transformer_layers=1, window=9, bidirectional=True, lstm_after=2
        ),
        partial(TasNet, hidden=8, n_layers=3, bidirectional=True),
    ],
)
def test_macs_are_those_that_are_counted_one_by_one(separator):
    """On `meta` an LSTM too falls apart into products, which the counter sees; ours counts it by a formula."""
    make = partial(tasnet_model, separator, segment=0.05)
    model = on_meta(make)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 1, 400, device="meta"))
    assert macs_per_second(on_meta(make)) == counter.get_total_flops() / 2 * 20


def test_macs_of_tasnet_by_hand():
    """Encoder 2 F K, layers 4 h (in + h), masks h S F, decoder S F K, for each of 500 frames."""
    f, k, h, s = 24, 16, 8, 2
    expected = 500 * (2 * f * k + 4 * h * (f + h) + 4 * h * (h + h) + h * s * f + s * f * k)
    assert macs_per_second(on_meta(lambda: tasnet_model(partial(TasNet, hidden=h, n_layers=2)))) == expected


def test_a_model_of_fixed_length_counts_for_a_second():
    encoder, decoder = (partial(bank, n_fft=128, hop=64, drop="nyquist") for bank in (STFTEncoder, STFTDecoder))

    def make(segment):
        separator = partial(TasNet, hidden=8, n_layers=1)
        return SourceSeparator(["a", "b"], 8000, encoder(), separator, decoder(), segment=segment)

    one, half = (macs_per_second(on_meta(partial(make, segment))) for segment in (1.024, 0.512))
    assert one == pytest.approx(half, rel=0.1) and one > 1e5


def test_the_real_time_factor_is_of_one_thread():
    threads = torch.get_num_threads()
    times = real_time_factor(tasnet_model().config)
    assert len(times) == 3 and all(0 < seconds < 5 for seconds in times)
    assert torch.get_num_threads() == threads
