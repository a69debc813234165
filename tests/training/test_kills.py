"""Killed at any point, with checkpoints at any interval, and resumed: bit for bit the unbroken run."""

import csv
import random
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from lookalikes import write_stem_folders
from training.test_train import CONFIG, FALLING, plain_data

from tasnet_attn.training.command import train

SCRIPT = textwrap.dedent("""
    import os, signal, sys
    import torch
    from pytorch_lightning import Trainer
    from tasnet_attn.cli import main
    from tasnet_attn.training.guard import Guard
    threads, number, step, hook, *arguments = sys.argv[1:]
    torch.set_num_threads(int(threads))  # sums in another order differ in the last bit
    before = getattr(Guard, hook)
    def killed(self, trainer, *rest):
        before(self, trainer, *rest)
        if trainer.global_step >= int(step) and not trainer.sanity_checking:
            setattr(Guard, hook, before)
            os.kill(os.getpid(), int(number))
    setattr(Guard, hook, killed)
    sys.exit(main(["train", *arguments]))
""")
HOOKS = (
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_batch_end",
    "on_validation_end",
    "on_train_epoch_end",
)


PARTS = ("state_dict", "global_step", "optimizer_states", "lr_schedulers", "rng", "epoch")


def stopping(checkpoint):
    """What early stopping and the best checkpoint know."""
    return [
        [str(state.get(key)) for key in ("wait_count", "best_score", "best_model_score")]
        for name, state in sorted(checkpoint["callbacks"].items())
        if not name.startswith(("LastCheckpoint", "Guard"))
    ]


def table(run):
    """The rows of metrics.csv but for times."""
    with (run / "metrics.csv").open() as file:
        rows = [
            {k: v for k, v in row.items() if v and k not in ("epoch_seconds", "loader_share")}
            for row in csv.DictReader(file)
        ]
    return [row for row in rows if row.keys() - {"step", "epoch"}]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    root = write_stem_folders(folder / "stems")
    write_stem_folders(root, (2000,), "valid")
    (folder / "conf.yml").write_text(CONFIG.replace("ROOT", str(root)))
    settings = ["--config", str(folder / "conf.yml"), *FALLING, "--data.segment=0.05"]
    return settings, train([*settings, "--out", str(folder / "whole")])


@pytest.mark.slow
@pytest.mark.parametrize("draw", ["between an epoch's last step and its validation", *range(12)])
def test_a_kill_anywhere(unbroken, tmp_path, draw):
    """Three epochs of six steps."""
    settings, whole = unbroken
    drawn = random.Random(draw)
    number = drawn.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    step, hook, interval = drawn.randrange(1, 18), drawn.choice(HOOKS), drawn.randrange(1, 8)
    if isinstance(draw, str):  # where a checkpoint is due
        number, step, hook, interval = signal.SIGKILL, 6, "on_validation_start", 3
    out = ["--out", str(tmp_path / "run"), f"--checkpoint.every_n_train_steps={interval}", "--ckpt_path=last"]
    script = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(torch.get_num_threads()), str(int(number)), str(step)]
    process = subprocess.run([*script, hook, *settings, *out], capture_output=True, text=True)
    wanted = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert process.returncode == wanted, process.stderr[-2000:]
    train([*settings, *out])
    for name, parts in (("last", PARTS), ("best", PARTS[:2])):
        ours, theirs = (
            torch.load(r / f"checkpoints/{name}.ckpt", weights_only=True) for r in (tmp_path / "run", whole)
        )
        for part in parts:
            assert plain_data(ours[part], tmp_path) == plain_data(theirs[part], tmp_path), (name, part)
        assert stopping(ours) == stopping(theirs)
    assert table(tmp_path / "run") == table(whole), (number, step, hook, interval)
