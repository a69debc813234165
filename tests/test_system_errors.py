"""What the operating system refuses is one line that names path and reason, status 1, in every command."""

import importlib
import re
import shutil
from pathlib import Path

import pytest
import soundfile
import torch
from conftest import ROOT, SMALL_SEPARATORS, full_disk, recipe_script, tasnet_model
from filelock import FileLock

from tasnet_attn import config, save
from tasnet_attn.ablation.runner import Status
from tasnet_attn.cli import main
from tasnet_attn.data import Track
from tasnet_attn.demo import recipe
from tasnet_attn.evaluation import evaluate
from tasnet_attn.evaluation.oracles import OracleMask
from tasnet_attn.files import digest

BASE = str(recipe("demo") / "base.yml")
SWEEP = str(ROOT / "recipes/ablations/small/attention.yml")


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory):
    """A folder of scores."""
    folder = tmp_path_factory.mktemp("scores")
    track = Track("song", ["one", "two"], 8000, ())
    noise = torch.randn(2, 1, 9000, generator=torch.Generator().manual_seed(0))
    track.read = lambda start=0, length=None: (noise.sum(0), noise)
    track.blocks = lambda: iter([track.read()])
    evaluate(OracleMask("ratio"), [track], folder, audio="flac")
    return folder


@pytest.fixture
def command(tmp_path, capsys, evaluated):
    """Run a command whose words may be MODEL, CONF or FILE; checks that one line and status 1 come of it."""
    save(tasnet_model(sample_rate=44_100), tmp_path / "model.safetensors")
    soundfile.write(tmp_path / "song.wav", torch.zeros(300, 1).numpy(), 44_100)
    (tmp_path / "file").write_text("mine")
    separator = {"class_path": "TasNet", "init_args": SMALL_SEPARATORS["TasNet"]}
    (tmp_path / "conf.yml").write_text(
        config.write_yaml({"model": {**tasnet_model(sample_rate=44_100).config, "separator": separator}})
    )
    shutil.copytree(evaluated, tmp_path / "scores")
    names = {
        "SCORES": "scores",
        "MODEL": "model.safetensors",
        "CONF": "conf.yml",
        "FILE": "file",
        "BELOW": "file/below",
        "NEW": "new",
        "BELOW_NEW": "new/below",
        "LOCKED": "locked/below",
        "SONG": "song.wav",
    }

    def run(*words, expected=1):
        status = main([str(tmp_path / names[word]) if word in names else word for word in words])
        error = capsys.readouterr().err
        said = [line for line in error.splitlines() if line.startswith("tasnet-attn: ")]
        assert status == expected and len(said) == 1 and "Traceback" not in error, error
        assert str(tmp_path) in said[0] and (tmp_path / "file").read_text() == "mine"
        assert not list(tmp_path.rglob("*.part*"))
        return said[0]

    return run


SHORT = ("--trainer.max_steps=1", "--trainer.limit_val_batches=1", "--data.init_args.workers=0")


@pytest.mark.parametrize(
    "words",
    [
        ("export", "MODEL", "--out", "BELOW"),
        ("export", "MODEL", "--to", "huggingface", "--out", "FILE"),
        ("train", "--config", BASE, "--config", "CONF", "--out", "FILE"),
        ("train", "--config", BASE, "--config", "CONF", "--out", "BELOW"),
        ("evaluate", "--model", "MODEL", "--data", BASE, "--out", "FILE"),
        ("ablate", SWEEP, "--out", "FILE"),
        ("check-data", BASE, "--run", "FILE", "--quick"),
        ("report", "SCORES", "--out", "BELOW"),
    ],
)
def test_a_file_stands_where_a_folder_must_be(command, words):
    assert "File exists" in (said := command(*words)) or "Not a directory" in said


SLOW = [pytest.param(to, marks=pytest.mark.slow) for to in ("torch-export", "onnx")]


@pytest.mark.parametrize("to", ["safetensors", "asteroid", "torchscript", *SLOW])
def test_export_onto_a_full_disk(command, to, tmp_path):
    if to == "onnx":
        pytest.importorskip("onnxscript")
    with full_disk(1000):
        said = command("export", "MODEL", "--to", to, "--out", "NEW")
    assert f"{tmp_path / 'new'}: " in said and "File too large" in said and not (tmp_path / "new").exists()


@pytest.mark.parametrize("size", [100, 20_000])
def test_train_onto_a_full_disk(command, size):
    with full_disk(size):
        assert "File too large" in command("train", "--config", BASE, "--config", "CONF", "--out", "NEW", *SHORT)


TRAIN = ("train", "--config", BASE, "--config", "CONF", "--out", "NEW", *SHORT)
EVALUATE = ("evaluate", "--model", "MODEL", "--data", BASE, "--out", "NEW")


@pytest.mark.parametrize("words", [("report", "SCORES", "--out", "NEW"), EVALUATE])
def test_scores_and_pages_onto_a_full_disk(command, words, tmp_path):
    with full_disk(3000):
        said = command(*words)
    assert "File too large" in said and (not (tmp_path / "new").exists() or not any((tmp_path / "new").rglob("*.*")))


@pytest.mark.slow
def test_sweeps_and_records_onto_a_full_disk(command):
    with full_disk(10):
        assert "File too large" in command("ablate", SWEEP, "--out", "NEW")
        assert "File too large" in command("check-data", BASE, "--run", "NEW", "--quick")


@pytest.mark.slow
@pytest.mark.parametrize("reason", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")])
@pytest.mark.parametrize(
    "words",
    [
        ("export", "MODEL", "--out", "LOCKED"),
        ("train", "--config", BASE, "--config", "CONF", "--out", "LOCKED"),
        ("evaluate", "--model", "MODEL", "--data", BASE, "--out", "LOCKED"),
        ("ablate", SWEEP, "--out", "LOCKED"),
        ("check-data", BASE, "--run", "LOCKED", "--quick"),
        ("report", "SCORES", "--out", "LOCKED"),
    ],
)
def test_a_folder_that_may_not_be_written(command, monkeypatch, words, reason):
    opened, made = Path.open, Path.mkdir

    def refusing(real):
        def call(self, *arguments, **settings):
            if "locked" in self.parts and (real is made or "r" not in [*arguments, settings.get("mode", "r")][:1]):
                raise type(reason)(reason.errno, reason.strerror, str(self))
            return real(self, *arguments, **settings)

        return call

    monkeypatch.setattr(Path, "open", refusing(opened))
    monkeypatch.setattr(Path, "mkdir", refusing(made))
    assert reason.strerror in command(*words)


@pytest.mark.slow
def test_a_name_that_is_too_long(command, tmp_path):
    long = str(tmp_path / ("x" * 300))
    for words in (("export", "MODEL"), ("report", "SCORES"), EVALUATE[:-2], ("ablate", SWEEP), TRAIN[:-5]):
        assert "File name too long" in command(*words, "--out", long)
    assert "File name too long" in command("check-data", BASE, "--run", long, "--quick")


BUILDERS = ["debian2mix/local/prepare.py", "synthsong/local/prepare.py", "voices2mix/local/voices2mix.py"]


@pytest.fixture(params=BUILDERS, ids=["debian2mix", "synthsong", "voices2mix"])
def builder(request, monkeypatch):
    """A corpus's builder that has its packages."""
    script = recipe_script(request.param)
    for name, stand_in in {
        "find": lambda packages, games=False: [],
        "prompts_of": lambda debs: [],
        "write_subset": lambda root, *rest: (root / "x").write_text("x" * 9000),
        "versions": dict,
        "read_styles": lambda archive: {},
    }.items():
        monkeypatch.setattr(script, name, stand_in, raising=False)
    if hasattr(script, "sentences"):
        monkeypatch.setattr(script.sentences, "find", lambda packages: [])
        monkeypatch.setattr(script.sentences, "read", lambda debs: [])
    return script


REFUSALS = [("file/below", "Not a directory|File exists"), ("new", "File too large"), ("x" * 300, "File name too long")]


@pytest.mark.parametrize(("out", "reason"), [*REFUSALS, ("locked/below", "Permission denied")])
def test_what_the_system_refuses_a_builder(tmp_path, capsys, monkeypatch, builder, out, reason):
    (tmp_path / "file").write_text("mine")
    mkdir = Path.mkdir

    def refusing(self, *arguments, **settings):
        if "locked" in self.parts:
            raise PermissionError(13, "Permission denied", str(self))
        return mkdir(self, *arguments, **settings)

    monkeypatch.setattr(Path, "mkdir", refusing)
    with full_disk(100):
        assert builder.main(["--out", str(tmp_path / out)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(reason, error) and str(tmp_path) in error
    assert (tmp_path / "file").read_text() == "mine" and not list(tmp_path.glob("new/x"))


@pytest.mark.parametrize("builder", BUILDERS[:2], indirect=True)  # the third says so of each file that it lacks
def test_a_folder_that_is_removed_while_a_corpus_is_built(tmp_path, capsys, monkeypatch, builder):
    def write_song(song, folder, facts):
        (folder / song.name).mkdir(parents=True)
        (folder / song.name / "song.json").write_text("{}")
        if folder.name == "test":
            shutil.rmtree(tmp_path / "out")
        return {"name": song.name, "samples": 1}

    monkeypatch.setattr(builder, "write_song", write_song, raising=False)
    monkeypatch.setattr(builder, "write_subset", lambda root, *rest: None)
    assert builder.main(["--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and ("No such file or directory" in error or "files were removed" in error)


REMOVED = [  # the words, and what is about to run when the folder goes; report and check-data create it again
    (EVALUATE, "tasnet_attn.evaluation.systems.System.estimate"),
    (EVALUATE, "tasnet_attn.evaluation.command.write_tables"),
    (("export", "MODEL", "--out", "BELOW_NEW"), "tasnet_attn.exporting.command.parity"),
    (("export", "MODEL", "--to", "huggingface", "--out", "NEW"), "tasnet_attn.exporting.command.parity"),
    (TRAIN, "tasnet_attn.training.task.SeparationTask.training_step"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("words", "place"), REMOVED)
def test_a_folder_that_is_removed_while_running(command, monkeypatch, tmp_path, words, place):
    owner, _, name = place.rpartition(".")
    module, _, kind = owner.rpartition(".")
    found = importlib.import_module(owner) if kind.islower() else getattr(importlib.import_module(module), kind)
    real = getattr(found, name)

    def without(*arguments, **settings):
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
        return real(*arguments, **settings)

    monkeypatch.setattr(found, name, without)
    assert "No such file or directory" in command(*words)


def test_a_sweep_s_folder_is_removed_while_its_cells_run(command, monkeypatch, tmp_path):
    def cells_that_run(runs, *rest):
        shutil.rmtree(tmp_path / "new")
        return {run.name: Status("finished") for run in runs}

    monkeypatch.setattr("tasnet_attn.ablation.command.perform_all", cells_that_run)
    assert "removed while the sweep ran" in command("ablate", SWEEP, "--out", "NEW")


LOCKED = [
    ("separate", "LOCKED", "--model", "MODEL", "--out", "NEW"),
    ("separate", "SONG", "--model", "LOCKED", "--out", "NEW"),
    ("separate", "SONG", "--model", "MODEL", "--out", "LOCKED"),
    ("separate", "SONG", "--model", "MODEL", "--out", "LOCKED", "--skip-existing"),
    ("export", "LOCKED"),
    ("models", "LOCKED"),
    ("stream", "--model", "LOCKED", "--source", "guitar"),
]


@pytest.mark.parametrize("words", LOCKED)
def test_a_folder_that_may_not_be_looked_into(command, monkeypatch, words):
    def refusing(real):
        def call(self, *arguments, **settings):
            if "locked" in self.parts:
                raise PermissionError(13, "Permission denied", str(self))
            return real(self, *arguments, **settings)

        return call

    for name in ("stat", "open", "mkdir"):
        monkeypatch.setattr(Path, name, refusing(getattr(Path, name)))
    assert "Permission denied" in command(*words)


HELD = [
    (("evaluate", "--model", "MODEL", "--data", BASE, "--out", "NEW"), "new/.evaluating"),
    (("export", "MODEL", "--out", "NEW"), f".{digest(['new'])}.lock"),
    (("export", "MODEL", "--to", "huggingface", "--out", "NEW"), "new/.exporting"),
]


@pytest.mark.parametrize(("words", "lock"), HELD)
def test_one_at_a_time_works_in_one_place(command, tmp_path, words, lock):
    (tmp_path / lock).parent.mkdir(exist_ok=True)
    with FileLock(tmp_path / lock):
        assert "new: another" in command(*words, expected=2)
    assert not list(tmp_path.rglob("new*/*.json"))


def test_one_at_a_time_builds_a_corpus(tmp_path, capsys, builder):
    out = tmp_path / "new"
    lock = tmp_path / ".new.building" if "debian" in builder.__name__ else out / ".building"
    out.mkdir()
    if "debian" in builder.__name__:
        out.rmdir()
    with FileLock(lock):
        assert builder.main(["--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{out}: another process is building in this folder" in error
