"""What version 0.1.0 wrote: model files and a run folder, with classes by full paths, some of which moved since."""

import csv
import json
import shutil

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

from tasnet_attn import load
from tasnet_attn.cli import main

EARLIER = ROOT / "tests" / "golden" / "version_0.1.0"


@pytest.fixture
def run(tmp_path):
    shutil.copytree(EARLIER / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(("model", "key"), [("model.safetensors", ""), ("run", "run ")])
def test_models_load_and_compute_what_they_did(model, key):
    stored = load_file(EARLIER / "output.safetensors")
    with torch.no_grad():
        estimates = load(EARLIER / model)(stored[f"{key}mixture"])
    torch.testing.assert_close(estimates, stored[f"{key}estimates"], atol=1e-5, rtol=1e-3)


@pytest.mark.slow
def test_a_run_is_evaluated(run, tmp_path):
    assert main(["evaluate", "--model", str(run), "--data", str(run), "--split", "test", "--out", str(tmp_path)]) == 0
    scores = json.loads((tmp_path / "summary.json").read_text())["scores"]
    assert set(scores) == {"guitar", "backing"}


@pytest.mark.slow
def test_a_run_resumes_where_it_was(run):
    """Four steps of eight are the run's own; four follow, those of an unbroken run.

    (Version 0.1.0 itself would have skipped an epoch here, and gone on with other excerpts.)
    """
    command = ["train", "--config", str(run / "config.yml"), "--out", str(run), "--ckpt_path", "last"]
    assert main([*command, "--trainer.max_steps", "8"]) == 0
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    losses = [float(row["train_loss_step"]) for row in rows if row["train_loss_step"]]
    expected = [33.128, 31.397, 29.475, 24.566, 22.364, 17.742, 18.852, 18.964]
    assert losses == pytest.approx(expected, rel=0.02)
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 8
