"""A training that diverges ends in one line; checkpoints stay finite."""

import math
import os
import signal

import pytest
import torch
from training.test_resuming import begun, contents, last  # noqa: F401  a fixture

from tasnet_attn.cli import main
from tasnet_attn.training.command import train
from tasnet_attn.training.guard import Diverged, Guard
from tasnet_attn.training.task import SeparationTask


@pytest.fixture
def arguments(begun, tmp_path):  # noqa: F811
    return ["--config", str(begun / "conf.yml"), "--out", str(tmp_path / "run"), "--ckpt_path=last"]


def finite(run):
    return all(value.isfinite().all() for value in last(run)["state_dict"].values())


def poison(monkeypatch, steps, gradient=False):
    """Losses of NaN at these batches, or infinite gradients of finite losses."""
    step, count = SeparationTask.training_step, iter(range(1000))

    def training_step(self, batch, index):
        loss, bad = step(self, batch, index), next(count) in steps
        if gradient and bad:
            loss.register_hook(lambda g: g * math.inf)
        return loss * math.nan if bad and not gradient else loss

    monkeypatch.setattr(SeparationTask, "training_step", training_step)


@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_a_rate_without_bounds_ends_in_one_line(arguments, tmp_path, capsys, optimizer):
    settings = [f"--task.optimizer={optimizer}", "--task.optimizer.init_args.lr=1e30", "--trainer.max_steps=20"]
    assert main(["train", *arguments, *settings]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tasnet-attn:")]
    assert "learning rate 1e+30" in line and "epoch" in line and "step" in line
    run = tmp_path / "run"
    assert not (run / "finished").exists()
    assert all(torch.load(f, weights_only=True)["global_step"] < 20 for f in run.glob("checkpoints/*"))


@pytest.mark.parametrize("gradient", [False, True])
def test_the_last_checkpoint_is_the_last_finite_one(arguments, tmp_path, monkeypatch, gradient):
    poison(monkeypatch, [5], gradient)
    with pytest.raises(Diverged, match="step 6, epoch 1"):
        train([*arguments, "--trainer.max_steps=12", "--trainer.log_every_n_steps=50"])
    assert finite(tmp_path / "run") and last(tmp_path / "run")["global_step"] == 4


def test_batches_are_left_out_and_counted(arguments, tmp_path, monkeypatch):
    poison(monkeypatch, [1, 5])
    run = train([*arguments, "--on-nan", "skip", "--trainer.max_steps=8"])
    assert finite(run) and last(run)["optimizer_states"][0]["state"][0]["step"] == 6
    (guard,) = (state for name, state in last(run)["callbacks"].items() if name == "Guard")
    assert guard == {"skipped": 2}


def test_ten_in_a_row_are_too_many(arguments, tmp_path, monkeypatch):
    poison(monkeypatch, range(3, 100), gradient=True)
    with pytest.raises(Diverged, match="10 batches in a row"):
        train([*arguments, "--on-nan=skip", "--trainer.max_steps=40"])


class Scaled:
    class precision_plugin:
        scaler = object()

    global_step, current_epoch = 0, 0


def test_the_scaler_of_float16_may_look_for_its_scale():
    """Gradients that are infinite while it does are its own affair; a loss that is not finite is not."""
    guard, optimizer = Guard(), torch.optim.SGD([torch.zeros(2, requires_grad=True)], 0.1)
    (parameter,) = optimizer.param_groups[0]["params"]
    for loss in (1.0, 2.0, 3.0):
        parameter.grad = torch.full((2,), math.inf)
        guard.on_before_backward(Scaled, None, torch.tensor(loss))
        guard.on_before_optimizer_step(Scaled, None, optimizer)
        guard._read(Scaled)
    guard.on_before_backward(Scaled, None, torch.tensor(math.nan))
    guard.on_before_optimizer_step(Scaled, None, optimizer)
    with pytest.raises(Diverged):
        guard._read(Scaled)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_saves_says_so_and_ends(arguments, tmp_path, monkeypatch, capsys, number, status):
    """In the third step of an epoch of four; resumed, it equals an unbroken run."""
    step = SeparationTask.training_step

    def training_step(self, batch, index):
        if self.global_step == 2 and not (tmp_path / "sent").exists():
            (tmp_path / "sent").touch()
            os.kill(os.getpid(), number)
        return step(self, batch, index)

    whole = train([*arguments, "--out", str(tmp_path / "whole"), "--trainer.max_steps=6"])
    monkeypatch.setattr(SeparationTask, "training_step", training_step)
    assert main(["train", *arguments]) == status
    run = tmp_path / "run"
    assert "saved at step 3" in capsys.readouterr().err and not (run / "finished").exists()
    assert last(run)["global_step"] == 3
    assert main(["train", *arguments, "--trainer.enable_progress_bar=null"]) == 0
    for name, value in last(whole)["state_dict"].items():
        assert torch.equal(last(run)["state_dict"][name], value)
    assert signal.getsignal(number) is not None
