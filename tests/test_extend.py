"""docs/extend.md as a user follows it: its blocks in an empty folder, its commands one after the other."""

import csv
import shutil
import sys

import numpy as np
import pytest
import soundfile
import torch
from conftest import tasnet_model
from pages import BRIEF, ROOT, Page, run, write_stems

from tasnet_attn import config, load
from tasnet_attn.data.base import SegmentedData
from tasnet_attn.errors import UserError
from tasnet_attn.model import SourceSeparator
from tasnet_attn.storage.tensors import write_safetensors

PAGE = Page("extend.md", BRIEF)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = PAGE.lay_out(tmp_path_factory.mktemp("extend"))
    shutil.copy(ROOT / "recipes/recipe.sh", folder / "recipes")
    shutil.copy(folder / "base.yml", folder / "recipes/songs")
    write_stems(folder, "stems/{split}/one.{source}.wav")
    return folder


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.mark.slow
@pytest.mark.parametrize("line", PAGE.commands)
def test_a_command_of_the_page(line, capfd):
    """In their order: later ones read what earlier ones wrote."""
    status = run(line)
    assert status == 0, capfd.readouterr().err[-2000:]


@pytest.mark.slow
def test_the_commands_left_what_they_say(folder):
    for path in (
        *("separated/song/guitar.wav", "separated/relu/song/backing.wav", "exp/dilated/evaluation/report.html"),
        *(
            "exp/dilated/model.safetensors",
            "exp/dilated/model.onnx",
            "exp/dilated/model.frozen.pt",
            "exp/relu/model.onnx",
        ),
        *("exp/width/table.md", "exp/flat/evaluation/scores.csv", "exp/level/report.html"),
        *("exp/songs_dprnn_mine/evaluation/report.html", "exp/songs_dprnn_mine/model.safetensors"),
    ):
        assert (folder / path).stat().st_size > 100, path
    with (folder / "exp/level/scores.csv").open() as file:
        assert {row["source"] for row in csv.DictReader(file) if row["metric"] == "level"} == {"guitar", "backing"}
    described = config.read_yaml(folder / "exp/l1")
    assert described["model"]["head"] == {
        "class_path": "my_objective.TanhMask",
        "init_args": {"activation": "linear", "subtract": False, "kind": "real"},
    }
    assert described["task"]["loss"] == {"class_path": "my_objective.WaveformL1", "init_args": {}}


@pytest.mark.slow
def test_the_dual_path_in_a_sweep(folder):
    (folder / "paths.yml").write_text("base: [base.yml, recipes/songs/dprnn/conf.yml]\n"
                                      "axes: {model.separator.n_layers: [1, 2]}\n")  # fmt: skip
    assert run("tasnet-attn ablate paths.yml --import my_dprnn --out exp/paths") == 0
    assert "n_layers=2" in (folder / "exp/paths/table.md").read_text()


def test_the_separator_is_trained_loaded_and_used(folder, capsys):
    configs = "--config base.yml --config dilated.yml"
    line = f"tasnet-attn train --import my_separator {configs} --out quick --trainer.max_steps 2"
    assert run(line) == 0, capsys.readouterr().err
    model = load(folder / "quick")
    assert model.config["separator"] == {
        "class_path": "my_separator.Dilated", "init_args": {"width": 96, "depth": 4},
    }  # fmt: skip
    assert run("tasnet-attn separate song.wav --import my_separator --model quick --out quick/out") == 0
    sources = [soundfile.read(folder / "quick/out/song" / f"{name}.wav")[0] for name in ("guitar", "backing")]
    assert all(source.shape == (30_000, 2) and np.isfinite(source).all() for source in sources)


@pytest.mark.parametrize("frames", [1, 15, 16, 17, 100])
def test_the_dual_path_puts_chunks_back_where_they_were(frames):
    """With paths that change nothing it is its two convolutions, whatever the number of frames."""
    config.import_modules(["my_dprnn"])
    from my_dprnn import Paths

    separator = Paths(4, 2, width=6, hidden=3, chunk=8)
    for path in (*separator.within, *separator.across):
        torch.nn.init.zeros_(path.norm.weight)
        torch.nn.init.zeros_(path.norm.bias)
    features = torch.randn(2, 4, frames)
    plain = separator.leave(2 * separator.enter(features)).unflatten(1, (2, -1))
    torch.testing.assert_close(separator(features)[0], plain)


# ---- mistakes -------------------------------------------------------------------------------------------------------


def refusal(line, capsys):
    """What a command says that ends with status 2: one line."""
    assert run(line) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    return said[0]


@pytest.mark.parametrize(
    ("module", "line", "said"),
    [
        (
            "my_separator",
            "--config dilated.yml --model.separator.depth 0",
            "model.separator: ValueError: depth 0",
        ),
        (
            "my_filterbank",
            "--config relu.yml --model.encoder.kernel_size 3",
            "model.encoder: ValueError: kernel_size 3",
        ),
        ("my_data", "--config flat.yml --data.root stems.zip", "data: ValueError: root stems.zip must be a folder"),
    ],
)
def test_a_users_own_refusal_has_file_and_line(module, line, said, folder, capsys):
    shown = refusal(f"tasnet-attn train --import {module} --config base.yml {line} --out exp/refused", capsys)
    text = (folder / f"{module}.py").read_text()
    number = text[: text.index("raise ValueError")].count("\n") + 1
    assert said in shown and f"{module}.py:{number})" in shown


def test_a_misspelt_setting_of_a_users_class(capsys):
    line = "tasnet-attn train --import my_separator --config base.yml --config dilated.yml --model.separator.widht 3"
    assert "model.separator.widht: Dilated has no such setting; did you mean 'width'?" in refusal(line, capsys)


def test_what_a_users_forward_raises_is_a_traceback_with_their_file(folder):
    (folder / "broken_sep.py").write_text(
        "from my_separator import Dilated\n"
        "class Broken(Dilated):\n    def forward(self, features):\n        return features.nonsense\n"
    )
    config.import_modules(["my_separator", "broken_sep"])
    description = tasnet_model().config | {"separator": "broken_sep.Broken"}
    model = SourceSeparator.from_config(description)  # without its own constructor
    assert model.config["separator"]["init_args"] == {"width": 64, "depth": 4}
    with pytest.raises(AttributeError) as raised:
        model(torch.zeros(1, 1, 100))
    assert any(str(entry.path).endswith("broken_sep.py") for entry in raised.traceback)


def test_two_of_a_users_classes_of_one_name(folder):
    for name in ("twin_one", "twin_two"):
        (folder / f"{name}.py").write_text("from my_separator import Dilated\nclass Twin(Dilated):\n    pass\n")
    config.import_modules(["my_separator", "twin_one", "twin_two"])
    description = tasnet_model().config | {"separator": "Twin"}
    with pytest.raises(UserError, match="several classes: twin_one.Twin, twin_two.Twin; give the full path"):
        SourceSeparator.from_config(description)
    assert SourceSeparator.from_config(description | {"separator": "twin_two.Twin"}).separator.n_sources == 2


# ---- trust ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(folder):
    """A module that is not imported, with a model file and configurations that name its classes."""
    (folder / "elsewhere.py").write_text("raise SystemExit('imported')\n")
    model = tasnet_model()
    described = model.config | {"separator": {"class_path": "elsewhere.Mine", "init_args": {}}}
    write_safetensors(folder / "theirs.safetensors", described, model.state_dict(), {}, None)
    (folder / "theirs.yml").write_text("model: {separator: elsewhere.Mine}\n")
    (folder / "their_data.yml").write_text("data: elsewhere.Data\n")
    (folder / "their_sweep.yml").write_text("base: [base.yml]\naxes: {model.separator: [elsewhere.Mine]}\n")
    (folder / "their_task.yml").write_text("task: {optimizer: {class_path: elsewhere.Adam}}\n")
    yield
    assert "elsewhere" not in sys.modules


@pytest.mark.parametrize(
    "line",
    [
        "separate song.wav --model theirs.safetensors",
        "evaluate --model theirs.safetensors --data base.yml",
        "export theirs.safetensors --out other.safetensors",
        "train --config base.yml --config theirs.yml --out exp/theirs",
        "train --config base.yml --config their_task.yml --out exp/theirs",
        "train --config base.yml --task.loss elsewhere.Loss --out exp/theirs",
        "train --config base.yml --task.optimizer elsewhere.Adam --out exp/theirs",
        "train --config base.yml --trainer.callbacks elsewhere.Call --out exp/theirs",
        "check-data base.yml their_data.yml",
        "ablate their_sweep.yml --out exp/theirs",
    ],
)
def test_a_file_never_imports_anything(line, elsewhere, folder, monkeypatch, capsys):
    """Though the module could be imported."""
    monkeypatch.syspath_prepend(folder)
    assert "add --import elsewhere" in refusal(f"tasnet-attn {line}", capsys)


def test_a_data_set_of_a_users_own_lists_its_tracks_once(folder):
    config.import_modules(["my_data"])
    given = {"sources": ["guitar", "backing"], "sample_rate": 44_100}
    data = config.build({"class_path": "FlatStems", "init_args": {"root": "stems"}}, SegmentedData, "data", **given)
    mixture, references = data.tracks("train")[0].read()
    torch.testing.assert_close(references.sum(0), mixture)
