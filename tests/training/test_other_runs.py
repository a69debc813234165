"""Folders that a run left unfinished or damaged, and checkpoints of other runs: a line, and never another training."""

import json
import os
import shutil

import pytest
import torch
from lookalikes import write_stem_folders
from training.test_resuming import begun, contents, go_on, last, run, stored  # noqa: F401  fixtures

from tasnet_attn.data.base import EpochSampler, ResumableLoader
from tasnet_attn.errors import UserError
from tasnet_attn.training.command import train
from tasnet_attn.training.folder import read_metrics
from tasnet_attn.training.task import SeparationTask


def refused(said, call, *arguments):
    with pytest.raises(UserError, match=said) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_fork_that_has_no_checkpoint_yet_never_begins_without_its_parent_s_weights(go_on, run, monkeypatch):  # noqa: F811
    fork = run.parent / "fork"
    settings = ["--task.optimizer.init_args.lr=0.0", "--trainer.max_steps=2"]

    def killed(self, batch, index):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(SeparationTask, "training_step", killed)
        with pytest.raises(MemoryError):
            go_on("--fork", str(fork), *settings)
    before = contents(fork)
    assert "parent" in json.loads((fork / "history.json").read_text())[0]
    said = r"fork: a fork that ended before its first checkpoint; remove this folder and fork again"
    refused(said, go_on, "--fork", str(fork), *settings)
    refused(said, go_on, "--out", str(fork), *settings)
    assert contents(fork) == before
    shutil.rmtree(fork)
    go_on("--fork", str(fork), *settings)
    ours, theirs = last(fork)["state_dict"], last(run)["state_dict"]
    assert all(name == "model.gain" or torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.slow
def test_a_checkpoint_of_another_run_is_compared_by_its_own_settings(begun, go_on, run):  # noqa: F811
    other = run.parent / "other"
    theirs = ["--task.optimizer.init_args.lr=0.05", "--seed_everything=7", "--data.segment=0.1"]
    train(["--config", str(begun / "conf.yml"), "--out", str(other), *theirs])
    file = other / "checkpoints/last.ckpt"
    before = contents(run)
    said = r"other/checkpoints/last\.ckpt: the run began with other settings: .*optimizer\.lr 0\.05 -> 0\.002.*--fork"
    refused(said, go_on, "--ckpt_path", str(file))
    anonymous = last(other)
    del anonymous["run_config"]
    torch.save(anonymous, other / "anonymous.ckpt")
    refused("of another run, whose settings it lacks; --fork", go_on, "--ckpt_path", str(other / "anonymous.ckpt"))
    assert contents(run) == before
    changes = [f"--change={key}" for key in ("task.optimizer.lr", "seed_everything", "data.segment")]
    go_on("--ckpt_path", str(file), *changes)
    history = json.loads((run / "history.json").read_text())
    assert {"step": 6, "key": "task.optimizer.lr", "old": 0.05, "new": 0.002} in history and len(history) == 3
    assert last(run)["optimizer_states"][0]["param_groups"][0]["lr"] == 0.002


def test_a_run_s_own_checkpoint_may_lie_elsewhere(go_on, run):  # noqa: F811
    copy = shutil.copy(run / "checkpoints/last.ckpt", run.parent / "copy.ckpt")
    go_on("--ckpt_path", str(copy))
    assert last(run)["global_step"] == 8 and not (run / "history.json").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"global_step": "x"}, "for lack of global_step"),
        ({"loops": {}}, "for lack of loops/fit_loop"),
        ({"optimizer_states": None}, "for lack of optimizer_states"),
        ({"run_config": "x"}, "run_config is not a configuration"),
    ],
)
def test_a_damaged_checkpoint_is_one_line(go_on, run, change, said):  # noqa: F811
    torch.save(last(run) | change, run / "checkpoints/last.ckpt")
    before = contents(run)
    refused(rf"last\.ckpt: .*{said}.*--fork NEW_OUT starts", go_on)
    assert contents(run) == before


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("data.json", '{"data"', r"data\.json: damaged \(.*\); restore it, or remove it"),
        ("data.json", "{}", r"data\.json: damaged \(describes no data\); restore it"),
        ("history.json", "[", r"history\.json: damaged \(.*\); restore it, or move it away"),
        ("history.json", "{}", r"history\.json: damaged \(contains no list\)"),
    ],
)
def test_a_damaged_file_of_a_run_is_one_line(go_on, run, name, text, said):  # noqa: F811
    (run / name).write_text(text)
    refused(said, go_on, "--task.optimizer.init_args.lr=0.1", "--change=task.optimizer.lr")
    assert last(run)["global_step"] == 6


@pytest.mark.parametrize("end", [b"", b"0,", b"0,,,", b"\x00\x00\x00"])
def test_a_row_that_was_cut_off_is_dropped(go_on, run, end):  # noqa: F811
    whole = (run / "metrics.csv").read_bytes()
    assert all(row["step"].isdecimal() for row in read_metrics(run / "metrics.csv"))
    cut = whole[: whole.rindex(b"\n", 0, -2) + 1] + end
    (run / "metrics.csv").write_bytes(cut)
    go_on()
    rows = read_metrics(run / "metrics.csv")
    assert rows[-1]["step"] == "7" and [int(row["step"]) for row in rows] == sorted(int(row["step"]) for row in rows)


def over(go_on, run, begun, **settings):  # noqa: F811
    """A run whose epochs are passes over the data, ended by its steps within one."""
    root = write_stem_folders(run.parent / "own", (2000, 2000, 2000))
    write_stem_folders(root, (2000,), "valid")
    out = run.parent / "passes"
    arguments = ["--config", str(begun / "conf.yml"), "--out", str(out), f"--data.root={root}"]
    arguments += ["--data.segments_per_epoch=data"]  # 15 segments of 400 samples: 7 batches
    train([*arguments, "--trainer.max_steps=5"])
    return root, out, [*arguments, "--ckpt_path=last", "--trainer.max_steps=8"]


@pytest.mark.slow
def test_an_epoch_of_longer_segments_begins_anew(go_on, run, begun):  # noqa: F811
    _, out, arguments = over(go_on, run, begun)
    train([*arguments, "--data.segment=0.25", "--change=data.segment"])  # 3 segments: 1 batch
    assert last(out)["global_step"] == 8
    assert sum(bool(row["valid_loss"]) for row in read_metrics(out / "metrics.csv")) == 3


@pytest.mark.slow
def test_an_epoch_of_fewer_tracks_may_be_over(go_on, run, begun):  # noqa: F811
    root, out, arguments = over(go_on, run, begun)
    for track in sorted((root / "train").iterdir())[1:]:
        shutil.rmtree(track)  # 5 segments are left: 2 batches, of which 5 were taken
    train(arguments)
    assert last(out)["global_step"] == 8


def test_data_that_only_moved_do_not_restart_the_epoch(go_on, run, begun):  # noqa: F811
    moved = shutil.copytree(begun / "stems", run.parent / "moved")
    go_on(f"--data.root={moved}")
    go = [row for row in read_metrics(run / "metrics.csv") if row["train_loss_step"]]
    assert [int(row["step"]) for row in go] == list(range(8))
    assert stored(run)["data"]["init_args"]["root"] == str(moved) and os.path.isdir(moved)
    assert last(run)["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] == 2


def test_a_loader_that_is_over_gives_nothing():
    loader = ResumableLoader(range(6), batch_size=2, sampler=EpochSampler(6), collate_fn=list)
    loader.load_state_dict({"handed": 5})
    assert list(loader) == [] and loader.state_dict() == {"handed": 0}
