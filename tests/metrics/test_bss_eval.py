"""Our BSSEval against museval and mir_eval, and what happens where they have no answer."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasnet_attn.compat import museval
from tasnet_attn.data.stem_folders import SONGS
from tasnet_attn.metrics import bss_eval, bss_eval_sources
from tasnet_attn.metrics.bss_eval import BSSEval

NAMES = ("SDR", "ISR", "SIR", "SAR")


def signals(seed, sources, channels, length, colour=0.5, noise=0.1, level=1.0):
    """Coloured references, and estimates that hold filtered references, a little of the others, and noise."""
    rng = np.random.default_rng(seed)
    white = rng.standard_normal((sources, channels, length))
    references = white.copy()
    references[..., 1:] += colour * white[..., :-1]
    mixing = np.eye(sources) + 0.1 * rng.standard_normal((sources, sources))
    estimates = np.einsum("ij,jct->ict", mixing, references)
    estimates[..., 3:] += 0.2 * references[..., :-3]
    estimates += noise * rng.standard_normal(references.shape)
    return torch.from_numpy(level * references), torch.from_numpy(level * estimates)


def by_museval(references, estimates, window, hop):
    arrays = [np.asarray(x).transpose(0, 2, 1) for x in (references, estimates)]
    return dict(zip(NAMES, museval.metrics.bss_eval(*arrays, window=window, hop=hop)[:4], strict=True))


def assert_equal(ours, theirs, tolerance=1e-8):
    for name, expected in theirs.items():
        found = ours[name].numpy()
        assert found.shape == expected.shape
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        np.testing.assert_array_equal(np.isposinf(found), np.isposinf(expected))
        sane = np.isfinite(expected) & (abs(expected) < 150)
        assert sane.any() or not np.isfinite(expected).any()
        np.testing.assert_allclose(found[sane], expected[sane], rtol=0, atol=tolerance, err_msg=name)


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 1000),
    sources=st.integers(1, 3),
    channels=st.integers(1, 2),
    length=st.integers(8000, 12000),
    window=st.sampled_from([1600, 3001, 8000, 20000]),
    overlap=st.sampled_from([1.0, 0.5, 1.7]),
    level=st.floats(-6, 4).map(lambda exponent: 10.0**exponent),
    noise=st.sampled_from([1e-5, 0.1, 10.0]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_equals_museval(seed, sources, channels, length, window, overlap, level, noise, dtype):
    references, estimates = signals(seed, sources, channels, length, noise=noise, level=level)
    references, estimates = references.to(dtype), estimates.to(dtype)
    hop = int(window * overlap)
    tool = BSSEval(references)
    assert_equal(tool.images(estimates, window, hop), by_museval(references, estimates, window, hop))
    assert tool.projection.together.shift == 0  # well conditioned: no rule of ours is at work


def test_equals_museval_on_16_bit_integers_and_seconds():
    references, estimates = ((3000 * x).to(torch.int16) for x in signals(1, 2, 2, 17001))
    ours = bss_eval(references, estimates, 8000, window=1.0, hop=0.5)
    assert ours["SDR"].shape == (2, 3)  # the last 1001 samples fill no window
    assert_equal(ours, by_museval(references, estimates, 8000, 4000))


@pytest.mark.parametrize("where", ["reference", "estimate", "both"])
def test_equals_museval_with_a_dead_channel(where):
    references, estimates = signals(2, 2, 2, 12000)
    if where != "estimate":
        references[0, 1] = 0.0
    if where != "reference":
        estimates[0, 1] = 0.0
    assert_equal(bss_eval(references, estimates, 8000), by_museval(references, estimates, 8000, 8000))


@pytest.mark.parametrize("level", [1e-12, 1e-8, 1e6])
def test_equals_museval_at_extreme_levels(level):
    references, estimates = signals(3, 2, 1, 12000, level=level)
    assert_equal(bss_eval(references, estimates, 8000), by_museval(references, estimates, 8000, 8000))


def test_equals_museval_on_a_real_song():
    """The clip that comes with stempeg, in 16 bits: AAC has nothing above 16 kHz, dither makes it well conditioned."""
    import av

    package = importlib.util.find_spec("stempeg")
    assert package is not None and package.origin is not None
    file = Path(package.origin).parent / "data" / "The Easton Ellises - Falcon 69.stem.mp4"
    stems = []
    for index in range(1, 5):
        with av.open(str(file)) as container:
            stream = container.streams.audio[index]
            frames = [frame.to_ndarray() for frame in container.decode(stream)]
            stems.append(np.concatenate(frames, axis=-1))
    # 0.12 s of codec noise at both ends; two groups of stems and two seconds, for time
    stems = np.stack([np.stack([s[c] for c in range(2)]) for s in stems])[..., 5292 : 5292 + 2 * 44100]
    rng = np.random.default_rng(0)
    dithered = stems + rng.standard_normal(stems.shape) / 32768
    references = torch.from_numpy(np.round(np.stack([dithered[:3].sum(0), dithered[3]]) * 32767) / 32767)
    estimates = torch.stack(
        [0.8 * references[0] + 0.2 * references[1], references[1] + 0.1 * references[0].roll(5, -1)]
    )
    estimates += 1e-3 * torch.from_numpy(rng.standard_normal(estimates.shape))  # keeps all ratios below 150 dB
    tool = BSSEval(references)
    assert_equal(tool.images(estimates, 44100, 44100), by_museval(references, estimates, 44100, 44100))
    assert tool.projection.together.shift == 0
    ours, theirs = (
        tool.sources(estimates),
        museval.metrics.bss_eval_sources(
            *(np.asarray(x).transpose(0, 2, 1) for x in (references, estimates)), compute_permutation=False
        ),
    )
    for name, expected in zip(("SDR", "SIR", "SAR"), theirs, strict=False):
        np.testing.assert_allclose(ours[name], expected[:, 0], rtol=0, atol=1e-8)


@pytest.mark.parametrize(("sources", "channels"), [(1, 1), (2, 1), (3, 1), (2, 2)])
def test_version_3_equals_museval_and_mir_eval(sources, channels):
    import mir_eval

    references, estimates = signals(4, sources, channels, 70001)  # longer than the pieces of a convolution
    ours = bss_eval_sources(references, estimates)
    arrays = [x.numpy().transpose(0, 2, 1) for x in (references, estimates)]
    theirs = museval.metrics.bss_eval_sources(*arrays, compute_permutation=False)
    for name, expected in zip(("SDR", "SIR", "SAR"), theirs, strict=False):
        np.testing.assert_allclose(ours[name], expected[:, 0], rtol=0, atol=1e-8)
    if channels == 1:
        theirs = mir_eval.separation.bss_eval_sources(*(x[:, 0].numpy() for x in (references, estimates)), False)
        for name, expected in zip(("SDR", "SIR", "SAR"), theirs, strict=False):
            np.testing.assert_allclose(ours[name], expected, rtol=0, atol=1e-8)


# ---- where the problem has more than one answer ----------------------------------------------------------------------


def test_band_limited_songs_score_like_dithered_ones():
    """A decoded song has almost nothing near the Nyquist frequency; museval's SIR loses several dB by that."""
    import soundfile

    folder = SONGS / "test" / "metal-madness"
    stems = [soundfile.read(folder / f"{name}.ogg", stop=5 * 44100)[0].T for name in ("guitar", "backing")]
    references = torch.from_numpy(np.stack(stems))
    mixture = references.sum(0)
    estimates = torch.stack([0.9 * references[0] + 0.05 * mixture, mixture - 0.8 * references[0]])
    estimates = estimates + 1e-3 * torch.randn(estimates.shape, generator=torch.Generator().manual_seed(0))
    tool = BSSEval(references)
    ours = tool.images(estimates, 44100, 44100)
    assert tool.projection.together.shift > 0
    dither = 3e-5 * torch.randn(references.shape, generator=torch.Generator().manual_seed(1))  # of one 16-bit step
    dithered = BSSEval(references + dither)
    expected = dithered.images(estimates, 44100, 44100)
    assert dithered.projection.together.shift == 0
    for name in NAMES:
        assert (ours[name] - expected[name]).abs().median() < 1.5, name
    theirs = by_museval(references, estimates, 44100, 44100)
    np.testing.assert_allclose(ours["SDR"], theirs["SDR"], atol=1e-6)
    assert (torch.from_numpy(theirs["SIR"]) < ours["SIR"] - 5).any()


def test_a_source_that_is_there_twice_interferes_with_nothing():
    references, estimates = signals(5, 2, 1, 20000)
    twice = torch.stack([references[0], 0.5 * references[0]])
    scores = bss_eval(twice, estimates, 8000, window=None)
    assert all(x.isfinite().all() for x in scores.values())
    assert (scores["SIR"] > 60).all()  # what the copy explains, the source has explained already
    alone = bss_eval(twice[:1], estimates[:1], 8000, window=None)
    torch.testing.assert_close(scores["SAR"][:1], alone["SAR"], rtol=0, atol=1e-4)


# ---- silence ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1])
def test_silent_windows_are_nan_for_all_as_in_museval(which):
    both = signals(6, 2, 2, 32000)
    both[which][1, :, 8000:16000] = 0.0
    ours = bss_eval(*both, 8000)
    assert ours["SDR"].isnan().tolist() == [[False, True, False, False]] * 2
    assert_equal(ours, by_museval(*both, 8000, 8000))


def test_a_silent_reference_is_nan_alone_and_touches_nothing():
    references, estimates = signals(7, 3, 1, 16000)
    references[1] = 0.0
    ours = bss_eval(references, estimates, 8000)
    without = bss_eval(references[[0, 2]], estimates[[0, 2]], 8000)
    for name in NAMES:
        assert ours[name][1].isnan().all()
        torch.testing.assert_close(ours[name][[0, 2]], without[name], rtol=0, atol=1e-9)
    assert bss_eval_sources(references, estimates)["SDR"].isnan().tolist() == [False, True, False]


def test_a_silent_estimate_is_nan_alone_and_touches_nothing():
    references, estimates = signals(8, 2, 1, 16000)
    expected = bss_eval(references, estimates, 8000)
    estimates[1] = 0.0
    ours = bss_eval(references, estimates, 8000)
    for name in NAMES:
        assert ours[name][1].isnan().all()
        torch.testing.assert_close(ours[name][0], expected[name][0], rtol=0, atol=1e-9)


def test_only_silence_gives_only_nan():
    zeros = torch.zeros(2, 1, 9000)
    scores = bss_eval(zeros, torch.randn(2, 1, 9000), 8000)
    assert scores["SDR"].shape == (2, 1) and all(x.isnan().all() for x in scores.values())


def test_perfect_estimates_are_infinite():
    references, _ = signals(9, 2, 1, 8000)
    scores = bss_eval(references, references, 8000)
    assert scores["SDR"].isposinf().all()
    assert bss_eval(references[:1], references[:1] + 0.1, 8000)["SIR"].isposinf().all()  # nobody to interfere


# ---- properties and mistakes -----------------------------------------------------------------------------------------


def test_the_order_of_the_sources_is_the_order_of_the_scores():
    references, estimates = signals(10, 3, 1, 10000)
    scores, turned = bss_eval(references, estimates, 8000), bss_eval(references[[2, 0, 1]], estimates[[2, 0, 1]], 8000)
    for name in NAMES:
        torch.testing.assert_close(turned[name], scores[name][[2, 0, 1]], rtol=0, atol=1e-8)


def test_version_3_forgives_a_filter_and_version_4_does_not():
    references, _ = signals(11, 2, 1, 20000)
    filtered = references + 0.9 * references.roll(7, -1)
    assert (bss_eval_sources(references, filtered)["SDR"] > 30).all()
    assert (bss_eval(references, filtered, 8000)["SDR"] < 2).all()


def test_a_signal_shorter_than_a_window_is_one_window():
    references, estimates = signals(12, 2, 1, 5000)
    short, whole = bss_eval(references, estimates, 8000), bss_eval(references, estimates, 8000, window=None)
    assert short["SDR"].shape == (2, 1)
    torch.testing.assert_close(short["SIR"], whole["SIR"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, e: (r, e[..., :-1]), "must agree"),
        (lambda r, e: (r, e[:1]), "must agree"),
        (lambda r, e: (r[0], e[0]), "sources, channels, samples"),
        (lambda r, e: (r[..., :0], e[..., :0]), "sources, channels, samples"),
        (lambda r, e: (r, e / 0.0), "NaN or infinite"),
        (lambda r, e: (r * torch.nan, e), "NaN or infinite"),
    ],
)
def test_bad_signals_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        bss_eval(*change(*signals(13, 2, 1, 4000)), 8000)


@pytest.mark.parametrize("size", [{"window": 0.00001}, {"hop": 0.0}])
def test_windows_of_no_length_are_refused(size):
    with pytest.raises(ValueError, match="at least one sample"):
        bss_eval(*signals(13, 2, 1, 4000), 8000, **size)
