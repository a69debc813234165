import re
from functools import partial

import numpy as np
import pytest
import soundfile
import torch
from conftest import tasnet_model
from test_model import fixed_model

from tasnet_attn.audio.reading import Sound
from tasnet_attn.errors import UserError
from tasnet_attn.filterbanks import GatedEncoder, LearnedDecoder, STFTDecoder, STFTEncoder
from tasnet_attn.inference import separate, separate_blocks, separate_file
from tasnet_attn.inference.seams import verify_seams
from tasnet_attn.inference.segments import Stream, segments
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import TasNet


class Gains(SourceSeparator):
    """A model that is known: each source is the mixture times a number; remembers what it was given."""

    def __init__(self, interchangeable=False):
        parts = GatedEncoder(2, 2), TasNet, LearnedDecoder(2, 2)
        super().__init__(["one", "two"], 8000, *parts, interchangeable=interchangeable)
        self.calls = []

    def forward(self, mixture, scale=None):
        self.calls.append(mixture.shape[-1])
        estimates = torch.stack([mixture, -2 * mixture], dim=1)
        # an interchangeable model answers in another order every time
        return estimates.flip(1) if self.interchangeable and len(self.calls) % 2 else estimates


@pytest.mark.parametrize("length", [1, 99, 100, 101, 777, 5000])
@pytest.mark.parametrize("overlap", [0, 0.25, 0.9])
def test_cross_fading_is_normalised(length, overlap):
    mixture, model = torch.randn(2, length), Gains()
    estimates = separate(model, mixture, 8000, segment=100 / 8000, overlap=overlap)
    torch.testing.assert_close(estimates["one"], mixture)
    torch.testing.assert_close(estimates["two"], -2 * mixture)
    assert set(model.calls) == {min(100, length)}


@pytest.mark.parametrize("batch", [2, 3, 50])
@pytest.mark.parametrize("model", [tasnet_model(), fixed_model()])
def test_segments_taken_together_are_those_taken_one_by_one(batch, model):
    """As on a GPU; the last batch, and for a model of fixed length the last segment, may be short."""
    mixture = torch.randn(2, 5321)
    stream = Stream(model, model.sample_rate, model.segment or 0.1, None, "cpu")
    stream.streams = False
    one_by_one = torch.cat(list(stream.run(lambda: [mixture], 5321)), dim=-1)
    stream.batch = batch
    together = torch.cat(list(stream.run(lambda: [mixture], 5321)), dim=-1)
    torch.testing.assert_close(together, one_by_one)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("streams", [True, False])
def test_a_model_of_another_precision_computes_in_it(dtype, streams):
    model = tasnet_model(partial(TasNet, hidden=8, bidirectional=not streams)).eval().to(dtype)
    mixture = torch.randn(2, 500, dtype=torch.float64)
    with torch.inference_mode():
        expected = model(mixture.float()[None].to(dtype))[0, 0].float()
    torch.testing.assert_close(separate(model, mixture, 8000)["guitar"], expected, atol=1e-2 * expected.std(), rtol=0)


@pytest.mark.parametrize("rate", [8000, 11_025, 44_100, 48_000])
@pytest.mark.parametrize("length", [1, 1000, 44_101])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_rate_length_and_channel_count(rate, length, channels):
    estimates = separate(Gains(), torch.randn(channels, length), rate, segment=0.5)
    assert estimates["one"].shape == (channels, length)


def test_resampling_in_and_back_keeps_what_the_model_s_rate_can_hold():
    t = torch.arange(44_100) / 44_100
    tone = torch.sin(2 * torch.pi * 1000 * t)[None]
    inside = separate(Gains(), tone, 44_100)["one"]
    assert (inside - tone)[:, 2000:-2000].abs().max() < 1e-3
    assert separate(Gains(), torch.sin(2 * torch.pi * 6000 * t)[None], 44_100)["one"].abs()[:, 2000:-2000].max() < 1e-2


def test_interchangeable_sources_keep_their_order_over_segments():
    mixture = torch.randn(1, 3000)
    estimates = separate(Gains(interchangeable=True), mixture, 8000, segment=0.1, overlap=0.3)
    torch.testing.assert_close(estimates["two"], mixture)
    torch.testing.assert_close(estimates["one"], -2 * mixture)


class Turning(SourceSeparator):
    """Three known sources that come one place further on in every segment: an order that is not its own inverse."""

    GAINS = (1.0, -2.0, 5.0)

    def __init__(self, step):
        parts = GatedEncoder(2, 2), TasNet, LearnedDecoder(2, 2)
        super().__init__(["one", "two", "three"], 8000, *parts, interchangeable=True)
        self.step, self.calls = step, 0

    def forward(self, mixture, scale=None):
        self.calls += 1
        return torch.stack([gain * mixture for gain in self.GAINS], dim=1).roll(self.step * (self.calls - 1), dims=1)


@pytest.mark.parametrize("step", [1, 2])
def test_three_sources_keep_their_order_over_segments(step):
    model, mixture = Turning(step), torch.randn(2, 4000)
    estimates = separate(model, mixture, 8000, segment=0.1, overlap=0.3)
    assert model.calls > 6
    for gain, estimate in zip(model.GAINS, estimates.values(), strict=True):
        torch.testing.assert_close(estimate, gain * mixture)


@pytest.mark.parametrize("length", [1, 127, 128, 1000])
def test_models_of_fixed_length_always_get_it(length):
    model, mixture = fixed_model(), torch.randn(2, length)
    assert separate(model, mixture, 8000)["one"].shape == (2, length)
    with pytest.raises(UserError, match="takes segments of 0.016 s only"):
        separate(model, mixture, 8000, segment=1.0)


def test_level_is_preserved():
    model, mixture = tasnet_model(), torch.randn(2, 4000)
    quiet, loud = (separate(model, gain * mixture, 8000, segment=0.1)["guitar"] for gain in (1, 100))
    torch.testing.assert_close(loud, 100 * quiet, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("blocks", [[3000], [1] * 10 + [2990], [999, 1, 1000, 1000]])
@pytest.mark.parametrize(("size", "hop"), [(700, 500), (3000, 1000), (2999, 7), (64, 64)])
def test_segments_do_not_depend_on_the_blocks(blocks, size, hop):
    signal = torch.arange(3000.0)[None]
    cut = list(segments(signal.split(blocks, dim=-1), size, hop))
    assert all(torch.equal(chunk, signal[:, start : start + size]) for start, chunk in cut)
    starts = [start for start, _ in cut]
    assert starts[-1] == 3000 - size and starts[:-1] == [hop * i for i in range(len(starts) - 1)]


def test_files_equal_tensors(tmp_path):
    model, audio = tasnet_model(), 0.1 * torch.randn(2, 9000)
    soundfile.write(tmp_path / "song.wav", audio.T.numpy(), 11_025, "FLOAT")
    files = separate_file(model, tmp_path / "song.wav", tmp_path / "out", segment=0.3)
    assert [file.name for file in files] == ["guitar.wav", "backing.wav"]
    expected = separate(model, audio, 11_025, segment=0.3)
    for file in files:
        assert soundfile.info(file).subtype == "FLOAT"
        samples, rate = soundfile.read(file, dtype="float32")
        assert rate == 11_025
        torch.testing.assert_close(torch.from_numpy(samples.T), expected[file.stem], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("format", ["flac", "ogg"])
def test_other_formats_and_a_choice_of_sources(tmp_path, format):
    soundfile.write(tmp_path / "song.wav", 0.1 * np.random.default_rng(0).normal(size=9000), 8000)
    (file,) = separate_file(tasnet_model(), tmp_path / "song.wav", tmp_path / "out", sources=["backing"], format=format)
    assert file.name == f"backing.{format}" and soundfile.info(file).frames == 9000
    assert [f.name for f in (tmp_path / "out" / "song").iterdir()] == [file.name]


def test_nothing_is_left_half_written(tmp_path):
    samples = np.zeros((300_000, 1), dtype=np.float32)
    samples[290_000] = np.inf  # found in the second block, when the first is already written
    soundfile.write(tmp_path / "song.wav", samples, 8000, "FLOAT")
    out = tmp_path / "out"
    out.mkdir()
    (out / "one.wav").write_text("from before")
    with pytest.raises(UserError, match=r"song\.wav: NaN or infinite value at sample 290000"):
        separate_file(Gains(), tmp_path / "song.wav", out, segment=1.0)
    assert [(f.name, f.read_text()) for f in out.iterdir()] == [("one.wav", "from before")]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"overlap": 1.0}, "overlap 1.0"),
        ({"segment": 1e-9}, "must be a finite number"),
        ({"segment": -1.0}, "segment"),
        ({"device": "abacus"}, "device 'abacus'"),
        ({"device": "meta"}, "device 'meta'"),
    ],
)
def test_bad_settings_are_said_clearly(settings, said):
    with pytest.raises(UserError, match=said):
        separate(Gains(), torch.randn(1, 100), 8000, **settings)
    with pytest.raises(UserError, match="NaN"):
        separate(Gains(), torch.full((1, 5), torch.nan), 8000)
    with pytest.raises(UserError, match="no samples"):
        separate(Gains(), torch.zeros(1, 0), 8000)


@pytest.mark.parametrize("name", ["hpu", "privateuseone", "xla", "cuda:99", ""])
def test_devices_that_are_not_here_are_one_line(name):
    with pytest.raises(UserError, match=f"device '{name}' is not available: ") as caught:
        separate(Gains(), torch.randn(1, 100), 8000, device=name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [8000, 11_025])
@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.int16])
def test_samples_of_any_type(kind, rate):
    mixture = torch.randint(-100, 100, (2, 900)).to(kind)
    found, expected = (separate(Gains(), samples, rate)["two"] for samples in (mixture, mixture.float()))
    assert found.dtype == torch.float32 and torch.equal(found, expected)
    separate(Gains(), mixture.float().requires_grad_(), rate)


@pytest.mark.parametrize(
    ("mixture", "rate", "said"),
    [
        (torch.zeros(100), 8000, r"must be a tensor of real numbers \[channels, samples\]; got \[100\]"),
        (torch.zeros(1, 1, 100), 8000, r"got \[1, 1, 100\]"),
        (torch.zeros(0, 100), 8000, r"got \[0, 100\]"),
        (torch.zeros(1, 100, dtype=torch.complex64), 8000, r"got \[1, 100\]"),
        (np.zeros((1, 100)), 8000, "got ndarray"),
        *((torch.zeros(1, 100), rate, f"sample rate {rate} must be") for rate in (0, -1, 0.5, 8000.5, float("nan"))),
    ],
)
def test_what_is_no_mixture_is_said_clearly(mixture, rate, said):
    with pytest.raises(UserError, match=said):
        separate(Gains(), mixture, rate)


def test_it_is_said_that_an_overlap_has_no_effect():
    settings = (None, 0.5, "cpu")
    middle = SourceSeparator(
        ["one", "two"], 8000, STFTEncoder(64, 32), partial(TasNet, hidden=2, n_layers=1, bidirectional=True),
        STFTDecoder(64, 32), segment=0.1, stitch="middle",
    )  # fmt: skip
    assert (
        "keeps the middle of segments that overlap by half: --overlap has no effect"
        in Stream(middle, 8000, *settings).said
    )
    assert Stream(middle, 8000, None, None, "cpu").said == "" == Stream(fixed_model(), 8000, *settings).said


def test_seams_of_interchangeable_sources_are_compared_in_one_order(tmp_path):
    """Each pass answers in an order of its own; the estimates are otherwise equal."""
    soundfile.write(tmp_path / "x.wav", 0.1 * np.random.default_rng(0).normal(size=9000), 8000, "FLOAT")

    class Whole(Gains):
        def forward(self, mixture, scale=None):
            estimates = torch.stack([mixture, -2 * mixture], dim=1)
            return estimates.flip(1) if mixture.shape[-1] > 1000 else estimates

    said = verify_seams(Whole(interchangeable=True), Sound(tmp_path / "x.wav"), 0.1, None, "cpu")
    ratios = [float(ratio) for ratio in re.findall(r"([-\d.]+) dB at", said)]
    assert len(ratios) == 3 and min(ratios) > 100
    said = verify_seams(Whole(), Sound(tmp_path / "x.wav"), 0.1, None, "cpu")
    assert float(re.search(r"([-\d.]+) dB at", said)[1]) < 5


def test_gradients_are_as_the_caller_set_them_between_blocks_and_afterwards(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.zeros(800), 8000)
    one, other = (separate_blocks(tasnet_model().eval(), tmp_path / "x.wav", segment=0.02) for _ in range(2))
    for block, _ in zip(one, other, strict=True):
        assert not torch.is_inference_mode_enabled() and not block.is_inference()
    assert not torch.is_inference_mode_enabled()
