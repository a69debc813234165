"""Divergence: a loss or gradient that is not finite ends a run, or such batches are skipped."""

from __future__ import annotations

import math
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from tasnet_attn.errors import UserError

IN_A_ROW = 10  # batches skipped before a run gives up
SCALING = 30  # consecutive steps that float16's scaler may skip while it searches for its scale


class Diverged(UserError):
    """The training diverged: exit status 1."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text, status)


class Guard(Callback):
    """Watches loss, gradients, weights and validation loss.

    The result stays on the device until it is read: when `Progress` draws its bar, when metrics are logged, and before
    every checkpoint. So no step waits, and only finite checkpoints are written. Skipping batches needs the result at
    each step.

    Args:
        skip: skip such batches, and give up after ten in a row.
    """

    def __init__(self, skip: bool = False) -> None:
        self.skip, self.skipped, self._in_a_row = skip, 0, 0
        self._loss: Tensor | None = None
        self._row: Tensor | None = None  # consecutive gradients that were not finite
        self._found = torch.zeros(2, dtype=torch.float64)  # the first such step, from 1; its learning rate

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Check the loss."""
        bad = ~loss.detach().isfinite().all()
        self._loss = bad if self._loss is None else self._loss | bad  # of all batches that a step accumulates

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Check the gradients; remove those of a skipped batch."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        bad = ~_finite([parameter.grad for parameter in parameters if parameter.grad is not None])
        loss = torch.zeros_like(bad) if self._loss is None else self._loss.to(bad.device)
        self._loss = None
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        if scaled and trainer.world_size > 1:  # gradients are shared by all processes, losses are not
            loss = loss.to(torch.uint8)
            torch.distributed.all_reduce(loss, torch.distributed.ReduceOp.MAX)
            loss = loss.bool()
        bad = bad | loss
        if self._row is None:
            self._row, self._found = bad.long() * 0, self._found.to(bad.device, torch.float32)
        self._row = (self._row + 1) * bad
        beyond = loss | (self._row > SCALING) if scaled else bad
        if self.skip:
            left_out = bool(trainer.strategy.reduce(beyond.float(), reduce_op="sum") > 0)
            self._in_a_row = (self._in_a_row + 1) * left_out
            if left_out:
                self.skipped += 1
                for parameter in parameters:
                    parameter.grad = None  # for the optimiser, such a parameter has no step
                if self._in_a_row >= IN_A_ROW:
                    raise Diverged(f"{IN_A_ROW} consecutive batches were skipped, up to {self._where(trainer)}")
            return
        now = self._found.new_tensor([trainer.global_step + 1, optimizer.param_groups[0]["lr"]])
        self._found = torch.where(beyond & (self._found[0] == 0), now, self._found)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read the result where the device is synchronised anyway; all processes at the same step."""
        if trainer._logger_connector.should_update_logs:
            self.read(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check a validation loss, which is already read."""
        value = trainer.callback_metrics.get("valid_loss")
        if not trainer.sanity_checking and value is not None and not math.isfinite(value):
            self.read(trainer)
            raise Diverged(f"the validation loss is {float(value)} at {self._where(trainer)}; {HINT}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the number of skipped batches."""
        if self.skip:
            pl_module.log("skipped_batches", float(self.skipped), sync_dist=False)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Check that weights are finite before they are written."""
        self.read(trainer)
        if not _finite([value for value in pl_module.state_dict().values() if value.is_floating_point()]):
            raise Diverged(f"weights are not finite at {self._where(trainer)}; {HINT}")

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped = state_dict["skipped"]

    def read(self, trainer: Trainer) -> None:
        """Wait for the device and check the result.

        Raises:
            Diverged: with step, epoch and learning rate.
        """
        step, rate = self._found.tolist()
        if step:
            where = f"step {step:.0f}, epoch {trainer.current_epoch}, learning rate {rate:.6g}"
            raise Diverged(f"the training diverged: the loss or a gradient is not finite at {where}; {HINT}")

    @staticmethod
    def _where(trainer: Trainer) -> str:
        rate = trainer.optimizers[0].param_groups[0]["lr"] if trainer.optimizers else math.nan
        return f"step {trainer.global_step}, epoch {trainer.current_epoch}, learning rate {float(rate):.6g}"


HINT = "the checkpoints are finite; lower task.optimizer.lr, or skip such batches with --on-nan skip"


def _finite(tensors: list[Tensor]) -> Tensor:
    """Whether all values are finite, on their device; by the largest magnitude, whose square may overflow."""
    return get_total_norm(tensors, norm_type=math.inf).isfinite() if tensors else torch.tensor(True)
