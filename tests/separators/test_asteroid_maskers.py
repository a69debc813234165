"""Asteroid's mask networks in our models are Asteroid's: the same weights, the same outputs, the same settings."""

import inspect
import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from conftest import tasnet_model

from tasnet_attn import compat, config, load, save
from tasnet_attn.cli import main
from tasnet_attn.config.components import OPTIONAL
from tasnet_attn.errors import UserError
from tasnet_attn.heads import Mask
from tasnet_attn.nn import TransformerLayer
from tasnet_attn.separators import LTL, Chunks, DualPath, Separator
from tasnet_attn.separators import asteroid as maskers
from tasnet_attn.separators.folds import GlobalNorm

masknn, models = compat.asteroid.masknn, compat.asteroid.models
NETWORKS = {  # each masker, the network of Asteroid's that holds it, and settings that make it small
    maskers.TDConvNet: (models.ConvTasNet, {"n_blocks": 2, "n_repeats": 2, "bn_chan": 8, "hid_chan": 9}),
    maskers.DPRNN: (models.DPRNNTasNet, {"bn_chan": 8, "hid_size": 6, "chunk_size": 4, "n_repeats": 2}),
    maskers.DPTransformer: (models.DPTNet, {"ff_hid": 6, "chunk_size": 4, "n_repeats": 1}),
    maskers.SuDORMRF: (models.SuDORMRFNet, {"bn_chan": 8, "num_blocks": 2, "upsampling_depth": 3}),
    maskers.LSTMMasker: (models.LSTMTasNet, {"hid_size": 7, "n_layers": 2}),
}
each_masker = pytest.mark.parametrize("masker", NETWORKS, ids=lambda cls: cls.__name__)


@each_masker
def test_its_settings_and_their_defaults_are_asteroid_s(masker):
    theirs = {name: p.default for name, p in inspect.signature(masker.network).parameters.items()}
    ours = {name: setting.default for name, setting in config.settings(masker).items()}
    decided = {"n_features", "n_sources"}, {"in_chan", "n_src", "out_chan", "mask_act", *masker.unused}
    assert {k: v for k, v in ours.items() if k not in decided[0]} == {
        k: v for k, v in theirs.items() if k not in decided[1]
    }


@each_masker
def test_it_has_as_many_parameters_as_in_asteroid_s_own_network(masker):
    with torch.device("meta"):
        theirs = NETWORKS[masker][0](n_src=2, n_filters=64).masker
        ours = masker(64, 2)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@each_masker
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])  # softmax of DPRNN and LSTMMasker is not over the sources
def test_a_model_s_masks_are_the_bare_masker_s(masker, activation):
    settings = NETWORKS[masker][1]
    model = tasnet_model(partial(masker, **settings), head=Mask(activation)).eval()
    bare = masker.network(24, 2, mask_act=activation, **settings).eval()
    bare.load_state_dict(model.separator.masker.state_dict())
    mixture = torch.randn(3, 1, 501)
    encoded = model.encoder(mixture[:, 0])
    masks = bare(encoded.features)
    with torch.no_grad():
        torch.testing.assert_close(model.head.mask(model.separator(encoded.features)[-1]), masks)
        estimates = model.decoder(masks * encoded.carrier.unsqueeze(1), 501).unsqueeze(2)
        torch.testing.assert_close(model(mixture), estimates)


@each_masker
@pytest.mark.parametrize("n_features", [12, 13])  # an STFT has an odd number
@pytest.mark.parametrize("frames", [1, 2, 7, 16])
def test_any_number_of_features_and_frames(masker, n_features, frames):
    with torch.no_grad():
        (masks,) = masker(n_features, 3, **NETWORKS[masker][1])(torch.randn(2, n_features, frames))
    assert masks.shape == (2, 3, n_features, frames)


@each_masker
def test_a_file_names_it_bare_and_loads(masker, tmp_path):
    model = tasnet_model(partial(masker, **NETWORKS[masker][1])).eval()
    assert model.config["separator"]["class_path"] == masker.__name__
    again = load(save(model, tmp_path / "model.safetensors"))
    mixture = torch.randn(1, 1, 400)
    with torch.no_grad():
        assert torch.equal(again(mixture), model(mixture))


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({"n_block": 4}, "model.separator.n_block: TDConvNet has no such setting; did you mean 'n_blocks'?"),
        ({"mask_act": "relu"}, "model.separator.mask_act: TDConvNet has no such setting"),  # the head's affair
        ({"n_blocks": 2.5}, "model.separator.n_blocks: 2.5 is not a whole number"),
        ({"norm_type": "LN"}, "model.separator: TDConvNet: Could not interpret normalization identifier: LN"),
    ],
)
def test_a_wrong_setting_is_one_line(described, said):
    model = tasnet_model().config | {"separator": {"class_path": "TDConvNet", "init_args": described}}
    with pytest.raises(UserError) as refused:
        type(tasnet_model()).from_config(model)
    assert str(refused.value).startswith(said) and "\n" not in str(refused.value)


def test_a_recurrence_that_it_does_not_have():
    with pytest.raises(UserError, match="model.rnn_type: 'LSTMM' is not one of 'RNN', 'LSTM', 'GRU'"):
        config.complete({"class_path": "DPRNN", "init_args": {"rnn_type": "LSTMM"}}, Separator, "model", n_features=4,
                        n_sources=2)  # fmt: skip


LSTM = {"lstm_before": 1, "transformer_layers": 0, "hidden": 6}
ASTEROID_S = {
    "bottleneck.0": "fold.norm",
    "bottleneck.1": "fold.enter",
    "first_out.0": "fold.rectify",
    "first_out.1": "fold.split",
    "net_out.0": "fold.content",
    "net_gate.0": "fold.gate",
    "mask_net": "fold.leave",
    "intra_RNN.rnn": "within.before",
    "inter_RNN.rnn": "across.before",
    "intra_linear": "within.to_masks",
    "inter_linear": "across.to_masks",
    "intra_norm": "norm_within",
    "inter_norm": "norm_across",
    "gamma": "weight",
    "beta": "bias",
    "net.": "blocks.",
}


def of_asteroid_s(weights):
    """The weights of its DPRNN, for ours; its convolutions of one frame are linear maps."""
    ours = {}
    for name, weight in weights.items():
        for theirs, our in ASTEROID_S.items():
            name = name.replace(theirs, our)
        pointwise = weight.dim() > 2
        ours[name] = weight.flatten(1) if pointwise else weight
    return ours


@pytest.mark.parametrize("frames", [1, 7, 33])
@pytest.mark.parametrize(("size", "hop"), [(4, None), (5, 3)])
@pytest.mark.parametrize("one_way", [False, True])
def test_our_dual_path_is_asteroid_s_dprnn(frames, size, hop, one_way):
    settings = {"bn_chan": 8, "hid_size": 6, "n_repeats": 2, "bidirectional": not one_way}
    theirs = masknn.DPRNN(12, 3, chunk_size=size, hop_size=hop, mask_act="linear", **settings)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    within, across = (partial(LTL, **LSTM, bidirectional=both) for both in (True, not one_way))
    ours = DualPath(12, 3, partial(Chunks, size=size, hop=hop), 8, 2, within, across, norm="global")
    ours.load_state_dict(of_asteroid_s(theirs.state_dict()))
    features = torch.randn(2, 12, frames)
    expected = theirs(features)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(ours(features)[-1], expected, atol=1e-5, rtol=1e-5)


def test_our_transformer_layer_is_dptnet_s():
    """With its global norm instead of LayerNorm: the layer's other weights and arithmetic are the same."""
    theirs = masknn.attention.ImprovedTransformedLayer(8, 2, 5).eval()
    ours = TransformerLayer(8, 2, 5, causal=False, ffn_layer="lstm")
    ours.norm_attention, ours.norm_ffn = GlobalNorm(8), GlobalNorm(8)
    names = {
        "mha.in_proj_": "project_in.",
        "mha.out_proj": "project_out",
        "linear": "ffn.2",
        "norm_mha": "norm_attention",
        "norm_ff.": "norm_ffn.",
        "gamma": "weight",
        "beta": "bias",
    }
    weights = {}
    for name, weight in theirs.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        weights[name] = torch.nn.init.normal_(weight)
    ours.load_state_dict(weights)
    x = torch.randn(2, 7, 8)
    torch.testing.assert_close(ours(x), theirs(x.transpose(1, 2)).transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_our_dual_path_has_dprnn_s_number_of_parameters():
    path = partial(LTL, **LSTM | {"hidden": 128}, bidirectional=True)
    with torch.device("meta"):
        theirs = masknn.DPRNN(64, 2, bn_chan=64)
        ours = DualPath(64, 2, Chunks, 64, 6, path, path, "global")
    counts = [sum(p.numel() for p in each.parameters()) for each in (theirs, ours)]
    assert counts[0] == counts[1] and round(counts[0], -5) == 2_600_000  # the paper's 2.6 M


def test_the_table_of_what_is_imported_on_demand_is_complete():
    assert set(OPTIONAL) == {cls.__name__ for cls in NETWORKS} == set(maskers.__all__) - {"Masker"}
    assert set(OPTIONAL.values()) == {maskers.__name__}


REFUSAL = "model.separator: 'TDConvNet' is not imported automatically; add --import tasnet_attn.separators.asteroid"


def test_nothing_imports_asteroid_unasked(tmp_path):
    """In a fresh process: `load` refuses and says what to add; with the module imported it loads."""
    separator = partial(maskers.TDConvNet, **NETWORKS[maskers.TDConvNet][1])
    file = save(tasnet_model(separator), tmp_path / "model.safetensors")
    code = (
        "import sys, tasnet_attn\ntry: tasnet_attn.load(sys.argv[1])\n"
        "except tasnet_attn.errors.UserError as error: print(error)\nprint('asteroid' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, env=os.environ)
    assert ran.stdout.splitlines() == [f"{file}: {REFUSAL}", "False"], ran.stderr


@pytest.mark.slow
@each_masker
@pytest.mark.parametrize("format", ["safetensors", "torchscript", "torch-export", "onnx"])
def test_exports(masker, format, tmp_path, capsys):
    file = save(tasnet_model(partial(masker, **NETWORKS[masker][1])), tmp_path / "model.safetensors")
    arguments = ["--import", maskers.__name__, "export", str(file), "--to", format, "--out", str(tmp_path / "out")]
    status = main(arguments)
    said = capsys.readouterr()
    if masker is maskers.SuDORMRF and format in ("torch-export", "onnx"):  # it counts frames in Python
        assert status == 2 and "computes sizes from the number of frames in Python" in said.err
        assert "_local.py:" in said.err and said.err.count("\n") == 1 and not (tmp_path / "out").exists()
        return
    assert status == 0, said.err
