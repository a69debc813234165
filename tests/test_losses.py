import itertools
import math

import pytest
import torch
from conftest import tasnet_model

from tasnet_attn.errors import UserError
from tasnet_attn.losses import SISNR, SNR, MixIT, Spectral, match, remixed
from tasnet_attn.metrics import si_snr
from tasnet_attn.model import Separation


def naive_si_snr(estimate, reference):
    """Luo & Mesgarani 2018, equations 7-9, in plain Python."""
    n = len(reference)
    e = [v - sum(estimate) / n for v in estimate]
    s = [v - sum(reference) / n for v in reference]
    scale = sum(a * b for a, b in zip(e, s, strict=True)) / sum(v * v for v in s)
    target = [scale * v for v in s]
    noise = sum((a - b) ** 2 for a, b in zip(e, target, strict=True))
    return 10 * math.log10(sum(v * v for v in target) / noise)


@pytest.mark.parametrize("level", [1e-4, 1.0, 1e4])
def test_si_snr_equals_the_plain_formula_at_any_level(level):
    reference = torch.randn(200, dtype=torch.float64) + 0.3
    estimate = level * (reference + 0.2 * torch.randn(200, dtype=torch.float64) - 1)
    expected = naive_si_snr(estimate.tolist(), reference.tolist())
    assert si_snr(reference, estimate).item() == pytest.approx(expected, abs=1e-5)
    assert si_snr(reference.float(), estimate.float()).item() == pytest.approx(expected, abs=1e-3)


def test_si_snr_equals_asteroid():
    from tasnet_attn.compat import asteroid

    estimates, references = torch.randn(4, 2, 300), torch.randn(4, 2, 300)
    theirs = -asteroid.losses.pairwise_neg_sisdr(estimates, references)
    ours = si_snr(references.unsqueeze(1), estimates.unsqueeze(2))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sources", [2, 3, 5])  # asteroid tries all permutations up to three
def test_the_cheapest_permutation_is_that_of_asteroids_wrapper(sources):
    from tasnet_attn.compat import asteroid

    costs = torch.randn(6, sources, sources, requires_grad=True)
    theirs = asteroid.losses.PITLossWrapper.find_best_perm(costs)[0].mean()
    ours = match(costs, interchangeable=True)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, costs)[0] for loss in (ours, theirs)))


@pytest.mark.parametrize("cap", [None, 20.0])
@pytest.mark.parametrize("silent", ["estimate", "reference", "both"])
def test_silence_is_finite_with_finite_gradients(silent, cap):
    estimate, reference = torch.randn(100), torch.randn(100)
    if silent != "reference":
        estimate = torch.zeros(100)
    if silent != "estimate":
        reference = torch.zeros(100)
    estimate.requires_grad_()
    value = si_snr(reference, estimate, cap)
    value.backward()
    assert value.isfinite() and estimate.grad.isfinite().all()


def test_cap_bounds_the_ratio_and_changes_little_below_it():
    reference = torch.randn(1000)
    assert si_snr(reference, reference, cap=20).item() == pytest.approx(20, abs=1e-3)
    noisy = reference + 3 * torch.randn(1000)
    assert si_snr(reference, noisy, cap=30).item() == pytest.approx(si_snr(reference, noisy).item(), abs=0.05)


@pytest.mark.parametrize("sources", [1, 2, 3, 4, 5])
def test_interchangeable_matching_is_the_best_of_all_permutations(sources):
    costs = torch.randn(6, sources, sources)
    best = torch.stack(
        [
            min(sum(c[i, p[i]] for i in range(sources)) / sources for p in itertools.permutations(range(sources)))
            for c in costs
        ]
    )
    torch.testing.assert_close(match(costs, True), best.mean())
    torch.testing.assert_close(match(costs, False), costs.diagonal(dim1=1, dim2=2).mean())


def separation_of(estimates):
    return Separation(estimates, [], None)


def test_sisnr_is_the_mean_over_sources_and_channels():
    model, references = tasnet_model(), torch.randn(3, 2, 2, 100)
    estimates = torch.randn(3, 2, 2, 100)
    expected = -si_snr(references, estimates).mean()
    torch.testing.assert_close(SISNR()(separation_of(estimates), references, model), expected)


def test_sisnr_of_interchangeable_sources_ignores_their_order():
    model, references, estimates = (
        tasnet_model(interchangeable=True),
        torch.randn(3, 2, 1, 100),
        torch.randn(3, 2, 1, 100),
    )
    loss = SISNR()(separation_of(estimates), references, model)
    torch.testing.assert_close(SISNR()(separation_of(estimates), references.flip(1), model), loss)
    torch.testing.assert_close(SISNR()(separation_of(estimates.flip(1)), references, model), loss)


@pytest.mark.parametrize("level", [0, 1e-18, 1e-21])  # silence, and what programs add to it
@pytest.mark.parametrize("loss", [SISNR(), SNR()])
@pytest.mark.parametrize("interchangeable", [False, True])
def test_silent_references_are_left_out(interchangeable, loss, level):
    model = tasnet_model(interchangeable=interchangeable)
    references, estimates = torch.randn(1, 2, 1, 100), torch.randn(1, 2, 1, 100)
    references[0, 1] *= level
    heard = -loss.ratio(references[0, 0, 0], estimates[0, :, 0])
    expected = heard.min() if interchangeable else heard[0]
    torch.testing.assert_close(loss(separation_of(estimates), references, model), expected)
    for each in (loss, MixIT()):
        nothing = each(separation_of(estimates.requires_grad_()), level * torch.randn(1, 2, 1, 100), model)
        nothing.backward()
        assert nothing == 0 and estimates.grad.isfinite().all()


@pytest.mark.parametrize("interchangeable", [False, True])
def test_snr_minds_the_level(interchangeable):
    """It is asteroid's, which has no cap; the cap bounds it."""
    from asteroid.losses import pairwise_neg_snr

    model = tasnet_model(interchangeable=interchangeable)
    references, noise = torch.randn(1, 2, 1, 4000), torch.randn(1, 2, 1, 4000)
    estimates = 3 * references + noise
    theirs = pairwise_neg_snr(estimates[:, :, 0], references[:, :, 0])[0]  # [estimate, reference]
    expected = theirs.diagonal().mean()
    if interchangeable:
        expected = torch.minimum(expected, theirs.fliplr().diagonal().mean())
    loss = SNR(cap=200)(separation_of(estimates), references, model)
    torch.testing.assert_close(loss, expected, atol=1e-3, rtol=0)
    assert SISNR()(separation_of(estimates), references, model) < -9 < 6 < loss  # the level costs
    torch.testing.assert_close(SNR(20)(separation_of(references), references, model), torch.tensor(-20.0))


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_spectral_is_the_sum_over_stages_of_the_distance_of_features(distance):
    model, references = tasnet_model(), torch.randn(2, 2, 2, 96)
    separation = model.analyse(references.sum(1))
    separation = separation._replace(
        predictions=[separation.predictions[0], torch.zeros_like(separation.predictions[0])]
    )
    expected = 0.0
    for prediction in separation.predictions:
        total = 0.0
        for b, s, c in itertools.product(range(2), range(2), range(2)):
            truth = model.encoder(references[b, s, c][None], separation.encoded.scale[2 * b + c][None]).features[0]
            error = prediction[2 * b + c, s] - truth
            total += (error.abs() if distance == "l1" else error**2).mean() / 8
        expected += total
    torch.testing.assert_close(Spectral(distance)(separation, references, model), expected)
    model.interchangeable = True
    swapped = Spectral(distance)(separation, references.flip(1), model)
    torch.testing.assert_close(swapped, Spectral(distance)(separation, references, model))


@pytest.mark.parametrize("interchangeable", [False, True])
@pytest.mark.parametrize("loss", [SISNR(), SISNR(cap=20), SNR(), Spectral("l1"), Spectral("l2"), MixIT()])
def test_a_batch_s_loss_is_the_mean_of_its_segments_(loss, interchangeable):
    """In stereo, with a segment of one silent reference, which counts as much as the others."""
    model, references = tasnet_model(interchangeable=interchangeable).eval(), torch.randn(3, 2, 2, 128)
    references[1, 0] = 0
    mixture = references.sum(1)
    with torch.no_grad():
        whole = loss(model.analyse(mixture), references, model)
        each = [loss(model.analyse(mixture[b : b + 1]), references[b : b + 1], model) for b in range(3)]
    torch.testing.assert_close(whole, torch.stack(each).mean(), rtol=1e-4, atol=1e-5)


# ---- MixIT ----------------------------------------------------------------------------------------------------------


def naive_mixit(estimates, references, cap, empty=True):
    """Wisdom et al. 2020, equations 2 and 3, of one item: every mixing matrix in turn; the loss and the best remix."""
    found = []
    for columns in itertools.product(range(len(references)), repeat=len(estimates)):
        if not empty and len(set(columns)) < len(references):
            continue
        remix = torch.zeros_like(references)
        for output, which in zip(estimates, columns, strict=True):
            remix[which] = remix[which] + output
        signal, noise = references.square().sum(-1), (references - remix).square().sum(-1)
        loss = 10 * torch.log10(noise + 10 ** (-cap / 10) * signal) - 10 * torch.log10(signal)
        found.append((loss.mean().item(), remix))
    return min(found, key=lambda one: one[0])


@pytest.mark.parametrize(("outputs", "mixtures", "channels", "cap"), [(4, 2, 1, 30), (8, 2, 2, 10), (3, 3, 2, 30)])
def test_mixit_is_the_best_of_all_assignments(outputs, mixtures, channels, cap):
    """On outputs that nearly fit, at two levels: the best remix by SNR is not always that of the least squares."""
    estimates = torch.randn(3, outputs, channels, 60)
    owners = torch.nn.functional.one_hot(torch.randint(mixtures, (3, outputs)), mixtures).float()
    references = torch.einsum("bmr,bmct->brct", owners, estimates) + 0.3 * torch.randn(3, mixtures, channels, 60)
    references[:, 0] *= 0.2
    model = tasnet_model()
    expected = [naive_mixit(*item, cap) for item in zip(estimates, references, strict=True)]
    loss = MixIT(cap)(separation_of(estimates), references, model)
    assert loss.item() == pytest.approx(sum(value for value, _ in expected) / 3, abs=1e-4)
    torch.testing.assert_close(remixed(estimates, references, cap), torch.stack([remix for _, remix in expected]))
    full = [naive_mixit(*item, cap, empty=False)[1] for item in zip(estimates, references, strict=True)]
    torch.testing.assert_close(MixIT(cap).matched(estimates, references, model), torch.stack(full))
    assert (torch.stack(full).abs().amax(-1) > 0).all()  # for scores each reference gets an output


def test_mixit_s_gradients_are_the_differences_and_silence_costs_nothing():
    estimates, references = torch.randn(2, 4, 1, 12).double(), torch.randn(2, 2, 1, 12).double()
    references[1, 0] = 0

    def loss(estimates):
        return MixIT()(separation_of(estimates), references, None)

    torch.autograd.gradcheck(loss, estimates.requires_grad_(), fast_mode=True)
    nothing = MixIT()(separation_of(estimates), torch.zeros(2, 2, 1, 12).double(), None)
    assert nothing == 0 and all(g.isfinite().all() for g in torch.autograd.grad(nothing, estimates))
    exact = torch.stack([references[:, 0], references[:, 1], *torch.zeros(2, 2, 1, 12)], 1)
    assert loss(exact).item() == pytest.approx(-30)


@pytest.mark.parametrize("names", ["abc", "abcdefghij"])
def test_mixit_takes_an_even_number_of_outputs(names):
    model = tasnet_model()
    model.sources = list(names)
    with pytest.raises(UserError, match=f"model.sources: MixIT distributes {len(names)} over two mixtures") as refused:
        MixIT().check(model, ["mixture1", "mixture2"])
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="task.loss: SISNR needs a reference for each of the model's"):
        SISNR().check(model, ["mixture1", "mixture2"])
    with pytest.raises(UserError, match="ways to try are too many"):
        remixed(torch.ones(1, 9, 1, 2), torch.ones(1, 4, 1, 2))
