"""How a run starts: new, resumed, or from another run's weights."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch

from tasnet_attn import config
from tasnet_attn.config.layers import merged
from tasnet_attn.data import SegmentedData
from tasnet_attn.data.fingerprint import differences as data_differences
from tasnet_attn.data.fingerprint import read_record, record
from tasnet_attn.errors import UserError
from tasnet_attn.storage import load
from tasnet_attn.storage.checkpoints import read_checkpoint
from tasnet_attn.storage.finding import find
from tasnet_attn.storage.tensors import is_safetensors
from tasnet_attn.training.amending import Amendments, epochs_done, misfit
from tasnet_attn.training.comparing import LIMITS, Differences, check, differences, is_free, within, written
from tasnet_attn.training.folder import FINISHED, read_history
from tasnet_attn.training.restoring import CONFIGURATION
from tasnet_attn.training.task import SeparationTask

# what resuming reads of a checkpoint: {where: what it is}
PARTS = {
    "state_dict": dict, "optimizer_states": list, "lr_schedulers": list, "callbacks": dict, "global_step": int,
    "loops/fit_loop/state_dict": dict, "loops/fit_loop/epoch_progress/current/processed": int,
    "loops/fit_loop/epoch_loop.batch_progress/is_last_batch": bool,
}  # fmt: skip


class Ways(NamedTuple):
    """The options of `train` that are not in its configuration."""

    change: list[str]
    fork: Path | None
    with_optimizer: bool


class Beginning(NamedTuple):
    """Where a training starts.

    Attributes:
        checkpoint: to resume from; None: from its first step.
        differs: differences between the request and the run's configuration.
        before: the configuration of the checkpoint.
        changed: differences between the request and `before` that affect the training.
        finished: how the run finished, if nothing is left to do; else empty.
        step: of the checkpoint.
    """

    checkpoint: Path | None = None
    differs: Differences = {}
    before: dict[str, Any] = {}
    changed: Differences = {}
    finished: str = ""
    step: int = 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def ways(arguments: Sequence[str]) -> tuple[Ways, list[str]]:
    """Remove `--change`, `--fork` and `--with-optimizer` from a command line."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--change", action="append", default=[], metavar="KEY")
    parser.add_argument("--fork", type=Path, metavar="NEW_OUT")
    parser.add_argument("--with-optimizer", action="store_true")
    found, rest = parser.parse_known_args(list(arguments))
    if found.with_optimizer and found.fork is None:
        raise UserError("--with-optimizer: needs --fork NEW_OUT")
    return Ways(found.change, found.fork, found.with_optimizer), [
        word.replace("--on-nan", "--on_nan", 1) for word in rest
    ]


def begin(
    out: Path, ckpt_path: str | None, full: dict[str, Any], change: Sequence[str], parse: Callable, data: Callable
) -> Beginning:
    """Determine where a training starts; writes nothing.

    Args:
        out: the run folder.
        ckpt_path: as given by the user.
        full: the requested configuration.
        change: settings that may differ from the run's.
        parse: from a command line to a full configuration.
        data: makes the requested data set.

    Raises:
        UserError: there is nothing to resume, or the run had other settings.
    """
    stored, last = out / "config.yml", out / "checkpoints" / "last.ckpt"
    if ckpt_path in (None, "last") and not last.is_file() and any("parent" in entry for entry in read_history(out)):
        # to begin again without the parent's weights would be another training
        raise UserError(f"{out}: a fork that ended before its first checkpoint; remove this folder and fork again")
    if ckpt_path is None:
        if stored.exists():
            raise UserError(f"{out}: already contains a run; resume it with --ckpt_path last, or give another --out")
        return Beginning()
    path = last if ckpt_path == "last" else Path(ckpt_path)
    if not path.is_file():
        if ckpt_path == "last":
            return Beginning()  # nothing to resume yet: --ckpt_path last is always allowed
        raise UserError(f"{path}: no such checkpoint")
    if is_safetensors(path):
        raise UserError(f"{path}: a model, not a checkpoint to resume; --fork NEW_OUT starts a run from its weights")
    checkpoint = _training(path)
    own = not stored.is_file() or path.parent.resolve() == last.parent.resolve()
    if not stored.is_file():
        stored = path.parent.parent / "config.yml"
    under = config.with_former(checkpoint.get(CONFIGURATION, {}))
    # settings newer than the run have their former defaults (`Configurable.former`)
    before = parse(["--config", str(stored)]) if stored.is_file() else merged(full, under)
    differs = _without_moved_data(differences(before, full), full, out, data)
    step, epochs = checkpoint["global_step"], epochs_done(checkpoint)
    finished = _finished(out, full, differs, step, epochs)
    check(out, differs, change, full, finished)
    before = merged(before, under)
    changed = _without_moved_data(differences(before, full), full, out if own else path.parent.parent, data)
    changed = {key: values for key, values in changed.items() if not is_free(key)}
    if not own:  # config.yml says nothing about another run's checkpoint
        if not under:
            raise UserError(f"{path}: of another run, whose settings it lacks; --fork NEW_OUT starts from its weights")
        check(path, changed, change, full, "")
        differs = {**differs, **changed}
    return Beginning(path, differs, before, changed, finished, step)


def _training(path: Path) -> dict[str, Any]:
    """A checkpoint of a training.

    Raises:
        UserError: it cannot be read, or has only weights, or lacks something else.
    """
    checkpoint = read_checkpoint(path)
    for where, kind in PARTS.items():
        found: Any = checkpoint
        for key in where.split("/"):
            found = found.get(key) if isinstance(found, dict) else None
        if not isinstance(found, kind):
            raise UserError(
                f"{path}: not a checkpoint of a training, for lack of {where}; --fork NEW_OUT starts a new one from "
                "its weights"
            )
    if not isinstance(checkpoint.get(CONFIGURATION, {}), dict):
        raise UserError(f"{path}: {CONFIGURATION} is not a configuration; --fork NEW_OUT starts from its weights")
    return checkpoint


def _without_moved_data(found: Differences, full: dict[str, Any], out: Path, data: Callable) -> Differences:
    """Data in another place with the same fingerprint are equal."""
    cls = next(c for c in config.known(SegmentedData) if config.name_of(c) == full["data"]["class_path"])
    places = {f"data.{name}" for name, setting in config.settings(cls).items() if "Path" in str(setting.annotation)}
    if not places & found.keys():
        return found
    earlier = read_record(out)
    if earlier is None or data_differences(earlier, record(data())):
        return found
    return {key: values for key, values in found.items() if key not in places}


def _finished(out: Path, full: dict[str, Any], differs: Differences, step: int, epochs: int) -> str:
    """How a run finished that has nothing left to do, in words; empty if it may resume.

    Raises:
        UserError: less is requested than it has done.
    """
    for name, done in (("max_steps", step), ("max_epochs", epochs)):
        limit = full["trainer"][name]
        if limit not in (None, -1) and done > limit:
            unit = name.removeprefix("max_")
            raise UserError(f"{out}: {done} {unit} are done, more than trainer.{name} {limit}; give at least {done}")
    if not (out / FINISHED).is_file():
        return ""
    limits = [(full["trainer"]["max_steps"], step), (full["trainer"]["max_epochs"], epochs)]
    reached = any(limit not in (None, -1) and done >= limit for limit, done in limits)
    if not reached and any(within(key, LIMITS) for key in differs):
        return ""
    last = out / "checkpoints" / "last.ckpt"
    if last.is_file():  # the given one may be an earlier one
        ended = _training(last)
        step, epochs = ended["global_step"], epochs_done(ended)
    return f"finished after {step} steps, {epochs} epochs"


def amendments(start: Beginning, task: SeparationTask, full: dict[str, Any]) -> Amendments:
    """The amendments of the checkpoint.

    Raises:
        UserError: no training can resume with these changes.
    """
    amend = Amendments(task, full, start.before, start.changed)
    if start.changed and start.checkpoint is not None:
        amend.check(read_checkpoint(start.checkpoint))
    return amend


def changes(start: Beginning) -> list[dict[str, Any]]:
    """The history's entries for a resumed run's changes."""
    return [
        {"step": start.step, "key": key, "old": old, "new": new}
        for key, (old, new) in start.differs.items()
        if not is_free(key)
    ]


def say_finished(out: Path, start: Beginning) -> str:
    """The message for a run that has nothing left to do."""
    aside = {key: values for key, values in start.differs.items() if key != "out" and not key.startswith("checkpoint")}
    others = f" (not applied, because nothing was trained: {written(aside)})" if aside else ""
    return f"{out}: {start.finished}; nothing is left to do{others}; for more set --trainer.max_steps or max_epochs"


class Fork:
    """Starts a new run from a model's weights, and optionally from a checkpoint's optimiser.

    Args:
        parent: a run folder (its last checkpoint), a checkpoint, or anything for `load`.
        with_optimizer: also use its optimiser's state, with the new run's settings.
    """

    def __init__(self, parent: str, with_optimizer: bool) -> None:
        last = Path(parent) / "checkpoints" / "last.ckpt"
        self.file = last if last.is_file() else find(parent)
        self.with_optimizer = with_optimizer
        self.state: dict[str, Any] | None = None

    def give_weights(self, task: SeparationTask) -> None:
        """Load the weights into a task's model.

        Raises:
            UserError: they do not fit, or there is no optimiser's state.
        """
        weights = load(self.file).state_dict()
        misfit(task.model, weights, "", f"the configured model ({self.file})")
        task.model.load_state_dict(weights)
        if not self.with_optimizer:
            return
        states = read_checkpoint(self.file).get("optimizer_states") if self.file.suffix == ".ckpt" else None
        if not states:
            raise UserError(f"{self.file}: has no optimiser's state; remove --with-optimizer")
        self.state = states[0]["state"]
        slots = {key for values in self.state.values() for key in values}
        configured = task.configure_optimizers()
        fresh = configured["optimizer"] if isinstance(configured, dict) else configured
        for parameter in task.parameters():
            parameter.grad = torch.zeros_like(parameter)
        before = {name: value.clone() for name, value in task.state_dict().items()}
        fresh.step()
        task.load_state_dict(before)
        task.zero_grad(set_to_none=True)
        if slots != {key for values in fresh.state_dict()["state"].values() for key in values}:
            raise UserError(f"{self.file}: its optimiser differs from task.optimizer; remove --with-optimizer")

    def give_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Load the state into the optimiser when training begins."""
        if self.state is not None:
            optimizer.load_state_dict({"state": self.state, "param_groups": optimizer.state_dict()["param_groups"]})

    def history(self) -> list[dict[str, Any]]:
        """The new run's first entry."""
        with self.file.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return [{"step": 0, "parent": str(self.file), "sha256": digest, "with_optimizer": self.with_optimizer}]
