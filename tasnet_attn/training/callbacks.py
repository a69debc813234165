"""Writes a run's files atomically: checkpoints, averaged weights, configuration, metrics."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_only

from tasnet_attn.config import write_yaml
from tasnet_attn.data.fingerprint import record, remember
from tasnet_attn.errors import UserError
from tasnet_attn.files import touching, whole, write_text
from tasnet_attn.terminal import warn
from tasnet_attn.training.folder import add_history, read_metrics
from tasnet_attn.training.restoring import CONFIGURATION
from tasnet_attn.training.signals import Stop
from tasnet_attn.training.task import SeparationTask


class LastCheckpoint(ModelCheckpoint):
    """Keeps `last.ckpt`: after every epoch, or at the intervals `every_n_train_steps` or `train_time_interval`.

    It is never written while gradients are being accumulated, because they are not in a checkpoint, nor between a step
    and the validation after it, which a killed run would then skip; it is written after the epoch instead. The end of
    training is always written. If steps or time end it within an epoch, the checkpoint is of that point, and with more
    of them the run continues as if it had not ended.
    """

    fixed: ClassVar[dict[str, Any]] = {"filename": "last", "monitor": None, "save_weights_only": False}
    stop = Stop()
    due = within = False  # within: it ended within an epoch, and this is saved

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do not resume a completed epoch: with max_steps set, Lightning treats every epoch as unfinished."""
        epochs = trainer.fit_loop.epoch_progress.current
        if epochs.completed == epochs.ready:
            trainer.fit_loop.epoch_loop.restarting = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time, or if a signal asks to end."""
        last = trainer.is_last_batch
        if (batch_idx + 1) % trainer.accumulate_grad_batches != 0 and not last:
            return
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None  # while it fits
        validated = trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher) and not trainer.should_stop
        if last or validated:
            self.due = self.due or self._is_time(trainer)
            return
        if self.stop.agreed():
            trainer._logger_connector.update_train_step_metrics()  # this step's row, which Lightning would write next
            trainer.save_checkpoint(self._file)
            raise self.stop.error(trainer.global_step)
        if self._ends(trainer):
            self.within = True
            if not trainer.fast_dev_run:  # type: ignore[attr-defined]
                trainer.save_checkpoint(self._file)
            return
        if self.due:
            self._save(trainer)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if due before, at the end, or for a signal."""
        if self.within:
            return
        early, measured = trainer.early_stopping_callback, trainer.callback_metrics
        if early is not None and early.monitor not in measured and "valid_loss" in measured:
            names = ", ".join(sorted(measured))
            raise UserError(f"early_stopping.monitor: {early.monitor!r} is not measured; choose from {names}")
        stops = self.stop.agreed() and not self._ends(trainer)
        if self.due or stops or self._ends(trainer):
            self._save(trainer)
        if stops:
            self.stop.saved = trainer.global_step
            trainer._signal_connector.received_sigterm = True  # Lightning ends it once this epoch's rows are written
        super().on_train_epoch_end(trainer, pl_module)

    def _should_save_on_train_epoch_end(self, trainer: Trainer) -> bool:
        return True  # no run could resume from a validation within an epoch

    @staticmethod
    def _ends(trainer: Trainer) -> bool:
        epochs, steps = trainer.max_epochs, trainer.max_steps
        last_epoch = trainer.is_last_batch and epochs not in (None, -1) and trainer.current_epoch + 1 >= epochs
        return trainer.should_stop or last_epoch or 0 <= steps <= trainer.global_step

    @property
    def _file(self) -> Path:
        return Path(str(self.dirpath)) / "last.ckpt"

    def _is_time(self, trainer: Trainer) -> bool:
        if self._train_time_interval is not None:
            began = self._last_time_checked
            passed = began is None or time.monotonic() - began >= self._train_time_interval.total_seconds()
            return trainer.strategy.broadcast(passed)  # by one clock: all processes write a checkpoint together
        return self._every_n_train_steps > 0 and trainer.global_step % self._every_n_train_steps == 0

    def _save(self, trainer: Trainer) -> None:
        self.due, self._last_time_checked = False, time.monotonic()
        if not self._should_skip_saving_checkpoint(trainer):
            monitored = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, monitored)
            self._save_last_checkpoint(trainer, monitored)


class AveragedWeights(EMAWeightAveraging):
    """An exponential moving average of the weights, used for validation and by `load`.

    Differences from Lightning's callback: the averaged weights stay in place until the task has measured their gain;
    buffers are the model's own, because averaging constants such as a window would only round them; and at its end a
    run stores both sets of weights separately, so that it can resume.

    Args:
        decay: of the average, per optimiser step.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False, decay=decay)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Too early: the task's hook of this name runs after the callbacks'."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the training weights before a checkpoint is written; both sets get the gain."""
        assert isinstance(pl_module, SeparationTask)
        gain = pl_module.model.gain.clone()
        super().on_validation_epoch_end(trainer, pl_module)
        pl_module.model.gain.copy_(gain)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep both sets."""


class WholeFiles(TorchCheckpointIO):
    """A checkpoint replaces the previous one when it is complete, so that a kill during writing leaves the old one.

    Args:
        amend: changes a checkpoint after reading.
    """

    def __init__(self, amend: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.amend = amend

    def load_checkpoint(self, *arguments: Any, **settings: Any) -> dict[str, Any]:
        """Read, and amend."""
        checkpoint = super().load_checkpoint(*arguments, **settings)
        if self.amend is not None:
            self.amend(checkpoint)
        return checkpoint

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write to a temporary file, then rename."""
        with whole(Path(path)) as part:
            super().save_checkpoint(checkpoint, part, storage_options)


class StoreConfig(Callback):
    """Writes the run's full configuration next to its checkpoints, and data.json. It parses to the same run.

    This happens when training begins: every process has then seen that the folder had no run, and the data are correct.
    Every checkpoint also contains the configuration that it was written under.
    """

    def __init__(self, out: Path, full: dict[str, Any], history: list[dict[str, Any]]) -> None:
        self.out, self.full, self.history = out, full, history

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add it."""
        checkpoint[CONFIGURATION] = self.full

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it, also to the user's loggers."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for change in remember(record(trainer.datamodule), self.out):  # type: ignore[attr-defined]
            warn(f"{self.out}: the data changed since this run began: {change}")
        add_history(self.out, self.history)
        write_text(self.out / "config.yml", write_yaml(self.full))
        for logger in trainer.loggers:
            if not isinstance(logger, (MetricsFile, TensorBoardLogger)):
                logger.log_hyperparams(self.full)


class MetricsFile(Logger):
    """Rows of `folder/metrics.csv`, written at once; a resumed run keeps the rows before the step where it resumes.

    (Lightning's CSVLogger deletes an earlier file as soon as a run begins.)
    """

    name = version = ""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.file = folder / "metrics.csv"
        self.rows: list[dict[str, Any]] = read_metrics(self.file)
        self.columns: list[str] = []  # no file: nothing has been logged yet

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row; rewrite the file if it has new columns."""
        row = {"step": step, **metrics}
        if not self.columns:
            self.rows = [each for each in self.rows if step is None or self._stays(each, step, metrics.get("epoch"))]
        self.rows.append(row)
        if row.keys() <= set(self.columns):
            with touching(self.file), self.file.open("a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(row)
            return
        self.columns = sorted(set().union(*self.rows))
        with whole(self.file) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)

    @staticmethod
    def _stays(row: dict[str, Any], step: int, epoch: float | None) -> bool:
        """Whether to keep an earlier row: not one of an interrupted epoch that now resumes."""
        return int(row["step"]) < step and not (row.get("train_loss_epoch") and int(row["epoch"]) == epoch)

    def log_hyperparams(self, params: Any = None) -> None:
        """Does nothing: config.yml has them."""
