"""Evaluation: its files, museval's readers, resuming, mistakes."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tasnet_attn.compat import museval
from tasnet_attn.data.base import Track
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.command import default_out, evaluate, run
from tasnet_attn.evaluation.oracles import BASELINES, OracleMask
from tasnet_attn.evaluation.results import file_name, read_table
from tasnet_attn.evaluation.scores import score
from tasnet_attn.files import write_text
from tasnet_attn.filterbanks import GatedEncoder, LearnedDecoder
from tasnet_attn.inference.segments import separate
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import TasNet
from tasnet_attn.storage import save

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


def test_backends_and_processes_give_the_same_scores(tmp_path):
    evaluate(OracleMask("ratio"), tracks(2), tmp_path / "fast")
    evaluate(OracleMask("ratio"), tracks(2), tmp_path / "museval", backend="museval", jobs=2)
    rows = zip(read_table(tmp_path / "fast"), read_table(tmp_path / "museval"), strict=True)
    for ours, theirs in rows:
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-8)


def test_baselines_are_evaluated_beside_the_system(tmp_path):
    summary = evaluate(OracleMask("ratio"), tracks(1), tmp_path, baselines=["mixture", "oracle-binary"])
    assert summary["baselines"] == ["mixture", "oracle-binary"]
    for name in summary["baselines"]:
        assert (tmp_path / "baselines" / name / "scores.csv").is_file()
    mixture = {(r["source"], r["metric"]): r["score"] for r in read_table(tmp_path / "baselines" / "mixture")}
    assert mixture["one", "SI-SNRi"] == pytest.approx(0.0, abs=1e-9)


def test_interchangeable_sources_are_matched(tmp_path):
    class Swapped(OracleMask):
        interchangeable = True

        def __call__(self, mixture, references):
            return super().__call__(mixture, references).flip(0)

    found = evaluate(Swapped("ratio"), tracks(1), tmp_path / "swapped")["scores"]
    assert found == evaluate(OracleMask("ratio"), tracks(1), tmp_path / "plain")["scores"]
    assert json.loads((tmp_path / "swapped" / "song 0.json").read_text())["tasnet_attn"]["order"] == [1, 0]


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
    row = next(
        r for r in read_table(tmp_path) if (r["track"], r["source"], r["metric"]) == ("instrumental", "one", "SDR")
    )
    assert math.isnan(row["score"]) and row["unscored"] == row["windows"] == 2


def test_a_perfect_system_is_reported_as_infinite(tmp_path):
    class Perfect(OracleMask):
        def __call__(self, mixture, references):
            return references

    summary = evaluate(Perfect("ratio"), tracks(1), tmp_path)
    assert summary["scores"]["one"]["SDR"]["median of medians"]["value"] is None
    assert summary["silence"]["one"]["infinite"] >= 2


# ---- resuming --------------------------------------------------------------------------------------------------------


def test_what_is_done_is_not_done_again(tmp_path):
    system = Counted("ratio")
    evaluate(system, tracks(2), tmp_path)
    before = contents(tmp_path)
    evaluate(system, tracks(3), tmp_path)
    assert system.calls == 3
    assert all(contents(tmp_path)[name] == data for name, data in before.items() if name.startswith("song"))
    assert len(json.loads((tmp_path / "summary.json").read_text())["tracks"]) == 3


@pytest.mark.parametrize("change", ["system", "settings", "audio"])
def test_what_changed_is_done_again(tmp_path, change):
    evaluate(Counted("ratio"), tracks(2), tmp_path)
    system, songs, settings = Counted("ratio"), tracks(2), {}
    if change == "system":
        system = Counted("wiener")
    elif change == "settings":
        settings = {"window": 0.5}
    else:
        songs[1] = Tones("song 1", seed=99)
    evaluate(system, songs, tmp_path, **settings)
    assert system.calls == (1 if change == "audio" else 2)


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
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = list(broken.glob("song*.json"))
    assert 3 <= len(done) < 8
    expected = contents(whole)
    for path in done:
        assert json.loads(path.read_text())["targets"]
        assert path.read_bytes() == expected[path.name]
    (broken / ".song 7.json.part").write_text("{")  # as if it had been writing
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
    import soundfile

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


def test_names_that_no_file_can_have(tmp_path):
    names = ["AC/DC: live?", "summary", ".hidden", "Ünïcode – ok"]
    evaluate(OracleMask("ratio"), [Tones(name) for name in names], tmp_path)
    assert {row["track"] for row in read_table(tmp_path)} == set(names)
    assert file_name("AC/DC: live?") == "AC%2FDC%3A live%3F" and file_name(names[3]) == names[3]
    assert (tmp_path / "%summary.json").is_file()


def test_a_track_shorter_than_a_window_is_one_window(tmp_path):
    evaluate(OracleMask("ratio"), [Tones("short", length=3000)], tmp_path)
    assert all(row["windows"] == 1 for row in read_table(tmp_path))


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
        (Bad(lambda x: x), [WithNaN("a")], {}, "a: its references hold NaN"),
        (Bad(lambda x: x), [Longer("a")], {}, "a: mixture and references differ in length"),
        (Bad(lambda x: x[..., :-1]), [Tones("a")], {}, r"a: the system's estimates are \[2, 1, 16076\]"),
        (Bad(lambda x: x / 0), [Tones("a")], {}, "a: the system's estimates hold NaN"),
        (Bad(lambda x: x), tracks(1), {"backend": "mir_eval"}, "neither 'fast' nor 'museval'"),
        (Bad(lambda x: x), tracks(1), {"baselines": ["best"]}, "'best' is none of mixture, oracle-binary"),
        (Bad(lambda x: x), tracks(1), {"audio": "mp3"}, "'mp3' is none of wav, flac, ogg"),
        (Bad(lambda x: x), tracks(1), {"jobs": 0}, "jobs 0 must be at least 1"),
    ],
)
def test_mistakes_are_one_clear_line(tmp_path, system, songs, settings, message):
    with pytest.raises(UserError, match=message):
        evaluate(system, songs, tmp_path, **settings)


@pytest.mark.parametrize(
    ("songs", "message"),
    [
        ([Tones("a", rate=16000)], "a: sampled at 16000 Hz, the model at 8000 Hz"),
        ([Tones("a", sources=("one", "drums"))], "a: has no reference for 'two'; it has one, drums"),
    ],
)
def test_tracks_that_do_not_fit_the_model_are_refused(tmp_path, songs, message):
    system = OracleMask("ratio")
    system.sources, system.sample_rate = ["one", "two"], RATE
    with pytest.raises(UserError, match=message):
        evaluate(system, songs, tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    evaluate(BASELINES["mixture"], tracks(1), tmp_path)
    (tmp_path / "song 0.json").write_text("{")
    with pytest.raises(UserError, match="song 0.json: damaged"):
        evaluate(BASELINES["mixture"], tracks(1), tmp_path)


def test_default_folders(tmp_path):
    assert default_out(tmp_path) == tmp_path / "evaluation"
    assert default_out(tmp_path / "run" / "checkpoints" / "best.ckpt") == tmp_path / "run" / "evaluation"
    assert default_out(tmp_path / "model.safetensors") == tmp_path / "model.evaluation"


def test_a_saved_model_is_evaluated_by_name(tmp_path):
    import soundfile
    import yaml

    encoder, decoder = GatedEncoder(16, 160), LearnedDecoder(16, 160)
    model = SourceSeparator(["one", "two"], RATE, encoder, partial(TasNet, hidden=4, n_layers=1), decoder)
    file = save(model, tmp_path / "model.safetensors")
    folder = tmp_path / "songs" / "test" / "a song"
    folder.mkdir(parents=True)
    _, references = Tones("a song").read()
    for source, reference in zip(model.sources, references, strict=True):
        soundfile.write(folder / f"{source}.wav", reference.T.numpy(), RATE, "FLOAT")
    data = {"class_path": "StemFolders", "init_args": {"root": str(tmp_path / "songs")}}
    (tmp_path / "data.yml").write_text(yaml.safe_dump({"data": data}))
    summary = run(str(file), str(tmp_path / "data.yml"), split="test")
    assert json.loads((tmp_path / "model.evaluation" / "summary.json").read_text()) == summary
    assert summary["tracks"] == ["a song"] and set(summary["scores"]) == {"one", "two"}
    estimates = torch.stack(list(separate(model, references.sum(0), RATE).values()))
    expected = score(references.sum(0), references, estimates, RATE, RATE).whole["SI-SNRi"][1].item()
    assert summary["scores"]["two"]["SI-SNRi"]["mean of means"]["value"] == pytest.approx(expected, abs=1e-9)


def test_the_command_offers_every_baseline():
    from tasnet_attn.cli import _parser

    names = list(BASELINES)
    options = _parser().parse_args(["evaluate", "--model", "m", "--data", "d", "--baselines", *names, "--jobs", "2"])
    assert options.baselines == names and options.jobs == 2
    with pytest.raises(SystemExit):
        _parser().parse_args(["evaluate", "--model", "m", "--data", "d", "--baselines", "best"])
