"""SIGTERM and Ctrl-C, at whatever point, to one process and to two: saved, said once, the right status, resumed."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from conftest import ROOT
from training.test_kills import table
from training.test_resuming import begun, last  # noqa: F401  a fixture

from tasnet_attn.cli import main
from tasnet_attn.training.command import train
from tasnet_attn.training.guard import Guard
from tasnet_attn.training.task import SeparationTask

TERM, INT = signal.SIGTERM, signal.SIGINT
STATUS = {TERM: 143, INT: 130}


@pytest.fixture
def arguments(begun, tmp_path):  # noqa: F811
    return ["--config", str(begun / "conf.yml"), "--out", str(tmp_path / "run"), "--ckpt_path=last"]


def assert_same(ours, theirs):
    for name, value in last(theirs)["state_dict"].items():
        assert torch.equal(last(ours)["state_dict"][name], value), name
    assert table(ours) == table(theirs)


@pytest.mark.parametrize(("number", "status"), [(TERM, 143), pytest.param(INT, 130, marks=pytest.mark.slow)])
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
    assert_same(run, whole)
    assert signal.getsignal(number) is not None


def killing(monkeypatch, hook, number, step=0):
    """Send a signal to this process in a callback's hook, once."""
    before, sent = getattr(Guard, hook), []

    def killed(self, trainer, *rest, **more):
        before(self, trainer, *rest, **more)
        if trainer.global_step >= step and not sent:
            sent.append(os.kill(os.getpid(), number))

    monkeypatch.setattr(Guard, hook, killed)


@pytest.mark.parametrize(
    ("hook", "step", "number", "said"),
    [
        ("on_sanity_check_start", 0, TERM, "before there was anything to save"),
        pytest.param("setup", 0, TERM, "before there was anything to save", marks=pytest.mark.slow),
        pytest.param("on_train_epoch_start", 0, INT, "saved at step 1", marks=pytest.mark.slow),
        pytest.param("on_validation_start", 3, TERM, "saved at step 3", marks=pytest.mark.slow),
        pytest.param("on_save_checkpoint", 2, TERM, "saved at step 3", marks=pytest.mark.slow),
        pytest.param("on_validation_end", 6, INT, "after training had finished", marks=pytest.mark.slow),
    ],
)
def test_one_process(arguments, tmp_path, monkeypatch, capsys, hook, step, number, said):
    """Of a run of two epochs of 3 steps."""
    arguments += ["--trainer.max_epochs=2", "--trainer.max_steps=-1", "--data.segments_per_epoch=6"]
    arguments = [*arguments, "--checkpoint.every_n_train_steps=2"] if hook == "on_save_checkpoint" else arguments
    killing(monkeypatch, hook, number, step)
    assert main(["train", *arguments]) == STATUS[number]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tasnet-attn: ")]
    assert said in line and str(tmp_path / "run") in line
    assert (tmp_path / "run/finished").exists() == ("finished" in said)
    assert (tmp_path / "run/checkpoints/last.ckpt").exists() == (hook not in ("setup", "on_sanity_check_start"))


@pytest.mark.slow
@pytest.mark.parametrize("number", STATUS)
@pytest.mark.parametrize("words", [["validate"], ["fit", "--trainer.fast_dev_run=true"]], ids=" ".join)
def test_where_nothing_is_kept(arguments, tmp_path, monkeypatch, words, number):
    step = SeparationTask._loss
    monkeypatch.setattr(SeparationTask, "_loss", lambda *a: (os.kill(os.getpid(), number), step(*a))[1])
    if words[0] == "validate":
        arguments = [*arguments[:2], f"--out={tmp_path}", f"--ckpt_path={arguments[1][:-8]}run/checkpoints/best.ckpt"]
    try:
        status = main(["train", words[0], *arguments, *words[1:]])
    except SystemExit as ended:
        status = ended.code
    assert status == STATUS[number] and not (tmp_path / "run").exists()


# ---- two processes --------------------------------------------------------------------------------------------------

CASES = {  # hook, step, signal, the processes that get it, the message
    "step": ("on_train_batch_end", 2, TERM, [1], "saved at step 2"),
    "validation": ("on_validation_batch_end", 4, INT, [0], "saved at step 4"),
    "checkpoint": ("on_save_checkpoint", 2, TERM, [1], "saved at step 3"),
    "sanity": ("on_sanity_check_start", 0, TERM, [0], "before there was anything to save"),
    "setup": ("setup", 0, INT, [0, 1], "before there was anything to save"),
}
PROCESS = textwrap.dedent("""
    import contextlib, json, os, sys
    import torch
    torch.set_num_threads(1)
    sys.path[:0] = json.loads(sys.argv[1])
    import pytest
    from training.test_signals import CASES, killing, main

    folder, *arguments = sys.argv[2:]
    rank = int(os.environ["RANK"])

    def run(record, out, *more):
        with open(f"{folder}/{record}.{rank}", "w") as file, contextlib.redirect_stderr(file):
            try:
                status = main(["train", *arguments, f"--out={folder}/{out}", "--ckpt_path=last", *more])
            except SystemExit as ended:
                status = ended.code
            print("status", status, file=file)

    run("unbroken", "whole")
    for name, (hook, step, number, ranks, said) in CASES.items():
        more = ["--checkpoint.every_n_train_steps=2"] if name == "checkpoint" else []
        with pytest.MonkeyPatch.context() as patch:
            if rank in ranks:
                killing(patch, hook, number, step)
            run(name, name, *more)
        if said.startswith("saved"):
            run(f"{name}-resumed", name, *more)
""")
TWO = ["--trainer.devices=2", "--trainer.max_epochs=2", "--trainer.max_steps=-1", "--data.segments_per_epoch=16"]


@pytest.fixture(scope="module")
def two(begun):  # noqa: F811
    """The folder of several runs of 8 steps, 4 in an epoch, by two processes that torchrun started."""
    folder, script = begun / "two", begun / "process.py"
    folder.mkdir()
    script.write_text(PROCESS)
    paths = json.dumps([str(ROOT / "tests"), str(ROOT)])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script, paths]
    done = subprocess.run(
        [*torchrun, folder, "--config", begun / "conf.yml", *TWO], capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_end_together(two, name):
    """Whichever of them a signal comes to: saved, said once, both with its status; resumed, it equals the unbroken."""
    *_, number, _, said = CASES[name]
    records = [(two / f"{name}.{rank}").read_text() for rank in (0, 1)]
    assert [record.splitlines()[-1] for record in records] == [f"status {STATUS[number]}"] * 2
    assert "".join(records).count("ended by") == 1 and said in records[0], records
    if said.startswith("saved"):
        assert (two / f"{name}-resumed.1").read_text().endswith("status 0\n")
        assert_same(two / name, two / "whole")
    else:
        assert not (two / name / "checkpoints" / "last.ckpt").exists()


KILL = """
import os, signal
from pytorch_lightning import Callback
class Kill(Callback):
    def on_train_batch_start(self, trainer, *rest):
        if trainer.global_step == 1 and trainer.is_global_zero:
            os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.slow
def test_processes_that_lightning_launches(begun, tmp_path):  # noqa: F811
    """To the first one, as a user or a cluster sends it; its status is the command's."""
    (tmp_path / "killing_callback.py").write_text(KILL)
    command = [sys.executable, "-W", "ignore", "-m", "tasnet_attn.cli", "train", "--config", begun / "conf.yml", *TWO]
    command += ["--import=killing_callback", "--trainer.callbacks+=killing_callback.Kill", f"--out={tmp_path / 'run'}"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 143, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 3 and lines[-1].endswith("ended by SIGTERM, saved at step 2; resume with --ckpt_path last")
    assert last(tmp_path / "run")["global_step"] == 2
