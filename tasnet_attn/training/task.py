"""SeparationTask: the training step of every model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal, Self

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import ReduceLROnPlateau
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tasnet_attn.config import describe
from tasnet_attn.losses import SISNR, Loss, heard, widened
from tasnet_attn.metrics import si_snr
from tasnet_attn.model import SourceSeparator
from tasnet_attn.storage import load
from tasnet_attn.storage.checkpoints import read_checkpoint
from tasnet_attn.storage.finding import find
from tasnet_attn.training.restoring import TASK, arguments
from tasnet_attn.training.waiting import waits

Optimise = Callable[[Iterable], Optimizer]
Schedule = Callable[[Optimizer], LRScheduler | ReduceLROnPlateau]


class SeparationTask(LightningModule):
    """Trains a model: one loss for training and validation, an optimiser, a schedule.

    The defaults are the LTL paper's: negative SI-SNR, Adam at 1e-4, halved after 3 epochs without a better validation
    loss. (torch's patience counts one epoch less, hence 2; its default threshold is relative, which treats a worse
    negative loss as a better one, hence 0.)

    Args:
        model: the model.
        loss: the objective; None: negative SI-SNR.
        optimizer: from parameters to an optimiser.
        lr_scheduler: from an optimiser to a schedule; None: a constant rate.
        lr_interval: whether the schedule counts epochs or steps.
        compile: use torch.compile, which needs a compiler; may be worth its minutes on a GPU.
        channels_last: use channels-last weights for 2-D convolutions, which some devices' kernels prefer.
    """

    def __init__(
        self,
        model: SourceSeparator,
        loss: Loss | None = None,
        optimizer: Optimise = lambda parameters: Adam(parameters, lr=1e-4),
        lr_scheduler: Schedule | None = lambda optimizer: ReduceLROnPlateau(
            optimizer, monitor="valid_loss", factor=0.5, patience=2, threshold=0.0, threshold_mode="abs"
        ),
        lr_interval: Literal["epoch", "step"] = "epoch",
        compile: bool = False,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last) if channels_last else model  # type: ignore[call-overload]
        self._compiled = torch.compile(model.analyse) if compile else None
        self.loss = loss or SISNR()
        self.optimizer, self.lr_scheduler, self.lr_interval = optimizer, lr_scheduler, lr_interval
        self.given_optimizer: Callable[[Optimizer], None] | None = None  # loads another run's optimiser state
        self._rng: dict[str, Any] | None = None
        self._epoch_began: float | None = None
        self._ratios = torch.zeros(2, 0)  # of each reference: sum in dB, number of those not silent
        self._epoch = torch.zeros(2)  # the epoch's sum of losses and number of segments, those with finite losses

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """One step on mixture [B, C, T] and references [B, S, C, T]."""
        loss, _ = self._loss(batch)
        self.log("train_loss_step", loss, prog_bar=True, sync_dist=True)
        value = loss.detach()
        size = value.isfinite() * len(batch[0])
        self._epoch += torch.stack([torch.where(size > 0, value * size, 0.0), size.to(value)])
        return loss

    def forward(self, mixture: Tensor) -> Tensor:
        """The model's estimates of a mixture [B, C, T]: [B, S, C, T]."""
        return self.model(mixture)

    def predict_step(self, batch: Any, index: int) -> Tensor:
        """Estimates [B, S, C, T] of a batch: mixtures alone, or a training batch."""
        mixture, *rest = (batch,) if isinstance(batch, Tensor) else batch
        return self.model(mixture, *map(self._scale, rest[1:]))

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """The same loss, over the validation segments."""
        self._measure(batch)

    def test_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """The same loss over the test segments; `evaluate` scores whole tracks."""
        self._measure(batch)

    def _measure(self, batch: tuple[Tensor, Tensor]) -> None:
        if not self._ratios.numel():
            self._ratios = self._sums.new_zeros(2, batch[1].shape[1])
        if len(batch[0]) == 0:
            return  # a padding batch: all processes must take the same number of steps
        loss, estimates = self._loss(batch)
        size = loss.new_tensor(len(batch[0]))
        self._add_ratios(batch[1].detach(), estimates.detach())
        self._sums += torch.stack([size * loss, size])
        if self.loss.scale_free:
            self._add_levels(widened(estimates), widened(batch[1]))

    def _add_levels(self, estimates: Tensor, references: Tensor) -> None:
        if self.model.interchangeable or estimates.shape[1] != references.shape[1]:  # an output is not one source
            estimates, references = estimates.sum(1, keepdim=True), references.sum(1, keepdim=True)
        products = torch.stack([estimates * references, estimates.square()])
        self._levels += products.sum((1, 3, 4))

    def on_validation_epoch_start(self) -> None:
        self._begin_measuring()

    def on_test_epoch_start(self) -> None:
        self._begin_measuring()

    def on_test_epoch_end(self) -> None:
        self._log_measured("test")

    def _begin_measuring(self) -> None:
        self._sums = self.model.gain.new_zeros(2)  # of the loss, and the number of segments
        self._levels = torch.zeros_like(self.model.gain).repeat(2, 1)  # <estimate, reference>, <estimate, estimate>
        self._ratios = torch.zeros(2, 0)  # the first batch gives the number of references

    def _add_ratios(self, references: Tensor, estimates: Tensor) -> None:
        """SI-SNR of a batch, for any loss; the loss matches estimates and references."""
        theirs = widened(references)
        ratios = si_snr(theirs, self.loss.matched(widened(estimates), theirs, self.model))  # [B, R, C]
        counted = heard(theirs) & ratios.isfinite()
        self._ratios += torch.stack([torch.where(counted, ratios, 0.0).sum((0, 2)), counted.sum((0, 2)).to(ratios)])

    def on_validation_epoch_end(self) -> None:
        """Before a training checkpoint is written: log the metrics, set the gain, step a plateau schedule.

        A loss that does not depend on the level leaves it, and even the sign, undetermined: each source's gain is set
        to bring its estimates closest to its references (least squares). If the sources are interchangeable, one gain
        brings the sum of the estimates closest to the sum of the references. This changes neither such a loss nor the
        training.
        """
        loss = self._log_measured("valid")
        if self.trainer.sanity_checking or self.trainer.state.fn != TrainerFn.FITTING:
            return
        if self.loss.scale_free:
            common, energy = self.trainer.strategy.reduce(self._levels, reduce_op="sum")
            self.model.gain *= torch.where(common != 0, common / energy, 1)
        for config in self.trainer.lr_scheduler_configs:
            if config.reduce_on_plateau and self.trainer.is_last_batch:
                config.scheduler.step(loss)  # type: ignore[arg-type]

    def _log_measured(self, split: str) -> Tensor:
        """Log a split's loss and SI-SNR over all processes; returns the loss.

        (Lightning's own mean over processes takes their mean number of segments as an integer.)
        """
        loss, size = self.trainer.strategy.reduce(self._sums, reduce_op="sum")
        self.log(f"{split}_loss", loss / size, prog_bar=True, sync_dist=True)
        total, heard = self.trainer.strategy.reduce(self._ratios, reduce_op="sum")
        sources = self.model.sources
        names = sources if len(total) == len(sources) else [f"mixture{i}" for i in range(1, 1 + len(total))]
        for name, ratio in zip(names, total / heard, strict=True):
            self.log(f"{split}_si_snr_{name}", ratio)
        self.log(f"{split}_si_snr", (total / heard).nanmean())
        return loss / size

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Skip plateau schedules: Lightning steps those after the checkpoint, and not in a resumed epoch."""
        if not isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def _loss(self, batch: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        mixture, references, *clips = batch  # some data sets return the clips that the segments are cut from
        separation = (self._compiled or self.model.analyse)(mixture, *map(self._scale, clips))
        with torch.autocast(mixture.device.type, enabled=False):
            return self.loss(separation, references, self.model), separation.estimates

    @torch.no_grad()
    def _scale(self, clips: list[Tensor]) -> Tensor | None:
        """The encoder's divisor of whole clips [C, T], [B, C]; None: every segment has its own."""
        if not self.model.encoder.clip_scaled:
            return None
        with torch.autocast(clips[0].device.type, enabled=False):
            return torch.stack([self.model.encoder.clip_scale([clip], clip.shape[-1]).flatten() for clip in clips])

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        if self.lr_scheduler is None:
            return optimizer
        schedule: dict[str, Any] = {"scheduler": self.lr_scheduler(optimizer), "interval": self.lr_interval}
        schedule |= {"monitor": "valid_loss", "strict": False}  # without validation a plateau schedule keeps its rate
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | os.PathLike,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        *,
        classes: Iterable[type] = (),
        **given: Any,
    ) -> Self:
        """A task with a checkpoint's model, weights, loss, optimiser and schedule; nothing is unpickled.

        Args:
            checkpoint_path: a checkpoint of this task, or a run folder (its best).
            map_location: a device.
            hparams_file: Lightning's; not needed, because a checkpoint describes itself.
            strict: Lightning's; the weights always have to fit.
            weights_only: Lightning's; a checkpoint is always read like this.
            classes: your own classes that the checkpoint names, if you have not imported their module.
            given: arguments of the task that replace the checkpoint's: loss, optimizer, lr_scheduler, lr_interval.
                (Optimiser and schedule are stored for runs of `train`; otherwise they have their defaults.)

        Raises:
            UserError: no such file, not such a checkpoint, or one that does not fit.
        """
        file = find(checkpoint_path)
        stated = arguments(read_checkpoint(file), given, classes)
        task = cls(load(file, classes), **{**stated, **given}).train()
        return task if map_location is None else task.to(map_location)

    # A checkpoint contains the model's description, for `load`, and the random state (dropout), for an exact resume.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["model_config"] = self.model.config
        loss = describe(self.loss) if isinstance(self.loss, Loss) else None
        checkpoint.setdefault(TASK, {"loss": loss, "lr_interval": self.lr_interval})
        of_all = self.trainer.strategy.all_gather(self._epoch)
        checkpoint["epoch_sums"] = of_all.reshape(-1, 2).cpu()  # a row for each process
        checkpoint["rng"] = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            checkpoint["rng"]["cuda"] = torch.cuda.get_rng_state(self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._rng = checkpoint.get("rng")
        sums = checkpoint.get("epoch_sums", self._epoch).reshape(-1, 2)
        if len(sums) == self.trainer.world_size:
            self._epoch = sums[self.trainer.global_rank]
        else:  # it resumes with another number of processes
            self._epoch = sums.sum(0) * self.trainer.is_global_zero

    def on_train_epoch_start(self) -> None:
        if waited := waits(self.trainer):
            waited.restart()
        self._epoch_began = time.perf_counter()
        self._epoch = self.model.gain.new_zeros(2)

    def on_train_epoch_end(self) -> None:
        total, size = self.trainer.strategy.reduce(self._epoch.clone(), reduce_op="sum")
        self.log("train_loss_epoch", total / size)
        self.log("train_loss", total / size, logger=False)
        if self._epoch_began is not None:  # None: resumed mid-epoch, its beginning is not known
            seconds = time.perf_counter() - self._epoch_began
            self.log("epoch_seconds", seconds, sync_dist=True)
            if waited := waits(self.trainer):
                self.log("loader_share", waited.share(), sync_dist=True)
            self._epoch_began = None

    def on_train_start(self) -> None:
        self._epoch = self._epoch.to(self.model.gain)
        if self.given_optimizer is not None:
            self.given_optimizer(self.trainer.optimizers[0])
        if self._rng is not None:
            torch.set_rng_state(self._rng["cpu"].cpu())
            if "cuda" in self._rng and self.device.type == "cuda":
                torch.cuda.set_rng_state(self._rng["cuda"].cpu(), self.device)
