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
from tasnet_attn.storage import load
from tasnet_attn.storage.tensors import write_safetensors

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


def by_hand(attention, x, divisor):
    """Sliced attention as the text says it, a slice, a head, a group of channels and a frame at a time."""
    channels, length = x.shape[1:3]
    together = range(channels) if attention.scores == "joint" else None
    queries, keys, values = attention.project_in(x).chunk(3, dim=1)
    output = torch.zeros_like(queries)
    part = math.ceil(length / attention.slices)
    for item in range(len(x)):
        for head in range(attention.heads):
            for group in [together] if together else [[c] for c in range(channels)]:
                rows = [head * channels + c for c in group]
                for frame in range(length):
                    first = frame // part * part
                    seen = range(first, min(first + part, length))
                    scores = [(queries[item, rows, frame] * keys[item, rows, k]).sum() / divisor for k in seen]
                    weights = torch.stack(scores).softmax(0)
                    output[item, rows, frame] = sum(
                        w * values[item, rows, k] for w, k in zip(weights, seen, strict=True)
                    )
    return attention.project_out(output)


@pytest.mark.parametrize("scores", ["channel", "joint"])
@pytest.mark.parametrize(("slices", "length"), [(1, 5), (12, 24), (12, 21), (4, 10), (4, 2), (4, 1)])
def test_sliced_attention_by_hand(scores, slices, length):
    """Twelve slices and one; also where the last is ragged, or where there are more slices than frames."""
    attention = SlicedAttention(4, 2, slices, scores).double()
    x = 3 * torch.randn(1, 4, length, 5, dtype=torch.float64)
    with torch.no_grad():  # d_k is the number of feature maps, 4, in both modes
        torch.testing.assert_close(attention(x), by_hand(attention, x, math.sqrt(4)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("scores", "width"), [("channel", 5), ("joint", 4 * 5)])
def test_scores_may_be_divided_as_in_version_0_1_0(scores, width):
    attention, x = SlicedAttention(4, 2, 3, scores, "width").double(), torch.randn(1, 4, 8, 5, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(attention(x), by_hand(attention, x, math.sqrt(width)), rtol=0, atol=1e-6)


def test_a_file_of_version_0_1_0_computes_what_it_did(tmp_path):
    """Its description knows no `scale`; nor does a run's checkpoint."""
    model = small_model(scale="width", joint=True).eval()
    config = model.config
    del config["separator"]["init_args"]["scale"]
    write_safetensors(tmp_path / "old.safetensors", config, model.state_dict(), {}, None)
    state = {f"model.{name}": weight for name, weight in model.state_dict().items()}
    torch.save({"model_config": config, "state_dict": state}, tmp_path / "old.ckpt")
    mixture = torch.rand(1, 1, 8000)
    with torch.no_grad():
        for name in ("old.safetensors", "old.ckpt"):
            old = load(tmp_path / name)
            assert old.config["separator"]["init_args"]["scale"] == "width"
            assert torch.equal(old(mixture), model(mixture))
        new = SourceSeparator.from_config(config).eval()  # a YAML file without it: what the paper says
        new.load_state_dict(model.state_dict())
        assert not torch.allclose(new(mixture), model(mixture))


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
        "out_kernel": 1, "scale": "width",
    }  # fmt: skip
    for name, value in changes.items():
        parameters, output = state(**{name: value})
        assert parameters != base[0] or not torch.allclose(output, base[1]), name


@pytest.mark.parametrize(
    "wrong", [{"slices": 0}, {"scores": "all"}, {"norm": "batch"}, {"out_kernel": 2}, {"scale": "d_k"}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SamsNet(9, 2, **wrong)


@pytest.mark.parametrize("scores", ["channel", "joint"])
def test_golden_output(scores):
    """Weights and input are sines, so that no random generator stands between this file and the stored one.

    What it holds was computed by version 0.1.0, whose scores are divided by the root of the width.
    """
    separator = SamsNet(8, 2, **TINY, scores=scores, scale="width")
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
