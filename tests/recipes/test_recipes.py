"""Every recipe builds; its run.sh goes through its stages at reduced size on look-alikes of its data."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest
import torch
import yaml
from lookalikes import write_everything, write_stem_folders
from warm_python import warm_python

from tasnet_attn import config
from tasnet_attn.compat import museval
from tasnet_attn.model import SourceSeparator
from tasnet_attn.storage.checkpoints import read_checkpoint
from tasnet_attn.storage.tensors import read_safetensors
from tasnet_attn.training.command import parse

RECIPES = Path(__file__).parents[2] / "recipes"
CONFS = sorted(RECIPES.rglob("conf.yml"))


def name_of(conf):
    return conf.parent.relative_to(RECIPES).as_posix()


each_recipe = pytest.mark.parametrize("conf", CONFS, ids=name_of)


def arguments(conf):
    """The recipe's configuration files; the modules that its run.sh imports are imported."""
    config.import_modules(re.findall(r"--import[ =](\S+)", (conf.parent / "run.sh").read_text()))
    here = conf.parent / "data.yml"
    files = [conf.parents[1] / "base.yml", conf, *([here] if here.is_file() else [])]
    return [part for file in files for part in ("--config", str(file))]


@each_recipe
def test_run_sh_is_two_lines(conf):
    script = conf.parent / "run.sh"
    shebang, line = script.read_text().splitlines()
    assert shebang == "#!/usr/bin/env bash" and os.access(script, os.X_OK)
    assert line.startswith('exec "$(dirname "$0")/../../recipe.sh" "$(dirname "$0")"') and line.endswith(' "$@"')


@pytest.mark.slow
@each_recipe
def test_a_recipe_parses_and_builds_at_full_size(conf):
    with torch.device("meta"):
        model = SourceSeparator.from_config(parse(arguments(conf))["model"])
    assert all(parameter.is_meta for parameter in model.parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) > 100_000
    if model.segment is None:
        excerpt = torch.zeros(1, model.sample_rate // 8, device="meta")  # LSTMs without numbers go frame by frame
        frames = model.encoder(excerpt).features
        assert model.separator(frames)[-1].shape == (1, len(model.sources), *frames.shape[1:])


PUBLISHED = {  # what the papers state, as the recipes' own files must say it, so that no default can change it
    "training of LTL": (
        ["musdb18/tasnet", "musdb18/ltl", "musdb18/ltl_causal", "musdb18/ltl_gammatone", "musdb18/ltl_bidirectional"],
        {
            "task.loss.class_path": "SISNR", "task.optimizer.class_path": "Adam", "task.optimizer.init_args.lr": 1e-4,
            "task.lr_scheduler.init_args.factor": 0.5, "task.lr_scheduler.init_args.patience": 2,
            "task.lr_scheduler.init_args.threshold": 0.0, "trainer.gradient_clip_val": 5, "early_stopping.patience": 10,
            "data.init_args.segment": 20, "data.init_args.split": "random", "data.init_args.segments_per_epoch": "data",
            "model.decoder.init_args.n_filters": 500, "model.decoder.init_args.kernel_size": 220,
            "model.separator.init_args.hidden": 500, "model.sources": ["vocals", "accompaniment"],
        },
    ),
    "TasNet for two speakers": (["librimix/tasnet"], {
        "model.encoder.init_args.n_filters": 500, "model.encoder.init_args.kernel_size": 40,
        "model.decoder.init_args.n_filters": 500, "model.decoder.init_args.kernel_size": 40,
        "model.separator.init_args.hidden": 500, "model.separator.init_args.n_layers": 4,
        "model.separator.init_args.bidirectional": True, "model.separator.init_args.input_norm": True,
    }),
    "10 % of the songs": (
        ["musdb18/tasnet", "musdb18/ltl", "musdb18/ltl_causal", "musdb18/ltl_gammatone"],
        {"data.init_args.fraction": 0.1},
    ),
    "LTL": (["musdb18/ltl"], {
        "model.separator.init_args.ffn": 256, "model.separator.init_args.init": "xavier_uniform",
        "model.separator.init_args.attention": "full",
    }),
    "LTL, causal": (["musdb18/ltl_causal"], {"model.separator.init_args.attention": "causal"}),
    "LTL both ways": (["musdb18/ltl_bidirectional"], {
        "model.separator.init_args.ffn": 2048, "model.separator.init_args.bidirectional": True,
        "data.init_args.fraction": 1.0,
    }),
    "Sams-Net": (["musdb18/samsnet"], {
        "model.encoder.init_args.n_fft": 4096, "model.encoder.init_args.hop": 1024, "model.segment": 6,
        "model.encoder.init_args.window": "hamming", "model.separator.init_args.channels": 64,
        "model.separator.init_args.n_modules": 3, "model.separator.init_args.heads": 2,
        "model.separator.init_args.slices": 12, "model.separator.init_args.scale": "channels",
        "task.loss.init_args.distance": "l2", "task.optimizer.init_args.lr": 1e-4, "task.lr_scheduler": None,
        "trainer.gradient_clip_val": None, "early_stopping.patience": 140, "data.init_args.segment": 6,
        "data.init_args.segments_per_epoch": 1000, "data.init_args.batch_size": 4, "data.init_args.channels": "all",
        "model.separator.init_args.joint": False,
    }),
    "training of Park's network": (
        ["mir1k/hourglass_park", "mir1k/hourglass_report", "mir1k/hourglass_constant", "mir1k/skip_attention"],
        {
            "model.sample_rate": 8000, "model.encoder.init_args.n_fft": 1024, "model.encoder.init_args.hop": 256,
            "model.encoder.init_args.window": "hann", "model.encoder.init_args.normalise": "max",
            "model.separator.init_args.n_stacks": 4, "model.stitch": "middle", "task.loss.init_args.distance": "l1",
            "task.optimizer.init_args.lr": 1e-4, "task.lr_scheduler.init_args.step_size": 12000,
            "task.lr_scheduler.init_args.gamma": 0.2, "data.init_args.batch_size": 4, "trainer.max_steps": 15001,
            "data.init_args.mixture": "mean", "trainer.gradient_clip_val": None,
        },
    ),
    "Park's network": (["mir1k/hourglass_park", "mir1k/skip_attention"], {
        "model.separator.init_args.n_poolings": 4, "model.separator.init_args.channels": 256,
        "model.separator.init_args.stem": [64, 128, 128, 128], "model.separator.init_args.batch_norm": False,
        "data.init_args.sampling": "clips",
    }),
    "the report's networks": (["mir1k/hourglass_report", "mir1k/hourglass_constant"], {
        "model.separator.init_args.n_poolings": 5, "model.separator.init_args.kernel_size": 3,
        "model.separator.init_args.batch_norm": True, "data.init_args.sampling": "starts",
    }),
    "SepFormer": (["librimix/sepformer"], {
        "model.encoder.init_args.n_filters": 256, "model.encoder.init_args.kernel_size": 16,
        "model.encoder.init_args.stride": 8, "model.decoder.init_args.stride": 8,
        "model.separator.init_args.width": 256,
        "model.separator.init_args.n_blocks": 2, "model.separator.init_args.fold.init_args.size": 250,
        "model.separator.init_args.norm": "global", "model.head.init_args.activation": "relu",
        "task.loss.init_args.cap": 30, "task.optimizer.init_args.lr": 1.5e-4, "data.init_args.batch_size": 1,
    } | {
        f"model.separator.init_args.{path}.init_args.{key}": value
        for path in ("within", "across")
        for key, value in {
            "transformer_layers": 8, "heads": 8, "ffn": 1024, "attention": "full", "positional": "sinusoidal",
            "norm": "pre", "project": False,
        }.items()
    }),
    "AudioSlots": (["librimix/audioslots", "librimix/audioslots_autoencoder"], {
        "model.sample_rate": 16000, "model.segment": 0.5, "model.encoder.init_args.n_fft": 512,
        "model.encoder.init_args.hop": 125, "model.encoder.init_args.power": 0.3, "model.head.init_args.power": 0.3,
        "model.separator.init_args.encoder.init_args.blocks": [3, 4, 6, 3],
        "model.separator.init_args.slots.init_args.width": 4096,
        "model.separator.init_args.slots.init_args.n_layers": 4, "task.loss.init_args.distance": "l2",
        "task.optimizer.init_args.lr": 2e-4, "task.lr_scheduler.init_args.warmup_steps": 2500,
        "task.lr_scheduler.init_args.total_steps": 300_000, "trainer.max_steps": 300_000,
        "data.init_args.batch_size": 64, "data.init_args.segment": 0.5, "trainer.gradient_clip_val": None,
    }),
}  # fmt: skip


def stated(conf):
    """What a recipe's files say, later ones over earlier ones: {"task.optimizer.init_args.lr": 1e-4}."""
    said = {}

    def add(value, path):
        if isinstance(value, dict):
            for key, item in value.items():
                add(item, f"{path}.{key}" if path else key)
        else:
            said[path] = value

    for file in arguments(conf)[1::2]:
        add(config.read_yaml(Path(file)), "")
    return said


@pytest.mark.parametrize(
    ("recipe", "values"),
    [pytest.param(name, values, id=f"{name}: {what}") for what, (names, values) in PUBLISHED.items() for name in names],
)
def test_published_recipes_state_what_the_papers_state(recipe, values):
    """In their YAML, and so in the run: a default may change, a published recipe does not."""
    conf = RECIPES / recipe / "conf.yml"
    said, full = stated(conf), parse(arguments(conf))
    for key, value in values.items():
        assert said.get(key, "nothing") == value, key
        ran = full
        for part in key.split("."):
            ran = ran[part]
        assert (ran.rpartition(".")[2] if key.endswith("class_path") else ran) == value, key


@each_recipe
def test_other_recipes_state_departures_only(conf):
    """No value in their YAML that the constructor has already."""
    if name_of(conf) in {name for names, _ in PUBLISHED.values() for name in names}:
        return
    components = config.read(arguments(conf)).ours["model"].values()
    classes = {config.name_of(cls): cls for cls in config.known(config.Configurable)}
    for part in components:
        if isinstance(part, dict) and part.get("class_path") in classes:
            settings = config.settings(classes[part["class_path"]])
            for key, value in part.get("init_args", {}).items():
                assert settings[key].default != value, f"{key} is {value} anyway"


# ---- run.sh ---------------------------------------------------------------------------------------------------------

STEPS, ROUNDS = 24, 10  # number of steps and of rounds of training
SEPARATOR = "model.separator.init_args"
BRIEF = {
    "trainer.max_epochs": ROUNDS, "trainer.log_every_n_steps": 1, "trainer.check_val_every_n_epoch": 1,
    "trainer.accelerator": "cpu", "trainer.enable_progress_bar": "false",
    "data.segments_per_epoch": 2 * STEPS, "data.batch_size": 2, "data.segment": 0.5, "data.workers": 0,
    "task.optimizer": "Adam", "task.optimizer.init_args.lr": 5e-3,
}  # fmt: skip
LEARNED = {"model.encoder.n_filters": 96, "model.decoder.n_filters": 96}


def spectrogram(n_fft, hop):
    """Of encoder and decoder."""
    parts = ("model.encoder.init_args", "model.decoder.init_args")
    return {f"{part}.{key}": value for part in parts for key, value in (("n_fft", n_fft), ("hop", hop))}


TINY = {  # what makes a separator small; another one stays as it is
    "LTL": {f"{SEPARATOR}.hidden": 32, f"{SEPARATOR}.heads": 2, f"{SEPARATOR}.ffn": 32},
    "TasNet": {f"{SEPARATOR}.hidden": 32},
    "TDConvNet": {f"{SEPARATOR}.bn_chan": 32, f"{SEPARATOR}.hid_chan": 32, f"{SEPARATOR}.skip_chan": 32},
    "DPRNN": {f"{SEPARATOR}.bn_chan": 32, f"{SEPARATOR}.hid_size": 32},
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
        "task.lr_scheduler.init_args.warmup_steps": 2, "task.lr_scheduler.init_args.total_steps": ROUNDS * STEPS,
    },
}  # fmt: skip
TINY["SkipAttentionHourglass"] = TINY["Hourglass"]
PLAIN = "demo/ltl"  # the one that gets an ordinary Python and the bundled songs
# others have the same separators, and others the same data
ALIKE = ("demo/convtasnet", "demo/dprnn", "debian2mix/audioslots", "debian2mix/mixit")
EXPORTED = (PLAIN, "mir1k/hourglass_park")  # the last stage, too; of the best and of the last checkpoint
ELSEWHERE = {"musdb18/ltl_gammatone": {"data.root": "data/MUSDB18-HQ"}}  # MUSDB18's other layout
ELSEWHERE["librimix/sepformer"] = {f"{SEPARATOR}.width": 32, f"{SEPARATOR}.fold.init_args.size": 25} | {
    f"{SEPARATOR}.{path}.init_args.{key}": value
    for path in ("within", "across")
    for key, value in {"transformer_layers": 1, "heads": 2, "ffn": 32}.items()
}
ELSEWHERE |= {  # the bundled songs take long to score
    name_of(conf): {"data.root": "data/own_stems"}
    for conf in CONFS
    if conf.parts[-3] == "demo" and name_of(conf) != PLAIN
}


def options(conf):
    """The command line that makes a recipe small and short."""
    model = yaml.safe_load(conf.read_text())["model"]
    kind = model["separator"] if isinstance(model["separator"], str) else model["separator"]["class_path"]
    chosen = BRIEF | TINY.get("LTL" if "_trans_" in kind else kind, {}) | ELSEWHERE.get(name_of(conf), {})
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


def losses(run):
    with (run / "metrics.csv").open() as file:
        return [float(row["train_loss_step"]) for row in csv.DictReader(file) if row["train_loss_step"]]


def has_learned(run):
    """By 3 dB, or a tenth of a spectral loss."""
    spectral = "Spectral" in (run / "config.yml").read_text()
    before, after = (mean(part) for part in (losses(run)[:6], losses(run)[-6:]))
    return after < 0.9 * before if spectral else after < before - 3


def train_by_run_sh(recipe, folder, *options):
    """Data checked, trained; run again, as one continues a run, until it has learned. Returns the run folder."""
    for number in range(1, ROUNDS + 1):
        finished, run = run_sh(recipe, folder, *options, "--stop-stage", "1", f"--trainer.max_steps={number * STEPS}")
        assert finished.returncode == 0, finished.stderr[-2000:]
        assert ": data" in finished.stdout and ": train into" in finished.stdout
        assert len(losses(run)) == number * STEPS
        if has_learned(run):
            return run
    pytest.fail(f"has not learned: {' '.join(f'{loss:.3g}' for loss in losses(run))}")


def assert_scored_and_shown(run, printed):
    """museval reads the scores; tables, summary and page are there; what is printed ends with the paper's metrics."""
    written = yaml.safe_load((run / "config.yml").read_text())
    section = written.get("evaluation", {})
    sources = section.get("sources") or written["model"]["sources"]
    evaluation = run / "evaluation"
    table = (evaluation / "table.txt").read_text()
    assert printed.endswith(f"== scores\n{table}") and table.count(": ") == len(section.get("mask") or [""])
    for metric in section.get("show") or ["SDR", "SI-SNRi"]:
        assert re.search(rf"^{metric}  +\S", table, re.M), metric
    tracks = {path.stem: json.loads(path.read_text()) for path in evaluation.glob("*.json") if path.stem != "summary"}
    store = museval.EvalStore()
    for track, document in tracks.items():
        store.add_track(museval.json2df(document, track))
    assert set(store.df.target) == set(sources)
    assert set(store.df.metric) == {"SDR", "SIR", "SAR", "ISR"}
    assert store.df.score.notna().all()
    with (evaluation / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["track"], row["source"]) for row in rows} == {(t, s) for t in tracks for s in sources}
    assert set(json.loads((evaluation / "summary.json").read_text())["scores"]) == set(sources)
    assert 'class="player"' in (evaluation / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("conf", [conf for conf in CONFS if name_of(conf) not in ALIKE], ids=name_of)
def test_a_recipe_from_run_sh(conf, folder, request):
    plain = name_of(conf) == PLAIN
    python = sys.executable if plain else request.getfixturevalue("python")
    run = train_by_run_sh(name_of(conf), folder, "--python", python, *options(conf))
    exported = name_of(conf) in EXPORTED
    finished, _ = run_sh(
        name_of(conf), folder, "--python", python, "--stage", "2", "--stop-stage", "4" if exported else "3"
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert ": evaluate" in finished.stdout and ": report" in finished.stdout
    assert_scored_and_shown(run, finished.stdout)
    assert (run / "model.safetensors").is_file() == exported
    if exported:  # what was scored, with its scores
        facts = read_safetensors(run / "model.safetensors").facts
        summary = json.loads((run / "evaluation" / "summary.json").read_text())
        scored = read_checkpoint(run / "checkpoints" / f"{summary['checkpoint']}.ckpt")
        assert facts["training"]["global_step"] == scored["global_step"] and facts["scores"]


def test_a_small_recipe_from_data_to_model_file(tmp_path, python):
    """Every stage of PLAIN, on a second of generated stems."""
    for split in ("train", "valid", "test"):
        write_stem_folders(tmp_path / "stems", [8000], split)
    small = {"data.root": "stems", "model.sample_rate": 8000, "trainer.max_steps": 4, "data.segments_per_epoch": 8}
    small |= {"task.optimizer.init_args.lr": 1e-3}
    settings = [*options(RECIPES / PLAIN / "conf.yml"), *(f"--{key}={value}" for key, value in small.items())]
    finished, run = run_sh(PLAIN, tmp_path, "--python", python, *settings)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert [line[:10] for line in finished.stdout.splitlines() if line[:2] == "=="] == [
        *(f"== stage {n}" for n in range(5)),
        "== scores",
    ]
    assert len(losses(run)) == 4
    assert_scored_and_shown(run, finished.stdout)
    assert (run / "model.safetensors").is_file()


def test_every_stage_imports_the_user_s_modules(tmp_path):
    stub = tmp_path / "python"
    stub.write_text('#!/bin/sh\necho "$*"\n')
    stub.chmod(0o755)
    finished, _ = run_sh(PLAIN, tmp_path, "--python", stub, "--import", "mine", "--import=other", "--ema=0.9")
    commands = [line.split() for line in finished.stdout.splitlines() if not line.startswith("==")]
    assert [command[3] for command in commands] == ["check-data", "train", "evaluate", "report", "export"]
    for command in commands:
        assert " --import mine --import=other" in " ".join(command)
        assert ("--ema=0.9" in command) == (command[3] in ("check-data", "train"))


def test_no_stage_is_due(tmp_path):
    assert run_sh(PLAIN, tmp_path, "--python", sys.executable, "--stage", "9")[0].returncode == 0


def test_a_failing_stage_stops_the_recipe(tmp_path, python):
    finished, _ = run_sh(PLAIN, tmp_path, "--python", python, "--stop-stage", "2", "--data.root=nowhere")
    assert finished.returncode == 2
    assert "stage 1" not in finished.stdout and "nowhere" in finished.stderr
