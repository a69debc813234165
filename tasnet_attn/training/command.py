"""`tasnet-attn train`: one model, one task, one data set; LightningCLI parses the trainer's part.

The YAML's top level: `model` (what `SourceSeparator.from_config` takes), `task`, `data`, `evaluation`, and, for
Lightning, `trainer`, `early_stopping`, `checkpoint`, `ema`, `seed_everything`, `out`. Several processes, mixed
precision and resuming: docs/scaling.md.
"""

from __future__ import annotations

import functools
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.distributed import is_torchelastic_launched

import tasnet_attn.training.schedules  # noqa: F401  so that configurations may name them
from tasnet_attn import config
from tasnet_attn.data import SegmentedData
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation import command as evaluation
from tasnet_attn.losses import Loss
from tasnet_attn.model import SourceSeparator
from tasnet_attn.training.callbacks import AveragedWeights, LastCheckpoint, MetricsFile, StoreConfig, WholeFiles
from tasnet_attn.training.task import SeparationTask

FINISHED = "finished"  # this file in a run folder says that its training came to its end


class TrainCLI(LightningCLI):
    """LightningCLI for the trainer, its callbacks and loggers, the optimiser and its schedule; the rest is checked."""

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out", type=Path, default=Path("exp/run"), help="the run folder")
        parser.add_argument("--ckpt_path", type=str | None, help="'last' continues the run in --out; or a checkpoint")
        parser.add_argument("--ema", type=float | None, help="decay of a moving average of the weights; null: none")
        parser.add_class_arguments(SeparationTask, "task", skip={"model", "loss"}, sub_configs=True, instantiate=False)
        parser.add_lightning_class_args(Trainer, "trainer")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "trainer.gradient_clip_val": 5.0,
                "trainer.use_distributed_sampler": False,  # ours deals the keys out itself
                "early_stopping.monitor": "valid_loss",
                "early_stopping.patience": 10,
                "early_stopping.min_delta": 0.0,  # any improvement is one
                "early_stopping.strict": False,  # max_steps may end a run before the first validation
                "checkpoint.filename": "last",
                "checkpoint.enable_version_counter": False,
            }
        )
        parser.link_arguments("out", "checkpoint.dirpath", compute_fn=lambda out: Path(out) / "checkpoints")

    def instantiate_classes(self) -> None:
        """Nothing yet: `train` builds."""


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """The full configuration that a command line stands for, every default included; nothing is built.

    Raises:
        UserError: a wrong file, key or value.
    """
    layers = config.read(arguments)
    return _full(layers.ours, _trainers_part(tuple(layers.theirs)))


def train(arguments: Sequence[str]) -> Path:
    """Train as the command line says; returns the run folder.

    Raises:
        UserError: a wrong file, key or value, or a run folder that already holds a run.
    """
    with warnings.catch_warnings():
        for noise in (
            ".*does not have many workers.*",
            ".*tensorboardX.*",
            ".*litlogger.*|.*litmodels.*",
            ".*Previous log files.*",
        ):
            warnings.filterwarnings("ignore", noise)
        layers = config.read(arguments)
        cli = _start(layers.theirs)
        full = _full(layers.ours, _dumped(cli))
        out, task, data, trainer = _built(cli, full)
        checkpoint = _resume_from(cli.config.ckpt_path, out)
        (out / FINISHED).unlink(missing_ok=True)
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(out / "checkpoints" / "last.ckpt")  # max_steps may end it within an epoch
        (out / FINISHED).touch()
        if not (out / "checkpoints" / "best.ckpt").is_file():
            rank_zero_warn(
                f"{out}: ended before its first validation, so the level of the outputs was not measured and SDR "
                "says nothing; more steps, or fewer data.init_args.segments_per_epoch"
            )
    return out


@functools.lru_cache(maxsize=8)  # the cells of a sweep mostly differ in ours, and this takes 0.6 s
def _trainers_part(arguments: tuple[str, ...]) -> str:
    return _dumped(_start(arguments))


def _dumped(cli: TrainCLI) -> str:
    return cli.parser.dump(cli.config, skip_none=False)


def _full(ours: dict[str, Any], dumped: str) -> dict[str, Any]:
    """Both parsers' parts in one configuration that re-parses to the same run."""
    theirs = config.parse_yaml(dumped)
    for key in ("config", "ckpt_path"):
        theirs.pop(key, None)
    model = config.complete_arguments(ours.get("model", {}), SourceSeparator, "model")
    given = {"sources": model["sources"], "sample_rate": model["sample_rate"], "seed": theirs["seed_everything"]}
    if "data" not in ours:
        raise UserError("data: names no data set (data.class_path); a conf.yml goes on top of its base.yml: give both")
    loss = ours.get("task", {}).get("loss")
    return {
        "model": model,
        "task": {"loss": config.complete(loss, Loss | None, "task.loss"), **theirs.pop("task")},
        "data": config.complete(ours["data"], SegmentedData, "data", **given),
        **({"evaluation": evaluation.complete(ours["evaluation"])} if "evaluation" in ours else {}),
        **theirs,
    }


def _built(cli: TrainCLI, full: dict[str, Any]) -> tuple[Path, SeparationTask, SegmentedData, Trainer]:
    """The objects that a configuration names."""
    try:
        built = cli.parser.instantiate_classes(cli.config)
    except (ArgumentError, ValueError, MisconfigurationException) as error:
        raise UserError(_explain(error)) from error
    out: Path = built.out
    model = SourceSeparator.from_config(full["model"])
    given = {"sources": model.sources, "sample_rate": model.sample_rate, "seed": full["seed_everything"]}
    data = config.build(full["data"], SegmentedData, "data", **given)
    loss = config.build(full["task"]["loss"], Loss | None, "task.loss")
    task = SeparationTask(model, loss, **built.task.as_dict())
    settings = built.trainer.as_dict()
    best = ModelCheckpoint(
        out / "checkpoints", "best", monitor="valid_loss", save_top_k=1, enable_version_counter=False
    )
    try:
        averaged = [] if built.ema is None else [AveragedWeights(built.ema)]
    except ValueError as error:
        raise UserError(f"ema: {error}") from error
    ours = [*averaged, StoreConfig(out, config.write_yaml(full)), built.early_stopping, best, built.checkpoint]
    settings["callbacks"] = [*_listed(settings["callbacks"]), *ours]
    settings["plugins"] = [*_listed(settings["plugins"]), WholeFiles()]
    settings["default_root_dir"] = settings["default_root_dir"] or out
    if settings["logger"] is None:
        settings["logger"] = [MetricsFile(out), TensorBoardLogger(out, name="", version="tensorboard")]
    try:
        trainer = Trainer(**settings)
    except (ValueError, MisconfigurationException) as error:
        raise UserError(f"trainer: {_explain(error)}") from error
    started = int(os.environ.get("WORLD_SIZE", 1)) if is_torchelastic_launched() else trainer.world_size
    if started != trainer.world_size:  # they would train apart from each other, into one folder
        raise UserError(
            f"torchrun started {started} processes, but the trainer expects {trainer.world_size}; set "
            "--trainer.devices (processes on each machine) and --trainer.num_nodes (machines)"
        )
    return out, task, data, trainer


def _start(arguments: Sequence[str]) -> TrainCLI:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LightningCLI's args parameter.*")
        try:
            return TrainCLI(
                args=list(arguments),
                run=False,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                save_config_callback=None,
                parser_kwargs={"exit_on_error": False, "prog": "tasnet-attn train"},
            )
        except (ArgumentError, ValueError, MisconfigurationException) as error:
            raise UserError(_explain(error)) from error


def _resume_from(ckpt_path: str | None, out: Path) -> Path | None:
    if ckpt_path is None:
        if (out / "config.yml").exists():
            raise UserError(f"{out}: holds a run already; continue it with --ckpt_path last, or give another --out")
        return None
    path = out / "checkpoints" / "last.ckpt" if ckpt_path == "last" else Path(ckpt_path)
    if path.is_file():
        return path
    if ckpt_path == "last":
        return None  # nothing to continue yet: a job may always be started with --ckpt_path last
    raise UserError(f"{path}: no such checkpoint")


def _listed(setting: Any) -> list[Any]:
    """None, one or several, as the Trainer takes callbacks and plugins."""
    return setting if isinstance(setting, list) else [] if setting is None else [setting]


def _explain(error: Exception) -> str:
    """One line for a jsonargparse error, which lists every type it tried: the key, and what is wrong with it."""
    text = str(error)
    key = re.search(r'[Kk]ey "([^"]+)"', text)
    where = f"{key[1]}: " if key else ""
    if option := re.search(r"Option '([^']+)' is not accepted", text):
        owner = re.search(r"class_path[ =]'([^']+)'", text)
        name = owner[1].rpartition(".")[2] if owner else "it"
        return f"{where}{name} has no setting {option[1]!r}; check its spelling"
    lines = [line.strip(" -") for line in re.sub(r'Parser key "[^"]+":', "", text).splitlines()]
    dull = ("Does not validate", "Subtypes", "Errors:", "Given value", "Expected a <class 'NoneType'>")
    return where + "; ".join(dict.fromkeys(line for line in lines if line and not line.startswith(dull)))
