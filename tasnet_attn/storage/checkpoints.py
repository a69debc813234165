"""Checkpoints: what torch.save wrote, read as plain data and tensors, never unpickled."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from tasnet_attn.errors import UserError, first_line
from tasnet_attn.storage.tensors import Described


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Read what torch.save wrote, by its reader of plain data; Asteroid's TorchVersion is read as the text it is."""
    try:
        with torch.serialization.safe_globals([(str, "torch.torch_version.TorchVersion")]):
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, OSError) as error:
        reason = first_line(error)
        raise UserError(f"{file}: not a checkpoint that can be read safely: {reason}") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{file}: holds a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


def described(file: Path, checkpoint: dict[str, Any]) -> Described:
    """The model in a checkpoint of `tasnet-attn train`.

    Raises:
        UserError: another program's checkpoint.
    """
    config, state = checkpoint.get("model_config"), checkpoint.get("state_dict")
    if not isinstance(config, dict) or not isinstance(state, dict):
        raise UserError(f"{file}: a checkpoint, but not of `tasnet-attn train`: it does not describe its model")
    prefix = "model."
    weights = {name.removeprefix(prefix): value for name, value in state.items() if str(name).startswith(prefix)}
    return Described(config, weights, {})
