import copy
import json
import pickle
from functools import partial

import pytest
import torch
from conftest import SMALL, tasnet_model
from torch import nn

from tasnet_attn import load, save
from tasnet_attn.errors import UserError
from tasnet_attn.filterbanks import GatedEncoder, LearnedDecoder, STFTDecoder, STFTEncoder
from tasnet_attn.heads import Magnitude, Mask
from tasnet_attn.losses import SISNR, Spectral
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import LTL, Separator, TasNet


class TwoStages(Separator):
    """A small STFT separator with two supervised stages, the second refining the first."""

    def __init__(self, n_features, n_sources, hidden=8):
        super().__init__()
        self.first = nn.Conv1d(n_features, n_sources * n_features, 3, padding=1)
        self.second = nn.Sequential(
            nn.Conv1d(n_sources * n_features, hidden, 1), nn.ReLU(), nn.Conv1d(hidden, n_sources * n_features, 1)
        )
        self.n_sources = n_sources

    def forward(self, features):
        first = self.first(features)
        return [stage.unflatten(1, (self.n_sources, -1)) for stage in (first, first + self.second(first))]


class FixedLength(Separator):
    """A small separator of 9 frames, no more and no less: one linear map over frequency and time."""

    def __init__(self, n_features, n_sources):
        super().__init__()
        self.shape = (n_sources, n_features, 9)
        self.map = nn.Linear(n_features * 9, n_sources * n_features * 9)

    def forward(self, features):
        return [torch.relu(self.map(features.flatten(1))).view(-1, *self.shape)]


def spectrogram_model():
    return SourceSeparator(
        ["voice", "accompaniment"],
        8000,
        STFTEncoder(64, 16, normalise="max", drop="nyquist"),
        TwoStages,
        STFTDecoder(64, 16, drop="nyquist"),
        Mask("linear"),
    )


def fixed_model():
    return SourceSeparator(
        ["one", "two"],
        8000,
        STFTEncoder(64, 16, power=0.3),
        FixedLength,
        STFTDecoder(64, 16),
        Magnitude("wiener", power=0.3),
        interchangeable=True,
        segment=128 / 8000,
    )


KINDS = {**SMALL, "two stages": spectrogram_model, "fixed length": fixed_model}


@pytest.fixture(params=list(KINDS))
def any_model(request):
    return KINDS[request.param]()


def test_forward_and_analyse_agree(any_model):
    mixture = torch.randn(3, 2, 128)
    separation = any_model.analyse(mixture)
    assert torch.equal(any_model(mixture), separation.estimates)
    assert separation.estimates.shape == (3, 2, 2, 128)
    last = any_model.separator(separation.encoded.features)[-1]  # with several stages it is the last that separates
    assert torch.equal(separation.predictions[-1], any_model.head.predict(last, separation.encoded))
    carriers = any_model.head.apply(last, separation.encoded)
    assert torch.equal(any_model.decoder(carriers, 128).flatten(), separation.estimates.transpose(1, 2).flatten())
    for prediction in separation.predictions:
        n, features, frames = separation.encoded.features.shape
        assert prediction.shape == (n, 2, features, frames)


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"two stages"}))
def test_channels_do_not_see_each_other(name):
    """Where they do not share the level of a clip."""
    any_model = KINDS[name]()
    mixture = torch.randn(1, 2, 128)
    both = any_model.eval()(mixture)
    alone = any_model(mixture[:, 1:])
    torch.testing.assert_close(both[:, :, 1:], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"fixed length"}))
def test_outputs_scale_with_the_input(name):
    """Where magnitudes are normalised; AudioSlots' paper leaves them as they are."""
    any_model = KINDS[name]()
    mixture = torch.randn(1, 2, 128)
    torch.testing.assert_close(any_model(50 * mixture), 50 * any_model(mixture), rtol=1e-3, atol=1e-3)


def test_every_parameter_gets_a_gradient(any_model):
    references = torch.randn(2, 2, 2, 128)
    loss = Spectral("l1") if isinstance(any_model.encoder, STFTEncoder) else SISNR()
    loss(any_model.analyse(references.sum(1)), references, any_model).backward()
    for name, parameter in any_model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_softmax_masks_share_out_the_carrier(model):
    assert model.head.activation == "softmax"
    encoded = model.encoder(torch.randn(2, 128))
    carriers = model.head.apply(model.separator(encoded.features)[-1], encoded)
    torch.testing.assert_close(carriers.sum(1), encoded.carrier)


@pytest.mark.parametrize("length", [1, 7, 16, 50, 400])
def test_every_length(model, length):
    assert model(torch.randn(1, 2, length)).shape == (1, 2, 2, length)


def test_causal_models_ignore_the_future():
    """No gradient of outputs before t with respect to input after t plus one segment; non-zero within."""
    for name, build in SMALL.items():
        model = build()
        kernel, t = 16, 100
        x = torch.randn(1, 1, 200, requires_grad=True)
        (gradient,) = torch.autograd.grad(model(x)[..., :t].square().sum(), x)
        late = gradient[..., t + kernel :].abs().sum().item()
        assert gradient[..., :t].abs().sum() > 0
        if model.causal:
            assert late == 0, name
            assert model.latency == kernel - 1
        else:
            assert late > 0, name
            assert model.latency is None
            (gradient,) = torch.autograd.grad(model(x)[..., t + kernel :].square().sum(), x)
            assert gradient[..., :t].abs().sum() > 0, name


def test_attention_decides_causality():
    assert not tasnet_model(partial(LTL, hidden=8, heads=2, attention="full")).causal
    assert tasnet_model(partial(LTL, hidden=8, heads=2, attention="full", transformer_layers=0)).causal
    assert not tasnet_model(partial(LTL, hidden=8, heads=2, attention="causal", bidirectional=True)).causal
    assert not spectrogram_model().causal


# ---- descriptions and files -----------------------------------------------------------------------------------------


def test_a_description_builds_an_equal_model(any_model):
    config = json.loads(json.dumps(any_model.config))
    rebuilt = SourceSeparator.from_config(config, classes=[TwoStages, FixedLength])
    rebuilt.load_state_dict(any_model.state_dict())
    mixture = torch.randn(1, 2, 128)
    assert torch.equal(rebuilt.eval()(mixture), any_model.eval()(mixture))
    assert rebuilt.config == any_model.config
    assert list(config) == list(SourceSeparator.__init__.__annotations__)[:-1]


def test_a_description_says_what_the_head_is_now():
    model = fixed_model()
    model.head = Magnitude("binary", power=0.3)
    assert SourceSeparator.from_config(model.config, [FixedLength]).head.kind == "binary"


def test_copies_and_pickles(any_model):
    mixture = torch.randn(1, 1, 128)
    for other in (copy.deepcopy(any_model), pickle.loads(pickle.dumps(any_model))):
        assert torch.equal(other.eval()(mixture), any_model.eval()(mixture))
        assert other.config == any_model.config


def test_save_and_load(model, tmp_path):
    path = save(model, tmp_path / "model.safetensors", facts={"licence": "MIT"})
    loaded = load(path)
    mixture = torch.randn(1, 2, 100)
    assert torch.equal(loaded(mixture), model.eval()(mixture))
    assert not loaded.training
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    from safetensors import safe_open

    with safe_open(path, "pt") as opened:
        header = json.loads(opened.metadata()["tasnet_attn"])
    assert header["licence"] == "MIT"
    assert header["sources"] == ["guitar", "backing"]
    assert header["sample_rate"] == 8000
    assert "torch" in header["versions"]


def test_own_classes_are_known_once_they_are_imported(tmp_path):
    model = spectrogram_model()
    path = save(model, tmp_path / "model.safetensors")
    assert isinstance(load(path).separator, TwoStages)
    another_place = {**model.config, "separator": {"class_path": "another_place.Mine", "init_args": {}}}
    with pytest.raises(UserError, match=r"model\.separator: .*'another_place\.Mine'.*add --import another_place"):
        SourceSeparator.from_config(another_place)

    class Mine(TwoStages):
        pass

    Mine.__module__ = "another_place"
    assert isinstance(SourceSeparator.from_config(another_place, classes=[Mine]).separator, Mine)


def test_loading_imports_nothing_that_a_file_names(tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')\nclass LTL: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = copy.deepcopy(tasnet_model().config)
    config["separator"]["class_path"] = "trap.LTL"
    with pytest.raises(UserError, match=r"model\.separator.*trap\.LTL"):
        SourceSeparator.from_config(config)


def test_loading_unpickles_nothing(tmp_path):
    class Payload:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    torch.save({"state_dict": {}, "model_config": Payload()}, tmp_path / "bad.ckpt")
    with pytest.raises(UserError, match=r"bad\.ckpt: not a checkpoint that can be read safely"):
        load(tmp_path / "bad.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["encoder"]["init_args"].update(n_filter=3), r"model\.encoder\.n_filter.*did you mean 'n_filters'"),
        (lambda c: c.update(sample_rat=3), r"model\.sample_rat.*did you mean 'sample_rate'"),
        (lambda c: c["separator"]["init_args"].update(heads=3), r"model\.separator: LTL: heads 3 must divide"),
        (lambda c: c["separator"].update(clas=1), r"model\.separator: unexpected key 'clas'"),
        (lambda c: c["encoder"].update(class_path="os.system"), r"model\.encoder: unknown class 'os\.system'"),
        (lambda c: c.pop("encoder"), r"model\.encoder: SourceSeparator requires it; set it"),
        (lambda c: c.update(sources=["a", "a"]), "different names"),
    ],
)
def test_a_wrong_description_is_one_clear_line(change, said):
    config = copy.deepcopy(tasnet_model().config)
    change(config)
    with pytest.raises(UserError, match=said) as caught:
        SourceSeparator.from_config(config)
    assert "\n" not in str(caught.value)


def test_wrong_files_are_one_clear_line(tmp_path):
    good = save(tasnet_model(), tmp_path / "good.safetensors")
    text = tmp_path / "text.safetensors"
    text.write_text("this is no model")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(good.read_bytes()[:-100])
    from safetensors.torch import save_file

    foreign = tmp_path / "foreign.safetensors"
    save_file({"w": torch.zeros(3)}, foreign)
    broken = tasnet_model()
    broken.separator.to_masks.bias.data[0] = torch.nan
    nan = save(broken, tmp_path / "nan.safetensors")
    other = tasnet_model()
    other.separator.to_masks = nn.Linear(8, 3)
    unfit = save(other, tmp_path / "unfit.safetensors")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    for path, said in [
        (tmp_path / "missing", "no such model"),
        (tmp_path, "no checkpoints"),
        (text, "not a model file"),
        (cut, "not a model file"),
        (foreign, "not one of this library"),
        (nan, "NaN"),
        (unfit, "do not fit"),
        (tmp_path / "foreign.ckpt", "does not describe its model"),
    ]:
        with pytest.raises(UserError, match=said) as caught:
            load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_magnitude_masks():
    stage = torch.rand(2, 3, 5, 7) * 1e-3
    encoded = STFTEncoder(8, 2)(torch.randn(2, 12))
    encoded = encoded._replace(carrier=torch.ones(2, 2, 5, 7))
    wiener = Magnitude("wiener", power=0.3).apply(stage, encoded)
    torch.testing.assert_close(wiener.sum(1), torch.ones(2, 2, 5, 7))
    plain = Magnitude("wiener").apply(stage, encoded)[:, :, 0]
    torch.testing.assert_close(plain, stage**2 / (stage**2).sum(1, keepdim=True))
    binary = Magnitude("binary").apply(stage, encoded)
    assert torch.equal(binary.sum(1), torch.ones(2, 2, 5, 7))
    assert torch.equal(binary[:, :, 0].argmax(1), stage.argmax(1))


def test_tasnet_uses_every_argument_of_the_contract():
    model = SourceSeparator(["a", "b", "c"], 16_000, GatedEncoder(8, 4), TasNet, LearnedDecoder(8, 4), Mask("sigmoid"))
    assert model(torch.randn(1, 1, 50)).shape == (1, 3, 1, 50)
