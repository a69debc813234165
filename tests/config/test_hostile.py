"""A configuration that is only looked at imports nothing, and one without end is refused at once, by every command."""

import sys

import pytest
from conftest import tasnet_model

from tasnet_attn.cli import main
from tasnet_attn.storage import save

COMMANDS = {
    "train": ["train", "--out", "run", "--config"],
    "check-data": ["check-data"],
    "ablate": ["ablate", "--dry-run"],
    "evaluate": ["evaluate", "--model", "m.safetensors", "--data"],
}
CONFIG = """
model: {sources: [a, b], sample_rate: 8000, separator: {class_path: SEPARATOR},
  encoder: {class_path: GatedEncoder, init_args: {n_filters: 8, kernel_size: 16}},
  decoder: {class_path: LearnedDecoder, init_args: {n_filters: 8, kernel_size: 16}}}
task: {optimizer: {class_path: OPTIMIZER}}
data: {class_path: DATA, init_args: {root: nowhere}}
trainer: {logger: LOGGER, max_steps: 1}
"""
CLASSES = {"SEPARATOR": "LTL", "OPTIMIZER": "torch.optim.Adam", "DATA": "StemFolders", "LOGGER": "CSVLogger"}


@pytest.mark.parametrize("command", COMMANDS)
def test_nested_anchors(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    (tmp_path / "bomb.yml").write_text("\n".join(lines))
    save(tasnet_model(), tmp_path / "m.safetensors")
    assert main([*COMMANDS[command], "bomb.yml"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "write it out" in said


@pytest.mark.parametrize("which", CLASSES)
def test_a_module_that_a_file_names_is_not_imported(which, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_trap.py").write_text("class Trap: pass\n")
    text = CONFIG
    for key, name in CLASSES.items():
        text = text.replace(key, "a_trap.Trap" if key == which else name)
    (tmp_path / "conf.yml").write_text(text)
    (tmp_path / "sweep.yml").write_text("base: [conf.yml]\nseeds: [0]\naxes: {model.separator.hidden: [4, 8]}\n")
    for command, file in (("check-data", "conf.yml"), ("train", "conf.yml"), ("ablate", "sweep.yml")):
        assert main([*COMMANDS[command], file]) in (1, 2)
    assert "a_trap" not in sys.modules and not (tmp_path / "run").exists()
