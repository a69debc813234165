"""Training through the command line's own path, in this process."""

import csv
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
import yaml
from data.test_stem_folders import write_tracks

from tasnet_attn import load
from tasnet_attn.errors import UserError
from tasnet_attn.train import train

CONFIG = """
model:
  sources: [guitar, backing]
  sample_rate: 8000
  encoder: {class_path: GatedEncoder, init_args: {n_filters: 12, kernel_size: 16}}
  separator: {class_path: LTL, init_args: {hidden: 8, heads: 2, transformer_layers: 1, dropout: 0.1}}
  decoder: {class_path: LearnedDecoder, init_args: {n_filters: 12, kernel_size: 16}}
task: {optimizer: {class_path: Adam, init_args: {lr: 1e-3}}}
data: {class_path: StemFolders, init_args: {root: ROOT, segment: 0.1, batch_size: 2, segments_per_epoch: 12}}
trainer: {max_epochs: 3, accelerator: cpu, log_every_n_steps: 1, enable_progress_bar: false}
"""


@pytest.fixture
def config(tmp_path):
    root = write_tracks(tmp_path / "stems")
    write_tracks(root, (2000,), "valid")
    write_tracks(root, (2000,), "test")
    file = tmp_path / "conf.yml"
    file.write_text(CONFIG.replace("ROOT", str(root)))
    return file


def rows(run):
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def losses(run):
    return {int(row["step"]): row["train_loss_step"] for row in rows(run) if row.get("train_loss_step")}


def weights(run):
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def test_a_run_leaves_all_that_is_needed(config, tmp_path):
    run = train(["--config", str(config), "--out", str(tmp_path / "run")])
    assert {"config.yml", "metrics.csv", "tensorboard", "checkpoints"} <= {path.name for path in run.iterdir()}
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert len(losses(run)) == 18
    model = load(run)
    assert model.sources == ["guitar", "backing"] and not model.training
    again = train(["--config", str(run / "config.yml"), "--out", str(tmp_path / "again")])
    assert losses(again) == losses(run)
    first, second = (yaml.safe_load((folder / "config.yml").read_text()) for folder in (run, again))
    assert first | {"out": None, "checkpoint": None} == second | {"out": None, "checkpoint": None}


def test_the_paper_s_schedule_is_the_default(config, tmp_path):
    run = train(["--config", str(config), "--out", str(tmp_path / "run"), "--trainer.max_epochs=1"])
    stored = yaml.safe_load((run / "config.yml").read_text())
    assert stored["trainer"]["gradient_clip_val"] == 5
    assert stored["early_stopping"]["patience"] == 10
    schedule = stored["task"]["lr_scheduler"]["init_args"]
    assert (schedule["factor"], schedule["patience"]) == (0.5, 2)
    from tasnet_attn.task import SeparationTask

    settings = SeparationTask(load(run)).configure_optimizers()
    assert settings["optimizer"].param_groups[0]["lr"] == 1e-4
    for expected, epoch in zip([1e-4, 1e-4, 1e-4, 5e-5, 5e-5, 5e-5, 2.5e-5], range(7), strict=True):
        settings["lr_scheduler"]["scheduler"].step(1.0)  # best in epoch 0; worse in 1, 2, 3: halved after three
        assert settings["optimizer"].param_groups[0]["lr"] == pytest.approx(expected), epoch


def test_training_stops_without_better_validation(config, tmp_path):
    settings = ["--trainer.max_epochs=50", "--early_stopping.patience=2", "--early_stopping.min_delta=1000"]
    run = train(["--config", str(config), "--out", str(tmp_path / "run"), *settings])
    assert max(int(row["epoch"]) for row in rows(run)) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_killed_in_mid_epoch_and_resumed_equals_an_unbroken_run(config, tmp_path, workers):
    """Same sample ids, losses and weights; the first run is killed by SIGKILL in a process of its own."""
    settings = ["--config", str(config), "--checkpoint.every_n_train_steps=4", f"--data.workers={workers}"]
    whole = train([*settings, "--out", str(tmp_path / "whole")])

    script = textwrap.dedent("""
        import sys, time, torch
        torch.set_num_threads(2)  # as in the other run: sums in another order differ in the last bit
        from tasnet_attn.task import SeparationTask
        from tasnet_attn.train import train
        step = SeparationTask.training_step
        def slow(self, batch, index):
            if self.global_step == 10:  # in the second epoch of 6 steps, two after a checkpoint
                open(sys.argv[1], "w").close()
                time.sleep(60)
            return step(self, batch, index)
        SeparationTask.training_step = slow
        train(sys.argv[2:])
    """)
    flag, broken = tmp_path / "flag", tmp_path / "broken"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, str(flag), *settings, "--out", str(broken)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.time() + 90
    while not flag.exists() and time.time() < deadline:
        assert process.poll() is None, "the run ended by itself"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert torch.load(broken / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 8

    drawn = []
    from tasnet_attn.data.base import Segments

    draw = Segments.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Segments, "draw", lambda self, e, i: (drawn.append((self.random, e, i)), draw(self, e, i))[1])
        train([*settings, "--out", str(broken), "--ckpt_path", "last"])
    if workers == 0:  # in this process the ids can be seen
        expected = [(True, 1, i) for i in range(4, 12)] + [(True, 2, i) for i in range(12)]
        assert [key for key in drawn if key[0]] == expected
    assert losses(broken) == losses(whole)
    ours, theirs = weights(broken), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_level_that_si_snr_leaves_open_is_measured(config, tmp_path):
    """The sum of the estimates is as close to the references' as one gain brings it; training goes its way."""
    from tasnet_attn.data import from_config
    from tasnet_attn.task import SeparationTask

    run = train(["--config", str(config), "--out", str(tmp_path / "run")])
    model = load(run / "checkpoints/last.ckpt")
    (track,) = from_config(run, model.sources, model.sample_rate).tracks("valid")
    segments = [track.read(start, 800) for start in (0, 800)]  # those that the run validated on
    ours = torch.cat([model(mixture[None])[0].sum(0).detach() for mixture, _ in segments], dim=-1)
    theirs = torch.cat([references.sum(0) for _, references in segments], dim=-1)
    assert model.gain != 1
    assert ((ours * theirs).sum() / ours.square().sum()).item() == pytest.approx(1, abs=1e-3)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SeparationTask, "on_validation_epoch_end", lambda self: None)
        free = train(["--config", str(config), "--out", str(tmp_path / "free")])
    for step, value in losses(run).items():
        assert float(losses(free)[step]) == pytest.approx(float(value), abs=1e-3)
    assert load(free / "checkpoints/last.ckpt").gain == 1


def test_a_finished_run_is_not_overwritten(config, tmp_path):
    run = train(["--config", str(config), "--out", str(tmp_path / "run"), "--trainer.max_epochs=1"])
    before = (run / "metrics.csv").read_text()
    with pytest.raises(UserError, match="holds a run already; continue it with --ckpt_path last"):
        train(["--config", str(config), "--out", str(run)])
    assert (run / "metrics.csv").read_text() == before


def test_mixed_precision_is_configuration(config, tmp_path):
    run = train(["--config", str(config), "--out", str(tmp_path / "run"), "--trainer.precision=bf16-mixed"])
    values = [float(value) for value in losses(run).values()]
    assert len(values) == 18 and all(abs(value) < 100 for value in values)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--model.separator.init_args.hiden=3", "model.separator: LTL has no setting 'hiden'"),
        ("--data.bach_size=3", "data: StemFolders has no setting 'bach_size'"),
        ("--model.sample_rate=fast", "model.sample_rate: Expected a <class 'int'>. Got value: fast"),
        ("--mdel.sources=x", "--mdel.sources"),
        ("--config=nowhere.yml", "nowhere.yml"),
        ("--model.separator.heads=3", "heads 3 must divide the width 8"),
        ("--ckpt_path=nowhere.ckpt", "nowhere.ckpt: no such checkpoint"),
        ("--data.root=nowhere", "nowhere/valid: no such folder"),
        ("--model.sources=[drums, bass]", "has no drums.wav"),
    ],
)
def test_a_mistake_is_one_clear_line(config, tmp_path, argument, said):
    with pytest.raises(UserError) as caught:
        train(["--config", str(config), "--out", str(tmp_path / "run"), argument])
    assert said in str(caught.value) and "\n" not in str(caught.value)
