"""What a training prints: two lines, then a bar, or a line an epoch where there is no terminal."""

from __future__ import annotations

import logging
import math
import re
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.utilities import rank_zero_only

from tasnet_attn.model import SourceSeparator

NOISE = re.compile(  # what Lightning says about itself, its maker's services, and what our lines say
    r"[GTH]PU available|litlogger|Tip:|weights_only|`Trainer(.fit` stopped|.*was configured so)|Seed set to"
    r"|Restor(ing|ed)|current_model_state"
    r"|Detected KeyboardInterrupt|Received SIGTERM|distributed_backend|All distributed processes|^[-\s]*$"
)
WARNINGS = (
    ".*does not have many workers.*", ".*tensorboardX.*", ".*litlogger.*|.*litmodels.*", ".*Previous log files.*",
    ".*Checkpoint directory .* exists and is not empty.*", ".*callbacks used to create the checkpoint.*",
    ".*treespec, LeafSpec.*", ".*could not find the monitored key.*", ".*weights_only.*",
    ".*The dirpath has changed.*", ".*number of training batches .* is smaller than the logging interval.*",
)  # fmt: skip


@contextmanager
def quiet() -> Iterator[None]:
    """Inside the block the libraries keep to what a user can do something about."""

    def telling(record: logging.LogRecord) -> bool:
        return NOISE.search(record.getMessage()) is None

    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning.fabric")]
    handlers = [handler for logger in loggers for handler in logger.handlers]
    for handler in handlers:
        handler.addFilter(telling)
    try:
        with warnings.catch_warnings():
            for message in WARNINGS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(telling)


@rank_zero_only
def say(line: str) -> None:
    """A line for the user."""
    print(line, file=sys.stderr, flush=True)


def introduce(model: SourceSeparator, data: str, trainer: Trainer, out: Path) -> None:
    """The two lines that a training begins with."""
    number = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    devices = f"{trainer.world_size} x " if trainer.world_size > 1 else ""
    sources = ", ".join(model.sources)
    say(f"{model.separator.name}, {number:,} parameters: {sources} at {model.sample_rate} Hz, from {data}")
    say(f"training on {devices}{trainer.strategy.root_device} into {out}")


class Bar(TQDMProgressBar):
    """Lightning's bar without the logger's version."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        return {key: value for key, value in super().get_metrics(trainer, pl_module).items() if key != "v_num"}


class EpochLines(Callback):
    """One line an epoch."""

    began = math.nan

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say it, with what is known already: the epoch's training loss comes with the next hook."""
        shown = {key: trainer.callback_metrics.get(key) for key in ("train_loss_step", "valid_loss", "valid_si_snr")}
        values = "".join(f"  {key} {float(value):.4g}" for key, value in shown.items() if value is not None)
        seconds = time.perf_counter() - self.began
        took = "" if math.isnan(seconds) else f"  {seconds:.1f} s"
        say(f"epoch {trainer.current_epoch + 1}  step {trainer.global_step}{values}{took}")
