"""What the operating system refuses is one line that names path and reason, status 1, in every command."""

import resource
from contextlib import contextmanager

import pytest
from conftest import ROOT, SMALL_SEPARATORS, tasnet_model

from tasnet_attn import config, save
from tasnet_attn.cli import main
from tasnet_attn.demo import recipe

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


@pytest.fixture
def command(tmp_path, capsys):
    """Run a command whose words may be MODEL, CONF or FILE; checks that one line and status 1 come of it."""
    save(tasnet_model(sample_rate=44_100), tmp_path / "model.safetensors")
    (tmp_path / "file").write_text("mine")
    separator = {"class_path": "TasNet", "init_args": SMALL_SEPARATORS["TasNet"]}
    (tmp_path / "conf.yml").write_text(
        config.write_yaml({"model": {**tasnet_model(sample_rate=44_100).config, "separator": separator}})
    )
    names = {"MODEL": "model.safetensors", "CONF": "conf.yml", "FILE": "file", "BELOW": "file/below", "NEW": "new"}

    def run(*words):
        status = main([str(tmp_path / names[word]) if word in names else word for word in words])
        error = capsys.readouterr().err
        said = [line for line in error.splitlines() if line.startswith("tasnet-attn: ")]
        assert status == 1 and len(said) == 1 and "Traceback" not in error, error
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
