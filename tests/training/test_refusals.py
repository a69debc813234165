"""Bad values, absurd sizes, a killed reader: one line, and no run folder; and what a training prints."""

import csv
import os
import signal
import subprocess
import sys

import pytest
from training.test_resuming import begun  # noqa: F401  a fixture

from tasnet_attn.cli import main
from tasnet_attn.config import read_yaml
from tasnet_attn.data.segments import Segments
from tasnet_attn.errors import UserError
from tasnet_attn.options import recipe
from tasnet_attn.training.command import train

STFT = [f"--model.{end}=STFT{end.title()}" for end in ("encoder", "decoder")]
STFT += [f"--model.{end}.{size}" for end in ("encoder", "decoder") for size in ("n_fft=64", "hop=16")]

GAMMATONE = ["--model.encoder=GammatoneEncoder"]
GAMMATONE += [f"--model.encoder.{key}" for key in ("n_filters=12", "kernel_size=16", "sample_rate=16000")]


@pytest.fixture
def arguments(begun, tmp_path):  # noqa: F811
    return ["--config", str(begun / "conf.yml"), "--out", str(tmp_path / "run"), "--trainer.max_steps=2"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["--data.batch_size=0"], "data.batch_size: 0 must be at least 1"),
        (["--data.segment=0"], "segment 0.0 s must be longer than 0"),
        (["--data.segment=.nan"], "data.segment: nan is not a finite number"),
        (["--data.workers=-1"], "data.workers: -1 must be at least 0"),
        (["--model.separator.heads=0"], "model.separator.heads: 0 must be at least 1"),
        (["--model.separator.transformer_layers=-1"], "model.separator.transformer_layers: -1 must be at least 0"),
        (["--model.separator.ffn=0"], "model.separator.ffn: 0 must be at least 1"),
        ([*STFT, "--model.encoder.hop=0"], "model.encoder.hop: 0 must be at least 1"),
        ([*STFT, "--model.decoder.hop=0"], "model.decoder.hop: 0 must be at least 1"),
        ([*STFT, "--model.decoder.drop=dc"], "model.decoder.drop: dc is not the encoder's None; use the same value"),
        ([*STFT, "--model.decoder.window=hamming"], "model.decoder.window: hamming is not the encoder's hann"),
        (
            [*STFT, "--model.encoder.power=0.3", "--model.head=Magnitude", "--task.loss=Spectral"],
            "model.head.power: 1.0 is not the encoder's 0.3",
        ),
        (
            [*STFT, "--model.encoder.power=0.3", "--task.loss=Spectral"],
            "task.loss: Spectral compares masked features, and a mask for |X|**0.3 does not fit X",
        ),
        (
            ["--task.loss=Spectral"],
            "task.loss: Spectral compares features and does not train the decoder LearnedDecoder",
        ),
        *(
            (
                [*STFT, "--model.head=Magnitude", "--model.head.mask=binary", f"--task.loss={loss}"],
                "binary masks have no",
            )
            for loss in ("SNR", "MixIT")
        ),
        (
            ["--model.encoder=STFTEncoder", "--model.encoder.n_fft=22", "--model.encoder.hop=11"],
            "model.decoder: LearnedDecoder does not fit the encoder STFTEncoder",
        ),
        (GAMMATONE, "model.encoder.sample_rate: 16000 is not the model's 8000; use the same value for both"),
        ([*STFT, "--model.encoder.normalise=x"], "'x' is neither 'max' nor null"),
        (["--model.sample_rate=null"], "model.sample_rate: null is not a whole number"),
        (["--model.sample_rate=0"], "model.sample_rate: 0 must be at least 1"),
        (["--model.segment=-1"], "model.segment: -1.0 must be at least 0"),
        (["--model.interchangeable='no'"], "model.interchangeable: 'no' is not true or false"),
        (["--task.optimizer.init_args.lr=-1"], "learning rate"),
        (["--model.separator.hidden=1000000000"], "memory"),
        (["--model.separator.hidden=1e30"], "must be at most"),
        (["--trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val"),
        (["--trainer.gradient_clip_val=.nan"], "trainer.gradient_clip_val"),
        (["--trainer.accumulate_grad_batches=0"], "accumulate_grad_batches"),
        (["--ema=.nan"], "ema"),
        (["--early_stopping.patience=-1"], "early_stopping.patience"),
        (["--trainer.max_steps=-5"], "max_steps"),
        (["--trainer.devices=0"], "devices"),
        (["--task.optimizer.init_args.lr=.nan"], "task.optimizer.lr: nan is not a finite number"),
        (["--seed_everything=-1"], "seed_everything"),
        (["--model.separator.ffn=100000000000"], "memory"),
        (["--model.separator.transformer_layers=100000000"], "fewer layers"),
    ],
)
def test_a_bad_value_is_one_line_and_leaves_nothing(arguments, tmp_path, values, said):
    with pytest.raises(UserError) as caught:
        train([*arguments, *values])
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["--trainer.max_epochs=0", "--trainer.max_steps=-1"], "no step was requested"),
        (["--trainer.limit_train_batches=0", "--trainer.logger=true"], "no step was requested"),
        (["--trainer.limit_train_batches=0.001"], "limit_train_batches"),
        (["--trainer.val_check_interval=0"], "trainer.val_check_interval: 0 must be above 0"),
        (["--trainer.val_check_interval=100"], "less than or equal to the number of the training batches"),
        (["--trainer.devices=foo"], "devices"),
        (["--trainer.precision=transformer-engine"], "not met"),
        (["--trainer.barebones=true"], "trainer.barebones: measures speed"),
        (["--trainer.logger=CSVLogger"], "trainer.logger: CSVLogger: the following arguments are required: save_dir"),
        (["--trainer.logger=NoLogger"], "trainer.logger: no class 'NoLogger'"),
        (["--task.optimizer.lr=abc"], "task.optimizer.lr: Expected a <class 'float'>"),
        (["--task.lr_scheduler=StepLR"], "task.lr_scheduler: the following arguments are required: step_size"),
        (["--checkpoint.filename=other"], "checkpoint.filename: runs resume from last.ckpt"),
        (["--checkpoint.save_weights_only=true"], "checkpoint.save_weights_only: runs resume from last.ckpt"),
        (
            ["--model.encoder.n_filters=13"],
            "model.decoder.n_filters: 12 is not the encoder's 13; use the same value for both",
        ),
        (["--model.decoder.kernel_size=20"], "model.decoder.kernel_size: 20 is not the encoder's 16"),
        (["--out="], "--out: needs a value"),
        (["--data.root=nowhere"], "nowhere/valid: no such folder"),
    ],
)
def test_a_setting_that_lightning_refuses_is_one_line_and_leaves_nothing(arguments, tmp_path, values, said):
    test_a_bad_value_is_one_line_and_leaves_nothing(arguments, tmp_path, values, said)


@pytest.mark.slow
def test_what_is_monitored_is_measured(arguments):
    """Not only said when the patience would have ended the run."""
    with pytest.raises(
        UserError, match="early_stopping.monitor: 'valid_los' is not measured; choose from .*valid_loss,"
    ):
        train([*arguments, "--early_stopping.monitor=valid_los", "--trainer.max_steps=9"])


@pytest.mark.slow
def test_a_run_keeps_the_seed_that_it_drew(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    run = train([*arguments, "--seed_everything=true"])
    monkeypatch.delenv("PL_GLOBAL_SEED")
    seed = read_yaml(run)["seed_everything"]
    train([*arguments, "--seed_everything=true", "--ckpt_path=last", "--trainer.max_steps=5"])
    assert read_yaml(run)["seed_everything"] == seed and not (run / "history.json").exists()
    capsys.readouterr()
    best = f"--ckpt_path={run / 'checkpoints/best.ckpt'}"
    train([*arguments, "--seed_everything=true", best, "--trainer.max_steps=5"])
    assert "finished after 5 steps" in capsys.readouterr().err  # not 4, as of the best


def test_a_killed_reader_is_one_line(arguments, monkeypatch):
    monkeypatch.setattr(Segments, "__getitem__", lambda self, key: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(UserError, match="a process that reads data was killed") as caught:
        train([*arguments, "--data.workers=1", "--trainer.num_sanity_val_steps=0"])
    assert caught.value.status == 1 and "\n" not in str(caught.value)


def test_two_lines_and_one_for_each_epoch(arguments, begun, tmp_path, capfd):  # noqa: F811
    conf = tmp_path / "conf.yml"
    text = (begun / "conf.yml").read_text()
    conf.write_text(text.replace(", enable_progress_bar: false", ""))
    assert main(["train", "--config", str(conf), *arguments[2:], "--trainer.max_steps=8"]) == 0
    lines = "".join(capfd.readouterr()).splitlines()
    assert any("1_trans_0" in line and "parameters" in line and "8000 Hz" in line for line in lines[:3])
    assert sum(line.startswith("epoch ") and "valid_si_snr" in line for line in lines) == 2
    assert len(lines) == 4 and not any("litlogger" in line or "TPU" in line for line in lines)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "GPU available" in log  # what Lightning says of itself is there
    again = ["--out", str(tmp_path / "quiet"), "--trainer.max_steps=1", "--trainer.limit_val_batches=0"]
    assert main(["train", "--config", str(conf), *again, "--quiet"]) == 0
    (warning,) = "".join(capfd.readouterr()).splitlines()
    assert "ended without a validation" in warning


@pytest.mark.slow
def test_the_demo_recipe_through_a_pipe_prints_few_lines(tmp_path):
    files = [f"--config={recipe('demo') / name}" for name in ("base.yml", "ltl/conf.yml")]
    short = ["--data.segments_per_epoch=6", "--data.segment=0.1", "--trainer.limit_val_batches=1", "--data.workers=0"]
    command = [sys.executable, "-m", "tasnet_attn.cli", "train", *files, *short, f"--out={tmp_path / 'run'}"]
    command += ["--trainer.max_epochs=6", "--trainer.max_steps=-1"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    lines = done.stdout.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 6 and len(lines) == 8
    for word in ("litlogger", "TPU", "weights_only", "v_num", "Warning", "warning"):
        assert word not in done.stdout


@pytest.mark.parametrize("more", [[], ["--model.interchangeable=true"]])
def test_common_figures_of_a_validation(arguments, more):
    """SI-SNR is the negative of the loss that is it, for sources heard throughout; and every source has its own."""
    run = train([*arguments, *more, "--trainer.max_steps=4", "--trainer.logger=null"])
    with (run / "metrics.csv").open() as file:
        (row,) = [row for row in csv.DictReader(file) if row.get("valid_loss")]
    assert float(row["valid_si_snr"]) == pytest.approx(-float(row["valid_loss"]), abs=1e-3)
    both = [float(row[f"valid_si_snr_{source}"]) for source in ("guitar", "backing")]
    assert sum(both) / 2 == pytest.approx(float(row["valid_si_snr"]), abs=1e-3)
