import math
from functools import partial

import pytest
import torch

from tasnet_attn.filterbanks import GatedEncoder, LearnedDecoder
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import LTL, TasNet


def paper_model(separator):
    """N = 500, L = 220, two sources at 44.1 kHz."""
    with torch.device("meta"):
        return SourceSeparator(
            ["vocals", "accompaniment"], 44_100, GatedEncoder(500, 220), separator, LearnedDecoder(500, 220)
        )


@pytest.mark.parametrize(
    ("separator", "count"),
    [
        (TasNet, 8_848_000),
        (partial(TasNet, input_norm=False), 8_847_000),
        (LTL, 7_878_024),
        (partial(TasNet, bidirectional=True), 23_364_000),
        (partial(TasNet, bidirectional=True, input_norm=False), 23_363_000),
        (partial(LTL, **LTL.parse("3_trans_0"), transformer_layers=2, ffn=2048, bidirectional=True), 33_569_096),
    ],
)
def test_published_parameter_counts(separator, count):
    assert sum(p.numel() for p in paper_model(separator).parameters()) == count


@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_configuration_gives_masks(before, layers, after, bidirectional):
    separator = LTL(6, 3, before, layers, after, hidden=4, heads=2, ffn=5, bidirectional=bidirectional)
    (masks,) = separator(torch.randn(2, 6, 9))
    assert masks.shape == (2, 3, 6, 9)


BASE = {"lstm_before": 1, "transformer_layers": 1, "lstm_after": 0, "hidden": 8, "heads": 2, "ffn": 12}
CHANGES = [
    {"lstm_before": 2},
    {"lstm_before": 0},
    {"transformer_layers": 2},
    {"lstm_after": 1},
    {"hidden": 12},
    {"heads": 4},
    {"ffn": 16},
    {"bidirectional": True},
    {"attention": "full"},
    {"window": 2},
    {"positional": "sinusoidal"},
    {"init": "xavier_normal"},
    {"init": "kaiming_uniform"},
    {"init": "kaiming_normal"},
    {"dropout": 0.5},
    {"input_norm": True},
    {"norm": "pre"},
    {"ffn_layer": "lstm"},
    {"project": False, "hidden": 16},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_argument_changes_a_count_or_an_output(change):
    def build(settings):
        torch.manual_seed(0)
        separator = LTL(8, 2, **settings)
        torch.manual_seed(1)
        return sum(p.numel() for p in separator.parameters()), separator(torch.randn(1, 8, 9))[0]

    (count, output), (new_count, new_output) = build(BASE), build(BASE | change)
    assert new_count != count or not torch.allclose(new_output, output)


def test_constructor_arguments_are_all_covered():
    import inspect

    names = set(inspect.signature(LTL.__init__).parameters) - {"self", "n_features", "n_sources"}
    names.remove("gradient_checkpointing")  # changes nothing: test_checkpointing.py
    assert names == {name for change in CHANGES for name in change}


@pytest.mark.parametrize(
    ("change", "count_differs"),
    [({"hidden": 5}, True), ({"n_layers": 3}, True), ({"bidirectional": True}, True), ({"input_norm": False}, True)],
)
def test_tasnet_arguments(change, count_differs):
    base = {"hidden": 4, "n_layers": 2, "bidirectional": False, "input_norm": True}
    counts = [sum(p.numel() for p in TasNet(6, 2, **settings).parameters()) for settings in (base, base | change)]
    assert (counts[0] != counts[1]) == count_differs


def test_tasnet_equals_its_layers_with_identity_skips():
    separator, x = TasNet(6, 2, hidden=4, n_layers=6), torch.randn(2, 6, 9)
    y, outputs = separator.norm(x.transpose(1, 2)), []
    for lstm in separator.lstms:
        y = lstm(y)[0]
        outputs.append(y)
        if len(outputs) in (4, 6):
            outputs[-1] = y = y + outputs[len(outputs) - 3]
    masks = separator.to_masks(y).view(2, 9, 2, 6).permute(0, 2, 3, 1)
    torch.testing.assert_close(separator(x)[0], masks)


# (fan_in, fan_out) -> standard deviation
FORMULAS = {
    "xavier_uniform": lambda i, o: math.sqrt(2 / (i + o)),
    "xavier_normal": lambda i, o: math.sqrt(2 / (i + o)),
    "kaiming_uniform": lambda i, o: math.sqrt(2 / i),
    "kaiming_normal": lambda i, o: math.sqrt(2 / i),
}


@pytest.mark.parametrize("init", list(FORMULAS))
def test_initialisation_has_the_formula_s_deviation_on_the_transformer_only(init):
    def build(name):
        torch.manual_seed(0)
        return LTL(64, 2, 1, 2, 1, hidden=64, heads=4, ffn=256, init=name)

    separator = build(init)
    for layer in separator.transformer:
        matrices = [
            *layer.project_in.weight.chunk(3),
            layer.project_out.weight,
            layer.ffn[0].weight,
            layer.ffn[2].weight,
        ]
        for weight in matrices:
            fan_out, fan_in = weight.shape
            deviation = FORMULAS[init](fan_in, fan_out)
            assert weight.std().item() == pytest.approx(deviation, rel=0.05)
            bound = deviation * math.sqrt(3)
            assert (weight.abs().max() <= bound * 1.0001).item() == init.endswith("uniform")
    other = build("kaiming_normal" if init == "xavier_normal" else "xavier_normal")
    for name, parameter in separator.named_parameters():  # LayerNorms and biases of the transformer start alike
        if not name.startswith(("transformer", "after", "to_masks")):
            assert torch.equal(parameter, other.get_parameter(name)), name
        elif not name.startswith("transformer"):
            assert parameter.std().item() == pytest.approx(other.get_parameter(name).std().item(), rel=0.1), name


@pytest.mark.parametrize(
    "separator",
    [
        LTL(6, 2, 1, 2, 1, hidden=4, heads=2, ffn=5),
        LTL(6, 2, 0, 2, 0, heads=2, ffn=5, positional="sinusoidal", window=4),
        LTL(6, 2, 2, 1, 0, hidden=4, heads=2, ffn=5, window=3, input_norm=True),
        LTL(6, 2, 1, 2, 0, hidden=4, heads=2, ffn=5, window=4, norm="pre", ffn_layer="lstm"),
        TasNet(6, 2, hidden=4),
    ],
    ids=["LTL", "window, code", "window", "LSTM in the layers", "TasNet"],
)
def test_blocks_with_carried_state_equal_the_whole(separator):
    assert separator.causal
    features = torch.randn(2, 6, 23)
    state, blocks, start = separator.initial_state(2), [], 0
    for size in (1, 5, 2, 9, 6):
        stages, state = separator.step(features[..., start : start + size], state)
        blocks.append(stages[-1])
        start += size
    torch.testing.assert_close(torch.cat(blocks, dim=-1), separator(features)[-1], atol=1e-5, rtol=1e-5)


def test_parse_and_its_errors():
    assert LTL.parse("2_trans_1") == {"lstm_before": 2, "lstm_after": 1}
    for name in ("0_trans_2", "2_trans_0"):
        assert LTL(8, 2, **LTL.parse(name), transformer_layers=1, hidden=4, heads=2).name == name
    for bad in ("2_trans", "trans_0", "a_trans_b", "2_trans_0 "):
        with pytest.raises(ValueError, match="X_trans_Y"):
            LTL.parse(bad)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"heads": 3}, "heads 3 must divide the width 8"),
        ({"attention": "both"}, "attention"),
        ({"positional": "learned"}, "positional"),
        ({"window": 0}, "window"),
        ({"norm": "middle"}, "norm 'middle'"),
        ({"ffn_layer": "gru"}, "ffn_layer 'gru'"),
        ({"project": False}, "project: false gives 8 numbers per frame; 16 are needed"),
    ],
)
def test_bad_settings_are_said_clearly(settings, said):
    with pytest.raises(ValueError, match=said):
        LTL(8, 2, **BASE | settings)
