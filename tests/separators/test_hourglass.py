import functools
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch
from conftest import train_until
from safetensors.torch import load_file

from tasnet_attn.data.stem_folders import SONGS, StemTrack
from tasnet_attn.errors import UserError
from tasnet_attn.filterbanks import Encoded, STFTDecoder, STFTEncoder
from tasnet_attn.heads import Magnitude, Mask, masked
from tasnet_attn.losses import Spectral
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import Hourglass, SkipAttentionHourglass
from tasnet_attn.separators.hourglass import Level, Sum

REPORT = {"n_poolings": 5, "stem": (64, 128, 128), "kernel_size": 3, "batch_norm": True}
TINY = {"n_stacks": 2, "n_poolings": 2, "channels": 4, "growth": 2, "stem": (3,)}
GOLDEN = Path(__file__).parents[1] / "golden"


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


# ---- the published networks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [({}, 34_176_776), ({**REPORT, "channels": 64, "growth": 64}, 34_689_752), (REPORT, 42_752_792)],
    ids=["park", "report", "report_constant"],
)
def test_parameter_counts(settings, parameters):
    with torch.device("meta"):
        network = Hourglass(512, 2, **settings)
    assert count(network) == parameters
    stacks = network.stacks
    parts = [network.stem, *(stack.hourglass for stack in stacks)]
    parts += [module for stack in stacks for module in (stack.features, stack.head)]
    parts += [module for stack in stacks[:-1] for module in (stack.from_features, stack.from_masks)]
    assert sum(map(count, parts)) == parameters


def test_parts_of_parks_network():
    with torch.device("meta"):
        network = Hourglass(512, 2)
    conv = 256 * 256 * 9 + 256
    assert count(network.stem) == 3200 + 73_856 + 2 * 147_584 + 295_168
    for stack in network.stacks:
        assert count(stack.hourglass) == 13 * conv
        assert count(stack.features) == conv + 256 * 256 + 256
        assert count(stack.head) == 2 * 256 + 2
    assert [count(stack.from_features) + count(stack.from_masks) for stack in network.stacks[:-1]] == [66_560] * 3
    assert not hasattr(network.stacks[-1], "from_masks")


def test_reports_levels_grow():
    with torch.device("meta"):
        level = Hourglass(512, 2, **REPORT, channels=64, growth=64).stacks[0].hourglass
    widths = []
    while isinstance(level, Level):
        widths.append(level.skip[0].out_channels)
        bottom, level = level.inner, level.inner
    assert widths == [64, 128, 192, 256, 320]
    assert bottom[0].in_channels == 384


def test_weights_start_with_the_variance_of_parks_code():
    torch.manual_seed(0)
    weight = Hourglass(512, 2, n_stacks=1).stacks[0].hourglass.skip[0].weight
    assert weight.std().item() == pytest.approx((9 * 256) ** -0.5, rel=0.01)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("network", [Hourglass, SkipAttentionHourglass])
def test_every_parameter_gets_a_gradient(network, batch_norm):
    torch.manual_seed(0)
    model = network(16, 2, **TINY, kernel_size=3, batch_norm=batch_norm).eval()  # in training, BN takes biases out
    sum(stage.square().sum() for stage in model(torch.rand(2, 16, 8))).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(("bins", "frames"), [(16, 8), (1, 1), (37, 21), (513, 3)])
def test_any_size_goes_through(bins, frames):
    stages = Hourglass(bins, 3, **TINY)(torch.rand(2, bins, frames))
    assert [stage.shape for stage in stages] == [(2, 3, bins, frames)] * 2


@pytest.mark.parametrize("wrong", [{"n_stacks": 0}, {"n_poolings": 0}, {"stem": ()}, {"kernel_size": 2}])
def test_impossible_networks_are_refused(wrong):
    with pytest.raises(ValueError, match="must be odd|needs a stack"):
        Hourglass(512, 2, **{**TINY, **wrong})


# ---- the same computation again, from loops -------------------------------------------------------------------------


def naive_conv(layer, x):
    """Same-size convolution and ReLU of [c, F, L], tap by tap, in double precision."""
    weight, bias = (p.detach().double().numpy() for p in (layer[0].weight, layer[0].bias))
    reach = weight.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
    out = np.tile(bias[:, None, None], (1, *x.shape[1:]))
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            shifted = padded[:, i : i + x.shape[1], j : j + x.shape[2]]
            out += np.einsum("oc,cfl->ofl", weight[:, :, i, j], shifted)
    return np.maximum(out, 0)


def naive_pool(x):
    out = np.zeros((x.shape[0], x.shape[1] // 2, x.shape[2] // 2))
    for f in range(out.shape[1]):
        for t in range(out.shape[2]):
            out[:, f, t] = x[:, 2 * f : 2 * f + 2, 2 * t : 2 * t + 2].max(axis=(1, 2))
    return out


def test_a_level_agrees_with_loops():
    torch.manual_seed(1)
    level = Level([5, 7], batch_norm=False, merge=Sum)
    for p in level.parameters():
        torch.nn.init.normal_(p, std=0.3)
    x = torch.randn(5, 8, 6)
    below = naive_conv(level.inner, naive_conv(level.down, naive_pool(x.double().numpy())))
    up = naive_conv(level.up, below).repeat(2, axis=1).repeat(2, axis=2)
    expected = naive_conv(level.skip, x.double().numpy()) + up
    np.testing.assert_allclose(level(x[None])[0].detach().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_reinjection_reaches_the_next_stack_only():
    torch.manual_seed(0)
    network, x = Hourglass(16, 2, **TINY), torch.rand(1, 16, 8)
    before = network(x)
    with torch.no_grad():
        network.stacks[0].from_masks[0].weight.mul_(2)
    after = network(x)
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


@pytest.mark.parametrize("network", [Hourglass, SkipAttentionHourglass])
def test_golden_output(network):
    """Weights and input are sines, so that no random generator stands between this file and the stored one."""
    model = network(16, 2, **TINY, kernel_size=3)
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(torch.sin(number + 1.7 * torch.arange(parameter.numel())).view_as(parameter) / 3)
        stages = torch.stack(model(torch.sin(torch.arange(128.0)).abs().view(1, 16, 8)))
    stored = load_file(GOLDEN / "hourglass.safetensors")[network.__name__]
    torch.testing.assert_close(stages, stored, rtol=1e-4, atol=1e-5)


# ---- the heads it comes with ----------------------------------------------------------------------------------------


@pytest.fixture
def encoded():
    torch.manual_seed(0)
    carrier = torch.randn(2, 2, 5, 7)
    magnitude = torch.linalg.vector_norm(carrier, dim=1)
    scale = magnitude.amax(dim=(1, 2), keepdim=True)
    return Encoded(magnitude / scale, carrier, scale)


def test_clipped_masks_are_linear_in_the_loss_and_not_negative_in_the_output(encoded):
    stage = torch.randn(2, 3, 5, 7)
    head = Mask("clipped")
    assert torch.equal(head.predict(stage, encoded), masked(stage, encoded.features))
    assert torch.equal(head.apply(stage, encoded), masked(stage.relu(), encoded.carrier))


@pytest.mark.parametrize("activation", ["linear", "sigmoid", "relu"])
def test_the_subtracted_source_is_the_rest_of_the_mixture(encoded, activation):
    head = Mask(activation, subtract=True)
    assert head.n_outputs(3) == 2
    stage = torch.randn(2, 2, 5, 7)
    torch.testing.assert_close(head.predict(stage, encoded).sum(1), encoded.features)
    torch.testing.assert_close(head.apply(stage, encoded).sum(1), encoded.carrier)
    torch.testing.assert_close(head.predict(stage, encoded)[:, :2], Mask(activation).predict(stage, encoded))


def test_a_model_that_subtracts_needs_one_output_less():
    model = small_model(Hourglass, Mask("linear", subtract=True))
    mixture = torch.randn(1, 1, 2000)
    assert model.analyse(mixture).predictions[0].shape[1] == 2
    torch.testing.assert_close(model(mixture).sum(1), model.decoder(model.encoder(mixture[0]).carrier[:, None], 2000))
    assert model.separator.stacks[0].head[0].out_channels == 1
    assert SourceSeparator.from_config(model.config).head.subtract


def test_subtracting_is_refused_where_it_means_nothing():
    with pytest.raises(ValueError, match="softmax"):
        Mask("softmax", subtract=True)
    with pytest.raises(ValueError, match="two sources"):
        Mask("linear", subtract=True).n_outputs(1)


@pytest.mark.parametrize("power", [1.0, 0.3])
def test_plain_magnitudes_take_the_phase_of_the_mixture(encoded, power):
    head, wanted = Magnitude("none", power), torch.rand(2, 3, 5, 7)
    output = head.apply(wanted, encoded)
    expected = wanted ** (1 / power) * encoded.scale[:, None]
    torch.testing.assert_close(torch.linalg.vector_norm(output, dim=2), expected)
    phase = torch.atan2(encoded.carrier[:, 1], encoded.carrier[:, 0])[:, None].expand_as(wanted)
    torch.testing.assert_close(torch.atan2(output[:, :, 1], output[:, :, 0]), phase)
    assert not head.apply(-wanted, encoded).any()


# ---- learning -------------------------------------------------------------------------------------------------------


def small_model(network, head=None, **settings):
    settings = {"n_stacks": 2, "n_poolings": 3, "channels": 16, "stem": (16,), **settings}
    return SourceSeparator(
        ["guitar", "backing"],
        8000,
        STFTEncoder(512, 256, normalise="max", drop="nyquist"),
        functools.partial(network, **settings),
        STFTDecoder(512, 256, drop="nyquist"),
        head or Mask("sigmoid"),
    )


def excerpt():
    """Two seconds of a bundled song, mono at 8 kHz: mixture [1, 1, T], references [1, 2, 1, T]."""
    references = StemTrack(SONGS / "train" / "feelings", ["guitar", "backing"], 44_100).read(10 * 44_100, 2 * 44_100)[1]
    at_8k = soxr.resample(references.mean(1).T.numpy(), 44_100, 8000)
    references = torch.from_numpy(at_8k.T.copy()).float()[None, :, None]
    return references.sum(1), references


def snr(estimates, references):
    return 10 * torch.log10(references.square().sum(-1) / (estimates - references).square().sum(-1)).squeeze()


def learns_its_excerpt(model, steps, lr):
    """Each stage's loss halves, and every source comes to within 3 dB of the ideal ratio mask's SNR."""
    mixture, references = excerpt()
    encoded = model.encoder(mixture[0])
    magnitudes = model.encoder(references[0, :, 0]).features * model.encoder(references[0, :, 0]).scale
    ideal = masked((magnitudes / magnitudes.sum(0))[None], encoded.carrier)
    oracle = snr(model.decoder(ideal, mixture.shape[-1])[:, :, None], references)
    loss = Spectral("l1")

    def stages(model):
        return torch.stack(loss.stages(model.analyse(mixture), references, model))

    first = stages(model).detach()

    def reached(model):
        return (stages(model) < 0.5 * first).all() and (snr(model(mixture), references) > oracle - 3).all()

    return train_until(model, loss, (mixture, references), reached, steps, lr)


@pytest.mark.slow
def test_learns_an_excerpt_to_within_3_db_of_its_ideal_ratio_mask():
    learns_its_excerpt(small_model(Hourglass), 600, 3e-3)


@pytest.mark.slow
def test_skip_attention_learns_an_excerpt_to_within_3_db_of_its_ideal_ratio_mask():
    learns_its_excerpt(small_model(SkipAttentionHourglass, n_stacks=1), 600, 3e-3)


def test_a_misspelt_setting_names_its_path():
    config = small_model(Hourglass).config
    config["separator"]["init_args"]["n_stack"] = 3
    with pytest.raises(UserError, match=r"model.separator.n_stack: .* did you mean 'n_stacks'"):
        SourceSeparator.from_config(config)
