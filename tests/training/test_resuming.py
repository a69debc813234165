"""What a run folder says is what happened: settings of a resumed run, forks, two processes in one folder."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import ROOT
from lookalikes import write_stem_folders

from tasnet_attn import load
from tasnet_attn.cli import main
from tasnet_attn.errors import UserError
from tasnet_attn.files import write_text
from tasnet_attn.storage import save
from tasnet_attn.training.command import parse, train
from tasnet_attn.training.comparing import differences
from tasnet_attn.training.folder import holding

CONFIG = """
model:
  sources: [guitar, backing]
  sample_rate: 8000
  encoder: {class_path: GatedEncoder, init_args: {n_filters: 12, kernel_size: 16}}
  separator: {class_path: LTL, init_args: {hidden: 8, heads: 2, transformer_layers: 1, window: 64}}
  decoder: {class_path: LearnedDecoder, init_args: {n_filters: 12, kernel_size: 16}}
task: {optimizer: {class_path: Adam, init_args: {lr: 2e-3}}}
data: {class_path: StemFolders, init_args: {root: ROOT, segment: 0.05, batch_size: 2, segments_per_epoch: 8}}
trainer: {max_steps: 6, accelerator: cpu, log_every_n_steps: 1, enable_progress_bar: false, logger: false}
"""
LR = "task.optimizer.lr"


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A finished run of 6 steps, 4 in an epoch, and its configuration."""
    folder = tmp_path_factory.mktemp("resuming")
    root = write_stem_folders(folder / "stems", (2000,))
    write_stem_folders(root, (2000,), "valid")
    write_text(folder / "conf.yml", CONFIG.replace("ROOT", str(root)))
    train(["--config", str(folder / "conf.yml"), "--out", str(folder / "run")])
    return folder


@pytest.fixture
def run(begun, tmp_path):
    """A copy of the run in its own folder."""
    return shutil.copytree(begun / "run", tmp_path / "run")


@pytest.fixture
def go_on(begun, run):
    """Continue the copy."""
    return lambda *more: train(
        ["--config", str(begun / "conf.yml"), "--out", str(run), "--ckpt_path", "last", "--trainer.max_steps=8", *more]
    )


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def stored(run):
    return yaml.safe_load((run / "config.yml").read_text())


def last(run):
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def test_other_settings_are_named_with_both_values_and_nothing_is_touched(go_on, run):
    before = contents(run)
    with pytest.raises(UserError) as caught:
        go_on(f"--{'task.optimizer.init_args.lr'}=0.5", "--model.separator.window=8", "--seed_everything=99")
    text = str(caught.value)
    for part in (
        f"{LR} 0.002 -> 0.5",
        "model.separator.window 64 -> 8",
        "seed_everything 0 -> 99",
        "--change",
        "--fork",
    ):
        assert part in text
    assert "\n" not in text and contents(run) == before


def test_a_change_of_class_is_one_difference(begun):
    full = parse(["--config", str(begun / "conf.yml")])
    other = parse(["--config", str(begun / "conf.yml"), "--model.separator=TasNet", "--data.batch_size=3"])
    assert differences(full, other) == {"model.separator": ("LTL", "TasNet"), "data.batch_size": (2, 3)}


def test_where_how_long_and_how_shown_are_free(go_on, run, begun):
    moved = shutil.copytree(begun / "stems", run.parent / "moved")
    go_on(
        f"--data.root={moved}", "--early_stopping.patience=3", "--checkpoint.every_n_train_steps=1",
        "--trainer.log_every_n_steps=2", "--data.workers=1", "--trainer.max_epochs=9",
    )  # fmt: skip
    assert last(run)["global_step"] == 8
    assert stored(run)["early_stopping"]["patience"] == 3 and stored(run)["data"]["init_args"]["root"] == str(moved)
    (patience,) = (state["patience"] for state in last(run)["callbacks"].values() if "patience" in state)
    assert patience == 3  # in force, not only claimed
    assert not (run / "history.json").exists()


def test_other_data_in_another_place_are_a_difference(go_on, run):
    root = write_stem_folders(run.parent / "others", (2100,))
    write_stem_folders(root, (2000,), "valid")
    with pytest.raises(UserError, match=r"data\.root .* -> "):
        go_on(f"--data.root={root}")


def test_a_changed_rate_is_in_force_and_recorded(go_on, run):
    rate = last(run)["optimizer_states"][0]["param_groups"][0]["lr"]
    assert rate == 0.002
    moments = last(run)["optimizer_states"][0]["state"]
    go_on("--task.optimizer.init_args.lr=0.0", "--change", LR)
    after = last(run)
    assert after["optimizer_states"][0]["param_groups"][0]["lr"] == 0 and after["global_step"] == 8
    assert after["optimizer_states"][0]["state"][0]["step"] == moments[0]["step"] + 2  # the optimiser went on
    assert json.loads((run / "history.json").read_text()) == [{"step": 6, "key": LR, "old": 0.002, "new": 0.0}]
    assert stored(run)["task"]["optimizer"]["init_args"]["lr"] == 0


def test_a_changed_rate_leaves_the_weights_alone_if_it_is_zero(go_on, run):
    before = last(run)["state_dict"]
    go_on("--task.optimizer.init_args.lr=0.0", "--change=task.optimizer")
    for name, value in last(run)["state_dict"].items():
        assert name == "model.gain" or torch.equal(value, before[name])


COSINE = ["--task.lr_scheduler=CosineAnnealingLR", "--task.lr_scheduler.T_max=20", "--task.lr_interval=step"]


@pytest.mark.slow
@pytest.mark.parametrize("change", [["--task.optimizer.init_args.lr=0.5"], ["--task.lr_scheduler.T_max=12"]])
def test_a_schedule_goes_on_as_if_it_had_been_so_from_the_start(begun, tmp_path, change):
    settings = ["--config", str(begun / "conf.yml"), *COSINE]
    run = train([*settings, "--trainer.max_steps=3", "--out", str(tmp_path / "run")])
    key = change[0].partition("=")[0].removeprefix("--").replace(".init_args", "")
    train([*settings, *change, "--out", str(run), "--ckpt_path=last", "--trainer.max_steps=5", "--change", key])
    whole = train([*settings, *change, "--trainer.max_steps=5", "--out", str(tmp_path / "whole")])
    ours, theirs = (last(folder)["optimizer_states"][0]["param_groups"][0] for folder in (run, whole))
    assert ours["lr"] == pytest.approx(theirs["lr"], rel=1e-9) and ours["initial_lr"] == theirs["initial_lr"]


def test_another_batch_size_in_mid_epoch(go_on, run):
    go_on("--data.batch_size=1", "--change=data.batch_size", "--trainer.max_steps=16")
    assert last(run)["global_step"] == 16


def test_a_change_that_cannot_be_is_one_line(go_on, run):
    before = contents(run)
    for arguments, said in (
        (["--model.separator.hidden=16"], "model.separator.hidden 8 -> 16"),
        (["--model.separator.hidden=16", "--change=model.separator.hidden"], "the weights do not fit"),
        (["--task.optimizer=SGD", "--change=task.optimizer"], "--fork"),
        (["--change=task.optimiser.lr"], "did you mean task.optimizer.lr?"),
        (["--trainer.max_steps=5"], "6 steps are done, more than trainer.max_steps 5"),
        (["--trainer.max_epochs=0"], "more than trainer.max_epochs 0"),
    ):
        with pytest.raises(UserError) as caught:
            go_on(*arguments)
        assert said in str(caught.value) and "\n" not in str(caught.value)
    assert contents(run) == before


def test_a_finished_run_says_so(go_on, run, capsys):
    before = contents(run)
    go_on("--trainer.max_steps=6")
    assert "finished after 6 steps" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"finished after 6 steps.*with other settings.*data\.batch_size 2 -> 3"):
        go_on("--trainer.max_steps=6", "--data.batch_size=3")
    assert contents(run) == before


def test_a_change_that_no_checkpoint_has_yet_is_taken_up(go_on, run):
    """Killed after config.yml was written, before a checkpoint: the rate that config.yml names is in force."""
    config = stored(run)
    config["task"]["optimizer"]["init_args"]["lr"] = 0.25
    write_text(run / "config.yml", yaml.safe_dump(config))
    go_on("--task.optimizer.init_args.lr=0.25")
    assert last(run)["optimizer_states"][0]["param_groups"][0]["lr"] == 0.25


@pytest.mark.slow
def test_a_fork_is_a_new_run_from_the_weights(go_on, run, tmp_path):
    before, parent = contents(run), last(run)
    fork = go_on("--fork", str(tmp_path / "fork"), "--task.optimizer.init_args.lr=0.0", "--trainer.max_steps=2")
    assert fork == tmp_path / "fork" and contents(run) == before
    ours = last(fork)
    assert ours["global_step"] == 2
    assert all(n == "model.gain" or torch.equal(v, parent["state_dict"][n]) for n, v in ours["state_dict"].items())
    (entry,) = json.loads((fork / "history.json").read_text())
    assert entry["parent"] == str(run / "checkpoints/last.ckpt") and len(entry["sha256"]) == 64
    steps = [
        last(go_on("--fork", str(tmp_path / name), "--trainer.max_steps=2", *more))["optimizer_states"][0]["state"][0]
        for name, more in (("without", []), ("with", ["--with-optimizer"]))
    ]
    assert [state["step"] for state in steps] == [2, parent["optimizer_states"][0]["state"][0]["step"] + 2]


def test_a_model_file_begins_a_run_by_fork_alone(begun, run, tmp_path):
    model = load(run)
    file = save(model, tmp_path / "model.safetensors")
    settings = ["--config", str(begun / "conf.yml"), "--out", str(tmp_path / "new"), "--ckpt_path", str(file)]
    with pytest.raises(UserError, match="--fork NEW_OUT"):
        train(settings)
    assert not (tmp_path / "new").exists()
    fork = [*settings, "--fork", str(tmp_path / "fork"), "--task.optimizer.init_args.lr=0.0"]
    with pytest.raises(UserError, match="remove --with-optimizer"):
        train([*fork, "--with-optimizer"])
    tuned = load(train(fork) / "checkpoints/last.ckpt").state_dict()
    assert all(name == "gain" or torch.equal(value, tuned[name]) for name, value in model.state_dict().items())
    with pytest.raises(UserError, match="weights do not fit"):
        train([*settings, "--fork", str(tmp_path / "other"), "--model.separator.hidden=16"])
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_one_process_trains_in_a_folder(begun, tmp_path):
    """The second ends in one line; what holds the folder is released by death."""
    out = tmp_path / "new"
    script = f"""if True:
        import sys, time
        from pathlib import Path
        from tasnet_attn.training.folder import holding
        with holding(Path({str(out)!r})):
            print("held", flush=True)
            time.sleep(600)
    """
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another process is training in this folder"):
        train(["--config", str(begun / "conf.yml"), "--out", str(out)])
    process.kill()
    process.wait()
    with holding(out):
        pass
    assert not out.exists()  # no run began in it


def test_settings_that_are_younger_than_the_run_have_the_defaults_that_it_began_with(go_on, run):
    """Not today's: a gated encoder's `init` came with 0.2.0 and means `filterbank` in a run that lacks it."""
    older = {"config.yml": stored(run), "checkpoints/last.ckpt": last(run)}
    for config in (older["config.yml"], older["checkpoints/last.ckpt"]["run_config"]):
        assert config["model"]["encoder"]["init_args"].pop("init") == "glorot"
        del config["task"]["optimizer"]["init_args"]["decoupled_weight_decay"]  # of a torch that did not have it
    write_text(run / "config.yml", yaml.safe_dump(older["config.yml"]))
    torch.save(older["checkpoints/last.ckpt"], run / "checkpoints/last.ckpt")
    with pytest.raises(UserError, match=r"other settings: model\.encoder\.init filterbank -> glorot;"):
        go_on()
    go_on("--model.encoder.init=filterbank")
    assert last(run)["global_step"] == 8 and not (run / "history.json").exists()
    assert stored(run)["model"]["encoder"]["init_args"]["init"] == "filterbank"


def test_a_run_of_version_0_1_0_has_no_false_differences(tmp_path):
    run = shutil.copytree(ROOT / "tests/golden/version_0.1.0/run", tmp_path / "run")
    (run / "finished").touch()
    before = contents(run)
    command = ["train", "--config", str(run / "config.yml"), "--out", str(run), "--ckpt_path", "last"]
    assert main(command) == 0
    assert contents(run) == before
    assert not differences(parse(["--config", str(run / "config.yml")]), parse(command[1:-2])).keys() - {
        "out", "checkpoint.dirpath"
    }  # fmt: skip
