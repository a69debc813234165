"""`tasnet-attn train`: LightningCLI over one model, one task and one data set.

The YAML's top level: `model` (what `SourceSeparator.from_config` takes), `task`, `data`, `trainer`, `early_stopping`,
`checkpoint`, `seed_everything`, `out`.
"""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from tasnet_attn.data import SegmentedData
from tasnet_attn.errors import UserError, explain
from tasnet_attn.model import SourceSeparator
from tasnet_attn.task import SeparationTask


class LastCheckpoint(ModelCheckpoint):
    """Keeps `last.ckpt`: after every epoch, or oftener by `every_n_train_steps` or `train_time_interval`."""


class ContinuedCSVLogger(CSVLogger):
    """A CSVLogger of `folder/metrics.csv` that keeps what a resumed run had logged up to where it resumes.

    (CSVLogger deletes an earlier file.) It writes at once: what was logged survives a kill.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="", flush_logs_every_n_steps=1)
        file = folder / "metrics.csv"
        self.earlier: list[dict[str, Any]] = list(csv.DictReader(file.open())) if file.is_file() else []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Log; the first time, the earlier rows before this one."""
        for row in self.earlier:
            if step is None or int(row["step"]) < step:
                self.experiment.log_metrics({k: v for k, v in row.items() if v and k != "step"}, int(row["step"]))
        self.earlier = []
        super().log_metrics(metrics, step)


class TrainCLI(LightningCLI):
    """LightningCLI with the model apart from the task, and a run folder that is said once."""

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out", type=Path, default=Path("exp/run"), help="the run folder")
        parser.add_argument("--ckpt_path", type=str | None, help="'last' continues the run in --out; or a checkpoint")
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
        settings["callbacks"] = [*(settings["callbacks"] or []), built.early_stopping, best, built.checkpoint]
        if settings["logger"] is None:
            settings["logger"] = [
                ContinuedCSVLogger(self.out),
                TensorBoardLogger(self.out, name="", version="tensorboard"),
            ]
        self.trainer = Trainer(**settings)


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
        _store_config(cli)
        cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint, weights_only=True)
        cli.trainer.save_checkpoint(cli.out / "checkpoints" / "last.ckpt")  # max_steps may end it within an epoch
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


@rank_zero_only
def _store_config(cli: TrainCLI) -> None:
    """The run's full configuration beside its checkpoints: it re-parses to the same run."""
    cli.out.mkdir(parents=True, exist_ok=True)
    (cli.out / "config.yml").write_text(_dump(cli))


def _dump(cli: TrainCLI) -> str:
    config = cli.config.clone()
    config.pop("config", None)
    config.ckpt_path = None
    return cli.parser.dump(config, skip_none=False)
