"""Every recipe builds at full size; a demo recipe runs through its stages."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tasnet_attn.compat import museval
from tasnet_attn.model import SourceSeparator

RECIPES = Path(__file__).parents[1] / "recipes"
CONFS = sorted(RECIPES.glob("*/*/conf.yml"))


def test_how_many_recipes_there_are():
    assert len(CONFS) == 17
    assert all((conf.parent / "run.sh").read_text().count("\n") <= 2 for conf in CONFS)
    assert len({(conf.parent / "run.sh").read_text() for conf in CONFS}) == 1
    assert all(len(conf.read_text().splitlines()) < 40 for conf in CONFS)


@pytest.mark.parametrize("conf", CONFS, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_a_recipe_parses_and_builds_at_full_size(conf, tmp_path):
    from tasnet_attn.train import parse

    config = parse(["--config", str(conf.parents[1] / "base.yml"), "--config", str(conf)])
    with torch.device("meta"):
        model = SourceSeparator.from_config(config["model"])
    assert all(parameter.is_meta for parameter in model.parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) > 100_000
    if model.segment is None:
        frames = model.encoder(torch.zeros(1, model.sample_rate, device="meta")).features
        assert model.separator(frames)[-1].shape == (1, len(model.sources), *frames.shape[1:])


def test_a_demo_recipe_from_run_sh(tmp_path):
    """Stages 0-4 at reduced size: the loss falls, scores are written and museval reads them back."""
    small = [
        "--trainer.max_steps=24",
        "--data.segments_per_epoch=48",
        "--data.segment=0.25",
        "--trainer.log_every_n_steps=1",
    ]
    small += ["--model.separator.hidden=32", "--task.lr_scheduler.T_max=24", "--trainer.enable_progress_bar=false"]
    script = RECIPES / "demo/ltl/run.sh"
    finished = subprocess.run(
        [script, "--python", sys.executable, "--tag", "test", "--stop-stage", "4", *small],
        cwd=tmp_path, env=os.environ | {"PYTHONWARNINGS": "ignore"}, capture_output=True, text=True,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-2000:]
    run = tmp_path / "exp" / "demo_ltl_test"
    with (run / "metrics.csv").open() as file:
        losses = [float(row["train_loss_step"]) for row in csv.DictReader(file) if row["train_loss_step"]]
    assert sum(losses[-6:]) < sum(losses[:6])
    evaluation = run / "evaluation"
    store = museval.EvalStore()
    tracks = [path for path in evaluation.glob("*.json") if path.name != "summary.json"]
    for path in tracks:
        store.add_track(museval.json2df(json.loads(path.read_text()), path.stem))
    assert [path.stem for path in tracks] == ["metal-madness"]
    assert set(store.df.target) == {"guitar", "backing"}
    assert set(store.df.metric) == {"SDR", "SIR", "SAR", "ISR"}
    assert store.df.score.notna().any()
    assert (evaluation / "scores.csv").stat().st_size and (evaluation / "summary.json").stat().st_size
    assert list(run.rglob("*.html")) and (run / "model.safetensors").is_file()

    again = subprocess.run(
        [script, "--python", sys.executable, "--tag", "test", "--stage", "9"], cwd=tmp_path, capture_output=True
    )
    assert again.returncode == 0


def test_a_failing_stage_stops_the_recipe(tmp_path):
    finished = subprocess.run(
        [RECIPES / "demo/ltl/run.sh", "--python", sys.executable, "--stop-stage", "2", "--data.root=nowhere"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert finished.returncode == 2
    assert "stage 2" not in finished.stdout and "nowhere" in finished.stderr


def test_configurations_state_departures_only():
    """No value in a YAML file that the constructor has already."""
    import inspect

    from tasnet_attn import filterbanks, heads, separators

    for conf in CONFS:
        for part in yaml.safe_load(conf.read_text())["model"].values():
            if isinstance(part, dict) and "class_path" in part:
                cls = next(
                    vars(m)[part["class_path"]]
                    for m in (filterbanks, heads, separators)
                    if part["class_path"] in vars(m)
                )
                parameters = inspect.signature(cls.__init__).parameters
                for key, value in part.get("init_args", {}).items():
                    assert parameters[key].default != value, f"{conf}: {key} is {value} anyway"
