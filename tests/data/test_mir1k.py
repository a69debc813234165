import json
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from lookalikes import write_mir1k

from tasnet_attn.compat import museval
from tasnet_attn.data import from_config
from tasnet_attn.data.mir1k import MIR1K
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.command import evaluate
from tasnet_attn.filterbanks import Decoder, Encoded, Encoder, STFTDecoder, STFTEncoder
from tasnet_attn.inference import separate, separate_file
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import TasNet
from tasnet_attn.storage import load
from tasnet_attn.training.command import train
from tasnet_attn.training.task import SeparationTask

SOURCES = ["accompaniment", "vocals"]
CLIPS = {"abjones_1_01": 3.0, "abjones_1_02": 5.0, "amy_2_03": 2.5, "bobon_1_01": 2.2, "titon_4_07": 4.1}  # seconds


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_mir1k(tmp_path_factory.mktemp("MIR-1K"), CLIPS)


def test_the_published_split(root):
    data = MIR1K(SOURCES, 8000, root)
    assert [t.name for t in data.tracks("train")] == ["abjones_1_01", "abjones_1_02", "amy_2_03"]
    assert [t.name for t in data.tracks("valid")] == [t.name for t in data.tracks("train")]
    assert [t.name for t in data.tracks("test")] == ["bobon_1_01", "titon_4_07"]


def test_held_out_clips_are_not_trained_on(root):
    data = MIR1K(SOURCES, 8000, root, held_out=1)
    assert [t.name for t in data.tracks("train")] == ["abjones_1_01", "abjones_1_02"]
    assert [t.name for t in data.tracks("valid")] == ["amy_2_03"]


def test_accompaniment_is_left_and_the_voice_right(root):
    left, right = soundfile.read(root / "Wavfile" / "bobon_1_01.wav", dtype="float32")[0].T
    for sources, channels in ((SOURCES, (left, right)), (SOURCES[::-1], (right, left)), (["vocals"], (right,))):
        references = MIR1K(sources, 16_000, root).tracks("test")[0].read()[1]
        np.testing.assert_array_equal(references[:, 0], channels)


@pytest.mark.parametrize(("mixture", "gain"), [("sum", 1.0), ("mean", 0.5)])
def test_mixture_is_the_sum_or_the_mean(root, mixture, gain):
    mixed, references = MIR1K(SOURCES, 8000, root, mixture=mixture).tracks("test")[0].read()
    torch.testing.assert_close(mixed, gain * references.sum(0))


def test_resampling_keeps_a_cut_where_it_was(root):
    track = MIR1K(SOURCES, 8000, root).tracks("test")[1]
    mixture, references = track.read()
    assert mixture.shape == (1, track.length) == (1, round(4.1 * 8000))
    cut, cut_references = track.read(1234, 567)
    assert torch.equal(cut, mixture[:, 1234:1801])
    assert torch.equal(cut_references, references[:, :, 1234:1801])
    original = soundfile.read(track.files[0], dtype="float32")[0].sum(1)
    energy = [np.abs(np.fft.rfft(x))[: int(3000 * 4.1)] ** 2 for x in (original, mixture[0].numpy())]
    assert energy[1].sum() * 4 == pytest.approx(energy[0].sum(), rel=0.01)  # half the rate: a quarter of |FFT|**2


def test_segments_come_with_their_clip(root):
    segments = MIR1K(SOURCES, 8000, root).segments("train")
    track, start = segments.draw(0, 3)
    mixture, references, clip = segments[0, 3]
    assert torch.equal(mixture, track.read(start, 16_128)[0]) and torch.equal(clip, track.read()[0])
    assert references.shape == (2, 1, 16_128)
    batch = next(iter(MIR1K(SOURCES, 8000, root).train_dataloader()))
    assert [part.shape for part in batch[:2]] == [(4, 1, 16_128), (4, 2, 1, 16_128)] and len(batch[2]) == 4


class LoudestSample(Encoder):
    """A user's own: frames of 64 samples, divided by the clip's largest."""

    n_features, clip_scaled = 64, True

    def forward(self, waveform, scale=None):
        scale = waveform.abs().amax(-1)[:, None, None] if scale is None else scale
        frames = waveform.unflatten(-1, (-1, 64)).transpose(1, 2)
        return Encoded(frames / scale, frames, scale)


class Frames(Decoder):
    def forward(self, carriers, length):
        return carriers.transpose(-1, -2).flatten(-2)


@pytest.mark.parametrize("encoder", [STFTEncoder(1024, 256, normalise="max"), LoudestSample()], ids=["STFT", "own"])
def test_training_divides_by_what_the_encoder_measures_on_the_whole_clip(encoder, monkeypatch):
    """The data set knows no encoder; a segment is scaled by its clip, whatever the encoder takes for its scale."""
    own = isinstance(encoder, LoudestSample)
    decoder = Frames() if own else STFTDecoder(1024, 256)
    model = SourceSeparator(SOURCES, 8000, encoder, partial(TasNet, hidden=4, n_layers=1), decoder)
    clips = [torch.randn(1, 64 * n) * torch.linspace(0, 1, 64 * n) for n in (300, 400)]
    batch = [torch.stack([clip[:, :6400] for clip in clips]), torch.randn(2, 2, 1, 6400), clips]
    seen = []
    monkeypatch.setattr(
        model.separator, "forward", lambda x, forward=model.separator.forward: seen.append(x) or forward(x)
    )
    SeparationTask(model)._loss(batch)
    for features, clip in zip(seen[0], clips, strict=True):
        scale = clip.abs().max() if own else encoder(clip).scale
        torch.testing.assert_close(features, encoder(clip[:, :6400], scale.reshape(1, 1, 1)).features[0])
        assert not torch.allclose(features, encoder(clip[:, :6400]).features[0])  # the segment's own would be another


@pytest.mark.parametrize("sampling", ["starts", "clips"])
def test_sampling_is_a_pure_function_with_the_published_odds(root, sampling):
    make = lambda: MIR1K(SOURCES, 8000, root, sampling=sampling, segments_per_epoch=600).segments("train")  # noqa: E731
    drawn = [make().draw(epoch, index) for epoch, index in ((0, 5), (3, 599))]
    again = [make().draw(epoch, index) for epoch, index in ((0, 5), (3, 599))]
    assert [(t.name, s) for t, s in drawn] == [(t.name, s) for t, s in again]
    segments = make()
    draws = [segments.draw(1, index) for index in range(600)]
    assert all(0 <= start <= track.length - 16_128 for track, start in draws)
    counts = Counter(track.name for track, _ in draws)
    if sampling == "clips":
        assert set(counts.values()) == {200}  # every pass takes each clip once
    else:
        starts = {t.name: t.length - 16_128 + 1 for t in segments.tracks}
        for name, room in starts.items():
            assert counts[name] / 600 == pytest.approx(room / sum(starts.values()), abs=0.07)


def test_mistakes_are_named(root, tmp_path):
    with pytest.raises(UserError, match="no source 'drums'"):
        MIR1K(["drums"], 8000, root)
    with pytest.raises(UserError, match="no .wav files there; set data.init_args.root"):
        MIR1K(SOURCES, 8000, tmp_path).tracks("train")
    with pytest.raises(UserError, match="held_out 3"):
        MIR1K(SOURCES, 8000, root, held_out=3).tracks("train")
    (tmp_path / "Wavfile").mkdir()
    soundfile.write(tmp_path / "Wavfile" / "amy_1_01.wav", np.zeros(16_000), 16_000)
    with pytest.raises(UserError, match=r"amy_1_01.wav: has 1 channel\(s\)"):
        MIR1K(SOURCES, 8000, tmp_path).tracks("train")


# ---- the commands, without a special case ---------------------------------------------------------------------------

SMALL = {"n_stacks": 1, "n_poolings": 2, "channels": 4, "stem": "[2]"}
RECIPES = ["hourglass_park", "hourglass_report", "hourglass_constant", "skip_attention"]
RUNS: dict = {}


def published(root, recipe="hourglass_park", *options):
    """A run of a recipe, the network made small; trained once."""
    if (recipe, options) not in RUNS:
        folder = Path(__file__).parents[2] / "recipes" / "mir1k"
        out = root / f"run_{len(RUNS)}"
        files = (folder / "base.yml", folder / recipe / "conf.yml", folder / recipe / "data.yml")
        arguments = [f"--config={file}" for file in files]
        arguments += [f"--out={out}", f"--data.init_args.root={root}", "--trainer.max_steps=2"]
        arguments += ["--data.init_args.segments_per_epoch=8", "--trainer.check_val_every_n_epoch=1"]
        arguments += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
        arguments += [f"--model.separator.init_args.{key}={value}" for key, value in SMALL.items()]
        train([*arguments, *options])
        RUNS[recipe, options] = SimpleNamespace(out=out, model=load(out))
    return RUNS[recipe, options]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_train_separate_and_evaluate_need_no_special_case(root, tmp_path, recipe):
    run = published(root, recipe)
    assert run.model.stitch == "middle"
    sampling = "clips" if recipe in ("hourglass_park", "skip_attention") else "starts"
    assert from_config(run.out, SOURCES, 8000).sampling == sampling
    clip = root / "Wavfile" / "titon_4_07.wav"
    files = separate_file(run.model, clip, tmp_path, device="cpu")  # 16 kHz stereo through a mono 8 kHz network
    assert [soundfile.info(file).frames for file in files] == [soundfile.info(clip).frames] * 2
    if recipe != "hourglass_park":
        return
    tracks = MIR1K(SOURCES, 8000, root).tracks("test")
    evaluate(run.model, tracks, tmp_path / "scores", device="cpu", v3=True)
    check_scores(run.model, tracks, json.loads((tmp_path / "scores" / "summary.json").read_text()))


@pytest.mark.slow
def test_the_options_of_the_readme(root):
    mixture = torch.rand(1, 20_000)
    run = published(root, "hourglass_park", "--data.init_args.mixture=sum", "--model.head.init_args.subtract=true")
    assert run.model.separator.stacks[0].head[0].out_channels == 1
    assert sorted(separate(run.model, mixture, 8000, device="cpu")) == SOURCES
    magnitude = ["--model.head.class_path=Magnitude", "--model.head.init_args.mask=none"]
    run = published(root, "hourglass_report", *magnitude, "--data.init_args.held_out=1")
    assert run.model.head.kind == "none"
    run = published(root, "skip_attention", "--model.head.init_args.activation=sigmoid")
    assert run.model.head.activation == "sigmoid"


def check_scores(model, tracks, summary):
    """GNSDR, GSIR and GSAR are means of museval's version 3 figures, weighted by length."""
    lengths = np.array([track.length for track in tracks])
    scores = []
    for track in tracks:
        mixture, references = track.read()
        estimates = torch.stack(list(separate(model, mixture, 8000, device="cpu").values()))
        true = references[:, 0].double().numpy()
        sdr, sir, sar = _v3(true, estimates[:, 0].double().numpy())
        before = _v3(true, np.repeat(mixture.double().numpy(), 2, axis=0))[0]
        scores.append([sdr - before, sir, sar])
    expected = np.average(scores, axis=0, weights=lengths)  # [metric, source]
    for m, metric in enumerate(("NSDR", "SIR v3", "SAR v3")):
        for s, source in enumerate(SOURCES):
            value = summary["scores"][source][metric]["length-weighted"]["value"]
            assert value == pytest.approx(expected[m, s], abs=1e-3), (metric, source)


def _v3(references, estimates):
    sdr, sir, sar, _ = museval.metrics.bss_eval_sources(references, estimates, compute_permutation=False)
    return np.ravel(sdr), np.ravel(sir), np.ravel(sar)
