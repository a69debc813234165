"""More processes, batches by accumulation and fewer bits give the training of one process in one batch in full."""

import csv
import os
import subprocess
import sys
import textwrap

import pytest
import soundfile
import torch
from conftest import SMALL_SEPARATORS
from data.test_stem_folders import stems
from lookalikes import write_stem_folders

from tasnet_attn import separators
from tasnet_attn.data.base import EpochSampler, ResumableLoader
from tasnet_attn.errors import UserError
from tasnet_attn.losses import SISNR, Spectral
from tasnet_attn.model import SourceSeparator
from tasnet_attn.training.command import train
from tasnet_attn.training.task import SeparationTask

CONFIG = """
model:
  sources: [guitar, backing]
  sample_rate: 8000
  encoder: {class_path: GatedEncoder, init_args: {n_filters: 12, kernel_size: 16}}
  separator: {class_path: LTL, init_args: {hidden: 8, heads: 2, transformer_layers: 1}}
  decoder: {class_path: LearnedDecoder, init_args: {n_filters: 12, kernel_size: 16}}
task: {optimizer: {class_path: Adam, init_args: {lr: 1e-3}}}
data: {class_path: StemFolders, init_args: {root: ROOT, segment: 0.1, batch_size: 2, segments_per_epoch: 13}}
trainer: {max_epochs: 2, accelerator: cpu, precision: 64-true, log_every_n_steps: 1, enable_progress_bar: false}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Segments of 800 samples, in some of which the guitar is silent; 5 of them to validate on."""
    folder = tmp_path_factory.mktemp("scaling")
    root = write_stem_folders(folder / "stems")
    write_stem_folders(root, (4100,), "valid")
    for file in root.glob("*/track0/guitar.wav"):
        samples, rate = soundfile.read(file)
        samples[1000:2800] = 0
        soundfile.write(file, samples, rate)
    conf = folder / "conf.yml"
    conf.write_text(CONFIG.replace("ROOT", str(root)))
    return conf


def metrics(run, key):
    with (run / "metrics.csv").open() as file:
        return [float(row[key]) for row in csv.DictReader(file) if row.get(key)]


def checkpoint(run, name="last"):
    return torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)


def train_and_keep_gradients(arguments):
    """The run folder, and the first step's gradients before they are clipped."""
    kept = {}

    def keep(self, optimizer):
        if self.global_step == 0:
            kept.update({name: p.grad.clone() for name, p in self.named_parameters()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SeparationTask, "on_before_optimizer_step", keep)
        return train(arguments), kept


def assert_close(ours, theirs, rtol=1e-10):
    """Relative to each tensor's largest value: a sum in another order changes the last bits of it."""
    assert ours.keys() == theirs.keys() and len(ours) > 10
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=rtol * expected.abs().max().item(), msg=name)


PATHS = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))]  # this file's and conftest's
PROCESS = textwrap.dedent("""
    import os, sys, warnings
    warnings.simplefilter("ignore")
    import torch
    torch.set_num_threads(1)
    sys.path[:0] = sys.argv[1].split(os.pathsep)
    from test_scaling import SeparationTask, train, train_and_keep_gradients

    step = SeparationTask.training_step
    def breaks_off(self, batch, index):
        if self.global_step == 5:
            raise InterruptedError
        return step(self, batch, index)

    out, *arguments = sys.argv[2:]
    run, gradients = train_and_keep_gradients([*arguments, "--out", f"{out}/run"])
    torch.save(gradients, f"{out}/gradients{os.environ['RANK']}.pt")
    arguments += ["--ema=0.9", "--model.separator.dropout=0.1", "--checkpoint.every_n_train_steps=2"]
    arguments += ["--trainer.precision=32-true"]  # Lightning restores float64 weights through float32
    train([*arguments, "--out", f"{out}/whole"])
    SeparationTask.training_step = breaks_off
    try:
        train([*arguments, "--out", f"{out}/broken"])
    except InterruptedError:
        SeparationTask.training_step = step
    train([*arguments, "--out", f"{out}/broken", "--ckpt_path=last"])
""")


@pytest.fixture(scope="module")
def two(config):
    """The folder of several runs by two processes that torchrun started, batches of 2 in each."""
    script, out = config.parent / "process.py", config.parent / "two"
    script.write_text(PROCESS)
    out.mkdir()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    finished = subprocess.run(
        [*torchrun, script, os.pathsep.join(PATHS), out, "--config", config, "--trainer.devices=2"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}, capture_output=True, text=True,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-3000:]
    return out


@pytest.mark.slow
def test_two_processes_train_as_one_on_the_same_global_batch(two, config, tmp_path):
    """To 1e-10: the first gradients, in both processes; to 1e-8: every loss, the gain, the weights after 6 steps."""
    arguments = ["--config", str(config), "--data.batch_size=4", "--data.segments_per_epoch=12"]
    run, gradients = train_and_keep_gradients([*arguments, "--out", str(tmp_path / "one")])
    for rank in (0, 1):
        assert_close(torch.load(two / f"gradients{rank}.pt", weights_only=True), gradients)
    for key, number in (("train_loss_step", 6), ("train_loss_epoch", 2), ("valid_loss", 2)):
        assert metrics(two / "run", key) == pytest.approx(metrics(run, key), rel=1e-8)
        assert len(metrics(run, key)) == number
    ours, theirs = checkpoint(two / "run")["state_dict"], checkpoint(run)["state_dict"]
    assert (ours["model.gain"] != 1).all()
    assert_close(ours, theirs, rtol=1e-8)


@pytest.mark.slow
def test_two_processes_leave_one_run_folder(two):
    assert sorted(path.name for path in (two / "run/checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert (two / "run/config.yml").is_file() and len(list((two / "run/tensorboard").glob("events*"))) == 1


@pytest.mark.slow
def test_two_processes_resume_to_the_same_weights(two):
    """Broken off in mid-epoch and resumed, with dropout and averaged weights: bit for bit."""
    assert metrics(two / "broken", "train_loss_step") == metrics(two / "whole", "train_loss_step")
    ours, theirs = checkpoint(two / "broken"), checkpoint(two / "whole")
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(ours[part][name], theirs[part][name]) for name in theirs[part])
    assert str(ours["optimizer_states"]) == str(theirs["optimizer_states"])


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("size", [3, 5, 6, 7])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_processes_share_a_split_without_rest_in_equally_many_batches(tmp_path, world, size, batch_size):
    segments = stems(write_stem_folders(tmp_path), segments_per_epoch=size).segments("train")
    shares = []
    for rank in range(world):
        loader = ResumableLoader(segments, batch_size=batch_size, sampler=EpochSampler(size, rank, world))
        shares.append([len(mixture) for mixture, _ in loader])
        assert len(shares[-1]) == len(loader)
    assert sum(map(sum, shares)) == size and len({len(share) for share in shares}) == 1
    keys = [key for rank in range(world) for key in EpochSampler(size, rank, world)]
    assert sorted(keys) == [(0, index) for index in range(size)]


def test_accumulated_gradients_are_those_of_one_batch(config, tmp_path):
    arguments = ["--config", str(config), "--trainer.max_epochs=1", "--data.segments_per_epoch=12"]
    one, expected = train_and_keep_gradients([*arguments, "--out", str(tmp_path / "one"), "--data.batch_size=4"])
    arguments += ["--trainer.accumulate_grad_batches=2"]
    run, gradients = train_and_keep_gradients([*arguments, "--out", str(tmp_path / "accumulated")])
    assert_close(gradients, expected)
    assert_close(checkpoint(run)["state_dict"], checkpoint(one)["state_dict"], rtol=1e-8)


def small(name):
    """A small model of every kind, and a loss for it."""
    if name in ("LTL", "TasNet"):
        ends, loss = ("GatedEncoder", "LearnedDecoder"), SISNR()
        filters = {"n_filters": 12, "kernel_size": 16}
    else:
        ends, loss = ("STFTEncoder", "STFTDecoder"), Spectral()
        filters = {"n_fft": 64, "hop": 16}
    encoder, decoder = ({"class_path": end, "init_args": filters} for end in ends)
    separator = {"class_path": name, "init_args": SMALL_SEPARATORS[name]}
    config = {"encoder": encoder, "separator": separator, "decoder": decoder}
    return SourceSeparator.from_config({"sources": ["guitar", "backing"], "sample_rate": 8000, **config}), loss


def first_step(name, precision):
    torch.manual_seed(0)
    model, loss = small(name)
    task = SeparationTask(model.to(precision if precision == torch.float64 else torch.float32), loss)
    references = torch.randn(2, 2, 1, 1024).to(next(task.parameters()).dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        value, _ = task._loss((references.sum(1), references))
    value.backward()
    return value, {name: p.grad for name, p in task.named_parameters()}


@pytest.mark.parametrize("name", [name for name in SMALL_SEPARATORS if hasattr(separators, name)])
def test_a_step_in_other_precisions(name):
    """float64 stays float64; bfloat16 autocast is finite and near it; every parameter gets a gradient, as DDP asks."""
    exact, gradients = first_step(name, torch.float64)
    assert exact.dtype == torch.float64 and all(g.dtype == torch.float64 for g in gradients.values())
    mixed, rough = first_step(name, torch.bfloat16)
    assert mixed.dtype == torch.float32 and all(g.isfinite().all() for g in rough.values())
    plain, _ = first_step(name, torch.float32)
    assert mixed.item() == pytest.approx(plain.item(), rel=0.05, abs=0.1)


@pytest.mark.slow
def test_what_feeds_a_gpu_changes_nothing_that_is_learned(config, tmp_path, monkeypatch):
    """Compiled, with a fused optimiser, weights with channels last: the losses of a plain training."""
    compiled, real = [], torch.compile  # without a compiler of C++: the graph is captured, and run as it is
    monkeypatch.setattr(torch, "compile", lambda f: compiled.append(f) or real(f, backend="eager"))
    arguments = ["--config", str(config), "--trainer.max_steps=3"]
    plain = train([*arguments, "--out", str(tmp_path / "plain")])
    arguments += ["--task.compile=true", "--task.channels_last=true", "--task.optimizer.init_args.fused=true"]
    fed = train([*arguments, "--out", str(tmp_path / "fed")])
    assert compiled
    expected = metrics(plain, "train_loss_step")
    assert len(expected) == 3 and metrics(fed, "train_loss_step") == pytest.approx(expected, rel=1e-8)
    assert_close(checkpoint(fed)["state_dict"], checkpoint(plain)["state_dict"], rtol=1e-6)


def test_channels_last_is_of_two_dimensional_convolutions():
    model, loss = small("Hourglass")
    task = SeparationTask(model, loss, channels_last=True)
    weights = [p for p in task.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert weights and all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trainer.accelerator=gpu", "--trainer.devices=2"], "gpu"),
        (["--trainer.precision=bf16-mixd"], "trainer.precision"),
        (["--ema=1.5"], "ema: 1.5 must be at most 1"),
        (["--trainer.strategy=dpd"], "dpd"),
    ],
)
def test_a_mistake_is_one_clear_line(config, tmp_path, arguments, said):
    if "--trainer.accelerator=gpu" in arguments and torch.cuda.is_available():
        pytest.skip("there are GPUs here")
    with pytest.raises(UserError) as caught:
        train(["--config", str(config), "--out", str(tmp_path / "run"), *arguments])
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_torchrun_and_the_trainer_agree_on_the_number_of_processes(config, tmp_path, monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="torchrun started 2 processes, but the trainer expects 1; set --trainer.devic"):
        train(["--config", str(config), "--out", str(tmp_path / "run"), "--trainer.devices=1"])
