"""`tasnet-attn train`: one model, one task, one data set; LightningCLI parses the trainer's part.

The YAML's top level: `model` (for `SourceSeparator.from_config`), `task`, `data`, `evaluation`, and, for Lightning,
`trainer`, `early_stopping`, `checkpoint`, `ema`, `seed_everything`, `out`. For several processes, mixed precision and
resuming see docs/scaling.md.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import BasePredictionWriter, EarlyStopping, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.distributed import is_torchelastic_launched

import tasnet_attn.training.schedules  # noqa: F401  so that configurations may name them
from tasnet_attn import config, terminal
from tasnet_attn.data import SegmentedData
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation import command as evaluation
from tasnet_attn.files import touching
from tasnet_attn.losses import Loss
from tasnet_attn.model import SourceSeparator
from tasnet_attn.storage.checkpoints import read_checkpoint
from tasnet_attn.storage.finding import find
from tasnet_attn.training import memory, ranges
from tasnet_attn.training.amending import misfit
from tasnet_attn.training.callbacks import AveragedWeights, LastCheckpoint, MetricsFile, StoreConfig, WholeFiles
from tasnet_attn.training.explaining import explain, explaining, misspelt
from tasnet_attn.training.folder import BOARD, FINISHED, holding
from tasnet_attn.training.guard import Diverged, Guard
from tasnet_attn.training.resuming import Beginning, Fork, amendments, begin, changes, say_finished, ways
from tasnet_attn.training.settings import listing
from tasnet_attn.training.showing import Progress, introduce, say
from tasnet_attn.training.signals import Interrupted, Stop, stopping
from tasnet_attn.training.sizes import check_ends, check_size
from tasnet_attn.training.task import SeparationTask
from tasnet_attn.training.trusting import restrict
from tasnet_attn.training.waiting import Waits

# callbacks like Timer have an enumeration's member as a default, which jsonargparse could not store in config.yml
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, member: dumper.represent_data(member.value))

VERBS = ("fit", "validate", "test", "predict")


class TrainCLI(LightningCLI):
    """LightningCLI for the trainer, its callbacks and loggers, optimiser and schedule; the rest is checked here."""

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out", type=Path, default=Path("exp/run"), help="the run folder")
        parser.add_argument("--ckpt_path", type=str | None, help="'last' resumes the run in --out; or a checkpoint")
        parser.add_argument("--ema", type=float | None, help="decay of a moving average of the weights; null: none")
        parser.add_argument("--on_nan", type=Literal["skip"] | None, help="skip batches that are not finite")
        parser.add_class_arguments(SeparationTask, "task", skip={"model", "loss"}, sub_configs=True, instantiate=False)
        limits = [f"limit_{split}_batches" for split in ("train", "val", "test", "predict")]
        parser.add_class_arguments(
            Trainer, "trainer", fail_untyped=False, instantiate=False, sub_configs=True, skip=set(limits)
        )
        for name in limits:  # Lightning's own annotation may try float first: 1.0 means all batches
            parser.add_argument(f"--trainer.{name}", type=int | float | None, help="batches (int) or fraction (float)")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "trainer.gradient_clip_val": 5.0,
                "trainer.use_distributed_sampler": False,  # ours distributes the keys itself
                "early_stopping.monitor": "valid_loss",
                "early_stopping.patience": 10,
                "early_stopping.min_delta": 0.0,  # any improvement counts
                "early_stopping.strict": False,  # max_steps may end a run before the first validation
                "checkpoint.filename": "last",
                "checkpoint.enable_version_counter": False,
            }
        )
        parser.link_arguments("out", "checkpoint.dirpath", compute_fn=lambda out: Path(out) / "checkpoints")

    def _set_seed(self) -> None:
        """Not yet: reading a configuration draws no seed. `true` means the run's own seed, or one drawn now."""
        if self.config.seed_everything is not True:
            return
        stored = Path(self.config.out) / "config.yml"
        if self.config.ckpt_path is not None and stored.is_file():
            self.config.seed_everything = config.read_yaml(stored).get("seed_everything")
        else:
            self.config.seed_everything = seed_everything(workers=True, verbose=False)

    def instantiate_classes(self) -> None:
        """Does nothing yet: `train` builds."""


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """The full configuration of a command line, with every default; builds nothing.

    Raises:
        UserError: a wrong file, key or value.
    """
    layers = config.read(arguments)
    with terminal.libraries_apart():
        return _full(layers.ours, _trainers_part(tuple(layers.theirs)))


def every_setting() -> str:
    """The text of `train --help-all`."""
    return listing(_start([]).parser)


def train(arguments: Sequence[str]) -> Path:
    """Train according to a command line; returns the run folder.

    The first argument may be one of Lightning's subcommands: fit, validate, test, predict.

    Raises:
        UserError: a wrong file, key or value, or a run folder that already contains a run.
    """
    verb = arguments[0] if arguments and arguments[0] in VERBS else "fit"
    arguments = arguments[1:] if arguments and arguments[0] in VERBS else arguments
    with terminal.libraries_apart():
        how, arguments = ways(arguments)
        layers = config.read(arguments)
        cli = _start(layers.theirs)
        parent = None
        if how.fork is not None:
            given = cli.config.ckpt_path
            parent = Fork(str(cli.config.out) if given in (None, "last") else given, how.with_optimizer)
            cli = _start([*layers.theirs, f"--out={how.fork}", "--ckpt_path=null"])
        full = _full(layers.ours, _dumped(cli))
        if verb != "fit":
            _look(cli, full, verb)
            return cli.config.out
        if full["trainer"]["fast_dev_run"]:
            _try(cli, full)
            return cli.config.out
        with holding(cli.config.out):
            _fit(cli, full, how.change, parent)
    return cli.config.out


def _fit(cli: TrainCLI, full: dict[str, Any], change: list[str], parent: Fork | None) -> None:
    """Train in a run folder that this process has locked."""
    out: Path = cli.config.out
    start = begin(out, cli.config.ckpt_path, full, change, parse, lambda: _data(full))
    if start.finished:
        say(say_finished(out, start))
        return
    if full["seed_everything"] is not False:
        seed_everything(full["seed_everything"], workers=True, verbose=False)
    history = changes(start) if parent is None else parent.history()
    task, data, trainer = _built(cli, full, start, history, parent)
    (out / FINISHED).unlink(missing_ok=True)
    stop = Stop(out)
    next(each for each in trainer.checkpoint_callbacks if isinstance(each, LastCheckpoint)).stop = stop
    trainer.callbacks.insert(0, stop)  # type: ignore[attr-defined]
    introduce(task.model, type(data).__name__, trainer, out)
    with terminal.log(out / terminal.LOG), explaining(out), _said_once(trainer), stopping(trainer, stop), memory.kept():
        trainer.fit(task, datamodule=data, ckpt_path=start.checkpoint, weights_only=True)
    if not (out / "checkpoints" / "last.ckpt").is_file():
        raise UserError(
            f"{out}: no step was requested; see trainer.max_steps, max_epochs, max_time, limit_train_batches"
        )
    with touching(out):
        (out / FINISHED).touch()
    if not (out / "checkpoints" / "best.ckpt").is_file():
        rank_zero_only(terminal.warn)(
            f"{out}: ended without a validation, so the level of the outputs was not measured and SDR is meaningless; "
            "set more steps, fewer data.segments_per_epoch, or a trainer.limit_val_batches above 0"
        )
    if stop.signal is not None:
        stop.finished = True
        raise stop.error()


def _try(cli: TrainCLI, full: dict[str, Any]) -> None:
    """`fast_dev_run`: a few batches through everything, nothing written."""
    if full["seed_everything"] is not False:
        seed_everything(full["seed_everything"], workers=True, verbose=False)
    task, data, trainer = _built(cli, full, Beginning(), [], None)
    with explaining(cli.config.out):
        trainer.fit(task, datamodule=data)
    say(f"fast_dev_run: {trainer.global_step} steps work; nothing was written")


def _look(cli: TrainCLI, full: dict[str, Any], verb: str) -> None:
    """Lightning's validate, test or predict on a run's best checkpoint, or on the one that --ckpt_path names."""
    out, given = cli.config.out, cli.config.ckpt_path
    named = out / "checkpoints" / "last.ckpt" if given == "last" else given
    file = find(out, "best") if named in (None, "best") else find(named)
    task, data, trainer = _built(cli, full, Beginning(), [], None, fits=False)
    misfit(task.model, read_checkpoint(file)["state_dict"], "model.", f"the configured model ({file})")
    settings = {"return_predictions": False} if verb == "predict" else {}
    with explaining(out):
        getattr(trainer, verb)(task, datamodule=data, ckpt_path=file, weights_only=True, **settings)
    if verb == "predict" and not any(isinstance(each, BasePredictionWriter) for each in trainer.callbacks):  # type: ignore[attr-defined]
        say("estimates were not stored: add a BasePredictionWriter to trainer.callbacks or use tasnet-attn separate")


@contextmanager
def _said_once(trainer: Trainer) -> Iterator[None]:
    """What ends a training for all processes; the first one reports it.

    Processes launched by Lightning end without an error, because Lightning would then kill the first one before it
    reports.
    """
    try:
        yield
    except (Interrupted, Diverged) as error:
        if trainer.is_global_zero:
            raise
        environment = trainer._accelerator_connector.cluster_environment
        raise SystemExit(error.status if environment.creates_processes_externally else 0) from None


@functools.lru_cache(maxsize=8)  # the cells of a sweep mostly differ in our sections, and this takes 0.6 s
def _trainers_part(arguments: tuple[str, ...]) -> str:
    return _dumped(_start(arguments))


def _dumped(cli: TrainCLI) -> str:
    return cli.parser.dump(cli.config, skip_none=False)


def _full(ours: dict[str, Any], dumped: str) -> dict[str, Any]:
    """Both parsers' parts in one configuration that parses to the same run."""
    theirs = config.parse_yaml(dumped)
    for key in ("config", "ckpt_path"):
        theirs.pop(key, None)
    ranges.check({key: value for key, value in theirs.items() if key not in ("out", "evaluation")})
    if "model" not in ours:
        known = Path(theirs["out"]) / "config.yml"
        again = f"; to go on with this run: --config {known}" if known.is_file() else ""
        raise UserError(f"model: is not given; add --config with the files of a recipe{again}")
    model = config.complete_arguments(ours["model"], SourceSeparator, "model")
    given = {"sources": model["sources"], "sample_rate": model["sample_rate"], "seed": theirs["seed_everything"]}
    if "data" not in ours:
        raise UserError("data: has no data set (data.class_path); a conf.yml extends its base.yml: give both")
    loss = ours.get("task", {}).get("loss")
    return {
        "model": model,
        "task": {"loss": config.complete(loss, Loss | None, "task.loss"), **theirs.pop("task")},
        "data": config.complete(ours["data"], SegmentedData, "data", **given),
        **({"evaluation": evaluation.complete(ours["evaluation"])} if "evaluation" in ours else {}),
        **theirs,
    }


def _data(full: dict[str, Any]) -> SegmentedData:
    given = {"sources": full["model"]["sources"], "sample_rate": full["model"]["sample_rate"]}
    return config.build(full["data"], SegmentedData, "data", **given, seed=full["seed_everything"])


def _built(
    cli: TrainCLI,
    full: dict[str, Any],
    start: Beginning,
    history: list[dict[str, Any]],
    parent: Fork | None,
    fits: bool = True,
) -> tuple[SeparationTask, SegmentedData, Trainer]:
    """The objects of a configuration; without those that store a run if nothing is trained."""
    try:
        built = cli.parser.instantiate_classes(cli.config)
    except (ArgumentError, ValueError, MisconfigurationException) as error:
        raise UserError(explain(error)) from error
    out: Path = built.out
    check_ends(full["model"])
    check_size(full["model"])
    model = SourceSeparator.from_config(full["model"])
    data = _data(full)
    if getattr(model.head, "subtract", False) and not data.additive:
        raise UserError(
            "model.head.subtract: computes the last source from the others, but here the mixture is not the sum "
            "of the sources; set data.mixture to sum, data.noisy to false, or name all of model.sources"
        )
    loss = config.build(full["task"]["loss"], Loss | None, "task.loss")
    task = SeparationTask(model, loss, **built.task.as_dict())
    task.loss.check(model, data.sources)
    try:
        task.configure_optimizers()
    except (ValueError, TypeError) as error:
        raise UserError(f"task: {error}") from error
    if parent is not None:
        parent.give_weights(task)
        task.given_optimizer = parent.give_optimizer
    settings = built.trainer.as_dict()
    best = ModelCheckpoint(
        out / "checkpoints", "best", monitor="valid_loss", save_top_k=1, enable_version_counter=False
    )
    try:
        averaged = [] if built.ema is None else [AveragedWeights(built.ema)]
    except ValueError as error:
        raise UserError(f"ema: {error}") from error
    guard = Guard(skip=full["on_nan"] == "skip")
    ours = [*averaged, guard, StoreConfig(out, full, history), built.early_stopping, best, built.checkpoint]
    if settings["enable_progress_bar"] is None:
        settings["enable_progress_bar"] = False
        ours.append(Progress(guard.read))
    if settings["enable_model_summary"] is None:
        settings["enable_model_summary"] = False  # the first line prints it
    settings["callbacks"] = [*_listed(settings["callbacks"]), *(ours if fits else [])]
    settings["plugins"] = [*_listed(settings["plugins"]), WholeFiles(amendments(start, task, full))]
    settings["profiler"] = settings["profiler"] or (Waits() if fits else None)
    settings["default_root_dir"] = settings["default_root_dir"] or out
    if settings["enable_checkpointing"] is False and fits:
        raise UserError("trainer.enable_checkpointing: a run needs its checkpoints; remove this, or see fast_dev_run")
    for key, value in LastCheckpoint.fixed.items():
        if full["checkpoint"][key] != value:
            raise UserError(
                f"checkpoint.{key}: runs resume from last.ckpt, so this cannot be changed; for other "
                "checkpoints add a ModelCheckpoint to trainer.callbacks"
            )
    if settings["barebones"] and fits:
        raise UserError(
            "trainer.barebones: measures speed and stores nothing, but a run needs its checkpoints; remove this setting"
        )
    settings["logger"] = _loggers(settings["logger"], out, fits)
    try:
        trainer = Trainer(**settings)
    except (ValueError, TypeError, ModuleNotFoundError, MisconfigurationException) as error:
        raise UserError(f"trainer: {explain(error)}") from error
    started = int(os.environ.get("WORLD_SIZE", 1)) if is_torchelastic_launched() else trainer.world_size
    if started != trainer.world_size:  # they would train independently, in one folder
        raise UserError(
            f"torchrun started {started} processes, but the trainer expects {trainer.world_size}; set "
            "--trainer.devices (processes on each machine) and --trainer.num_nodes (machines)"
        )
    return task, data, trainer


def _loggers(stated: Any, out: Path, fits: bool) -> list[Logger]:
    """The user's loggers and the run's own; `false` leaves only the run's table."""
    users = [] if isinstance(stated, bool) else _listed(stated)
    if not fits:
        return users
    board = [] if stated is False else [TensorBoardLogger(out, name="", version=BOARD)]
    return [*users, MetricsFile(out), *board]


def _start(arguments: Sequence[str]) -> TrainCLI:
    restrict()
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
        raise UserError(misspelt(str(error), lambda: _start([]).parser._actions) or explain(error)) from error


def _listed(setting: Any) -> list[Any]:
    """A list from none, one or several, as for the Trainer's callbacks and plugins."""
    return setting if isinstance(setting, list) else [] if setting is None else [setting]
