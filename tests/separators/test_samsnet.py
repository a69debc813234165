import math
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import train_until
from safetensors.torch import load_file

from tasnet_attn.data.stem_folders import SONGS, StemTrack
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.oracles import ModelOracle
from tasnet_attn.filterbanks import STFTDecoder, STFTEncoder
from tasnet_attn.heads import Mask
from tasnet_attn.losses import Spectral
from tasnet_attn.metrics import si_snr
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import SamsNet
from tasnet_attn.separators.samsnet import SlicedAttention, separable

GOLDEN = Path(__file__).parents[1] / "golden" / "samsnet.safetensors"
TINY = {"channels": 4, "n_modules": 2, "slices": 3}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts_of_the_parts():
    attention = SlicedAttention(64, heads=2, slices=12)
    depthwise, pointwise = separable(64)
    assert count(attention.project_in) == 2 * 3 * 4160  # queries, keys and values of two heads
    assert count(attention.project_out) == 73_792
    assert count(depthwise) == 640
    assert count(pointwise) == 4160


@pytest.mark.parametrize(("norm", "width"), [("channels", 64), ("frequencies", 2049)])
def test_the_parts_are_the_whole(norm, width):
    stem, last, module = 640, 9 * 64 + 1, 6 * 4160 + 73_792 + 640 + 4160
    with torch.device("meta"):
        assert count(SamsNet(2049, 1, norm=norm)) == stem + 3 * (module + 2 * 2 * width) + last
        assert count(SamsNet(2049, 4, norm=norm)) == 4 * count(SamsNet(2049, 1, norm=norm))
        assert count(SamsNet(2049, 4, norm=norm, joint=True)) == count(SamsNet(2049, 1, norm=norm)) + 3 * last


def plain_attention(attention, x):
    """Full attention over all frames, scores built by hand, a channel at a time."""
    q, k, v = attention.project_in(x).chunk(3, dim=1)
    channels, (_, _, _, bins) = q.shape[1], q.shape
    groups = range(channels) if attention.scores == "channel" else range(attention.heads)
    size = channels // len(groups)
    outputs = []
    for group in groups:
        q_g, k_g, v_g = (each[:, group * size : (group + 1) * size] for each in (q, k, v))
        scores = torch.einsum("nclf,ncmf->nlm", q_g, k_g) / math.sqrt(size * bins)
        outputs.append(torch.einsum("nlm,ncmf->nclf", scores.softmax(-1), v_g))
    return attention.project_out(torch.cat(outputs, dim=1))


@pytest.mark.parametrize("scores", ["channel", "joint"])
def test_one_slice_is_plain_attention(scores):
    attention, x = SlicedAttention(4, 2, slices=1, scores=scores), torch.randn(2, 4, 13, 5)
    torch.testing.assert_close(attention(x), plain_attention(attention, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scores", ["channel", "joint"])
@pytest.mark.parametrize("length", [12, 13, 10, 2, 1])
def test_slices_are_plain_attention_of_each_alone(scores, length):
    """Also where the last slice is padded, or where there are more slices than frames."""
    attention, x = SlicedAttention(4, 2, slices=4, scores=scores), torch.randn(1, 4, length, 5)
    attention.project_out = torch.nn.Identity()  # it alone looks beyond a slice
    parts = [plain_attention(attention, part) for part in x.split(math.ceil(length / 4), dim=2)]
    torch.testing.assert_close(attention(x), torch.cat(parts, dim=2), rtol=1e-5, atol=1e-6)


def test_slices_never_see_each_other():
    attention, x = SlicedAttention(4, 2, slices=12), torch.randn(1, 4, 259, 3, requires_grad=True)
    attention.project_out = torch.nn.Identity()
    attention(x)[:, :, 22:44].sum().backward()  # the second of 12 slices of 22 frames (259 are padded to 264)
    seen = x.grad.abs().sum(dim=(0, 1, 3)) > 0
    assert seen.nonzero().flatten().tolist() == list(range(22, 44))


@pytest.mark.parametrize("settings", [{}, {"joint": True}, {"scores": "joint"}, {"norm": "channels"}])
def test_every_parameter_gets_a_gradient(settings):
    separator = SamsNet(9, 2, **TINY, **settings)
    separator(torch.rand(2, 9, 11))[0].square().sum().backward()
    for name, parameter in separator.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0, name


def test_sources_of_separate_networks_do_not_influence_each_other():
    separator = SamsNet(9, 2, **TINY)
    separator(torch.rand(2, 9, 11))[0][:, 0].sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in separator.networks[0].parameters())
    assert all(parameter.grad.abs().max() == 0 for parameter in separator.networks[1].parameters())


@pytest.mark.parametrize("length", [1, 2, 3, 35, 36, 37, 259])
def test_any_number_of_frames(length):
    assert SamsNet(5, 2, channels=4, n_modules=1)(torch.rand(2, 5, length))[0].shape == (2, 2, 5, length)


def test_each_argument_changes_something():
    x = torch.rand(1, 9, 11)

    def state(**settings):
        torch.manual_seed(0)
        separator = SamsNet(9, 2, **{**TINY, **settings})
        return count(separator), separator(x)[0]

    base = state()
    changes = {
        "channels": 6, "n_modules": 1, "heads": 1, "slices": 2, "joint": True, "scores": "joint", "norm": "channels",
        "out_kernel": 1,
    }  # fmt: skip
    for name, value in changes.items():
        parameters, output = state(**{name: value})
        assert parameters != base[0] or not torch.allclose(output, base[1]), name


@pytest.mark.parametrize("wrong", [{"slices": 0}, {"scores": "all"}, {"norm": "batch"}, {"out_kernel": 2}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SamsNet(9, 2, **wrong)


@pytest.mark.parametrize("scores", ["channel", "joint"])
def test_golden_output(scores):
    """Weights and input are sines, so that no random generator stands between this file and the stored one."""
    separator = SamsNet(8, 2, **TINY, scores=scores)
    with torch.no_grad():
        for number, parameter in enumerate(separator.parameters()):
            parameter.copy_(torch.sin(number + 1.7 * torch.arange(parameter.numel())).view_as(parameter) / 3)
        output = separator(torch.sin(torch.arange(88.0)).abs().view(1, 8, 11))[0]
    torch.testing.assert_close(output, load_file(GOLDEN)[scores], rtol=1e-4, atol=1e-5)


def small_model(**settings):
    """Bins and frames of a quarter of the published size; the head is ours, the paper names none."""
    return SourceSeparator(
        ["guitar", "backing"],
        44100,
        STFTEncoder(1024, 512, "hamming"),
        partial(SamsNet, **{"channels": 8, "n_modules": 2, **settings}),
        STFTDecoder(1024, 512, "hamming"),
        Mask("sigmoid"),
    )


@pytest.mark.slow
def test_learns_an_excerpt_to_within_3_db_of_its_ideal_ratio_mask():
    """Two seconds of a bundled song, the channels' mean; one small joint network."""
    track = StemTrack(SONGS / "train" / "feelings", ["guitar", "backing"], 44_100)
    mixture, references = (signal.mean(-2, keepdim=True) for signal in track.read(10 * 44100, 2 * 44100))
    model = small_model(joint=True)
    oracle = si_snr(references, ModelOracle(model, "ratio")(mixture, references))
    assert (oracle > 10).all()  # there is something to learn

    def reached(model):
        return (si_snr(references, model(mixture[None])[0]) > oracle - 3).all()

    train_until(model, Spectral("l2"), (mixture[None], references[None]), reached, steps=600, lr=5e-3)


def test_a_misspelt_setting_names_its_path():
    config = small_model().config
    config["separator"]["init_args"]["slice"] = 3
    with pytest.raises(UserError, match=r"model.separator.slice: .* did you mean 'slices'"):
        SourceSeparator.from_config(config)
