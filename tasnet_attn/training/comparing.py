"""Compares a resumed run's stored configuration with the requested one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasnet_attn.errors import UserError

Differences = dict[str, tuple[Any, Any]]  # by key, as written by a user: the old and the new value

# where, how long, and output; of the trainer everything that does not affect the result
FREE = ("out", "evaluation", "checkpoint", "early_stopping", "on_nan", "data.workers", "data.cache",
        "task.compile", "task.channels_last")  # fmt: skip
BOUND = (
    "early_stopping.monitor", "early_stopping.mode", "trainer.precision", "trainer.gradient_clip_val",
    "trainer.gradient_clip_algorithm", "trainer.accumulate_grad_batches", "trainer.limit_train_batches",
    "trainer.limit_val_batches", "trainer.overfit_batches", "trainer.val_check_interval",
    "trainer.check_val_every_n_epoch", "trainer.sync_batchnorm", "trainer.use_distributed_sampler",
)  # fmt: skip
LIMITS = ("trainer.max_steps", "trainer.max_epochs", "trainer.max_time", "trainer.min_steps", "trainer.min_epochs",
          "early_stopping")  # fmt: skip


def within(key: str, prefixes: Iterable[str]) -> bool:
    """Whether a key is one of these, or below one of them."""
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)


def is_free(key: str) -> bool:
    """Whether a resumed run may change it without `--change`."""
    return within(key, (*FREE, "trainer")) and not within(key, BOUND)


def differences(old: Any, new: Any, path: str = "") -> Differences:
    """Every key that differs, without `init_args`; for a component of another class only the class."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return {} if old == new and (old is None) == (new is None) else {path: (old, new)}
    if old.get("class_path") != new.get("class_path"):
        return {path: (old.get("class_path"), new.get("class_path"))}
    found: Differences = {}
    for key in {**old, **new}:
        inner = path if key in ("init_args", "class_path") else f"{path}.{key}".lstrip(".")
        found |= differences(old.get(key), new.get(key), inner)
    return found


def written(found: Differences) -> str:
    """Differences in words."""
    return ", ".join(f"{key} {_value(old)} -> {_value(new)}" for key, (old, new) in found.items())


def _value(value: Any) -> str:
    if isinstance(value, dict) and "class_path" in value:
        value = value["class_path"]
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check(out: Path, found: Differences, allowed: Iterable[str], full: dict[str, Any], finished: str) -> None:
    """Reject changes that need `--change`.

    Args:
        out: the run folder.
        found: differences from the run's own configuration.
        allowed: the keys of `--change`; each includes all keys below it.
        full: the requested configuration.
        finished: how the run finished, in words; empty: it may resume.
    """
    allowed = [key.replace(".init_args", "") for key in allowed]
    known = {key for key, _ in _leaves(full)}
    for key in allowed:
        if not any(within(one, [key]) for one in known | found.keys()):
            close = difflib.get_close_matches(key, known, n=1)
            raise UserError(f"--change {key}: no such setting" + (f"; did you mean {close[0]}?" if close else ""))
    bound = {key: values for key, values in found.items() if not is_free(key)}
    refused = {key: values for key, values in bound.items() if not within(key, allowed)}
    if finished and bound:
        raise UserError(
            f"{out}: {finished}, with other settings than requested: {written(bound)}; choose another --out or "
            "--tag, start a new run from its weights with --fork NEW_OUT, or request more steps and --change KEY"
        )
    if refused:
        raise UserError(
            f"{out}: the run began with other settings: {written(refused)}; keep the old ones, resume with the "
            "new ones by --change KEY for each, or start a new run from its weights with --fork NEW_OUT"
        )


def _leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        return [(path, value)]
    parts = []
    for key, item in value.items():
        parts += _leaves(item, path if key in ("init_args", "class_path") else f"{path}.{key}".lstrip("."))
    return parts
