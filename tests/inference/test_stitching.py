import functools

import pytest
import torch
from conftest import tasnet_model
from hypothesis import given, settings
from hypothesis import strategies as st

from tasnet_attn.filterbanks import GatedEncoder, STFTDecoder, STFTEncoder
from tasnet_attn.heads import Mask
from tasnet_attn.inference.segments import Stream, separate
from tasnet_attn.inference.stitching import stitch, stitched, windows
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import Hourglass, Separator

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    """A tiny network with the published spectrogram; windows of 64 frames."""
    torch.manual_seed(0)
    return SourceSeparator(
        ["accompaniment", "vocals"],
        8000,
        STFTEncoder(1024, 256, normalise="max", drop="nyquist"),
        functools.partial(Hourglass, n_stacks=1, n_poolings=1, channels=4, stem=(2,)),
        STFTDecoder(1024, 256, drop="nyquist"),
        Mask("clipped"),
        segment=2.016,
        stitch="middle",
    ).eval()


@given(st.integers(1, 700), st.integers(1, 80), st.data())
def test_every_frame_is_written_exactly_once(frames, size, data):
    stride = data.draw(st.integers(1, size))
    plan = windows(frames, size, stride)
    written = [frame for w in plan for frame in range(w.first, w.stop)]
    assert written == list(range(frames))
    for w in plan:
        assert 0 <= w.start <= w.first < w.stop <= w.start + size
    assert plan[-1].start == max(0, frames - size)


@pytest.mark.parametrize("frames", [1, 63, 64, 65, 96, 97, 100, 200, 1000])
def test_inner_windows_keep_their_middle_half(frames):
    for w in windows(frames, 64, 32)[1:-1]:
        assert (w.first - w.start, w.stop - w.start) == (16, 48)


def test_windows_join_to_the_input_if_the_network_copies():
    features = torch.randn(2, 5, 150)
    plan = windows(150, 64, 32)
    assert torch.equal(stitch(lambda x: x.unsqueeze(1), features, plan, 64), features.unsqueeze(1))


def test_windows_go_through_the_network_in_one_batch():
    shapes = []
    stitch(lambda x: shapes.append(x.shape) or x.unsqueeze(1), torch.randn(2, 5, 150), windows(150, 64, 32), 64)
    assert shapes == [(4 * 2, 5, 64)]


def without_last_frame(model):
    config = model.config
    config["encoder"]["init_args"]["last_frame"] = False
    other = SourceSeparator.from_config({**config, "segment": 64 * 256 / 8000}).eval()
    other.load_state_dict(model.state_dict())
    return other


@torch.inference_mode()
def whole(model, mixture):
    """The rule on the whole clip at once, window by window: [S, C, T]."""
    encoded = model.encoder(mixture)
    frames = encoded.features.shape[-1]
    stage = torch.full((len(mixture), 2, 512, frames), torch.nan)
    for w in windows(frames, 64, 32):
        cut = encoded.features[..., w.start : w.start + 64]
        output = model.separator(torch.nn.functional.pad(cut, (0, 64 - cut.shape[-1])))[-1]
        stage[..., w.first : w.stop] = output[..., w.first - w.start : w.stop - w.start]
    return model.decoder(model.head.apply(stage, encoded), mixture.shape[-1]).transpose(0, 1)


@pytest.mark.parametrize("length", [1, 256, 5000, 16_128, 16_384, 40_000])
@pytest.mark.parametrize(("block", "last_frame"), [(333, True), (1 << 20, True), (4000, False)])
def test_a_stream_of_blocks_equals_the_whole_clip(model, length, block, last_frame):
    model = model if last_frame else without_last_frame(model)
    torch.manual_seed(length)
    mixture = torch.randn(2, length)
    stream = Stream(model, 8000, None, 0.25, "cpu")
    estimates = torch.cat(list(stream.run(lambda: mixture.split(block, dim=-1), length)), dim=-1)
    expected = whole(model, mixture)
    torch.testing.assert_close(estimates, expected, rtol=1e-5, atol=1e-7)
    with torch.inference_mode():
        scale = model.encoder(mixture).scale
        parts = list(stitched(model, mixture.split(block, dim=-1), length, scale, CPU, batch=3))
    torch.testing.assert_close(torch.cat(parts, dim=-1), expected, rtol=1e-5, atol=1e-7)


class Equaliser(Separator):
    """A gain for each bin: windows do not change its output."""

    def __init__(self, n_features, n_sources):
        super().__init__()
        self.gains = torch.nn.Parameter(torch.rand(n_sources, n_features))

    def forward(self, features):
        return [self.gains[..., None].expand(len(features), -1, -1, features.shape[-1])]


@pytest.mark.parametrize("last_frame", [True, False])
@pytest.mark.parametrize(("n_fft", "hop"), [(16, 3), (16, 11), (15, 4), (15, 11)])
@pytest.mark.parametrize("length", [1, 44, 203, 407])
def test_any_window_and_hop(n_fft, hop, last_frame, length):
    parts = STFTEncoder(n_fft, hop, last_frame=last_frame), Equaliser, STFTDecoder(n_fft, hop), Mask("linear")
    model = SourceSeparator(["a", "b"], 8000, *parts, segment=0.01, stitch="middle").eval()
    mixture = torch.randn(2, length)
    estimates = torch.stack(list(separate(model, mixture, 8000, device="cpu").values()))
    with torch.inference_mode():
        torch.testing.assert_close(estimates, model(mixture[None])[0], rtol=1e-4, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 30_000))
def test_any_length_comes_back(model, length):
    torch.manual_seed(length)
    mixture = torch.randn(1, length)
    estimates = separate(model, mixture, 8000, device="cpu")
    torch.testing.assert_close(torch.stack(list(estimates.values())), whole(model, mixture), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("stitch", ["middle", "fade"])
def test_a_model_of_another_precision_computes_in_it(model, stitch):
    other = SourceSeparator.from_config({**model.config, "stitch": stitch}).eval()
    other.load_state_dict(model.state_dict())
    mixture = torch.randn(1, 30_000)
    expected = separate(other, mixture, 8000, device="cpu")["vocals"]
    torch.testing.assert_close(separate(other.double(), mixture, 8000, device="cpu")["vocals"], expected)


@pytest.mark.parametrize("length", [1, 255, 256, 1000, 131_071, 262_844])
def test_first_pass_finds_the_maximum_of_the_whole_clip(model, length):
    torch.manual_seed(0)
    mixture = torch.randn(2, length) * torch.linspace(0, 1, length)
    scale = model.encoder.clip_scale(mixture.split(1000, dim=-1), length)
    torch.testing.assert_close(scale, model.encoder(mixture).scale)


def test_the_maximum_may_lie_in_the_last_block(model):
    mixture = torch.zeros(1, 5000)
    mixture[:, -1] = 1.0
    torch.testing.assert_close(
        model.encoder.clip_scale(mixture.split(4999, dim=-1), 5000), model.encoder(mixture).scale
    )


def test_an_own_encoder_that_divides_by_the_clip_is_asked(model):
    asked = []

    class Own(GatedEncoder):
        clip_scaled = True

        def clip_scale(self, blocks, length):
            asked.append(torch.cat(list(blocks), dim=-1))
            return torch.full((1, 1, 1), 2.0)

    own = tasnet_model(encoder=Own(24, 16)).eval()
    mixture = torch.randn(1, 400)
    separated = separate(own, mixture, 8000, segment=0.05, overlap=0.0, device="cpu")
    assert torch.equal(asked[0], mixture)
    expected = own(mixture[None], torch.full((1, 1), 2.0))[0]
    torch.testing.assert_close(separated["guitar"], expected[0], rtol=1e-4, atol=1e-6)


def test_cross_faded_segments_are_divided_by_the_clips_maximum_too(model):
    torch.manual_seed(0)
    faded = SourceSeparator.from_config({**model.config, "stitch": "fade"}).eval()
    faded.load_state_dict(model.state_dict())
    loud_end = torch.randn(1, 80_000) * torch.tensor([0.1, 1.0]).repeat_interleave(40_000)
    estimates = separate(faded, loud_end, 8000, device="cpu")["vocals"]
    scale = model.encoder(loud_end).scale
    with torch.inference_mode():
        first = model(loud_end[None, :, :16_128], scale)[0, 1]
    torch.testing.assert_close(estimates[:, :10_000], first[:, :10_000], rtol=1e-5, atol=1e-7)


def test_memory_is_bounded(model):
    """No more of a long file is read before its first estimates come than a group of windows needs."""
    blocks = 200
    read = []

    def stream():
        read.clear()
        for i in range(blocks):
            read.append(i)
            yield torch.ones(1, 8000)

    estimates = Stream(model, 8000, None, 0.25, "cpu").run(stream, blocks * 8000)
    next(estimates)
    assert len(read) * 8000 <= (32 + 64 + 4) * 256 + 8000  # on a CPU one window a time


def test_models_that_cannot_be_stitched_so_are_refused(model):
    config = {**model.config, "segment": None}
    with pytest.raises(Exception, match="stitch 'middle' needs a segment"):
        SourceSeparator.from_config(config)
