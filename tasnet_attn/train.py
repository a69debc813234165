"""`tasnet-attn train`: LightningCLI over one model, one task and one data set.

The YAML's top level: `model` (what `SourceSeparator.from_config` takes), `task`, `data`, `trainer`, `early_stopping`,
`checkpoint`, `ema`, `seed_everything`, `out`. Several processes, mixed precision and resuming: docs/scaling.md.
"""

from __future__ import annotations

import csv
import os
import warnings
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.distributed import is_torchelastic_launched

from tasnet_attn.data import SegmentedData
from tasnet_attn.data.files import record, remember
from tasnet_attn.errors import UserError, explain
from tasnet_attn.model import SourceSeparator
from tasnet_attn.task import SeparationTask

FINISHED = "finished"  # this file in a run folder says that its training came to its end


class LastCheckpoint(ModelCheckpoint):
    """Keeps `last.ckpt`: after every epoch, or oftener by `every_n_train_steps` or `train_time_interval`."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time, but not while gradients are being accumulated: they are not in a checkpoint."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


class AveragedWeights(EMAWeightAveraging):
    """An exponential moving average of the weights: what is validated and what `load` finds in a checkpoint.

    Beside Lightning's callback: the averaged weights stay in place until the task has measured their gain, buffers are
    the model's own (averaging constants, like a window, would only round them), and at its end a run keeps both sets of
    weights apart, so that it can go on.

    Args:
        decay: of the average, per optimiser step.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False, decay=decay)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Too early: the task's hook of this name comes after the callbacks'."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the weights in training back, before a checkpoint is written; the gain goes to both."""
        assert isinstance(pl_module, SeparationTask)
        gain = pl_module.model.gain.clone()
        super().on_validation_epoch_end(trainer, pl_module)
        pl_module.model.gain.copy_(gain)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave both as they are."""


class WholeFiles(TorchCheckpointIO):
    """A checkpoint replaces the one before when it is complete: a kill while it is written leaves that one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside, then rename."""
        part = f"{path}.part"
        super().save_checkpoint(checkpoint, part, storage_options)
        os.replace(part, path)


class StoreConfig(Callback):
    """Writes the run's full configuration beside its checkpoints, which re-parses to the same run; and data.json.

    Once training begins: every process has then seen that the folder held no run, and no mistake in the data is left.
    """

    def __init__(self, out: Path, config: str) -> None:
        self.out, self.config = out, config

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it."""
        self.out.mkdir(parents=True, exist_ok=True)
        for change in remember(record(trainer.datamodule), self.out):  # type: ignore[attr-defined]
            warnings.warn(f"{self.out}: the data changed since this run began: {change}", stacklevel=2)
        (self.out / "config.yml").write_text(self.config)


class MetricsFile(Logger):
    """Rows of `folder/metrics.csv`, written at once; a resumed run keeps those before the step where it resumes.

    (Lightning's CSVLogger deletes an earlier file as soon as a run begins.)
    """

    name = version = ""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.file = folder / "metrics.csv"
        self.rows: list[dict[str, Any]] = list(csv.DictReader(self.file.open())) if self.file.is_file() else []
        self.columns: list[str] = []  # none: nothing was logged yet

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row; write the file anew if it has new columns."""
        row = {"step": step, **metrics}
        if not self.columns:
            self.rows = [earlier for earlier in self.rows if step is None or int(earlier["step"]) < step]
        self.rows.append(row)
        if row.keys() <= set(self.columns):
            with self.file.open("a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(row)
            return
        self.columns = sorted(set().union(*self.rows))
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_suffix(".part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)
        part.replace(self.file)

    def log_hyperparams(self, params: Any = None) -> None:
        """Nothing: config.yml has them."""


class TrainCLI(LightningCLI):
    """LightningCLI with the model apart from the task, and a run folder that is said once."""

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out", type=Path, default=Path("exp/run"), help="the run folder")
        parser.add_argument("--ckpt_path", type=str | None, help="'last' continues the run in --out; or a checkpoint")
        parser.add_argument("--ema", type=float | None, help="decay of a moving average of the weights; null: none")
        parser.add_class_arguments(SourceSeparator, "model", sub_configs=True)
        parser.add_class_arguments(SeparationTask, "task", skip={"model"}, sub_configs=True, instantiate=False)
        parser.add_subclass_arguments(SegmentedData, "data", required=True)
        parser.add_lightning_class_args(Trainer, "trainer")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "trainer.gradient_clip_val": 5.0,
                "trainer.use_distributed_sampler": False,  # ours deals the keys out itself
                "early_stopping.monitor": "valid_loss",
                "early_stopping.patience": 10,
                "early_stopping.strict": False,  # max_steps may end a run before the first validation
                "checkpoint.filename": "last",
                "checkpoint.enable_version_counter": False,
            }
        )
        # from the model to the data, never back: the run's configuration then holds the model's values
        parser.link_arguments("model.sources", "data.init_args.sources")
        parser.link_arguments("model.sample_rate", "data.init_args.sample_rate")
        parser.link_arguments("seed_everything", "data.init_args.seed")
        parser.link_arguments("out", "checkpoint.dirpath", compute_fn=lambda out: Path(out) / "checkpoints")

    def instantiate_classes(self) -> None:
        built = self.parser.instantiate_classes(self.config)
        self.out: Path = built.out
        self.datamodule, self.model = built.data, SeparationTask(built.model, **built.task.as_dict())
        settings = built.trainer.as_dict()
        best = ModelCheckpoint(
            self.out / "checkpoints", "best", monitor="valid_loss", save_top_k=1, enable_version_counter=False
        )
        averaged = [] if built.ema is None else [AveragedWeights(built.ema)]
        ours = [*averaged, StoreConfig(self.out, _dump(self)), built.early_stopping, best, built.checkpoint]
        settings["callbacks"] = [*_listed(settings["callbacks"]), *ours]
        settings["plugins"] = [*_listed(settings["plugins"]), WholeFiles()]
        settings["default_root_dir"] = settings["default_root_dir"] or self.out
        if settings["logger"] is None:
            settings["logger"] = [
                MetricsFile(self.out),
                TensorBoardLogger(self.out, name="", version="tensorboard"),
            ]
        self.trainer = Trainer(**settings)
        started = int(os.environ.get("WORLD_SIZE", 1)) if is_torchelastic_launched() else self.trainer.world_size
        if started != self.trainer.world_size:  # they would train apart from each other, into one folder
            raise UserError(
                f"torchrun started {started} processes, but the trainer expects {self.trainer.world_size}; set "
                "--trainer.devices (processes on each machine) and --trainer.num_nodes (machines)"
            )


class ParseOnly(TrainCLI):
    """Reads the configuration and builds nothing."""

    def instantiate_classes(self) -> None:
        pass


def parse(arguments: list[str]) -> dict[str, Any]:
    """The full configuration that a command line stands for, every default included; nothing is built.

    Raises:
        UserError: a wrong file, key or value.
    """
    return yaml.safe_load(_dump(_start(ParseOnly, arguments)))


def train(arguments: list[str]) -> Path:
    """Train as the command line says; returns the run folder.

    Raises:
        UserError: a wrong file, key or value, or a run folder that already holds a run.
    """
    with warnings.catch_warnings():
        for known in (
            ".*does not have many workers.*",
            ".*tensorboardX.*",
            ".*litlogger.*|.*litmodels.*",
            ".*Previous log files.*",
        ):
            warnings.filterwarnings("ignore", known)
        cli = _start(TrainCLI, arguments)
        checkpoint = _resume_from(cli.config.ckpt_path, cli.out)
        (cli.out / FINISHED).unlink(missing_ok=True)
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint, weights_only=True)
        cli.trainer.save_checkpoint(cli.out / "checkpoints" / "last.ckpt")  # max_steps may end it within an epoch
        (cli.out / FINISHED).touch()
        if not (cli.out / "checkpoints" / "best.ckpt").is_file():
            rank_zero_warn(
                f"{cli.out}: ended before its first validation, so the level of the outputs was not measured and SDR "
                "says nothing; more steps, or fewer data.init_args.segments_per_epoch"
            )
    return cli.out


def _start(cls: type[TrainCLI], arguments: list[str]) -> TrainCLI:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LightningCLI's args parameter.*")
        try:
            return cls(
                args=arguments,
                run=False,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                save_config_callback=None,
                parser_kwargs={"exit_on_error": False, "prog": "tasnet-attn train"},
            )
        except (ArgumentError, ValueError, MisconfigurationException) as error:
            raise UserError(explain(error)) from error


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


def _dump(cli: TrainCLI) -> str:
    config = cli.config.clone()
    config.pop("config", None)
    config.ckpt_path = None
    return cli.parser.dump(config, skip_none=False)
