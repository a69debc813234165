"""Every recipe builds at full size; its run.sh goes through its stages at reduced size on look-alikes of its data."""

import csv
import inspect
import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from statistics import mean

import pytest
import torch
import yaml
from lookalikes import write_everything
from warm_python import warm_python

from tasnet_attn import filterbanks, heads, separators
from tasnet_attn.compat import museval
from tasnet_attn.model import SourceSeparator
from tasnet_attn.training.command import parse

RECIPES = Path(__file__).parents[2] / "recipes"
CONFS = sorted(RECIPES.rglob("conf.yml"))


def name_of(conf):
    return conf.parent.relative_to(RECIPES).as_posix()


each_recipe = pytest.mark.parametrize("conf", CONFS, ids=name_of)


def test_how_many_recipes_there_are():
    assert len(CONFS) == 20
    assert all(len(conf.relative_to(RECIPES).parts) == 3 for conf in CONFS)


def declared(conf):
    """The lines that say something: neither comments nor headings."""
    lines = (" ".join(line.split("#")[0].split()) for line in conf.read_text().splitlines())
    return {line for line in lines if line and not line.endswith(":")}


def test_recipes_are_short_and_no_copies():
    """Under 60 lines in a folder, its README apart; one run.sh of two lines for all.

    Beside it two recipes have in common only lines that name the same published part: mir1k's hourglasses six for their
    spectrogram, masks and windows, others three at most.
    """
    for conf in CONFS:
        files = [file for file in conf.parent.rglob("*") if file.is_file() and file.name != "README.md"]
        assert sum(len(file.read_text().splitlines()) for file in files) < 60, conf
        assert {file.suffix for file in files} == {".sh", ".yml"}, conf
        assert len((conf.parent / "run.sh").read_text().splitlines()) == 2 and os.access(
            conf.parent / "run.sh", os.X_OK
        )
    assert len({(conf.parent / "run.sh").read_text() for conf in CONFS}) == 1
    for one, other in combinations(CONFS, 2):
        same_front_end = one.parts[-3] == other.parts[-3] == "mir1k" and "ltl" not in (one.parts[-2], other.parts[-2])
        common = declared(one) & declared(other) - {"data: {init_args: {sampling: starts}}", "class_path: Hourglass"}
        assert len(common) <= (6 if same_front_end else 3), f"{name_of(one)} and {name_of(other)}: {common}"


def configuration(conf):
    """The recipe's full configuration, every default included."""
    return parse(["--config", str(conf.parents[2] / "base.yml"), "--config", str(conf)])


@each_recipe
def test_a_recipe_parses_and_builds_at_full_size(conf):
    with torch.device("meta"):
        model = SourceSeparator.from_config(configuration(conf)["model"])
    assert all(parameter.is_meta for parameter in model.parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) > 100_000
    if model.segment is None:
        frames = model.encoder(torch.zeros(1, model.sample_rate, device="meta")).features
        assert model.separator(frames)[-1].shape == (1, len(model.sources), *frames.shape[1:])


def test_configurations_state_departures_only():
    """No value in a YAML file that the constructor has already."""
    classes = {name: cls for module in (filterbanks, heads, separators) for name, cls in vars(module).items()}
    for conf in CONFS:
        for part in yaml.safe_load(conf.read_text())["model"].values():
            if isinstance(part, dict) and "class_path" in part:
                parameters = inspect.signature(classes[part["class_path"]].__init__).parameters
                for key, value in part.get("init_args", {}).items():
                    assert parameters[key].default != value, f"{conf}: {key} is {value} anyway"


# ---- run.sh ---------------------------------------------------------------------------------------------------------

STEPS = 24
SEPARATOR = "model.separator.init_args"
BRIEF = {
    "trainer.max_steps": STEPS, "trainer.log_every_n_steps": 1, "trainer.check_val_every_n_epoch": 1,
    "trainer.accelerator": "cpu", "trainer.enable_progress_bar": "false",
    "data.segments_per_epoch": 2 * STEPS, "data.batch_size": 2, "data.segment": 0.5, "data.workers": 0,
    "task.optimizer": "Adam", "task.optimizer.init_args.lr": 5e-3,
}  # fmt: skip
LEARNED = {"model.encoder.n_filters": 96, "model.decoder.n_filters": 96}


def spectrogram(n_fft, hop):
    """Of encoder and decoder."""
    parts = ("model.encoder.init_args", "model.decoder.init_args")
    return {f"{part}.{key}": value for part in parts for key, value in (("n_fft", n_fft), ("hop", hop))}


TINY = {  # what makes a separator small
    "LTL": {f"{SEPARATOR}.hidden": 32, f"{SEPARATOR}.heads": 2, f"{SEPARATOR}.ffn": 32},
    "TasNet": {f"{SEPARATOR}.hidden": 32},
    "Hourglass": spectrogram(256, 64) | {
        f"{SEPARATOR}.n_stacks": 1, f"{SEPARATOR}.n_poolings": 2,
        f"{SEPARATOR}.channels": 32, f"{SEPARATOR}.stem": "[8]",
        "model.segment": 0.504, "data.segment": 0.504,  # 64 frames, as ever
        "task.optimizer.init_args.lr": 2e-3,
    },
    "SamsNet": spectrogram(512, 256) | {
        f"{SEPARATOR}.n_modules": 1, f"{SEPARATOR}.channels": 4, "model.segment": 0.5, "data.channels": "mean",
    },
    "AudioSlots": {
        f"{SEPARATOR}.encoder": "ResNet", f"{SEPARATOR}.encoder.init_args.channels": 8,
        f"{SEPARATOR}.encoder.init_args.blocks": "[1,1,1,1]", f"{SEPARATOR}.encoder.init_args.groups": 4,
        f"{SEPARATOR}.slots": "QueryTransformer", f"{SEPARATOR}.slots.init_args.width": 64,
        f"{SEPARATOR}.slots.init_args.n_layers": 1, f"{SEPARATOR}.decoder_hidden": 32,
        "task.lr_scheduler.init_args.warmup_steps": 2, "task.lr_scheduler.init_args.total_steps": STEPS,
    },
}  # fmt: skip
TINY["SkipAttentionHourglass"] = TINY["Hourglass"]
ELSEWHERE = {  # the bundled songs take long to score; and one recipe reads MUSDB18's other layout
    "demo/ltl_gammatone": {"data.root": "data/own_stems"},
    "demo/tasnet": {"data.root": "data/own_stems"},
    "musdb18/ltl_gammatone": {"data.root": "data/MUSDB18-HQ"},
}
PLAIN = "demo/ltl"  # the one that gets an ordinary Python, the bundled songs and the last stage


def options(conf):
    """The command line that makes a recipe small and short."""
    model = yaml.safe_load(conf.read_text())["model"]
    kind = model["separator"] if isinstance(model["separator"], str) else model["separator"]["class_path"]
    chosen = BRIEF | TINY[kind] | ELSEWHERE.get(name_of(conf), {})
    if "LearnedDecoder" in str(model.get("decoder")):
        chosen |= LEARNED
    return [f"--{key}={value}" for key, value in chosen.items()]


def run_sh(recipe, folder, *arguments):
    """Run it with the tag `test`; returns the finished process and the run folder."""
    finished = subprocess.run(
        [RECIPES / recipe / "run.sh", "--tag", "test", *arguments], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    return finished, folder / "exp" / f"{recipe.replace('/', '_')}_test"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_everything(tmp_path_factory.mktemp("recipes"))


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    with warm_python(tmp_path_factory.mktemp("warm")) as executable:
        yield executable


@each_recipe
def test_a_recipe_from_run_sh(conf, folder, request):
    """Data checked, loss fallen, scores and page written."""
    plain = name_of(conf) == PLAIN
    python, stop = (sys.executable, "4") if plain else (request.getfixturevalue("python"), "3")
    finished, run = run_sh(name_of(conf), folder, "--python", python, "--stop-stage", stop, *options(conf))
    assert finished.returncode == 0, finished.stderr[-2000:]
    for stage in ("data", "train into", "evaluate", "report"):
        assert f": {stage}" in finished.stdout
    config = yaml.safe_load((run / "config.yml").read_text())

    with (run / "metrics.csv").open() as file:
        losses = [float(row["train_loss_step"]) for row in csv.DictReader(file) if row["train_loss_step"]]
    assert len(losses) == STEPS
    before, after = mean(losses[:6]), mean(losses[-6:])
    print(*(f"{loss:.3g}" for loss in losses))  # pytest shows it of a failure
    if "Spectral" in str(config["task"]["loss"]):
        assert after < 0.9 * before
    else:
        assert after < before - 3  # dB

    evaluation = run / "evaluation"
    tracks = {path.stem: json.loads(path.read_text()) for path in evaluation.glob("*.json") if path.stem != "summary"}
    store = museval.EvalStore()
    for track, document in tracks.items():
        store.add_track(museval.json2df(document, track))
    assert set(store.df.target) == set(config["model"]["sources"])
    assert set(store.df.metric) == {"SDR", "SIR", "SAR", "ISR"}
    assert store.df.score.notna().all()
    with (evaluation / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["track"], row["source"]) for row in rows} == {
        (t, s) for t in tracks for s in config["model"]["sources"]
    }
    assert set(json.loads((evaluation / "summary.json").read_text())["scores"]) == set(config["model"]["sources"])
    assert 'class="player"' in (evaluation / "report.html").read_text()
    assert (run / "model.safetensors").is_file() == plain


def test_no_stage_is_due(tmp_path):
    assert run_sh(PLAIN, tmp_path, "--python", sys.executable, "--stage", "9")[0].returncode == 0


def test_a_failing_stage_stops_the_recipe(tmp_path, python):
    finished, _ = run_sh(PLAIN, tmp_path, "--python", python, "--stop-stage", "2", "--data.root=nowhere")
    assert finished.returncode == 2
    assert "stage 1" not in finished.stdout and "nowhere" in finished.stderr
