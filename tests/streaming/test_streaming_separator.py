"""Streamed equals offline: any block, any length, the stated latency."""

import re
from functools import partial

import pytest
import soundfile
import torch
from conftest import SMALL, tasnet_model
from torch.utils._pytree import tree_leaves

from tasnet_attn import StreamingSeparator, UserError, load, save, separate
from tasnet_attn.cli import main
from tasnet_attn.data import StemFolders
from tasnet_attn.filterbanks import GammatoneEncoder, STFTDecoder, STFTEncoder
from tasnet_attn.heads import Magnitude, Mask
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import LTL, Bands, DualPath, TasNet

BLOCKS = (1, 7, 15, 16, 441, 4410)
WINDOWED = partial(LTL, hidden=8, heads=2, ffn=8, transformer_layers=2, window=5)


def spectrogram(separator, n_fft=64, hop=16, drop=None, head=None, **settings):
    encoder, decoder = STFTEncoder(n_fft, hop, drop=drop, **settings), STFTDecoder(n_fft, hop, drop=drop)
    return SourceSeparator(["guitar", "backing"], 8000, encoder, separator, decoder, head)


CODED = partial(LTL, lstm_before=0, lstm_after=1, heads=1, hidden=8, ffn=8, window=300, positional="sinusoidal")
ACROSS = partial(WINDOWED, norm="pre", ffn_layer="lstm")
BANDS = partial(DualPath, fold=partial(Bands, n_bands=3, standardise="frame"), width=8, n_blocks=2, across=ACROSS)
MODELS = {
    "LTL": lambda: tasnet_model(WINDOWED),
    "LTL that sees one frame": lambda: tasnet_model(partial(WINDOWED, window=1), stride=7),
    "LTL, overlapping": lambda: tasnet_model(CODED, stride=7),
    "LTL without attention": lambda: tasnet_model(partial(LTL, transformer_layers=0, hidden=8)),
    "TasNet": lambda: tasnet_model(partial(TasNet, hidden=8), kernel_size=20, stride=20),
    "gammatone": lambda: tasnet_model(WINDOWED, GammatoneEncoder(24, 16, 8000, 8, n_centres=6), stride=8),
    "STFT": lambda: spectrogram(partial(WINDOWED, heads=1), power=0.5),
    "STFT, ragged hop": lambda: spectrogram(CODED, hop=25, drop="dc", last_frame=False),
    "STFT, odd window": lambda: spectrogram(partial(TasNet, hidden=8), n_fft=63, hop=21),
    "STFT, bands, complex": lambda: spectrogram(BANDS, power=0.3, features="complex", head=Mask(kind="complex")),
    "STFT, magnitudes": lambda: spectrogram(partial(TasNet, hidden=8), hop=32, head=Magnitude("wiener")),
}


class OtherWay(TasNet):
    """Its forward is another than the step that it inherits."""

    def forward(self, features):
        return [-stage for stage in super().forward(features)]


@pytest.fixture(params=list(MODELS))
def model(request):
    model = MODELS[request.param]().eval()
    model.gain.copy_(torch.tensor([-1.7, 0.6]))
    return model


def streamed(stream, mixture, size):
    """All outputs, and the most that lay behind after a block."""
    outputs, behind = [], 0
    for block in mixture.split(size, dim=-1):
        outputs.append(stream.feed(block))
        behind = max(behind, stream.behind)
    return torch.cat([*outputs, stream.flush()], dim=-1), behind


def sounds(length):
    song = StemFolders(["guitar", "backing"], 44_100).tracks("test")[0].read(100_000, length)[0]
    return {"noise": torch.randn(2, length), "silence": torch.zeros(2, length), "music": song}


@pytest.mark.parametrize("length", [1, 17, 90, *(pytest.param(n, marks=pytest.mark.slow) for n in (15, 16, 33, 401))])
def test_blocks_of_any_size_equal_the_whole(model, length):
    """In double precision: what differs is arithmetic, not rounding."""
    stream = StreamingSeparator(model.double(), channels=2)
    for name, mixture in sounds(length).items():
        mixture = mixture.double()
        with torch.inference_mode():
            whole = model(mixture[None])[0]
        for size in BLOCKS:
            estimates, behind = streamed(stream, mixture, size)
            assert estimates.shape == whole.shape
            assert (estimates - whole).abs().max() <= 1e-12 * whole.abs().max() + 1e-24, (name, size)
            assert behind <= stream.latency == model.latency


@pytest.mark.slow
def test_a_long_ragged_stream_equals_the_whole(model):
    mixture = sounds(30_000)["music"]
    with torch.inference_mode():
        whole = model(mixture[None])[0]
    stream, sizes, outputs, start = StreamingSeparator(model, 2), torch.randint(0, 3000, (60,)).tolist(), [], 0
    for size in sizes:
        outputs.append(stream.feed(mixture[:, start : start + size]))
        start += size
    outputs += [stream.feed(mixture[:, start:]), stream.flush()]
    assert (torch.cat(outputs, dim=-1) - whole).abs().max() <= 3e-6 * whole.abs().max()


def test_the_latency_is_the_largest_wait_and_no_more(model):
    """One sample a time: what lies behind reaches the latency exactly, and later samples change nothing given."""
    one, other = torch.randn(1, 200), torch.randn(1, 200)
    other[:, :150] = one[:, :150]
    first, second = StreamingSeparator(model), StreamingSeparator(model)
    waits = []
    for t in range(150):
        torch.testing.assert_close(first.feed(one[:, t : t + 1]), second.feed(other[:, t : t + 1]))
        waits.append(first.behind)
    assert max(waits[100:]) == model.latency


def test_a_callback_gets_as_much_as_it_gives_delayed_by_the_latency(model):
    mixture, stream = torch.randn(1, 300), StreamingSeparator(model)
    out = torch.cat([stream.process(block) for block in mixture.split(37, dim=-1)], dim=-1)
    with torch.inference_mode():
        whole = model(mixture[None])[0]
    assert out.shape[-1] == 300
    assert out[..., : stream.latency].abs().max() == 0
    kept = whole[..., : 300 - stream.latency]
    torch.testing.assert_close(out[..., stream.latency :], kept, atol=3e-6 * whole.abs().max().item(), rtol=0)


def test_flush_begins_a_new_stream_and_nothing_in_is_nothing_out(model):
    stream, mixture = StreamingSeparator(model, 2), torch.randn(2, 100)
    assert stream.flush().shape == (2, 2, 0)
    first, again = streamed(stream, mixture, 9)[0], streamed(stream, mixture, 9)[0]
    assert torch.equal(first, again)
    stream.feed(mixture)
    stream.reset()
    assert torch.equal(streamed(stream, mixture, 9)[0], first)


def test_the_state_has_one_shape_from_the_first_frame_on():
    def shapes(tree):
        return [leaf.shape for leaf in tree_leaves(tree) if leaf is not None]

    for build in (MODELS["LTL"], MODELS["LTL, overlapping"], MODELS["TasNet"]):
        stream = StreamingSeparator(build().eval())
        before = shapes(stream.state)
        stream.feed(torch.randn(1, 1000))
        assert shapes(stream.state) == before


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (SMALL["LTL both ways"], "separator LTL is not causal"),
        (SMALL["gated LTL"], "separator LTL has no window"),
        (lambda: spectrogram(partial(TasNet, hidden=8), normalise="max"), "encoder STFTEncoder divides by the maximum"),
        (lambda: spectrogram(partial(TasNet, hidden=8), hop=40), "encoder STFTEncoder needs a hop of at most half"),
        (lambda: tasnet_model(WINDOWED, segment=1.0), "segments of 1.0 s"),
        (lambda: tasnet_model(partial(OtherWay, hidden=8)), "separator OtherWay has no step"),
    ],
)
def test_what_cannot_stream_says_which_part(build, said):
    with pytest.raises(UserError, match=f"^this model cannot stream: .*{said}") as caught:
        StreamingSeparator(build())
    assert "\n" not in str(caught.value)


def test_bad_blocks_are_refused_and_leave_the_stream_as_it_was():
    stream = StreamingSeparator(MODELS["LTL"]().eval(), channels=2)
    for block, said in ((torch.zeros(1, 5), "samples"), (torch.full((2, 5), torch.nan), "not finite")):
        with pytest.raises(UserError, match=said):
            stream.feed(block)
    assert stream.behind == 0


def test_separate_streams_such_a_model_without_seams():
    model, mixture = MODELS["LTL"]().eval(), sounds(9000)["music"]
    with torch.inference_mode():
        whole = model(mixture[None])[0]
    for segment in (None, 0.1):
        estimates = torch.stack(list(separate(model, mixture, 8000, segment).values()))
        assert (estimates - whole).abs().max() <= 3e-6 * whole.abs().max()


def test_separate_says_what_its_settings_mean_for_such_a_model(tmp_path, capsys):
    model = save(MODELS["LTL"](), tmp_path / "model.safetensors")
    soundfile.write(tmp_path / "song.wav", sounds(9000)["noise"].T.numpy(), 8000, "FLOAT")
    arguments = ["separate", str(tmp_path / "song.wav"), "--model", str(model), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--segment", "0.2", "--overlap", "0.5", "--verify-seams"]) == 0
    said = capsys.readouterr().out
    assert "--segment is the size of its blocks and --overlap has no effect" in said
    ratios = [float(ratio) for ratio in re.findall(r"([0-9.]+) dB at", said)]
    assert len(ratios) == 2 and min(ratios) > 100


@pytest.mark.parametrize(
    "build", [SMALL["LTL both ways"], lambda: tasnet_model(partial(LTL, hidden=8, heads=2), segment=0.1)]
)
def test_seams_of_models_that_are_cut_are_measured(tmp_path, capsys, build):
    model = save(build(), tmp_path / "model.safetensors")
    soundfile.write(tmp_path / "song.wav", sounds(9000)["music"].T.numpy(), 8000, "FLOAT")
    arguments = ["separate", str(tmp_path / "song.wav"), "--model", str(model), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--verify-seams", *([] if load(model).segment else ["--segment", "0.1"])]) == 0
    ratios = [float(ratio) for ratio in re.findall(r"([0-9.-]+) dB at", capsys.readouterr().out)]
    assert len(ratios) == 3 and all(0 < ratio < 100 for ratio in ratios)
