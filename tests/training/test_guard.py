"""A training that diverges ends in one line; checkpoints stay finite."""

import math
import sys
import time

import pytest
import torch
from training.test_resuming import begun, contents, last  # noqa: F401  a fixture

from tasnet_attn.cli import main
from tasnet_attn.training.command import train
from tasnet_attn.training.guard import Diverged
from tasnet_attn.training.task import SeparationTask


@pytest.fixture
def arguments(begun, tmp_path):  # noqa: F811
    return ["--config", str(begun / "conf.yml"), "--out", str(tmp_path / "run"), "--ckpt_path=last"]


def finite(run):
    return all(value.isfinite().all() for value in last(run)["state_dict"].values())


def poison(monkeypatch, losses=(), gradients=()):
    """Losses of NaN at these batches, infinite gradients of finite losses at those."""
    step, count = SeparationTask.training_step, iter(range(1000))

    def training_step(self, batch, index):
        loss, number = step(self, batch, index), next(count)
        if number in gradients:
            loss.register_hook(lambda g: g * math.inf)
        return loss * math.nan if number in losses else loss

    monkeypatch.setattr(SeparationTask, "training_step", training_step)


# Lightning's plugin with torch's own scaler; from `--trainer.precision=16-mixed` on a CPU Lightning makes bfloat16
HALF = ["MixedPrecision", ".precision=16-mixed", ".device=cpu", ".scaler=torch.amp.GradScaler", ".scaler.device=cpu"]
HALF = [f"--trainer.plugins{'' if part[0] == '.' else '='}{part}" for part in HALF]


@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_a_rate_without_bounds_ends_in_one_line(arguments, tmp_path, capsys, optimizer):
    settings = [f"--task.optimizer={optimizer}", "--task.optimizer.init_args.lr=1e30", "--trainer.max_steps=20"]
    assert main(["train", *arguments, *settings]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tasnet-attn:")]
    assert "learning rate 1e+30" in line and "epoch" in line and "step" in line
    run = tmp_path / "run"
    assert not (run / "finished").exists()
    assert all(torch.load(f, weights_only=True)["global_step"] < 20 for f in run.glob("checkpoints/*"))


@pytest.mark.parametrize(
    ("what", "precision"), [("losses", []), ("gradients", []), pytest.param("losses", HALF, marks=pytest.mark.slow)]
)
def test_the_last_checkpoint_is_the_last_finite_one(arguments, tmp_path, monkeypatch, what, precision):
    poison(monkeypatch, **{what: [5]})
    with pytest.raises(Diverged, match="step 6, epoch 1"):
        train([*arguments, *precision, "--trainer.max_steps=12", "--trainer.log_every_n_steps=50"])
    assert finite(tmp_path / "run") and last(tmp_path / "run")["global_step"] == 4


@pytest.mark.slow
def test_what_diverged_is_found_when_the_bar_is_drawn(arguments, monkeypatch):
    """Not only when metrics are logged, which may be an hour later."""
    poison(monkeypatch, [1])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    settings = ["--trainer.log_every_n_steps=1000", "--trainer.enable_progress_bar=null", "--trainer.max_steps=50"]
    seen, step = [], SeparationTask.training_step
    monkeypatch.setattr(SeparationTask, "training_step", lambda *a: (seen.append(time.sleep(0.2)), step(*a))[1])
    with pytest.raises(Diverged, match="step 2, epoch 0"):
        train([*arguments, *settings, "--data.segments_per_epoch=200"])
    assert len(seen) < 10


def guard(run):
    return next(state for name, state in last(run)["callbacks"].items() if name == "Guard")


def stepped(run):
    return last(run)["optimizer_states"][0]["state"].get(0, {"step": 0})["step"]


def halved(run, scale=2**16):
    """How often the scaler halved its scale: once for each step that it left out."""
    return math.log2(scale / last(run).get("MixedPrecision", {"scale": scale})["scale"])


@pytest.mark.parametrize("precision", [[], pytest.param(HALF, marks=pytest.mark.slow)])
def test_batches_are_left_out_and_counted(arguments, monkeypatch, precision):
    poison(monkeypatch, [1, 5])
    run = train([*arguments, *precision, "--on-nan", "skip", "--trainer.max_steps=8"])
    assert finite(run) and guard(run) == {"skipped": 2}
    assert stepped(run) == 8 - max(2, halved(run))


def test_ten_in_a_row_are_too_many(arguments, monkeypatch):
    poison(monkeypatch, gradients=range(3, 100))
    with pytest.raises(Diverged, match="10 consecutive batches"):
        train([*arguments, "--on-nan=skip", "--trainer.max_steps=40"])


@pytest.mark.slow
@pytest.mark.parametrize("skip", [[], ["--on-nan=skip"]])
def test_the_scaler_of_float16_may_look_for_its_scale(arguments, monkeypatch, skip):
    """Gradients that are infinite while it does are its own affair, ten in a row too, and a NaN after them is one."""
    poison(monkeypatch, [12] if skip else [], gradients=range(2, 12))
    run = train([*arguments, *HALF, "--trainer.max_steps=16", *skip])
    assert finite(run) and guard(run)["skipped"] == len(skip)
    assert stepped(run) == 16 - halved(run) <= 6 - len(skip)
