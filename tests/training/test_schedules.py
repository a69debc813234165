"""When the rate is halved and when training ends, against a plain count of epochs without a better loss."""

import random

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping

from tasnet_attn.training.command import parse
from tasnet_attn.training.task import SeparationTask


def random_curve(number):
    """Losses of 60 epochs: negative, positive or of both signs; steps from a millionth up; with ties and plateaus."""
    rng = random.Random(number)
    loss, size = rng.uniform(-30, 30), 10 ** rng.uniform(-6, 0)
    trend = rng.choice([-0.3, 0.0, 0.3])
    curve = []
    for _ in range(60):
        curve.append(loss)
        loss += rng.choice([0.0, size]) * (rng.gauss(0, 1) + trend)
    return torch.tensor(curve, dtype=torch.float32).tolist()


def bad_in_a_row(curve, reset):
    """Epochs since the best loss, or since they last reached `reset`, after each epoch."""
    best, bad = float("inf"), 0
    for loss in curve:
        bad = 0 if loss < best else bad + 1
        best = min(best, loss)
        yield bad
        bad = 0 if bad == reset else bad


def rates(curve):
    """What the task's own schedule makes of a curve."""
    task = SeparationTask(torch.nn.Linear(1, 1))
    chosen = task.configure_optimizers()
    schedule = chosen["lr_scheduler"]["scheduler"]
    for loss in curve:
        schedule.step(torch.tensor(loss))
        yield chosen["optimizer"].param_groups[0]["lr"]


@pytest.mark.parametrize("curve", [[-20.0 + 0.001 * epoch for epoch in range(9)], [-10.0] * 9, [10.0] * 9])
def test_a_loss_that_does_not_fall_halves_the_rate_every_third_epoch(curve):
    """Also a negative one that gets worse by little, and a constant one."""
    assert list(rates(curve)) == pytest.approx([1e-4] * 3 + [5e-5] * 3 + [2.5e-5] * 3)


@pytest.mark.parametrize("start", [-20.0, 0.004, 20.0])
def test_a_loss_that_falls_by_little_never_halves_it(start):
    assert list(rates([start - 1e-4 * epoch for epoch in range(50)])) == pytest.approx([1e-4] * 50)


def test_the_schedule_on_200_random_curves():
    halved = 0
    for number in range(200):
        curve, rate, expected = random_curve(number), 1e-4, []
        for bad in bad_in_a_row(curve, reset=3):
            rate = rate / 2 if bad == 3 else rate
            expected.append(rate)
        halved += expected[-1] < 1e-4
        # torch leaves a rate that would change by less than 1e-8
        assert [r for r in rates(curve) if r > 2e-8] == pytest.approx([r for r in expected if r > 2e-8]), number
    assert halved > 100


def test_early_stopping_on_200_random_curves(tmp_path):
    (tmp_path / "base.yml").write_text(
        """\
model: {sources: [a, b], sample_rate: 8000, separator: LTL,
  encoder: {class_path: GatedEncoder, init_args: {n_filters: 8, kernel_size: 16}},
  decoder: {class_path: LearnedDecoder, init_args: {n_filters: 8, kernel_size: 16}}}
data: {class_path: StemFolders, init_args: {root: nowhere}}
"""
    )
    settings = parse(["--config", str(tmp_path / "base.yml")])["early_stopping"]
    ended = 0
    for number in range(200):
        curve, stopping = random_curve(number), EarlyStopping(**settings)
        ours = (
            epoch for epoch, loss in enumerate(curve) if stopping._evaluate_stopping_criteria(torch.tensor(loss))[0]
        )
        expected = next((epoch for epoch, bad in enumerate(bad_in_a_row(curve, None)) if bad == 10), None)
        assert next(ours, None) == expected, number
        ended += expected is not None
    assert 50 < ended < 200
