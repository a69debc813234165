"""Amends the checkpoint of a resumed run: applies changed settings and keeps everything else."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import ReduceLROnPlateau

from tasnet_attn.errors import UserError
from tasnet_attn.training.comparing import Differences, within
from tasnet_attn.training.task import SeparationTask

PROGRESS = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")  # of a plateau schedule
# what an epoch's batches depend on
EPOCH = ("data.batch_size", "data.segments_per_epoch", "data.segment", "data.root", "trainer.limit_train_batches",
         "trainer.overfit_batches")  # fmt: skip


class Amendments:
    """Called with a checkpoint after reading; changes it in place.

    Args:
        task: as now configured.
        full: the new configuration.
        before: the configuration of the checkpoint.
        changed: their differences.
    """

    def __init__(self, task: SeparationTask, full: dict[str, Any], before: dict[str, Any], changed: Differences):
        self.task, self.full, self.before, self.changed = task, full, before, changed

    def check(self, checkpoint: dict[str, Any]) -> None:
        """Reject changes that make resuming impossible.

        Raises:
            UserError: names what does not fit.
        """
        for key in self.changed:
            if key == "task.optimizer":
                raise UserError(f"{key}: another optimiser cannot use this one's state; use --fork NEW_OUT")
        if any(key.startswith("model.") for key in self.changed):
            misfit(self.task.model, checkpoint["state_dict"], "model.", "the changed model")

    def __call__(self, checkpoint: dict[str, Any]) -> None:
        folder = (Path(self.full["out"]) / "checkpoints").absolute()
        for state in checkpoint["callbacks"].values():
            if "patience" in state:  # Lightning uses the checkpoint's patience
                state["patience"] = self.full["early_stopping"]["patience"]
            if "dirpath" in state:  # the folder may have moved; Lightning would forget which checkpoint is best
                state["dirpath"] = str(folder)
                if state["best_model_path"]:
                    state["best_model_path"] = str(folder / Path(state["best_model_path"]).name)
        if any(within(key, ("task.optimizer", "task.lr_scheduler", "task.lr_interval")) for key in self.changed):
            self._optimise(checkpoint)
        if "seed_everything" in self.changed:
            checkpoint.pop("rng", None)
        if self.full["ema"] is None and "current_model_state" in checkpoint:
            checkpoint["state_dict"] = checkpoint.pop("current_model_state")
        loop = checkpoint["loops"]["fit_loop"]
        if loop["epoch_loop.batch_progress"]["is_last_batch"]:
            _end_epoch(loop, by_steps=self.full["trainer"]["max_steps"] not in (None, -1))
        elif any(within(key, EPOCH) for key in self.changed):
            _begin_epoch_anew(loop)

    def _optimise(self, checkpoint: dict[str, Any]) -> None:
        """The optimiser's state with the new settings, and the new schedule at the step where the old one was."""
        configured = self.task.configure_optimizers()
        optimizer, schedule = configured, None
        if isinstance(configured, dict):
            optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
        (stored,) = checkpoint["optimizer_states"]
        earlier = next(iter(checkpoint["lr_schedulers"]), None)
        was_plateau = earlier is not None and "num_bad_epochs" in earlier
        if isinstance(schedule, ReduceLROnPlateau):
            if earlier is not None and was_plateau:
                schedule.load_state_dict({**schedule.state_dict(), **{k: earlier[k] for k in PROGRESS if k in earlier}})
                base = self.before["task"]["optimizer"]["init_args"].get("lr")
                for group, old in zip(optimizer.param_groups, stored["param_groups"], strict=True):
                    group["lr"] *= old["lr"] / base if base else 1.0  # as often as it was reduced
                schedule._last_lr = [group["lr"] for group in optimizer.param_groups]
        elif schedule is not None:
            by_step = self.task.lr_interval == "step"
            steps = checkpoint["global_step"] if by_step else epochs_done(checkpoint)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*lr_scheduler.step.*")
                for _ in range(steps):
                    schedule.step()
        kept = [group["params"] for group in stored["param_groups"]]
        groups = optimizer.state_dict()["param_groups"]
        stored["param_groups"] = [{**group, "params": params} for group, params in zip(groups, kept, strict=True)]
        checkpoint["lr_schedulers"] = [] if schedule is None else [schedule.state_dict()]


def epochs_done(checkpoint: dict[str, Any]) -> int:
    """The number of complete epochs of a training checkpoint."""
    return checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]


def misfit(model: Any, weights: dict[str, Any], prefix: str, which: str) -> None:
    """Reject weights that do not belong to the model.

    Raises:
        UserError: names the first that does not fit.
    """
    expected = {f"{prefix}{name}": list(value.shape) for name, value in model.state_dict().items()}
    given = {name: list(value.shape) for name, value in weights.items()}
    for name in sorted(expected.keys() | given.keys()):
        if expected.get(name) != given.get(name):
            raise UserError(
                f"the weights do not fit {which}: {name.removeprefix(prefix)!r} is {given.get(name, 'missing')}, "
                f"not {expected.get(name, 'a part of it')}; a model of another size needs its own run (--out)"
            )


def _begin_epoch_anew(loop: dict[str, Any]) -> None:
    """Restart the epoch if it is divided differently."""
    for counts in (loop["epoch_loop.batch_progress"]["current"], loop["epoch_loop.scheduler_progress"]["current"]):
        counts.update(dict.fromkeys(counts, 0))
    _begin_loader_anew(loop)


def _end_epoch(loop: dict[str, Any], by_steps: bool) -> None:
    """After an epoch's last batch, start the next epoch.

    The loader may have more batches than an epoch uses (limit_train_batches). And with max_steps set, Lightning would
    count a completed epoch twice and skip one (see also `LastCheckpoint.on_train_start`).
    """
    _begin_loader_anew(loop)
    epochs = loop["epoch_progress"]
    if by_steps and epochs["total"]["processed"] == epochs["total"]["started"]:
        for counts in epochs.values():
            counts["completed"] = counts["processed"]


def _begin_loader_anew(loop: dict[str, Any]) -> None:
    for state in loop["state_dict"].get("combined_loader", []):
        state["handed"] = 0
