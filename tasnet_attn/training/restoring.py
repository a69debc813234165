"""A checkpoint's description of its task, as the task's arguments; nothing is unpickled or imported."""

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

CONFIGURATION = "run_config"  # a checkpoint's key: the configuration of `train`
TASK = "task"  # and, for any Trainer: loss and lr_interval


def arguments(checkpoint: dict[str, Any], given: dict[str, Any], classes: Iterable[type] = ()) -> dict[str, Any]:
    """Arguments of the task in a checkpoint: loss, optimiser, schedule; missing ones have their defaults.

    Args:
        checkpoint: as read.
        given: arguments given elsewhere, which are ignored here.
        classes: the caller's own.

    Raises:
        UserError: a class that this process has not imported, or a loss that is not a `Loss`.
    """
    stated: dict[str, Any] = checkpoint.get(CONFIGURATION, {}).get("task") or checkpoint.get(TASK, {})
    made = {key: value for key, value in stated.items() if key not in given}
    if "loss" in made:
        if made["loss"] is None and CONFIGURATION not in checkpoint:
            raise UserError("the checkpoint does not describe its own class of loss; pass loss=")
        made["loss"] = build(made["loss"], Loss | None, "task.loss", classes)
    for key, bases in {"optimizer": (Optimizer,), "lr_scheduler": (LRScheduler, ReduceLROnPlateau)}.items():
        if made.get(key) is not None:
            made[key] = _deferred(made[key], bases, f"task.{key}")
    return made


def _deferred(described: dict[str, Any], bases: Iterable[type], path: str) -> Any:
    """An imported class with its settings, to be called later."""
    package, _, name = described["class_path"].partition(".")
    todo, name = list(bases), name.rpartition(".")[2]
    while todo:
        cls = todo.pop()
        if cls.__name__ == name and cls.__module__.partition(".")[0] == package:
            return functools.partial(cls, **described.get("init_args", {}))
        todo += cls.__subclasses__()
    raise UserError(f"{path}: class {described['class_path']!r} is not imported; import it if you trust it, or pass it")
