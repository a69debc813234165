"""Evaluation: its files, museval's readers, resuming, mistakes."""

import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from tasnet_attn import config
from tasnet_attn.cli import main
from tasnet_attn.compat import museval
from tasnet_attn.data.track import Track
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.command import complete, default_out, evaluate, run
from tasnet_attn.evaluation.oracles import BASELINES, OracleMask
from tasnet_attn.evaluation.results import file_name, read_table, signal_names
from tasnet_attn.evaluation.scores import score
from tasnet_attn.files import write_text
from tasnet_attn.filterbanks import GatedEncoder, LearnedDecoder
from tasnet_attn.inference.segments import separate
from tasnet_attn.metrics import Metric
from tasnet_attn.model import SourceSeparator
from tasnet_attn.reporting.command import report
from tasnet_attn.separators import TasNet
from tasnet_attn.storage import load, save

RATE = 8000


class Tones(Track):
    """Two seeded sources of coloured noise."""

    def __init__(self, name, length=2 * RATE + 77, rate=RATE, sources=("one", "two"), seed=None):
        self.name, self.length, self.sample_rate, self.sources = name, length, rate, list(sources)
        self.seed = sum(map(ord, name)) if seed is None else seed
        self.reads = 0

    def read(self, start=0, length=None):
        self.reads += 1
        generator = torch.Generator().manual_seed(self.seed)
        references = torch.randn(len(self.sources), 1, self.length, generator=generator)
        references[1:, :, 1:] -= 0.9 * references[1:, :, :-1].clone()
        return references.sum(0), references


class Counted(OracleMask):
    """An oracle that counts its calls."""

    calls = 0

    def __call__(self, mixture, references):
        self.calls += 1
        return super().__call__(mixture, references)


class LevelHere(Metric):
    """A metric of the user's own: the estimates' level in dB."""

    def __init__(self, offset: float = 0.0):
        self.offset = offset

    def __call__(self, mixture, references, estimates, sample_rate):
        assert mixture.shape == references.shape[1:] and references.shape == estimates.shape and sample_rate == RATE
        return {"level": 10 * estimates.square().mean((1, 2)).log10() + self.offset}


class Deadly(Metric):
    """It ends its process."""

    def __call__(self, mixture, references, estimates, sample_rate):
        os.kill(os.getpid(), signal.SIGKILL)


def tracks(count=3):
    return [Tones(f"song {number}") for number in range(count)]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_files_hold_what_the_summary_says(tmp_path):
    summary = evaluate(OracleMask("ratio"), tracks(), tmp_path, v3=True)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    with (tmp_path / "scores.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    metrics = ["SDR", "ISR", "SIR", "SAR", "SI-SNR", "SI-SNRi", "NSDR", "SIR v3", "SAR v3"]
    keys = [(r["track"], r["source"], r["metric"]) for r in rows]
    assert keys == [(t.name, s, m) for t in tracks() for s in ("one", "two") for m in metrics]
    for metric in metrics:
        scores = [float(r["score"]) for r in rows if r["source"] == "two" and r["metric"] == metric]
        found = summary["scores"]["two"][metric]
        assert found["median of medians"]["value"] == pytest.approx(np.median(scores), abs=1e-12)
        assert found["mean of medians"]["value"] == pytest.approx(np.mean(scores), abs=1e-12)
        assert found["median of medians"]["low"] <= found["median of medians"]["value"]
    assert summary["silence"]["one"] == {
        "windows": 6, "unscored": 0, "tracks without score": 0, "reference": 0, "estimate": 0, "infinite": 0,
    }  # fmt: skip


def test_museval_reads_the_track_files(tmp_path):
    """In museval's layout, <folder>/test/<track>.json, by both of its stores."""
    evaluate(OracleMask("ratio"), tracks(), tmp_path / "ours")
    (tmp_path / "ratio" / "test").mkdir(parents=True)
    for track in tracks():
        found = json.loads((tmp_path / "ours" / f"{track.name}.json").read_text())
        store = museval.TrackStore(track.name)
        store.scores = found
        store.validate()
        (tmp_path / "ratio" / "test" / f"{track.name}.json").write_text(json.dumps(found))
    evals, methods = museval.EvalStore(), museval.MethodStore()
    evals.add_eval_dir(tmp_path / "ratio")
    methods.add_eval_dir(tmp_path / "ratio")
    summary = json.loads((tmp_path / "ours" / "summary.json").read_text())
    for source in ("one", "two"):
        for metric in ("SDR", "ISR", "SIR", "SAR"):
            expected = summary["scores"][source][metric]["median of medians"]["value"]
            assert evals.agg_frames_tracks_scores()[source][metric] == pytest.approx(expected, abs=1e-9)
            assert methods.agg_frames_tracks_scores()["ratio"][source][metric] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_backends_and_processes_give_the_same_scores(tmp_path, jobs):
    evaluate(OracleMask("ratio"), tracks(jobs), tmp_path / "fast")
    evaluate(OracleMask("ratio"), tracks(jobs), tmp_path / "museval", backend="museval", jobs=jobs)
    pd.testing.assert_frame_equal(read_table(tmp_path / "fast"), read_table(tmp_path / "museval"), rtol=0, atol=1e-8)


def test_baselines_are_evaluated_beside_the_system(tmp_path):
    summary = evaluate(OracleMask("ratio"), tracks(1), tmp_path, baselines=["mixture", "oracle-binary"])
    assert summary["baselines"] == ["mixture", "oracle-binary"]
    for name in summary["baselines"]:
        assert (tmp_path / "baselines" / name / "scores.csv").is_file()
    mixture = read_table(tmp_path / "baselines" / "mixture").set_index(["source", "metric"])["score"]
    assert mixture["one", "SI-SNRi"] == pytest.approx(0.0, abs=1e-9)


def test_interchangeable_sources_are_matched(tmp_path):
    class Swapped(OracleMask):
        interchangeable = True

        def __call__(self, mixture, references):
            return super().__call__(mixture, references).flip(0)

    found = evaluate(Swapped("ratio"), tracks(1), tmp_path / "swapped")["scores"]
    assert found == evaluate(OracleMask("ratio"), tracks(1), tmp_path / "plain")["scores"]
    assert json.loads((tmp_path / "swapped" / "song 0.json").read_text())["tasnet_attn"]["order"] == [1, 0]


class Bands(torch.nn.Module):
    """What inference and evaluation ask of a model, and no more: three bands, in another order at every call."""

    sources, sample_rate, interchangeable, segment, stitch = ["low", "middle", "high"], RATE, True, None, "fade"
    edges = (0, 1000, 2200, RATE)

    def __init__(self):
        super().__init__()
        self.calls = 0

    def clip_scale(self, blocks, length):
        return None

    def forward(self, mixture, scale=None):
        self.calls += 1
        return self.bands(mixture).roll(self.calls % 3, dims=1)

    def bands(self, mixture):
        """[B, C, T] -> [B, 3, C, T]."""
        spectrum, frequencies = torch.fft.rfft(mixture), torch.fft.rfftfreq(mixture.shape[-1], 1 / RATE)
        bands = [
            spectrum * ((a <= frequencies) & (frequencies < b))
            for a, b in zip(self.edges[:-1], self.edges[1:], strict=True)
        ]
        return torch.fft.irfft(torch.stack(bands, dim=1), n=mixture.shape[-1])


class ThreeBands(Tones):
    """What `Bands` separates."""

    def __init__(self):
        super().__init__("bands", length=2 * RATE, sources=Bands.sources)

    def read(self, start=0, length=None):
        references = Bands().bands(torch.randn(1, 1, self.length, generator=torch.Generator().manual_seed(0)))[0]
        return references.sum(0), references


@pytest.mark.parametrize("by_references", [False, True])
def test_three_sources_keep_their_order_over_segments(tmp_path, by_references):
    """And whatever offers what inference asks is a model, not an oracle."""
    options = {"segment": 0.5, "order_by_references": by_references}
    scores = evaluate(Bands(), [ThreeBands()], tmp_path, **options)["scores"]
    assert list(scores) == Bands.sources
    for metrics in scores.values():
        assert metrics["SI-SNR"]["mean of means"]["value"] > 15
    evaluate(Bands(), [ThreeBands()], tmp_path / "whole", segment=2.0)
    order = json.loads((tmp_path / "whole" / "bands.json").read_text())["tasnet_attn"]["order"]
    assert order == [1, 2, 0]  # rolled by one


def test_silence_is_counted_and_does_not_raise(tmp_path):
    class Quiet(Tones):
        def read(self, start=0, length=None):
            _, references = super().read()
            references[0, :, :RATE] = 0.0
            if self.name == "instrumental":
                references[0] = 0.0
            return references.sum(0), references

    class Noisy(OracleMask):
        def __call__(self, mixture, references):
            return references + 0.1 * mixture

    summary = evaluate(Noisy("ratio"), [Quiet("a song"), Quiet("instrumental")], tmp_path)
    assert summary["silence"]["one"] == {
        "windows": 4, "unscored": 3, "tracks without score": 1, "reference": 3, "estimate": 0, "infinite": 0,
    }  # fmt: skip
    assert summary["silence"]["two"]["unscored"] == 1  # where the other one is silent, as in museval
    assert summary["scores"]["one"]["SDR"]["mean of means"]["tracks"] == 1
    row = read_table(tmp_path).set_index(["track", "source", "metric"]).loc["instrumental", "one", "SDR"]
    assert math.isnan(row["score"]) and row["unscored"] == row["windows"] == 2


def test_a_perfect_system_is_reported_as_infinite(tmp_path):
    class Perfect(OracleMask):
        def __call__(self, mixture, references):
            return references

    summary = evaluate(Perfect("ratio"), tracks(1), tmp_path)
    assert summary["scores"]["one"]["SDR"]["median of medians"]["value"] is None
    assert summary["silence"]["one"]["infinite"] >= 2


# ---- metrics of the user's own ---------------------------------------------------------------------------------------


def test_a_metric_of_the_users_own_is_in_every_file(tmp_path):
    evaluate(OracleMask("ratio"), tracks(2), tmp_path, metrics=[LevelHere(3.0)], baselines=["mixture"])
    table = read_table(tmp_path).set_index(["track", "source", "metric"])["score"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    for track in tracks(2):
        estimates = OracleMask("ratio")(*track.read())
        whole = json.loads((tmp_path / f"{track.name}.json").read_text())["tasnet_attn"]["whole"]
        for source, estimate in zip(track.sources, estimates, strict=True):
            expected = 10 * math.log10(estimate.double().square().mean()) + 3.0
            assert whole[source]["level"] == pytest.approx(expected)
            assert table[track.name, source, "level"] == pytest.approx(expected)
    mean = table[:, "one", "level"].mean()
    assert summary["scores"]["one"]["level"]["mean of means"]["value"] == pytest.approx(mean)
    assert "level" in set(read_table(tmp_path / "baselines" / "mixture")["metric"])


class Says(Metric):
    """A metric that returns whatever it is told."""

    def __init__(self, what):
        self.what = what

    def __call__(self, mixture, references, estimates, sample_rate):
        return self.what


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (3.0, "metric Says: returned a float"),
        ({"mine": torch.zeros(3)}, r"metric Says: 'mine' is \[3\]; it must be a tensor \[2\]"),
        ({"mine": 1.0}, "metric Says: 'mine' is float"),
        ({"SDR": torch.zeros(2)}, "metric Says: 'SDR' is the name of another metric"),
    ],
)
def test_what_a_metric_must_give(tmp_path, what, message):
    with pytest.raises(UserError, match=message):
        evaluate(OracleMask("ratio"), tracks(1), tmp_path, metrics=[Says(what)])


# ---- resuming --------------------------------------------------------------------------------------------------------


def test_what_is_done_is_not_done_again(tmp_path):
    system = Counted("ratio")
    evaluate(system, tracks(2), tmp_path)
    before = contents(tmp_path)
    evaluate(system, tracks(3), tmp_path)
    assert system.calls == 3
    assert all(contents(tmp_path)[name] == data for name, data in before.items() if name.startswith("song"))
    assert len(json.loads((tmp_path / "summary.json").read_text())["tracks"]) == 3


@pytest.mark.parametrize("change", ["system", "settings", "audio", "metrics", "version"])
def test_what_changed_is_done_again(tmp_path, change, monkeypatch):
    evaluate(Counted("ratio"), tracks(2), tmp_path)
    system, songs, settings = Counted("ratio"), tracks(2), {}
    if change == "system":
        system = Counted("wiener")
    elif change == "settings":
        settings = {"window": 0.5}
    elif change == "metrics":
        settings = {"metrics": [LevelHere()]}
    elif change == "version":
        monkeypatch.setattr("tasnet_attn.evaluation.command.__version__", "another")
    else:
        songs[1] = Tones("song 1", seed=99)
    for _ in range(2):  # the second time, nothing has changed any more
        evaluate(system, songs, tmp_path, **settings)
        assert system.calls == (1 if change == "audio" else 2)


@pytest.mark.slow
def test_a_killed_scorer_is_one_line(tmp_path):
    with pytest.raises(UserError, match="song 0: a process that scores was killed") as caught:
        evaluate(OracleMask("ratio"), tracks(1), tmp_path, metrics=[Deadly()], jobs=2)
    assert caught.value.status == 1


def test_audio_that_is_kept_is_of_the_system_that_was_scored_last(tmp_path):
    songs, kept = tracks(1), tmp_path / "audio" / "song 0"
    evaluate(OracleMask("ratio"), songs, tmp_path, audio="wav")
    evaluate(OracleMask("binary"), songs, tmp_path)
    assert not kept.exists()  # not another's beside the new scores
    evaluate(OracleMask("binary"), songs, tmp_path, audio="wav")
    expected = OracleMask("binary")(*songs[0].read())[0, 0].numpy()
    np.testing.assert_allclose(soundfile.read(kept / "one.wav")[0], expected, atol=1e-6)
    evaluate(OracleMask("binary"), songs, tmp_path, audio="flac")
    assert {path.suffix for path in kept.iterdir()} == {".flac"}
    evaluate(OracleMask("binary"), songs, tmp_path)
    assert kept.is_dir()


def test_files_that_no_evaluation_wrote_are_not_removed(tmp_path):
    """`--out` may be a folder with other things, with names like ours."""
    mine = [tmp_path / "audio/song 0/mixture.wav", tmp_path / ".talk.part", tmp_path / "audio/.corpus.part/x.wav"]
    for file in mine:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / ".0123456789ab.part").touch()
    for settings in ({}, {"audio": "flac"}):
        with pytest.raises(UserError, match="song 0: not the audio of an evaluation"):
            evaluate(OracleMask("ratio"), tracks(1), tmp_path, **settings)
    assert all(file.is_file() for file in mine) and not (tmp_path / ".0123456789ab.part").exists()


def test_the_same_samples_at_another_rate_are_scored_again(tmp_path):
    """Their windows are others; a header may have been wrong."""
    for rate in (RATE, 2 * RATE):
        evaluate(OracleMask("ratio"), [Tones("song", length=2 * RATE, rate=rate)], tmp_path)
        (frames,) = {len(target["frames"]) for target in json.loads((tmp_path / "song.json").read_text())["targets"]}
        assert frames == 2 * RATE // rate


def test_a_metric_whose_source_changed_is_computed_again(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(METRICS.format(name="Gain"))
    monkeypatch.syspath_prepend(tmp_path)
    import mine

    evaluate(Counted("ratio"), tracks(1), tmp_path / "out", metrics=[mine.Gain()])
    (tmp_path / "mine.py").write_text(METRICS.format(name="Gain") + "# corrected")
    system = Counted("ratio")
    evaluate(system, tracks(1), tmp_path / "out", metrics=[mine.Gain()])
    assert system.calls == 1
    monkeypatch.delitem(sys.modules, "mine")


SCRIPT = """
import sys, time
sys.path[:0] = {here!r}
from pathlib import Path
from test_evaluate import Counted, tracks
from tasnet_attn.evaluation.command import evaluate

class Slow(Counted):
    def __call__(self, mixture, references):
        time.sleep(0.15)
        return super().__call__(mixture, references)
    def __repr__(self):
        return "Counted"

if __name__ == "__main__":
    system = Slow("ratio")
    evaluate(system, tracks(8), Path(sys.argv[1]), audio="flac", name="it")
    print(system.calls)
"""


@pytest.mark.slow
def test_killed_and_continued_gives_the_unbroken_runs_files(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(here=[str(Path(__file__).parent), str(Path(__file__).parents[1])]))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script)]
    assert subprocess.check_output([*command, str(whole)], env=environment, text=True).strip() == "8"
    process = subprocess.Popen([*command, str(broken)], env=environment)
    while len(list(broken.glob("song*.json"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    with pytest.raises(UserError, match="broken: another `evaluate` is using this folder"):
        evaluate(OracleMask("ratio"), tracks(1), broken)
    process.send_signal(signal.SIGKILL)  # and with it goes its lock
    process.wait()
    done = list(broken.glob("song*.json"))
    assert 3 <= len(done) < 8
    expected = contents(whole)
    for path in done:
        assert json.loads(path.read_text())["targets"]
        assert path.read_bytes() == expected[path.name]
    (broken / ".0123456789ab.part").write_text("{")  # as if it had been writing
    continued = int(subprocess.check_output([*command, str(broken)], env=environment, text=True))
    assert continued == 8 - len(done)
    assert contents(broken) == expected


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a.json", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.json", "new \ud800")
    assert (tmp_path / "a.json").read_text() == "old"


# ---- audio, names, mistakes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["wav", "flac", "ogg"])
def test_audio_is_kept_on_request(tmp_path, format):
    evaluate(OracleMask("ratio"), tracks(1), tmp_path, audio=format)
    files = sorted(path.name for path in (tmp_path / "audio" / "song 0").iterdir())
    assert files == sorted(f"{n}.{format}" for n in ("mixture", "one", "one.reference", "two", "two.reference"))
    mixture, references = tracks(1)[0].read()
    sound = {
        n: soundfile.read(tmp_path / "audio" / "song 0" / f"{n}.{format}")[0] for n in ("mixture", "two.reference")
    }
    assert sound["mixture"].shape == (mixture.shape[-1],)
    if format == "wav":
        np.testing.assert_array_equal(sound["mixture"], mixture[0].double())
    else:  # noise of this level would clip: the track is turned down as a whole
        ratio = sound["mixture"] @ sound["mixture"] / (sound["two.reference"] @ sound["two.reference"])
        expected = (mixture.square().sum() / references[1].square().sum()).item()
        assert abs(sound["mixture"]).max() < 1.1 and ratio == pytest.approx(expected, rel=0.1)


def test_no_signal_overwrites_another_whatever_sources_are_called(tmp_path):
    names = ["mixture", "guitar.reference", "guitar"]
    track = Tones("song", sources=names)
    evaluate(OracleMask("ratio"), [track], tmp_path, audio="wav")
    mixture, references = track.read()
    estimates = OracleMask("ratio")(mixture, references)
    kept = [soundfile.read(tmp_path / "audio/song" / f"{name}.wav")[0] for name in signal_names(names)]
    assert len(list((tmp_path / "audio/song").iterdir())) == 7
    for samples, expected in zip(kept, torch.cat([mixture[None], references, estimates]), strict=True):
        np.testing.assert_allclose(samples, expected[0], atol=1e-5)
    assert report([tmp_path]).read_text().count('<section class="player"') == 1


def test_a_window_is_a_sample_at_least_at_the_scored_rate(tmp_path):
    with pytest.raises(UserError, match="evaluation.window: 0.0002 must be finite and at least one sample"):
        evaluate(OracleMask("ratio"), tracks(1), tmp_path / "out", window=0.0002, rate=1000)


@pytest.mark.parametrize(("key", "value"), [("window", math.nan), ("window", 0.0), ("hop", 0.0), ("hop", math.inf)])
def test_windows_that_cannot_be(tmp_path, key, value):
    with pytest.raises(UserError, match=f"evaluation.{key}: {value} must be finite and at least one sample"):
        evaluate(OracleMask("ratio"), tracks(1), tmp_path / "out", **{key: value})
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file: File exists") as caught:
        evaluate(OracleMask("ratio"), tracks(1), tmp_path / "file")
    assert caught.value.status == 1


def test_names_that_no_file_can_have(tmp_path):
    names = ["AC/DC: live?", "summary", ".hidden", "Ünïcode – ok", "NA", "007", os.fsdecode(b"latin1-\xe9")]
    evaluate(OracleMask("ratio"), [Tones(name) for name in names], tmp_path)
    assert set(read_table(tmp_path)["track"]) == {*names[:-1], "latin1-\\udce9"}
    assert file_name("AC/DC: live?") == "AC%2FDC%3A live%3F" and file_name(names[3]) == names[3]
    assert (tmp_path / "%summary.json").is_file()


def test_a_track_shorter_than_a_window_is_one_window(tmp_path):
    evaluate(OracleMask("ratio"), [Tones("short", length=3000)], tmp_path)
    assert (read_table(tmp_path)["windows"] == 1).all()


class Bad:
    """A system that returns whatever it is told."""

    def __init__(self, change):
        self.change = change

    def __call__(self, mixture, references):
        return self.change(references.clone())


class WithNaN(Tones):
    def read(self, start=0, length=None):
        mixture, references = super().read()
        references[0, 0, 5] = math.nan
        return mixture, references


class Longer(Tones):
    def read(self, start=0, length=None):
        mixture, references = super().read()
        return mixture[:, :-3], references


@pytest.mark.parametrize(
    ("system", "songs", "settings", "message"),
    [
        (Bad(lambda x: x), [], {}, "no tracks"),
        (Bad(lambda x: x), [Tones("a"), Tones("a")], {}, "two tracks are called 'a'"),
        (Bad(lambda x: x), [WithNaN("a")], {}, "a: its references contain NaN"),
        (Bad(lambda x: x), [Longer("a")], {}, "a: mixture and references differ in length"),
        (Bad(lambda x: x[..., :-1]), [Tones("a")], {}, r"a: the system's estimates are \[2, 1, 16076\]"),
        (Bad(lambda x: x / 0), [Tones("a")], {}, "a: the system's estimates have NaN"),
        (Bad(lambda x: x), tracks(1), {"backend": "mir_eval"}, "neither 'fast' nor 'museval'"),
        (Bad(lambda x: x), tracks(1), {"baselines": ["best"]}, "'best' is not one of 'mixture', 'oracle-binary'"),
        (Bad(lambda x: x), tracks(1), {"audio": "mp3"}, "'mp3' is not one of 'wav', 'flac', 'ogg'"),
        (Bad(lambda x: x), tracks(1), {"jobs": 0}, "jobs 0 must be at least 1"),
    ],
)
def test_mistakes_are_one_clear_line(tmp_path, system, songs, settings, message):
    with pytest.raises(UserError, match=message):
        evaluate(system, songs, tmp_path, **settings)


def test_tracks_that_do_not_fit_the_model_are_refused(tmp_path):
    system = OracleMask("ratio")
    system.sources = ["one", "two"]
    with pytest.raises(UserError, match="a: has no reference for 'two'; it has one, drums"):
        evaluate(system, [Tones("a", sources=("one", "drums"))], tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    evaluate(BASELINES["mixture"], tracks(1), tmp_path)
    (tmp_path / "song 0.json").write_text("{")
    with pytest.raises(UserError, match="song 0.json: damaged"):
        evaluate(BASELINES["mixture"], tracks(1), tmp_path)


def test_default_folders(tmp_path):
    assert default_out(tmp_path) == tmp_path / "evaluation"
    assert default_out(tmp_path / "run" / "checkpoints" / "best.ckpt") == tmp_path / "run" / "evaluation"
    assert default_out(tmp_path / "model.safetensors") == tmp_path / "model.evaluation"


METRICS = """
from tasnet_attn.metrics import Metric

class {name}(Metric):
    def __init__(self, offset: float = 0.0):
        self.offset = offset
    def __call__(self, mixture, references, estimates, sample_rate):
        return {{"gain of {name}": estimates.square().sum((1, 2)) / references.square().sum((1, 2)) + self.offset}}
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run folder with a tiny model, whose configuration has an evaluation section, and a data set in `songs`."""
    folder = tmp_path_factory.mktemp("saved")
    encoder, decoder = GatedEncoder(16, 160), LearnedDecoder(16, 160)
    model = SourceSeparator(["one", "two"], RATE, encoder, partial(TasNet, hidden=4, n_layers=1), decoder)
    save(model, folder / "model.safetensors")
    for name, sources in (("songs", ("one", "two")), ("turned", ("two", "one"))):
        track = Tones("a song", length=RATE + 50)
        (folder / name / "test" / "a song").mkdir(parents=True)
        for source in sources:
            reference = track.read()[1][track.sources.index(source)]
            soundfile.write(folder / name / "test" / "a song" / f"{source}.wav", reference.T.numpy(), RATE, "FLOAT")
    data = {"class_path": "StemFolders", "init_args": {"root": str(folder / "songs")}}
    (folder / "data.yml").write_text(config.write_yaml({"data": data}))
    return folder


def arguments(saved, out):
    return [
        "evaluate",
        "--model",
        str(saved / "model.safetensors"),
        "--data",
        str(saved / "data.yml"),
        "--out",
        str(out),
    ]


def test_a_saved_model_is_evaluated_by_name(saved, capsys):
    summary = run(str(saved / "model.safetensors"), str(saved / "data.yml"), split="test")
    assert json.loads((saved / "model.evaluation" / "summary.json").read_text()) == summary
    assert summary["tracks"] == ["a song"] and set(summary["scores"]) == {"one", "two"}
    _, references = Tones("a song", length=RATE + 50).read()
    model = load(saved / "model.safetensors")
    estimates = torch.stack(list(separate(model, references.sum(0), RATE).values()))
    expected = score(references.sum(0), references, estimates, RATE, RATE).whole["SI-SNRi"][1].item()
    assert summary["scores"]["two"]["SI-SNRi"]["mean of means"]["value"] == pytest.approx(expected, abs=1e-9)
    printed = capsys.readouterr().out
    assert re.search(r"^ +one +two +mean of sources$", printed, re.M) and str(saved / "model.evaluation") in printed
    row = re.search(r"^SI-SNRi +(\S+) +(\S+) +\S+$", printed, re.M)
    assert float(row[2]) == pytest.approx(expected, abs=0.006)


def test_a_model_on_the_hub_is_evaluated(saved, tmp_path, monkeypatch):
    """By the same door as `load`, and into a folder here; the hub is asked once."""
    hub = {"someone/model": str(saved)}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, allow_patterns: hub.pop(name))
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "--model", "hf://someone/model", "--data", str(saved / "data.yml")]) == 0
    here, file = read_table(tmp_path / "model.evaluation"), saved / "model.safetensors"
    run(str(file), str(saved / "data.yml"), str(tmp_path / "by file"))
    pd.testing.assert_frame_equal(here, read_table(tmp_path / "by file"))


@pytest.mark.slow
def test_options_come_from_the_run_and_the_command_line_wins(saved, tmp_path, capsys, monkeypatch):
    """And a user's metrics are found by `--import`, in the processes that score too."""
    (tmp_path / "run").mkdir()
    shutil.copy(saved / "model.safetensors", tmp_path / "run")
    (tmp_path / "my_metrics.py").write_text(METRICS.format(name="GainA") + METRICS.format(name="GainB"))
    section = {"window": 0.5, "metrics": [{"class_path": "GainA", "init_args": {"offset": 100.0}}], "v3": True}
    (tmp_path / "run" / "config.yml").write_text(config.write_yaml({"evaluation": section}))
    command = ["evaluate", "--model", str(tmp_path / "run"), "--data", str(saved / "data.yml")]

    def metrics():
        return set(read_table(tmp_path / "run" / "evaluation")["metric"])

    monkeypatch.chdir(tmp_path)
    assert main([*command, "--import", "my_metrics", "--jobs", "2"]) == 0
    assert {"gain of GainA", "NSDR"} <= metrics() and "gain of GainB" not in metrics()
    summary = json.loads((tmp_path / "run" / "evaluation" / "summary.json").read_text())
    assert {"model", "data"} <= summary["about"].keys() and summary["about"]["data"].endswith(", test")
    assert summary["window"] == 0.5
    assert summary["scores"]["one"]["gain of GainA"]["mean of means"]["value"] >= 100.0
    assert main([*command, "--import", "my_metrics", "--metrics", "GainA", "GainB", "--window", "0.25"]) == 0
    assert {"gain of GainA", "gain of GainB", "NSDR"} <= metrics()
    assert json.loads((tmp_path / "run" / "evaluation" / "summary.json").read_text())["window"] == 0.25
    assert main([*command, "--metrics", "GainC"]) == 2
    assert "evaluation.metrics[0]: no class 'GainC'; did you mean" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"windw": 2.0}, "evaluation.windw: evaluate has no such setting; did you mean 'window'?"),
        ({"window": "long"}, "evaluation.window: 'long' is neither a finite number nor null"),
        ({"audio": "mp3"}, "evaluation.audio: 'mp3' is not one of 'wav', 'flac', 'ogg', null"),
        ({"tracks": []}, "evaluation.tracks: evaluate has no such setting"),
    ],
)
def test_a_wrong_section_is_one_line(section, message):
    with pytest.raises(UserError, match=re.escape(message)):
        complete(section)


def test_a_section_is_completed_and_stays_as_it_is_then():
    full = complete({"window": 2, "baselines": ["mixture"]})
    assert full["window"] == 2.0 and full["baselines"] == ["mixture"] and full["backend"] == "fast"
    assert complete(full) == full


def test_a_run_keeps_the_checked_section():
    from tasnet_attn.training.command import parse

    recipe = Path(__file__).parents[2] / "recipes" / "demo"
    files = ["--config", str(recipe / "base.yml"), "--config", str(recipe / "ltl" / "conf.yml")]
    assert parse([*files, "--evaluation.window", "0.5"])["evaluation"] == complete({"window": 0.5})
    with pytest.raises(UserError, match="evaluation.hopp: .* did you mean 'hop'?"):
        parse([*files, "--evaluation.hopp", "0.5"])


def test_data_are_overridden_on_the_command_line(saved, tmp_path, capsys):
    assert main([*arguments(saved, tmp_path), "--data.root", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
    assert main([*arguments(saved, tmp_path), "--data.root", str(saved / "turned")]) == 0
    with pytest.raises(SystemExit):
        main([*arguments(saved, tmp_path), "--data.root", "x", "--dta.root", "x"])


def test_tracks_in_another_order_of_sources_give_the_same_scores_by_name(tmp_path):
    class Turned(Tones):
        sources = property(lambda self: ["two", "one"], lambda self, value: None)

        def read(self, start=0, length=None):
            mixture, references = Tones("song 0").read()
            return mixture, references.flip(0)

    scores = []
    for songs in (tracks(1), [Turned("song 0")]):
        system = OracleMask("ratio")
        system.sources = ["one", "two"]
        scores.append(evaluate(system, songs, tmp_path / str(len(scores)))["scores"])
    assert scores[0] == scores[1] and scores[0]["one"] != scores[0]["two"]


def test_the_command_offers_every_baseline():
    from tasnet_attn.options import parser

    names = list(BASELINES)
    options = parser().parse_args(["evaluate", "--model", "m", "--data", "d", "--baselines", *names, "--jobs", "2"])
    assert options.baselines == names and options.jobs == 2
    with pytest.raises(SystemExit):
        parser().parse_args(["evaluate", "--model", "m", "--data", "d", "--baselines", "best"])
