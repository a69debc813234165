"""What a checkpoint says about the task that wrote it, as the task's arguments; nothing is unpickled or imported."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from pytorch_lightning.cli import ReduceLROnPlateau
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tasnet_attn.config import build
from tasnet_attn.errors import UserError
from tasnet_attn.losses import Loss

CONFIGURATION = "run_config"  # a checkpoint's key: the configuration that `train` wrote it under
TASK = "task"  # and, of whatever Trainer: loss and lr_interval


def arguments(checkpoint: dict[str, Any], given: dict[str, Any], classes: Iterable[type] = ()) -> dict[str, Any]:
    """Of the task in a checkpoint: loss, optimiser, schedule; what a checkpoint does not say has its default.

    Args:
        checkpoint: as it was read.
        given: arguments that are given otherwise, and so not looked at.
        classes: the caller's own.

    Raises:
        UserError: a class that this process has not imported, or a loss that is not a `Loss`.
    """
    stated: dict[str, Any] = checkpoint.get(CONFIGURATION, {}).get("task") or checkpoint.get(TASK, {})
    made = {key: value for key, value in stated.items() if key not in given}
    if "loss" in made:
        if made["loss"] is None and CONFIGURATION not in checkpoint:
            raise UserError("the checkpoint's loss is a class of its own that it does not describe; give loss=")
        made["loss"] = build(made["loss"], Loss | None, "task.loss", classes)
    for key, bases in {"optimizer": (Optimizer,), "lr_scheduler": (LRScheduler, ReduceLROnPlateau)}.items():
        if made.get(key) is not None:
            made[key] = _deferred(made[key], bases, f"task.{key}")
    return made


def _deferred(described: dict[str, Any], bases: Iterable[type], path: str) -> Any:
    """A class that this process knows, with its settings, to be called later."""
    package, _, name = described["class_path"].partition(".")
    todo, name = list(bases), name.rpartition(".")[2]
    while todo:
        cls = todo.pop()
        if cls.__name__ == name and cls.__module__.partition(".")[0] == package:
            return functools.partial(cls, **described.get("init_args", {}))
        todo += cls.__subclasses__()
    raise UserError(f"{path}: no class {described['class_path']!r} is imported; import it if you trust it, or give it")
