"""DualPath: a loop computes it, and it streams where it is causal. It is Asteroid's DPRNN: test_asteroid_maskers.py."""

import inspect
from functools import partial
from math import cos, sin

import pytest
import torch
from conftest import ROOT, tasnet_model

from tasnet_attn import config
from tasnet_attn.errors import UserError
from tasnet_attn.filterbanks import STFTDecoder, STFTEncoder
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import LTL, Bands, Chunks, DualPath
from tasnet_attn.separators.folds import GlobalNorm, band_sizes

PATH = partial(LTL, lstm_before=1, transformer_layers=0, hidden=6, bidirectional=True)
ONE_WAY = partial(PATH, bidirectional=False)
ATTENDING = partial(LTL, lstm_before=1, transformer_layers=1, hidden=6, heads=2, ffn=5, window=4)
FRAMES = partial(Bands, n_bands=3, standardise="frame")
CAUSAL = {"fold": FRAMES, "width": 8, "n_blocks": 2, "within": PATH}


def lstm_by_hand(lstm, frames, backwards):
    """[L, D] -> [L, H], one frame and one gate after the other."""
    suffix = "_reverse" if backwards else ""
    w, r, b, c = (getattr(lstm, f"{name}_l0{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h = cell = torch.zeros(lstm.hidden_size, dtype=frames.dtype)
    out = {}
    for i in reversed(range(len(frames))) if backwards else range(len(frames)):
        enter, forget, new, leave = (w @ frames[i] + b + r @ h + c).chunk(4)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
        h = torch.sigmoid(leave) * torch.tanh(cell)
        out[i] = h
    return torch.stack([out[i] for i in range(len(frames))])


def test_a_loop_over_bands_and_frames_computes_the_same():
    model = DualPath(11, 2, partial(Bands, n_bands=3), 4, 1, PATH, PATH).double()
    features = torch.rand(1, 11, 5).double()
    x, block, fold = features[0].T, model.blocks[0], model.fold
    x = (x - x.mean()) / (x.var(unbiased=False) + 1e-8).sqrt()
    starts = [0, fold.sizes[0], fold.sizes[0] + fold.sizes[1], 11]
    plane = [[fold.enter[k](x[j, starts[k] : starts[k + 1]]) for k in range(3)] for j in range(5)]

    def along(path, norm, line):
        both = [lstm_by_hand(path.before, torch.stack(line), backwards) for backwards in (False, True)]
        return [old + norm(path.to_masks(new)) for old, new in zip(line, torch.cat(both, dim=-1), strict=True)]

    plane = [along(block.within, block.norm_within, bands) for bands in plane]
    columns = [along(block.across, block.norm_across, [plane[j][k] for j in range(5)]) for k in range(3)]
    masks = [[fold.leave[k](columns[k][j]).view(2, -1) for k in range(3)] for j in range(5)]
    expected = torch.stack([torch.cat(bands, dim=-1) for bands in masks], dim=-1)
    torch.testing.assert_close(model(features)[0][0], expected, atol=1e-6, rtol=1e-6)


def test_sepformer_s_block_is_torch_s_transformer_along_two_axes():
    """Subakan et al. 2021, section 2.2: layers with their norms in front, a code of the positions for each path."""
    length, width, heads, ffn, depth = 11, 8, 2, 5, 3
    path = {"lstm_before": 0, "transformer_layers": depth, "heads": heads, "ffn": ffn, "attention": "full"}
    path |= {"positional": "sinusoidal", "norm": "pre", "project": False}
    within, across = partial(LTL, **path), partial(LTL, **path)
    model = DualPath(6, 2, partial(Chunks, size=4), width, 1, within, across, "global").double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)

    def code(places):
        angles = [[p / 10_000 ** (2 * (i // 2) / width) for i in range(width)] for p in range(places)]
        return torch.tensor([[(sin, cos)[i % 2](a) for i, a in enumerate(row)] for row in angles]).double()

    def along(ltl, norm, lines):
        """[M, L, D] -> the same; the norm is over all of them."""
        layer = torch.nn.TransformerEncoderLayer(width, heads, ffn, 0.0, batch_first=True, norm_first=True)
        torch_s = torch.nn.TransformerEncoder(layer, depth, torch.nn.LayerNorm(width), False).double().eval()
        for theirs, ours in zip(torch_s.layers, ltl.transformer, strict=True):
            maps = {"in_proj_weight": ours.project_in.weight, "in_proj_bias": ours.project_in.bias}
            maps |= {"out_proj.weight": ours.project_out.weight, "out_proj.bias": ours.project_out.bias}
            theirs.self_attn.load_state_dict(maps)
            pairs = (theirs.linear1, ours.ffn[0]), (theirs.linear2, ours.ffn[2])
            for one, other in (*pairs, (theirs.norm1, ours.norm_attention), (theirs.norm2, ours.norm_ffn)):
                one.load_state_dict(other.state_dict())
        torch_s.norm.load_state_dict(ltl.norm_transformer.state_dict())
        change = torch_s(lines + code(lines.shape[1]))
        change = (change - change.mean()) / (change.var(unbiased=False) + 1e-8).sqrt()
        return lines + change * norm.weight + norm.bias

    plane = model.fold(torch.rand(1, 6, length).double())
    block = model.blocks[0]
    expected = along(block.within, block.norm_within, plane[0])
    expected = along(block.across, block.norm_across, expected.transpose(0, 1)).transpose(0, 1)
    torch.testing.assert_close(block(plane)[0][0], expected, atol=1e-6, rtol=1e-6)


def test_sepformer_s_recipe_has_the_paper_s_number_of_parameters():
    files = [f"--config={ROOT / 'recipes/librimix' / name}" for name in ("base.yml", "sepformer/conf.yml")]
    with torch.device("meta"):
        model = SourceSeparator.from_config(config.read(files).ours["model"])
    assert round(sum(p.numel() for p in model.parameters()), -5) == 25_700_000  # the paper's table 1: 26 M


FORMS = {
    "bands": partial(DualPath, fold=partial(Bands, n_bands=2), width=4, n_blocks=1, within=PATH, across=PATH),
    "chunks": partial(
        DualPath, fold=partial(Chunks, size=3), width=4, n_blocks=1, within=PATH, across=PATH, norm="global"
    ),
    "causal": partial(DualPath, **CAUSAL | {"n_blocks": 1, "width": 4}, across=ATTENDING),
}


@pytest.mark.parametrize("form", FORMS)
def test_its_gradients_are_the_differences(form):
    separator = FORMS[form](5, 2).double()
    features = torch.rand(1, 5, 4).double().requires_grad_()
    torch.autograd.gradcheck(lambda x: separator(x)[0], (features,), fast_mode=True)
    separator(features)[0].square().mean().backward()
    for name, parameter in separator.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("across", [ONE_WAY, ATTENDING], ids=["LSTM", "attention"])
def test_what_is_causal_ignores_the_future_and_carries_its_state(across):
    separator = DualPath(9, 2, across=across, **CAUSAL)
    assert separator.causal and not separator.cannot_stream
    one, other = torch.rand(2, 2, 9, 12)
    other[..., :7] = one[..., :7]
    torch.testing.assert_close(separator(one)[0][..., :7], separator(other)[0][..., :7])
    assert not torch.allclose(separator(one)[0][..., 7:], separator(other)[0][..., 7:])
    state, blocks = separator.initial_state(2), []
    for block in one.split([1, 4, 2, 5], dim=-1):
        stages, state = separator.step(block, state)
        blocks.append(stages[-1])
    torch.testing.assert_close(torch.cat(blocks, dim=-1), separator(one)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"across": PATH}, "is not causal"),
        ({"fold": partial(Bands, n_bands=3)}, "is not causal"),
        ({"fold": partial(Chunks, size=4)}, "is not causal"),
        ({"norm": "global"}, "is not causal"),
        ({"across": partial(ATTENDING, window=None)}, "has a path across that has no window"),
    ],
)
def test_what_does_not_stream_says_why(change, said):
    separator = DualPath(9, 2, **{"across": ONE_WAY, **CAUSAL, **change})
    assert said in separator.cannot_stream


def test_memory_grows_with_the_length_not_with_its_square():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else (out,):
                self.seen = max(self.seen, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
            return out

    separator = DualPath(
        9,
        2,
        across=partial(LTL, lstm_before=0, transformer_layers=1, heads=2, ffn=5, attention="full", window=8),
        **CAUSAL,
    )
    sizes = []
    for length in (200, 400):
        with torch.no_grad(), Largest() as largest:
            separator(torch.rand(1, 9, length))
        sizes.append(largest.seen)
    assert sizes[1] <= 2 * sizes[0]


@pytest.mark.parametrize(
    ("n_features", "n_bands", "warp"), [(129, 16, 5.7), (258, 16, 5.7), (7, 7, 31.5), (513, 30, 31)]
)
def test_bands_cover_all_bins_once_and_widen(n_features, n_bands, warp):
    sizes = band_sizes(n_features, n_bands, warp)
    assert sum(sizes) == n_features and len(sizes) == n_bands and min(sizes) >= 1
    assert sizes[-1] == max(sizes)
    if n_features % 2 == 0:
        assert all(size % 2 == 0 for size in sizes)


def test_the_global_norm_is_group_norm_of_one_group():
    norm, x = GlobalNorm(6), torch.randn(2, 5, 4, 6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    expected = torch.nn.functional.group_norm(x.movedim(-1, 1), 1, norm.weight, norm.bias, eps=1e-8).movedim(1, -1)
    torch.testing.assert_close(norm(x), expected)


CHANGES = [
    {"fold": partial(Bands, n_bands=4)},
    {"fold": partial(Bands, n_bands=3, warp=20.0)},
    {"fold": partial(Bands, n_bands=3, standardise="clip")},
    {"fold": partial(Chunks, size=4)},
    {"fold": partial(Chunks, size=5, hop=4)},
    {"width": 6},
    {"n_blocks": 1},
    {"within": ONE_WAY},
    {"across": PATH},
    {"norm": "global"},
    {"norm": None},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_argument_changes_a_count_or_an_output(change):
    def build(settings):
        torch.manual_seed(0)
        separator = DualPath(15, 2, **settings)
        torch.manual_seed(1)
        return sum(p.numel() for p in separator.parameters()), separator(torch.rand(1, 15, 9))[0]

    base = {"across": ONE_WAY, **CAUSAL}
    (count, output), (new_count, new_output) = build(base), build(base | change)
    assert new_count != count or not torch.allclose(new_output, output)
    names = set(inspect.signature(DualPath.__init__).parameters) - {"self", "n_features", "n_sources"}
    names.remove("gradient_checkpointing")  # changes nothing: test_checkpointing.py
    assert names == {name for each in CHANGES for name in each}


def test_a_configuration_names_its_paths_and_is_the_same_again():
    separator = {
        "class_path": "DualPath",
        "init_args": {
            "fold": {"class_path": "Bands", "init_args": {"n_bands": 3}},
            "width": 8,
            "within": {"class_path": "1_trans_0", "init_args": {"hidden": 6, "heads": 2, "transformer_layers": 1}},
            "across": {"class_path": "TasNet", "init_args": {"hidden": 5, "n_layers": 1}},
        },
    }
    config = tasnet_model().config | {"separator": separator}
    torch.manual_seed(0)
    model = SourceSeparator.from_config(config)
    torch.manual_seed(0)
    again = SourceSeparator.from_config(model.config)
    assert model.config == again.config
    assert model.separator.blocks[2].within.name == "1_trans_0"
    mixture = torch.randn(1, 1, 300)
    assert torch.equal(model(mixture), again(mixture))
    separator["init_args"]["across"] = {"class_path": "LTL", "init_args": {"hiden": 5}}
    with pytest.raises(UserError, match="model.separator.across.hiden: LTL has no such setting; did you mean 'hidden'"):
        SourceSeparator.from_config(config)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (partial(DualPath, fold=partial(Bands, n_bands=99)), "n_bands 99 is more than there are bins, 9"),
        (partial(DualPath, fold=partial(Bands, warp=0)), "warp 0"),
        (partial(DualPath, fold=partial(Bands, standardise="song")), "standardise 'song'"),
        (partial(DualPath, fold=partial(Chunks, size=4, hop=5)), "hop 5"),
        (partial(DualPath, norm="batch"), "norm 'batch'"),
    ],
)
def test_bad_settings_are_said_clearly(build, said):
    with pytest.raises(ValueError, match=said):
        build(9, 2)


def test_a_quiet_clip_is_separated_as_a_loud_one():
    model = SourceSeparator(["a", "b"], 8000, STFTEncoder(64, 16), FORMS["bands"], STFTDecoder(64, 16)).eval()
    mixture = torch.randn(1, 1, 500)
    with torch.no_grad():
        torch.testing.assert_close(model(1e-2 * mixture), 1e-2 * model(mixture), atol=1e-5, rtol=1e-4)
