"""A configuration that is only looked at imports nothing, and one without end is refused at once, by every command."""

import sys

import pytest
from conftest import tasnet_model
from pytorch_lightning import Callback

from tasnet_attn import config
from tasnet_attn.cli import main
from tasnet_attn.errors import UserError
from tasnet_attn.storage import save
from tasnet_attn.training.command import parse

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


def test_a_sweep_of_a_file_that_is_no_configuration_does_not_show_its_text(tmp_path, capsys):
    (tmp_path / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (tmp_path / "sweep.yml").write_text("base: [passwd]\nseeds: [0]\naxes: {model.separator.hidden: [4, 8]}\n")
    assert main(["ablate", str(tmp_path / "sweep.yml"), "--dry-run"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "passwd: not a configuration" in said and "root" not in said.partition("passwd: not")[2]


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


CALLED = {  # what Lightning's parser takes for a function or a class, wherever it stands
    "a schedule's function": "task: {lr_scheduler: {class_path: LambdaLR, init_args: {lr_lambda: NAME}}}",
    "a callback's function": "trainer: {callbacks: [{class_path: LambdaCallback, init_args: {on_fit_start: NAME}}]}",
    "a strategy's part": "trainer: {strategy: {class_path: DDPStrategy, init_args: {checkpoint_io: NAME}}}",
    "in quotes": 'trainer: {strategy: {class_path: DDPStrategy, init_args: {checkpoint_io: "{class_path: NAME}"}}}',
}


@pytest.mark.parametrize("what", CALLED)
@pytest.mark.parametrize("name", ["a_trap.trap", "os.getcwd", "torch.os.getcwd"])
def test_a_function_that_a_file_names_is_not_imported(what, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_trap.py").write_text("def trap(*_): ...\n")
    text = CONFIG.replace(", logger: LOGGER", "").replace("task: {optimizer: {class_path: OPTIMIZER}}\n", "")
    for key, usual in CLASSES.items():
        text = text.replace(key, usual)
    (tmp_path / "conf.yml").write_text(text)
    (tmp_path / "more.yml").write_text(CALLED[what].replace("NAME", name))
    (tmp_path / "sweep.yml").write_text("base: [conf.yml, more.yml]\naxes: {model.separator.hidden: [4, 8]}\n")
    for arguments in ([*COMMANDS["train"], "conf.yml", "--config", "more.yml"], [*COMMANDS["ablate"], "sweep.yml"]):
        assert main(arguments) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert "unknown class or function" in said and "if you trust it" in said
    assert "a_trap" not in sys.modules and not (tmp_path / "run").exists()


class Silent(Callback):
    """A user's own, imported by himself."""


def test_what_the_user_imported_may_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_schedule.py").write_text("def half(epoch):\n    return 0.5\n")
    text = CONFIG.replace("OPTIMIZER", "torch.optim.Adam").replace("logger: LOGGER", f"callbacks: {__name__}.Silent")
    for key, usual in CLASSES.items():
        text = text.replace(key, usual)
    (tmp_path / "conf.yml").write_text(text)
    half = ["--config=conf.yml", "--task.lr_scheduler=LambdaLR", "--task.lr_scheduler.lr_lambda=my_schedule.half"]
    with pytest.raises(UserError, match="lr_lambda: unknown class or function .*; add --import my_schedule if"):
        parse(half)
    config.import_modules(["my_schedule"])
    full = parse(half)
    assert full["task"]["lr_scheduler"]["init_args"]["lr_lambda"] == "my_schedule.half"
    assert full["trainer"]["callbacks"]["class_path"].endswith("Silent")


INNER = "a: &a [1]\nb: [*a]\n"  # anchors within anchors, in small


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trainer=inner.yml"], "inner.yml: not a configuration: line 2"),
        (["--trainer", INNER], "--trainer: line 2"),
        (["--early_stopping=secret.txt"], "secret.txt: not a configuration"),
        (["--config=trainer.yml"], "trainer.yml: inner.yml: not a configuration: line 2"),
        (["--config=text.yml"], "text.yml: trainer.max_steps: line 2"),
        (["--config=other.yml"], "other.yml: config: a configuration cannot include another one"),
        (["--trainer.logger=./inner.yml"], "'./inner.yml' is not a class's name"),
        (["--task.optimizer=/inner"], "'/inner' is not a class's name"),
    ],
)
def test_files_that_the_trainer_s_parser_would_read_by_itself(arguments, said, tmp_path, monkeypatch):
    """A section may be a file's name, which our own loader reads."""
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "inner.yml": INNER, "secret.txt": "root:x:0:secret\n", "trainer.yml": "trainer: inner.yml",
        "other.yml": "config: inner.yml", "text.yml": f"trainer: {{max_steps: {INNER!r}}}".replace("'", '"'),
        "steps.yml": "{optimizer: {init_args: {lr: 1}}, loss: SISNR}",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as caught:
        config.read(arguments)
    assert said in str(caught.value) and "\n" not in str(caught.value) and "secret:" not in str(caught.value)
    assert config.read(["--task=steps.yml"]) == config.read(["--task", (tmp_path / "steps.yml").read_text()])
