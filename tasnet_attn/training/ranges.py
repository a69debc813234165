"""Ranges of numbers in Lightning's part of a configuration, whose own classes accept invalid ones."""

from __future__ import annotations

import math
from typing import Any

from tasnet_attn.errors import UserError

ANY = ("early_stopping.min_delta", "early_stopping.stopping_threshold", "early_stopping.divergence_threshold", "task")
LEAST = {
    **dict.fromkeys(("max_steps", "max_epochs", "min_steps", "min_epochs", "devices", "num_sanity_val_steps"), -1),
    **dict.fromkeys(("accumulate_grad_batches", "check_val_every_n_epoch", "num_nodes"), 1),
    "save_top_k": -1,
}
POSITIVE = ("trainer.val_check_interval",)
MOST = {"seed_everything": 2**32 - 1, "ema": 1}


def check(value: Any, path: str = "") -> None:
    """Reject a number that is not finite, negative where not allowed, or too large.

    Raises:
        UserError: names its path and what is allowed.
    """
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            check(item, path if key == "init_args" else f"{path}.{key}".lstrip("."))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    if not math.isfinite(value):
        raise UserError(f"{path}: {value} is not a finite number")
    if path.startswith(ANY):
        return
    least, most = LEAST.get(path.rpartition(".")[2], 0), MOST.get(path, math.inf)
    if path in POSITIVE and value == 0:
        raise UserError(f"{path}: 0 must be above 0")
    if not least <= value <= most:
        raise UserError(f"{path}: {value} must be " + (f"at least {least}" if value < least else f"at most {most}"))
