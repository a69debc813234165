import itertools
import math
from functools import partial
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from conftest import recipe_script, train_until
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from tasnet_attn import load, separate
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation import command as evaluate
from tasnet_attn.evaluation.oracles import Autoencoder, ModelOracle
from tasnet_attn.filterbanks import STFTDecoder, STFTEncoder
from tasnet_attn.heads import Magnitude
from tasnet_attn.losses import Spectral
from tasnet_attn.metrics import si_snr
from tasnet_attn.model import Separation, SourceSeparator
from tasnet_attn.separators import AudioSlots, QueryTransformer, ResNet, Separator, SlotAttention
from tasnet_attn.separators.audioslots import SpatialBroadcast, fourier_code
from tasnet_attn.training.command import train
from tasnet_attn.training.schedules import WarmupCosine

GOLDEN = Path(__file__).parents[1] / "golden" / "audioslots.safetensors"
SLOTS = {"transformer": lambda width: QueryTransformer(width, 2, 4), "slot_attention": SlotAttention}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def tiny(kind="transformer", n_sources=2, n_features=16, width=8, **settings):
    settings = {"decoder_hidden": 8, "bands": 3, **settings}
    return AudioSlots(n_features, n_sources, ResNet(4, [1, 1, 1, 1], 2), SLOTS[kind](width), **settings)


def tiny_model(n_sources=2, mask="wiener", separator=None, seconds=0.5):
    return SourceSeparator(
        [f"s{i + 1}" for i in range(n_sources)],
        16000,
        STFTEncoder(512, 125, power=0.3, drop="nyquist", last_frame=False),
        separator or (lambda n_features, n_sources: tiny("transformer", n_sources, n_features)),
        STFTDecoder(512, 125, drop="nyquist"),
        Magnitude(mask, 0.3),
        interchangeable=n_sources > 1,
        segment=seconds,
    )


@pytest.fixture(params=list(SLOTS))
def kind(request):
    return request.param


# ---- the parts ------------------------------------------------------------------------------------------------------


def test_resnet_34():
    with torch.device("meta"):
        network = ResNet()
        assert count(network) == 21_275_840
        assert network(torch.empty(1, 1, 256, 64)).shape == (1, 512, 32, 8)  # 0.5 s
        assert network(torch.empty(1, 1, 256, 128)).shape == (1, 512, 32, 16)  # 1 s


def test_size_at_the_published_width():
    with torch.device("meta"):
        assert 0.5e9 < count(AudioSlots(256, 2)) < 1e9
        layer = QueryTransformer(4096, 1, ffn=1024)
    attention, norm = 4 * (4096**2 + 4096), 2 * 4096
    assert count(layer) == 2 * attention + 2 * 4096 * 1024 + 1024 + 4096 + 4 * norm


@pytest.mark.parametrize(("seconds", "frames"), [(0.5, 64), (1.0, 128)])
def test_chunks_are_256_bins_by_64_frames_each_half_second(seconds, frames):
    encoded = tiny_model().encoder(torch.randn(1, int(16000 * seconds)))
    assert encoded.features.shape == (1, 256, frames)
    assert tiny_model(seconds=seconds)(torch.randn(1, 1, int(16000 * seconds))).shape == (1, 2, 1, 16000 * seconds)


def test_self_attention_comes_first():
    layer, tokens = QueryTransformer(8, 1, 2).layers[0], torch.randn(1, 5, 8)
    order = []
    layer.among.register_forward_hook(lambda *_: order.append("queries"))
    layer.across.register_forward_hook(lambda *_: order.append("tokens"))
    layer.ffn.register_forward_hook(lambda *_: order.append("mlp"))
    layer(torch.randn(1, 2, 8), tokens)
    assert order == ["queries", "tokens", "mlp"]


def test_slot_attention_against_a_loop_over_tokens_and_slots():
    slots, queries, tokens = SlotAttention(4, iterations=2), torch.randn(1, 3, 4), torch.randn(1, 5, 4)
    key, value = slots.key_value.weight.chunk(2)
    state = queries[0]
    for _ in range(2):
        share = torch.zeros(3, 5)
        for m, token in enumerate(slots.norm_tokens(tokens[0])):
            scores = [slots.query(slots.norm_slots(s)) @ (key @ token) / 2 for s in state]
            share[:, m] = torch.stack(scores).softmax(0)
        share = (share + 1e-8) / (share + 1e-8).sum(1, keepdim=True)
        won = torch.stack(
            [sum(share[i, m] * (value @ t) for m, t in enumerate(slots.norm_tokens(tokens[0]))) for i in range(3)]
        )
        state = slots.gru(won, state)
        state = state + slots.ffn(slots.norm_ffn(state))
    torch.testing.assert_close(slots(queries, tokens)[0], state, rtol=1e-5, atol=1e-6)


def test_permuting_the_queries_permutes_slots_and_outputs(kind):
    separator, features, order = tiny(kind, 3), torch.rand(2, 16, 24), [2, 0, 1]
    slots, outputs = separator.embed(features), separator(features)[0]
    with torch.no_grad():
        separator.queries.copy_(separator.queries[order].clone())
    torch.testing.assert_close(separator.embed(features), slots[:, order], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(separator(features)[0], outputs[:, order], rtol=1e-5, atol=1e-6)
    assert slots.shape == (2, 3, 8) and not torch.allclose(slots[:, 0], slots[:, 1])


def test_fourier_code():
    code = fourier_code(4, 6, bands=2)
    assert code.shape == (4, 6, 8)
    f, t = 0.25, -0.5  # the centres of the third of four bins and of the second of six frames
    angles = [math.pi * f, 2 * math.pi * f], [math.pi * t, 2 * math.pi * t]
    expected = [function(angle) for axis in angles for function in (math.sin, math.cos) for angle in axis]
    torch.testing.assert_close(code[2, 1], torch.tensor(expected), rtol=0, atol=1e-6)
    fine = fourier_code(256, 64, bands=8)
    assert len(fine.flatten(0, 1).mul(1e4).round().unique(dim=0)) == 256 * 64  # every position has its own


def naive_decoder(decoder, slots, code):
    """Copies of every slot at every position with the code appended, through the unsplit first layer."""
    copies = slots[:, :, None, None].expand(-1, -1, *code.shape[:2], -1)
    codes = code.expand(*slots.shape[:2], -1, -1, -1)
    weight = torch.cat([decoder.from_slot.weight, decoder.from_code.weight], dim=1)
    return decoder.rest(torch.cat([copies, codes], dim=-1) @ weight.T + decoder.from_slot.bias).squeeze(-1)


class LargestTensor(TorchDispatchMode):
    """Remembers how many elements the largest storage of any result had."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for each in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(each, torch.Tensor):
                self.elements = max(self.elements, each.untyped_storage().nbytes() // each.element_size())
        return result


def test_the_decoder_equals_the_naive_one_without_its_memory():
    decoder = SpatialBroadcast(width=512, code=12, hidden=16, n_layers=4)
    slots, code = torch.randn(2, 3, 512), fourier_code(32, 8, bands=3)
    with LargestTensor() as ours:
        outputs = decoder(slots, code)
        outputs.sum().backward()
    with LargestTensor() as naive:
        expected = naive_decoder(decoder, slots, code)
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
    positions = 2 * 3 * 32 * 8
    assert naive.elements >= positions * (512 + 12)
    assert ours.elements <= positions * 16


def test_every_parameter_gets_a_gradient(kind):
    separator = tiny(kind)
    separator(torch.rand(2, 16, 24))[0].square().sum().backward()
    for name, parameter in separator.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0, name


def test_each_argument_changes_something():
    features = torch.rand(1, 16, 24)

    def state(make):
        torch.manual_seed(0)
        separator = make()
        return count(separator), separator(features)[0]

    base = state(tiny)

    def other(encoder=(4, [1, 1, 1, 1], 2), slots=QueryTransformer, **settings):
        settings = {"width": 8, "n_layers": 2, "heads": 4, **settings} if slots is QueryTransformer else settings
        return AudioSlots(16, 2, ResNet(*encoder), slots(**settings), decoder_hidden=8, bands=3)

    assert torch.equal(state(other)[1], base[1])
    changes = {
        "decoder_hidden": lambda: tiny(decoder_hidden=6),
        "decoder_layers": lambda: tiny(decoder_layers=3),
        "bands": lambda: tiny(bands=2),
        "token_positions": lambda: tiny(token_positions=False),
        "output": lambda: tiny(output="softplus"),
        "channels": lambda: other((6, [1, 1, 1, 1], 2)),
        "blocks": lambda: other((4, [1, 2, 1, 1], 2)),
        "groups": lambda: other((4, [1, 1, 1, 1], 4)),
        "width": lambda: other(width=12),
        "n_layers": lambda: other(n_layers=1),
        "heads": lambda: other(heads=2),
        "ffn": lambda: other(ffn=5),
        "norm_first": lambda: other(norm_first=False),
    }
    for name, make in changes.items():
        parameters, output = state(make)
        assert parameters != base[0] or not torch.allclose(output, base[1]), name
    once, often = (state(lambda i=i: other(slots=SlotAttention, width=8, iterations=i)) for i in (1, 3))
    assert not torch.allclose(once[1], often[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResNet(64, [3, 4, 6]), "four numbers"),
        (lambda: ResNet(10, groups=4), "groups 4 must divide"),
        (lambda: QueryTransformer(10, heads=4), "heads 4 must divide"),
        (lambda: tiny(decoder_layers=1), "decoder_layers 1"),
        (lambda: tiny(output="relu"), "output 'relu'"),
        (lambda: Autoencoder(tiny_model(2)), "one source"),
        (lambda: ModelOracle(tiny_model(2), "ideal"), "mask 'ideal'"),
        (lambda: WarmupCosine(torch.optim.SGD([torch.ones(1)]), 10, 10), "warmup_steps 10"),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_golden_output(kind):
    """Weights and input are sines, so that no random generator stands between this file and the stored one."""
    separator = tiny(kind)
    with torch.no_grad():
        for number, parameter in enumerate(separator.parameters()):
            parameter.copy_(torch.sin(number + 1.7 * torch.arange(parameter.numel())).view_as(parameter) / 3)
        output = separator(torch.sin(torch.arange(128.0)).abs().view(1, 16, 8))[0]
    torch.testing.assert_close(output, load_file(GOLDEN)[kind], rtol=1e-4, atol=1e-5)


# ---- heads, loss, schedule ------------------------------------------------------------------------------------------


def test_power_law_round_trip():
    """Magnitudes to the power 0.3 and back are the magnitudes."""
    wave = torch.randn(2, 8000)
    raw, compressed = (STFTEncoder(512, 125, power=power)(wave) for power in (1.0, 0.3))
    torch.testing.assert_close(compressed.features.pow(1 / 0.3), raw.features, rtol=1e-4, atol=1e-7)
    as_it_is = Magnitude("none", 0.3).apply(compressed.features[:, None], compressed)[:, 0]
    torch.testing.assert_close(as_it_is, raw.carrier, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("level", [1.0, 1e-4])
def test_masks(level):
    encoder, references = STFTEncoder(512, 125, power=0.3, drop="nyquist"), level * torch.randn(3, 8000)
    encoded = encoder(references.sum(0, keepdim=True))
    stage, magnitudes = (
        encoder(references).features[None],
        torch.linalg.vector_norm(encoder(references).carrier, dim=1)[None],
    )
    masks = {name: Magnitude(name, 0.3).mask(stage, encoded) for name in ("binary", "wiener", "ratio")}
    for mask in masks.values():
        torch.testing.assert_close(mask.sum(1), torch.ones(1, 256, 65))
    assert set(masks["binary"].unique().tolist()) == {0.0, 1.0}
    assert torch.equal(masks["binary"].argmax(1), magnitudes.argmax(1))
    torch.testing.assert_close(
        masks["wiener"], magnitudes**2 / (magnitudes**2).sum(1, keepdim=True), rtol=1e-3, atol=1e-5
    )
    torch.testing.assert_close(masks["ratio"], magnitudes / magnitudes.sum(1, keepdim=True), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("sources", [1, 2, 3, 4, 5])
def test_loss_is_the_cheapest_of_all_orders_and_ignores_that_of_the_targets(sources):
    model = tiny_model(sources)
    model.interchangeable = True
    mixture, references = torch.randn(2, 1, 2000), torch.randn(2, sources, 1, 2000)
    encoded, predictions = model.encoder(mixture[:, 0]), torch.rand(2, sources, 256, 16)
    separation = Separation(torch.empty(0), [predictions], encoded)
    loss = Spectral("l2")(separation, references, model)
    truth = model.encoder(references.flatten(0, 2)).features.unflatten(0, (2, sources))
    cheapest = [
        min(
            (predictions[b, list(order)] - truth[b]).square().mean() for order in itertools.permutations(range(sources))
        )
        for b in range(2)
    ]
    torch.testing.assert_close(loss, torch.stack(cheapest).mean(), rtol=1e-5, atol=1e-7)
    shuffled = references[:, torch.randperm(sources)]
    torch.testing.assert_close(Spectral("l2")(separation, shuffled, model), loss, rtol=1e-6, atol=1e-8)


def test_learning_rate():
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=2e-4)
    schedule, rates = WarmupCosine(optimizer), []
    for _ in range(2501):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == 0 and rates[1250] == pytest.approx(1e-4) and rates[2500] == pytest.approx(2e-4)
    assert 2e-4 * schedule.factor(151_250) == pytest.approx(1e-4)
    assert schedule.factor(300_000) == pytest.approx(0, abs=1e-12) and schedule.factor(300_001) == schedule.factor(
        10**6
    )


# ---- oracles --------------------------------------------------------------------------------------------------------


def voice(pitch, formants, seed, seconds=0.5):
    """Speech-like: harmonics of a gliding pitch through gliding formants, swelling and fading, with some breath."""
    noise = torch.Generator().manual_seed(seed)
    time = torch.arange(int(16000 * seconds)) / 16000
    start = torch.rand(2, generator=noise)
    frequency = pitch * (1 + 0.03 * torch.sin(2 * math.pi * (3 * time + start[0])))
    phase = 2 * math.pi * torch.cumsum(frequency, 0) / 16000
    wave = 0.02 * torch.randn(len(time), generator=noise)
    for k in range(1, int(7000 / pitch)):
        centres = [f * (1 + 0.1 * torch.sin(2 * math.pi * (2 * time + i))) for i, f in enumerate(formants)]
        gain = sum(1 / (1 + ((k * frequency - centre) / 120) ** 2) for centre in centres)
        wave = wave + gain * torch.sin(k * phase) / k**0.5
    wave = wave * (0.3 + 0.7 * torch.sin(2 * math.pi * (4 * time + start[1])) ** 2)
    return 0.1 * wave / wave.square().mean().sqrt()


def two_voices(seconds=0.5):
    """References [2, 1, T]."""
    low = voice(110, (500, 1500, 2500), 0, seconds)
    return torch.stack([low, voice(210, (700, 1100, 2900), 1, seconds)])[:, None]


@pytest.mark.parametrize("mask", ["binary", "ratio", "wiener"])
@pytest.mark.parametrize("length", [24000, 8000, 9001, 1])
def test_oracles_keep_the_shape_and_sum_to_the_mixture(mask, length):
    references = two_voices(1.5)[..., :length]
    estimates = ModelOracle(tiny_model(mask=mask), mask)(references.sum(0), references)
    assert estimates.shape == references.shape
    if length > 8000:
        short = estimates.sum(0) - references.sum(0)
        assert short.square().mean() < 1e-3 * references.sum(0).square().mean()  # only the Nyquist bin is lost
        assert (si_snr(references, estimates) > si_snr(references, references.sum(0)) + 5).all()


def test_a_perfect_autoencoder_is_the_mask_oracle_and_an_untrained_one_is_worse():
    class Perfect(Separator):
        def __init__(self, n_features, n_sources):
            super().__init__()

        def forward(self, features):
            return [features.unsqueeze(1)]

    references = two_voices(1.2)
    mixture, oracle = references.sum(0), ModelOracle(tiny_model(1))
    torch.testing.assert_close(
        Autoencoder(tiny_model(1, separator=Perfect))(mixture, references), oracle(mixture, references)
    )
    untrained = Autoencoder(tiny_model(1))(mixture, references)
    assert (si_snr(references, untrained) < si_snr(references, oracle(mixture, references))).all()


# ---- chunks ---------------------------------------------------------------------------------------------------------


class Shuffled(Separator):
    """Stands for a perfect separator whose slots come in another order every time."""

    def __init__(self, n_features, n_sources, references):
        super().__init__()
        self.encoder, self.references, self.calls = tiny_model(2, separator=tiny_separator).encoder, references, 0

    def forward(self, features):
        chunk = self.references[:, 0, 8000 * self.calls :][:, :8000]
        self.calls += 1
        stage = self.encoder(chunk).features[None]
        return [stage.flip(1) if self.calls % 2 else stage]


def tiny_separator(n_features, n_sources):
    return tiny("transformer", n_sources, n_features)


def test_ten_seconds_are_twenty_chunks_ordered_by_the_references():
    references = two_voices(10)
    model = tiny_model(separator=partial(Shuffled, references=references))
    estimates = separate(model, references.sum(0), 16000, overlap=0.0, device="cpu", references=references)
    assert model.separator.calls == 20
    estimates = torch.stack(list(estimates.values()))
    torch.testing.assert_close(estimates, ModelOracle(model)(references.sum(0), references), rtol=1e-4, atol=1e-5)
    model.separator.calls = 0
    alone = torch.stack(list(separate(model, references.sum(0), 16000, overlap=0.0, device="cpu").values()))
    assert (si_snr(references, alone) < 3).all()  # without references or overlap nothing tells the voices apart


def test_the_end_is_filled_up_with_zeros_for_scores():
    references = two_voices(1.2)
    model = tiny_model()
    estimates = separate(model, references.sum(0), 16000, overlap=0.0, device="cpu", references=references)["s1"]
    assert estimates.shape == (1, 19200)
    padded = torch.nn.functional.pad(references, (0, 24000 - 19200))
    longer = separate(model, padded.sum(0), 16000, overlap=0.0, device="cpu", references=padded)["s1"]
    assert torch.equal(estimates, longer[:, :19200])


def test_references_that_do_not_fit_are_refused():
    references = two_voices(0.5)
    with pytest.raises(UserError, match="do not fit the mixture"):
        separate(tiny_model(), references.sum(0), 16000, references=references[..., 1:])
    with pytest.raises(UserError, match="interchangeable"):
        separate(tiny_model(1), references.sum(0), 16000, references=references[:1])
    with pytest.raises(UserError, match="at the model's rate"):
        separate(tiny_model(), references.sum(0), 8000, references=references)


class Comb(Separator):
    """A fixed filter and its complement: every second group of four bins."""

    def __init__(self, n_features, n_sources):
        super().__init__()
        self.teeth = torch.arange(n_features) // 4 % 2

    def forward(self, features):
        stage = torch.stack([self.teeth, 1 - self.teeth]).to(features)[None, :, :, None]
        return [stage.expand(len(features), -1, -1, features.shape[-1])]


def test_overlap_avoids_the_errors_at_the_borders_of_chunks():
    """Chunk by chunk, as in the paper, the STFT knows nothing beyond a border; a cross-fade gives it little weight."""
    mixture = two_voices(3)[0]
    model = tiny_model(separator=Comb)
    whole = tiny_model(separator=Comb, seconds=3.0)(mixture[None])[0, 0, 0]
    errors = {}
    for overlap in (0.0, 0.25):
        error = (separate(model, mixture, 16000, overlap=overlap, device="cpu")["s1"][0] - whole).square()
        errors[overlap] = error[4000:44000].mean() / whole.square().mean()
    assert errors[0.25] < 0.2 * errors[0.0]


# ---- whole systems --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "mask"), [("transformer", "wiener"), ("slot_attention", "binary")])
def test_learns_a_mixture_of_two_voices_to_within_3_db_of_its_mask_oracle(kind, mask):
    """Half a second of two generated, speech-like voices; a small network."""
    references = two_voices()
    mixture = references.sum(0)
    slots = {"transformer": lambda: QueryTransformer(128, 2, 4), "slot_attention": lambda: SlotAttention(128)}[kind]()
    separator = partial(
        AudioSlots, encoder=ResNet(8, [1, 1, 1, 1], 4), slots=slots, decoder_hidden=128, decoder_layers=3
    )
    model = tiny_model(mask=mask, separator=separator)
    oracle = si_snr(references, ModelOracle(model, mask)(mixture, references))
    assert (oracle > 8).all()  # there is something to learn

    def reached(model):
        estimates = separate(model, mixture, 16000, overlap=0.0, device="cpu", references=references)
        return (si_snr(references, torch.stack(list(estimates.values()))) > oracle - 3).all()

    train_until(model, Spectral("l2"), (mixture[None], references[None]), reached, steps=1500, lr=1e-3)


@pytest.mark.slow
def test_train_separate_and_evaluate_need_no_special_case(tmp_path):
    for split in ("train", "valid", "test"):
        for track in ("a", "b"):
            folder = tmp_path / "data" / split / track
            folder.mkdir(parents=True)
            for name, reference in zip(("s1", "s2"), two_voices(1.3), strict=True):
                soundfile.write(folder / f"{name}.wav", reference.T.numpy(), 16000, "FLOAT")
    config = tiny_model().config
    slots = {"class_path": "SlotAttention", "init_args": {"width": 8}}
    resnet = {"class_path": "ResNet", "init_args": {"channels": 4, "blocks": [1, 1, 1, 1], "groups": 2}}
    arguments = {"encoder": resnet, "slots": slots, "decoder_hidden": 8, "bands": 3}
    config["separator"] = {"class_path": "AudioSlots", "init_args": arguments}
    schedule = {
        "class_path": "tasnet_attn.training.schedules.WarmupCosine",
        "init_args": {"total_steps": 9, "warmup_steps": 1},
    }
    loss = {"class_path": "Spectral", "init_args": {"distance": "l2"}}
    data = {"root": str(tmp_path / "data"), "segment": 0.5, "batch_size": 2, "segments_per_epoch": 6}
    run = {
        "model": config,
        "task": {"loss": loss, "lr_scheduler": schedule, "lr_interval": "step"},
        "data": {"class_path": "StemFolders", "init_args": data},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 1},
        "out": str(tmp_path / "run"),
    }
    (tmp_path / "run.yml").write_text(yaml.safe_dump(run))
    train(["--config", str(tmp_path / "run.yml")])
    model = load(tmp_path / "run")
    assert isinstance(model.separator.slots, SlotAttention)
    estimates = separate(model, torch.randn(2, 17_001), 16000, device="cpu")
    assert {name: tuple(e.shape) for name, e in estimates.items()} == {"s1": (2, 17_001), "s2": (2, 17_001)}
    for order_by_references in (False, True):
        evaluate.run(
            str(tmp_path / "run"), str(tmp_path / "run.yml"), str(tmp_path / f"scores{order_by_references}"),
            device="cpu", overlap=0.0, order_by_references=order_by_references,
        )  # fmt: skip
        assert (tmp_path / f"scores{order_by_references}" / "scores.csv").is_file()


# ---- slots that are carried on --------------------------------------------------------------------------------------


def test_a_chunk_s_slots_are_the_next_one_s_queries(kind):
    carrying, alone = tiny(kind, n_sources=3, chunk=8), tiny(kind, n_sources=3)
    alone.load_state_dict(carrying.state_dict())
    features = torch.rand(1, 16, 19)
    expected = []
    for part in torch.nn.functional.pad(features, (0, 5)).split(8, dim=-1):
        expected += alone(part)
        alone.queries.data = alone.embed(part)[0]
    torch.testing.assert_close(carrying(features)[0], torch.cat(expected, dim=-1)[..., :19])


def test_sources_keep_their_order_over_chunks_and_the_first_chunk_learns_from_the_last(kind):
    separator, features = tiny(kind, n_sources=3, chunk=8), torch.rand(2, 16, 24)
    (magnitudes,) = separator(features)
    separator.queries.data = separator.queries.data[[2, 0, 1]]
    torch.testing.assert_close(separator(features)[0], magnitudes[:, [2, 0, 1]], atol=1e-5, rtol=1e-5)
    features.requires_grad_()
    separator(features)[0][..., 16:].sum().backward()
    assert features.grad[..., :8].abs().max() > 0
    with pytest.raises(ValueError, match="chunk 0"):
        tiny(kind, chunk=0)


def test_swaps_are_counted_and_all_three_orders_measured():
    script = recipe_script("librimix/local/swaps.py")
    references = torch.randn(2, 1, 8 * 50 + 20)
    places = [0, 0, 1, 1, 0, 1, 1, 1]  # in which order each chunk has them: three changes
    chunks = references[..., :400].split(50, -1)
    estimates = torch.cat([chunk.flip(0) if place else chunk for chunk, place in zip(chunks, places, strict=True)], -1)
    estimates = torch.cat([estimates + 0.3 * torch.randn(2, 1, 400), references[..., 400:]], -1)
    assert script.swaps(estimates, references, 50) == 3
    paused = references.clone()
    paused[1, :, 200:250] = 0  # a chunk that tells nothing; without it there is one change
    assert script.swaps(estimates, paused, 50) == 1
    assert script.main(["run", "--data", "base.yml", "--tracks", "0"]) == 2

    class Song:
        def read(self):
            return references.sum(0), references

    references = two_voices(1.2)
    model = tiny_model()
    ways = script.Ways(model).estimates(*Song().read())
    assert all(found.shape == references.shape for found in ways.values())
    alone = separate(model, references.sum(0), 16000, overlap=0.0, device="cpu")["s1"][:, :7500]
    carried = ways["carried on"]
    nearest = min((found[:, :7500] - alone).abs().max() for found in carried)
    assert nearest < 1e-4 * alone.abs().max() + 1e-6  # nothing is carried into the first chunk
    lines = script.table(model, [Song(), Song()]).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| carried on", "| continuity", "| references"]
    assert lines[4].startswith("| references | 0.0 |") and lines[-1] == "2 tracks, 0.0 min, chunks of 8000 samples"
    with pytest.raises(UserError, match="neither a segment nor separator.chunk"):
        script.Ways(tiny_model(seconds=None))
