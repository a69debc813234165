"""Training through the command line's own path, in this process."""

import csv
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial

import pytest
import torch
import yaml
from conftest import tasnet_model
from lookalikes import write_stem_folders

from tasnet_attn import load
from tasnet_attn.data import from_config
from tasnet_attn.data.segments import Segments
from tasnet_attn.errors import UserError
from tasnet_attn.losses import SISNR
from tasnet_attn.separators import TasNet
from tasnet_attn.training import SeparationTask
from tasnet_attn.training.command import AveragedWeights, WholeFiles, train

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
    root = write_stem_folders(tmp_path / "stems")
    write_stem_folders(root, (2000,), "valid")
    write_stem_folders(root, (2000,), "test")
    file = tmp_path / "conf.yml"
    file.write_text(CONFIG.replace("ROOT", str(root)))
    return file


def rows(run):
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def losses(run):
    return {int(row["step"]): row["train_loss_step"] for row in rows(run) if row.get("train_loss_step")}


@torch.no_grad()
def validated(run, model):
    """On the segments that the run validated on: the loss, and each source's gain that is left to apply."""
    (track,) = from_config(run, model.sources, model.sample_rate).tracks("valid")
    mixture, references = (torch.stack(parts) for parts in zip(*(track.read(s, 800) for s in (0, 800)), strict=True))
    separation = model.analyse(mixture)
    ours, theirs = (x.transpose(0, 1).flatten(1) for x in (separation.estimates, references))  # [S, all samples]
    return SISNR()(separation, references, model).item(), (ours * theirs).sum(1) / ours.square().sum(1)


def test_a_run_leaves_all_that_is_needed(config, tmp_path):
    run = train(["--config", str(config), "--out", str(tmp_path / "run")])
    assert {"config.yml", "metrics.csv", "tensorboard", "checkpoints"} <= {path.name for path in run.iterdir()}
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert len(losses(run)) == 18
    shares = [float(row["loader_share"]) for row in rows(run) if row["loader_share"]]
    assert len(shares) == 3 and all(0 < share < 1 for share in shares)
    model = load(run)
    assert model.sources == ["guitar", "backing"] and not model.training
    again = train(["--config", str(run / "config.yml"), "--out", str(tmp_path / "again")])
    assert losses(again) == losses(run)
    first, second = (yaml.safe_load((folder / "config.yml").read_text()) for folder in (run, again))
    assert first | {"out": None, "checkpoint": None} == second | {"out": None, "checkpoint": None}


def test_a_slow_loader_shows_in_its_share(config, tmp_path, monkeypatch, capsys):
    read = Segments.__getitem__
    monkeypatch.setattr(Segments, "__getitem__", lambda *given: time.sleep(0.05) or read(*given))
    given = ["--config", str(config), "--trainer.max_epochs=1", "--trainer.enable_progress_bar=null"]
    run = train([*given, "--out", str(tmp_path / "run")])
    (row,) = (row for row in rows(run) if row["loader_share"])
    # six batches of two; the first may be read before the epoch begins
    assert float(row["loader_share"]) * float(row["epoch_seconds"]) > 5 * 2 * 0.05
    assert f"waiting for data {float(row['loader_share']):.1%}" in capsys.readouterr().err


def test_the_paper_s_schedule_is_the_default(config, tmp_path):
    run = train(["--config", str(config), "--out", str(tmp_path / "run"), "--trainer.max_epochs=1"])
    stored = yaml.safe_load((run / "config.yml").read_text())
    assert stored["trainer"]["gradient_clip_val"] == 5
    assert stored["early_stopping"]["patience"] == 10
    schedule = stored["task"]["lr_scheduler"]["init_args"]
    assert (schedule["factor"], schedule["patience"]) == (0.5, 2)
    from tasnet_attn.training.task import SeparationTask

    settings = SeparationTask(load(run)).configure_optimizers()
    assert settings["optimizer"].param_groups[0]["lr"] == 1e-4
    for expected, epoch in zip([1e-4, 1e-4, 1e-4, 5e-5, 5e-5, 5e-5, 2.5e-5], range(7), strict=True):
        settings["lr_scheduler"]["scheduler"].step(1.0)  # best in epoch 0; worse in 1, 2, 3: halved after three
        assert settings["optimizer"].param_groups[0]["lr"] == pytest.approx(expected), epoch


def test_training_stops_without_better_validation(config, tmp_path):
    settings = ["--trainer.max_epochs=50", "--early_stopping.patience=2", "--early_stopping.min_delta=1000"]
    run = train(["--config", str(config), "--out", str(tmp_path / "run"), *settings])
    assert max(int(row["epoch"]) for row in rows(run)) == 2


def plain_data(value, run):
    """A checkpoint as lists, numbers and strings, without the run's name."""
    if isinstance(value, dict):
        return {str(key).replace(str(run), "RUN"): plain_data(item, run) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_data(item, run) for item in value]
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return str(value).replace(str(run), "RUN")


def assert_same_end(ours, theirs):
    """Losses and checkpoints are equal: weights, their average, optimiser, schedule, early stopping, random state."""
    assert losses(ours) == losses(theirs)
    for name in ("last", "best"):
        file = f"checkpoints/{name}.ckpt"
        left, right = (plain_data(torch.load(run / file, weights_only=True), run) for run in (ours, theirs))
        for part in right.keys() - {"loops"}:  # Lightning's counters count a resumed validation twice
            assert left[part] == right[part], (name, part)
        assert left["optimizer_states"] and left["lr_schedulers"] and len(left["callbacks"]) >= 3


FALLING = ["--task.lr_scheduler.init_args.patience=0", "--task.lr_scheduler.init_args.threshold=1000"]  # every epoch


@pytest.mark.slow
def test_killed_in_mid_epoch_and_resumed_equals_an_unbroken_run(config, tmp_path):
    """SIGKILL to a run in its own process, with every feature of a run.

    Averaged weights, accumulation, reading ahead, a rate that falls after every epoch, and an end by early stopping.
    """
    settings = ["--config", str(config), "--ema=0.8", "--trainer.accumulate_grad_batches=2", "--data.workers=1"]
    settings += [*FALLING, "--trainer.max_epochs=50", "--early_stopping.patience=2", "--early_stopping.min_delta=1000"]
    settings += ["--checkpoint.every_n_train_steps=2"]
    whole = train([*settings, "--out", str(tmp_path / "whole")])
    assert list(losses(whole)) == list(range(9))

    script = textwrap.dedent("""
        import sys, time, torch
        torch.set_num_threads(int(sys.argv[2]))  # as in the other run: sums in another order differ in the last bit
        from tasnet_attn.training.task import SeparationTask
        from tasnet_attn.training.command import train
        step = SeparationTask.training_step
        def slow(self, batch, index):
            if self.global_step == 5:  # in the second epoch of 3 steps, one after a checkpoint
                open(sys.argv[1], "w").close()
                time.sleep(60)
            return step(self, batch, index)
        SeparationTask.training_step = slow
        train(sys.argv[3:])
    """)
    flag, broken = tmp_path / "flag", tmp_path / "broken"
    command = [sys.executable, "-W", "ignore", "-c", script, str(flag)]
    process = subprocess.Popen(
        [*command, str(torch.get_num_threads()), *settings, "--out", str(broken)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.time() + 90
    while not flag.exists() and time.time() < deadline:
        assert process.poll() is None, "the run ended by itself"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert torch.load(broken / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 4
    assert_same_end(train([*settings, "--out", str(broken), "--ckpt_path", "last"]), whole)


class Interruption(Exception):
    pass


@pytest.mark.parametrize(
    ("saves", "stops_at", "resumes_at"),
    [
        pytest.param(["--checkpoint.every_n_train_steps=4"], 10, 8, id="in mid-epoch"),
        pytest.param([], 7, 6, id="after an epoch", marks=pytest.mark.slow),
        pytest.param(["--checkpoint.every_n_train_steps=4"], 4, 4, id="at once", marks=pytest.mark.slow),
    ],
)
def test_broken_off_and_resumed_equals_an_unbroken_run(config, tmp_path, saves, stops_at, resumes_at, monkeypatch):
    """Epochs of 6 steps; the segments that are read again are those after the checkpoint."""
    from tasnet_attn.data.segments import Segments
    from tasnet_attn.training.task import SeparationTask

    settings = ["--config", str(config), *saves, *FALLING]
    whole = train([*settings, "--out", str(tmp_path / "whole")])
    broken, step = tmp_path / "broken", SeparationTask.training_step

    def training_step(self, batch, index):
        if self.global_step == stops_at:
            raise Interruption
        return step(self, batch, index)

    with monkeypatch.context() as patch, pytest.raises(Interruption):
        patch.setattr(SeparationTask, "training_step", training_step)
        train([*settings, "--out", str(broken)])
    drawn, draw = [], Segments.draw
    monkeypatch.setattr(
        Segments, "draw", lambda self, e, i: (self.random and drawn.append((e, i)), draw(self, e, i))[1]
    )
    train([*settings, "--out", str(broken), "--ckpt_path", "last"])
    assert drawn == [divmod(segment, 12) for segment in range(2 * resumes_at, 36)]
    assert_same_end(broken, whole)


def test_averaged_weights_are_validated_saved_and_loaded(config, tmp_path, monkeypatch):
    """The recurrence, with 0.7; the validation loss and the gain are those of what `load` returns."""
    seen = []
    after = AveragedWeights.on_train_batch_end

    def record(self, trainer, task, *rest):
        after(self, trainer, task, *rest)
        seen.append({name: parameter.detach().clone() for name, parameter in task.named_parameters()})

    monkeypatch.setattr(AveragedWeights, "on_train_batch_end", record)
    run = train(["--config", str(config), "--out", str(tmp_path / "run"), "--trainer.max_epochs=2", "--ema=0.7"])
    averaged = seen[0]
    for latest in seen[1:]:
        averaged = {name: 0.7 * averaged[name] + 0.3 * latest[name] for name in latest}
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    for name, expected in averaged.items():
        torch.testing.assert_close(checkpoint["state_dict"][name], expected, atol=1e-6, rtol=1e-5)
        assert torch.equal(checkpoint["current_model_state"][name], seen[-1][name])
    model = load(run / "checkpoints/last.ckpt")
    assert all(torch.equal(checkpoint["state_dict"][f"model.{k}"], v) for k, v in model.state_dict().items())
    loss, ratio = validated(run, model)
    assert loss == pytest.approx(float([row["valid_loss"] for row in rows(run) if row["valid_loss"]][-1]), abs=1e-4)
    torch.testing.assert_close(ratio, torch.ones(2), atol=1e-3, rtol=0)
    assert (model.gain != 1).all()


def test_an_interrupted_save_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    file = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"step": 1}, file)

    def killed(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        WholeFiles().save_checkpoint({"step": 2}, file)
    assert torch.load(file, weights_only=True) == {"step": 1}


def test_every_validation_covers_every_segment(config, tmp_path, monkeypatch):
    """Neither Lightning's look at two batches before the training nor processes of unequal shares leave any out."""
    from tasnet_attn.data.segments import Segments

    drawn = []
    draw = Segments.draw
    monkeypatch.setattr(Segments, "draw", lambda self, e, i: (self.random or drawn.append(i), draw(self, e, i))[1])
    arguments = ["--config", str(config), "--out", str(tmp_path / "run"), "--data.segment=0.025", "--data.batch_size=1"]
    train([*arguments, "--trainer.max_epochs=2"])
    assert drawn == [0, 1, *range(10), *range(10)]  # 10 segments of 200 samples


def test_the_level_that_si_snr_leaves_open_is_measured(config, tmp_path):
    """Each source's estimates are as close to its references as a gain brings them; training goes its way."""
    run = train(["--config", str(config), "--out", str(tmp_path / "run")])
    model = load(run / "checkpoints/last.ckpt")
    assert model.gain[0] != model.gain[1] and (model.gain != 1).all()
    torch.testing.assert_close(validated(run, model)[1], torch.ones(2), atol=1e-3, rtol=0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SISNR, "scale_free", False)
        free = train(["--config", str(config), "--out", str(tmp_path / "free")])
    for step, value in losses(run).items():
        assert float(losses(free)[step]) == pytest.approx(float(value), abs=1e-3)
    assert load(free / "checkpoints/last.ckpt").gain.eq(1).all()


def test_interchangeable_sources_share_the_level_of_their_sum():
    """Which output is which speaker differs from mixture to mixture; a negative gain turns a source's sign."""
    model = tasnet_model(partial(TasNet, hidden=8))
    task = SeparationTask(model)
    references = torch.randn(3, 2, 1, 800)
    estimates = references * torch.tensor([-0.5, 4.0])[:, None, None]
    task._begin_measuring()
    task._add_levels(estimates, references)
    common, energy = task._levels
    torch.testing.assert_close(common / energy, torch.tensor([-2.0, 0.25]))
    model.interchangeable = True
    task._begin_measuring()
    task._add_levels(estimates, references)
    common, energy = task._levels
    ours, theirs = estimates.sum(1), references.sum(1)
    torch.testing.assert_close(common / energy, ((ours * theirs).sum() / ours.square().sum()).expand(2))


def test_a_finished_run_is_not_overwritten(config, tmp_path):
    run = train(["--config", str(config), "--out", str(tmp_path / "run"), "--trainer.max_epochs=1"])
    before = (run / "metrics.csv").read_text()
    with pytest.raises(UserError, match="already contains a run; resume it with --ckpt_path last"):
        train(["--config", str(config), "--out", str(run)])
    assert (run / "metrics.csv").read_text() == before
    train(["--config", str(config), "--out", str(run), "--trainer.max_epochs=1", "--ckpt_path", "last"])
    assert (run / "metrics.csv").read_text() == before
    train(["--config", str(config), "--out", str(run), "--trainer.max_epochs=2", "--ckpt_path", "last"])
    assert list(losses(run)) == list(range(12))


def test_mixed_precision_is_configuration(config, tmp_path):
    run = train(["--config", str(config), "--out", str(tmp_path / "run"), "--trainer.precision=bf16-mixed"])
    values = [float(value) for value in losses(run).values()]
    assert len(values) == 18 and all(abs(value) < 100 for value in values)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (
            "--model.separator.init_args.hiden=3",
            "model.separator.hiden: LTL has no such setting; did you mean 'hidden'?",
        ),
        ("--data.bach_size=3", "data.bach_size: StemFolders has no such setting; did you mean 'batch_size'?"),
        ("--model.sample_rate=fast", "model.sample_rate: 'fast' is not a whole number"),
        ("--modle.separator=x", "modle: no such setting; did you mean model?"),
        ("--config={modle: {separator: x}}", "modle: no such setting; did you mean model?"),
        ("--trainer.max_stepz=3", "trainer.max_stepz: no such setting; did you mean trainer.max_steps?"),
        ("--config={trainer: {max_stepz: 3}}", "trainer.max_stepz: no such setting; did you mean trainer.max_steps?"),
        ("--config=nowhere.yml", "nowhere.yml"),
        ("--model.separator.heads=3", "heads 3 must divide the width 8"),
        ("--ckpt_path=nowhere.ckpt", "nowhere.ckpt: no such checkpoint"),
        ("--data.root=nowhere", "nowhere/valid: no such folder"),
        ("--model.sources=[drums, bass]", "drums.wav: no such file"),
    ],
)
def test_a_mistake_is_one_clear_line(config, tmp_path, argument, said):
    if argument.startswith("--config={"):
        (tmp_path / "more.yml").write_text(argument.removeprefix("--config="))
        argument = f"--config={tmp_path / 'more.yml'}"
    with pytest.raises(UserError) as caught:
        train(["--config", str(config), "--out", str(tmp_path / "run"), argument])
    assert said in str(caught.value) and "\n" not in str(caught.value)
