"""One track: both backends agree, silence has one policy, the best order is found."""

import math

import pytest
import torch

from tasnet_attn.evaluation.oracles import BASELINES
from tasnet_attn.evaluation.scores import FRAMES, WHOLE, best_order, score
from tasnet_attn.metrics.si_snr import si_snr


def signals(sources=2, channels=2, length=24000):
    references = torch.randn(sources, channels, length)
    references[..., 1:] += 0.5 * references[..., :-1].clone()
    return references.sum(0), references, references + 0.2 * references.flip(0) + 0.1 * torch.randn_like(references)


def silenced(what):
    mixture, references, estimates = signals(channels=1)
    if what == "a window":
        references[0, :, 8000:16000] = 0.0
    elif what == "a reference":
        references[1] = 0.0
    elif what == "an estimate":
        estimates[1] = 0.0
    elif what == "everything":
        references.zero_()
    return mixture, references, estimates


@pytest.mark.parametrize("what", ["nothing", "a window", "a reference", "an estimate", "everything"])
def test_backends_agree_on_silence_too(what):
    arguments = (*silenced(what), 8000, 8000, True)
    ours, theirs = score(*arguments), score(*arguments, backend="museval")
    assert list(ours.frames) == list(theirs.frames) == list(FRAMES)
    assert list(ours.whole) == list(theirs.whole) == list(WHOLE)
    for name in FRAMES:
        torch.testing.assert_close(ours.frames[name], theirs.frames[name], rtol=0, atol=1e-8, equal_nan=True)
    for name in WHOLE:
        torch.testing.assert_close(ours.whole[name], theirs.whole[name], rtol=0, atol=1e-8, equal_nan=True)
    scored = {"nothing": 6, "a window": 4, "a reference": 3, "an estimate": 3, "everything": 0}[what]
    assert int(ours.frames["SDR"].isfinite().sum()) == scored
    expected = {
        "nothing": (0, 0),
        "a window": (1, 0),
        "a reference": (3, 0),
        "an estimate": (0, 3),
        "everything": (6, 0),
    }
    assert tuple(ours.silent.sum((1, 2)).tolist()) == expected[what]


def test_improvement_of_the_mixture_is_zero():
    mixture, references, _ = signals()
    scores = score(mixture, references, BASELINES["mixture"](mixture, references), 8000, 8000, v3=True)
    for name in ("SI-SNRi", "NSDR"):
        torch.testing.assert_close(scores.whole[name], torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-9)


def test_si_snr_leaves_out_channels_without_reference():
    mixture, references, estimates = signals(sources=1)
    both = score(mixture, references, estimates, 8000, 8000).whole["SI-SNR"]
    exact = si_snr(references.double(), estimates.double(), floor=0.0)
    torch.testing.assert_close(both, exact.mean(-1))
    references[0, 1] = 0.0
    torch.testing.assert_close(score(mixture, references, estimates, 8000, 8000).whole["SI-SNR"], exact[:, 0])


def test_exact_si_snr_has_no_ceiling():
    tone = torch.sin(torch.arange(8000.0, dtype=torch.float64))
    other = torch.cos(torch.arange(8000.0, dtype=torch.float64))
    assert si_snr(tone, tone + 1e-6 * other, floor=0.0).item() == pytest.approx(120.0, abs=0.1)
    assert si_snr(tone, tone + 1e-6 * other).item() < 81
    assert math.isnan(si_snr(tone, 0 * tone, floor=0.0)) and math.isnan(si_snr(0 * tone, tone, floor=0.0))


@pytest.mark.parametrize("sources", [1, 2, 3, 5])
def test_the_best_order_undoes_a_permutation(sources):
    _, references, _ = signals(sources, 1, 4000)
    shuffled = torch.randperm(sources)
    estimates = (references + 0.3 * torch.randn_like(references))[shuffled]
    assert shuffled[best_order(estimates, references)].tolist() == list(range(sources))


@pytest.mark.parametrize("silent", [[0, 0], [1, 1], [0, slice(None)], [2, slice(None)]])
def test_the_best_order_is_defined_where_a_channel_is_silent(silent):
    _, references, _ = signals(3, 2, 4000)
    references[tuple(silent)] = 0.0
    estimates = references + 0.1 * torch.randn_like(references)
    assert best_order(estimates.flip(0), references) == [2, 1, 0]


def test_oracles_are_better_than_doing_nothing_and_masks_add_up():
    time = torch.arange(16000) / 8000
    references = torch.stack([torch.sin(2 * torch.pi * f * time) for f in (400.0, 1500.0)])[:, None]
    references = references + 0.05 * torch.randn_like(references)
    mixture = references.sum(0)
    for name in ("oracle-binary", "oracle-ratio", "oracle-wiener"):
        estimates = BASELINES[name](mixture, references)
        torch.testing.assert_close(estimates.sum(0), mixture, rtol=0, atol=1e-5)
        assert (score(mixture, references, estimates, 8000, 8000).whole["SI-SNRi"] > 10).all()
    assert not BASELINES["oracle-wiener"](0 * mixture, 0 * references).any()
