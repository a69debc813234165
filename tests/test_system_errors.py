"""What the operating system refuses is one line that names path and reason, status 1, in every command."""

import re
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import ROOT, SMALL_SEPARATORS, recipe_script, tasnet_model
from filelock import FileLock

from tasnet_attn import config, save
from tasnet_attn.cli import main
from tasnet_attn.data import Track
from tasnet_attn.demo import recipe
from tasnet_attn.evaluation import evaluate
from tasnet_attn.evaluation.oracles import OracleMask
from tasnet_attn.files import digest

BASE = str(recipe("demo") / "base.yml")
SWEEP = str(ROOT / "recipes/ablations/small/attention.yml")


@contextmanager
def full_disk(size):
    """Files cannot grow beyond a size, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


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
        "LOCKED": "locked/below",
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
    for words in (("export", "MODEL"), ("report", "SCORES"), EVALUATE[:-2], ("ablate", SWEEP)):
        assert "File name too long" in command(*words, "--out", long)


@pytest.mark.parametrize("name", ["debian2mix/local/prepare.py", "synthsong/local/prepare.py"])
def test_corpora_onto_a_file_or_a_full_disk(tmp_path, capsys, monkeypatch, name):
    script = recipe_script(name)
    (tmp_path / "file").write_text("mine")
    if "debian" in name:
        monkeypatch.setattr(script, "find", lambda packages: [])
        monkeypatch.setattr(script, "prompts_of", lambda debs: [])
        monkeypatch.setattr(script, "write_subset", lambda root, *rest: (root / "x").write_text("x" * 9000))
    else:
        monkeypatch.setattr(script, "versions", dict)
    for out, reason in (("file/below", "Not a directory|File exists"), ("new", "File too large")):
        with full_disk(100):
            assert script.main(["--out", str(tmp_path / out)]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and re.search(reason, error) and str(tmp_path) in error
    assert (tmp_path / "file").read_text() == "mine" and not (tmp_path / "new/x").exists()


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


@pytest.mark.parametrize("name", ["debian2mix/local/prepare.py", "synthsong/local/prepare.py"])
def test_one_at_a_time_builds_a_corpus(tmp_path, capsys, monkeypatch, name):
    script = recipe_script(name)
    with FileLock(tmp_path / (".new.building" if "debian" in name else ".building")):
        out = tmp_path / "new" if "debian" in name else tmp_path
        monkeypatch.setattr(script, "find", lambda packages: [], raising=False)
        monkeypatch.setattr(script, "prompts_of", lambda debs: [], raising=False)
        assert script.main(["--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{out}: another process builds into this folder" in error
