"""The output of a training: two lines, then a bar, or without a terminal a line per epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only

from tasnet_attn import terminal
from tasnet_attn.model import SourceSeparator
from tasnet_attn.training.waiting import waits


@rank_zero_only
def say(line: str) -> None:
    """Print a line once for all processes of a training."""
    terminal.say(line)


def introduce(model: SourceSeparator, data: str, trainer: Trainer, out: Path) -> None:
    """The first two lines of a training."""
    number = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    devices = f"{trainer.world_size} x " if trainer.world_size > 1 else ""
    sources = ", ".join(model.sources)
    say(f"{model.separator.name}, {number:,} parameters: {sources} at {model.sample_rate} Hz, from {data}")
    say(f"training on {devices}{trainer.strategy.root_device} into {out}")


class Progress(Callback):
    """Prints a line per epoch and, in a terminal, a bar over the batches with the loss and the total remaining time.

    Args:
        look: called with the trainer when the bar is drawn, when the loss is read anyway.
    """

    def __init__(self, look: Callable[[Trainer], None] | None = None) -> None:
        self.look = look

    bar: Any = None
    began = epoch_began = drawn = math.nan
    first = 0  # first step of this process

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began, self.first = time.perf_counter(), trainer.global_step

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epoch_began = time.perf_counter()
        self._open(trainer, trainer.num_training_batches, f"epoch {trainer.current_epoch + 1}")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Draw from time to time: reading the loss synchronises with the device."""
        if self.bar is None:
            return
        self.bar.update()
        now = time.perf_counter()
        if not now - self.drawn < 0.5:
            self.drawn = now
            if self.look is not None and trainer.world_size == 1:  # several batches may share a step
                self.look(trainer)
            loss = trainer.callback_metrics.get("train_loss_step", math.nan)
            self.bar.set_postfix_str(f"loss {float(loss):.4g}{self._left(trainer)}", refresh=False)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._open(trainer, sum(trainer.num_val_batches), "validation")

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self.bar is not None:
            self.bar.update()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's metrics; the training loss comes with the next hook."""
        self._close()
        shown = {key: trainer.callback_metrics.get(key) for key in ("train_loss_step", "valid_loss", "valid_si_snr")}
        values = "".join(f"  {key} {float(value):.4g}" for key, value in shown.items() if value is not None)
        seconds = time.perf_counter() - self.epoch_began
        took = "" if math.isnan(seconds) else f"  {seconds:.1f} s"  # unknown for a resumed epoch
        waited = waits(trainer)
        loader = f"  waiting for data {waited.share():.1%}" if waited and took else ""
        say(f"epoch {trainer.current_epoch + 1}  step {trainer.global_step}{values}{took}{loader}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _open(self, trainer: Trainer, batches: float, about: str) -> None:
        self._close()
        if terminal.live() and trainer.is_global_zero and math.isfinite(batches):
            self.bar = terminal.bar(batches, "batches", about)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _left(self, trainer: Trainer) -> str:
        total, done = trainer.estimated_stepping_batches, trainer.global_step
        if not math.isfinite(total) or done == self.first:
            return ""
        left = (time.perf_counter() - self.began) / (done - self.first) * max(0, total - done)
        return f", {terminal.duration(left)} left in total"
