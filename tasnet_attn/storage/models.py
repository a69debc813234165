"""Models to files and back: `save`, `load`, and Hugging Face's names for both on the model itself."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch

from tasnet_attn.config import with_former
from tasnet_attn.errors import UserError
from tasnet_attn.model import SourceSeparator
from tasnet_attn.storage import asteroid, checkpoints, tensors
from tasnet_attn.storage.filling import check_nesting, fill
from tasnet_attn.storage.finding import HUB, find
from tasnet_attn.storage.hub import write_folder


def save(
    model: SourceSeparator,
    path: str | os.PathLike,
    facts: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a model to one safetensors file, atomically.

    Args:
        model: the model.
        path: the file.
        facts: more facts for the header: training data, scores, licence.
        dtype: to store the weights, for example torch.float16; they are loaded as float32. None: unchanged.

    Returns:
        The path.

    Raises:
        UserError: a weight is too large for `dtype`.
    """
    return tensors.write_safetensors(Path(path), model.config, model.state_dict(), tensors.header(model, facts), dtype)


def load(path: str | os.PathLike, classes: Iterable[type] = ()) -> SourceSeparator:
    """Load a model for use: in evaluation mode, on the CPU. Nothing is unpickled and no code of the file runs.

    Args:
        path: a model file of any name (safetensors, or Asteroid's), a Lightning checkpoint, a run folder (the
            checkpoint that its recipe scores), a folder in Hugging Face's layout, `hf://user/name` on its hub, or the
            name of a shipped model, like "speech-8k" (`tasnet-attn models` lists them).
        classes: your own classes that the file names, if you have not imported their module.

    Raises:
        UserError: no such file, not one of our models, or weights that do not fit.
    """
    file = find(path)
    if file.suffix in (".onnx", ".pt2", ".ts"):
        raise UserError(f"{file}: a graph for other runtimes; use the model that it was exported from (docs/deploy.md)")
    if tensors.is_safetensors(file):
        described = tensors.read_safetensors(file)
    else:
        checkpoint = checkpoints.read_checkpoint(file)
        if "model_name" in checkpoint:
            opened = asteroid.read(file, checkpoint)
            if not isinstance(opened, tensors.Described):
                return cast(SourceSeparator, opened)  # Asteroid's own: it implements `Separates`
            described = opened
        else:
            described = checkpoints.described(file, checkpoint)
    check_nesting(file, described.config)
    config = with_former(described.config)
    try:
        return fill(file, config, described.weights, lambda: SourceSeparator.from_config(config, classes))
    except UserError as error:
        raise error if str(error).startswith(str(file)) else UserError(f"{file}: {error}") from error


def save_pretrained(
    model: SourceSeparator,
    folder: str | os.PathLike,
    facts: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a folder in Hugging Face's layout: `config.json`, `model.safetensors`, a model card `README.md`.

    Args:
        model: the model.
        folder: created if necessary; can be pushed to the hub.
        facts: as in `save`; also for the card.
        dtype: as in `save`.

    Returns:
        The folder.
    """
    return write_folder(model, Path(folder), facts, dtype)


def from_pretrained(name: str | os.PathLike, classes: Iterable[type] = ()) -> SourceSeparator:
    """Load a model from the files of `save_pretrained`.

    Args:
        name: a folder, or a model's name on the Hugging Face Hub, like "user/name".
        classes: your own classes that it names.
    """
    return load(name if Path(name).exists() else f"{HUB}{str(name).removeprefix(HUB)}", classes)


SourceSeparator.save_pretrained = save_pretrained
SourceSeparator.from_pretrained = staticmethod(from_pretrained)
