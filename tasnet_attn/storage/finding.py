"""Finding the file of a MODEL."""

from __future__ import annotations

import os
from pathlib import Path

from tasnet_attn.config import read_yaml
from tasnet_attn.errors import UserError, first_line
from tasnet_attn.files import touching
from tasnet_attn.storage.shipped import shipped, verified

HUB = "hf://"
HUB_FILES = ("config.json", "model.safetensors", "README.md")
CHECKPOINTS = ("best", "last")  # of a run; the first one by default


def find(model: str | os.PathLike, checkpoint: str | None = None) -> Path:
    """The file of a MODEL.

    Args:
        model: a model file, a Lightning checkpoint, a run folder, a folder in Hugging Face's layout, `hf://user/name`
            on its hub, or the name of a shipped model (`storage.shipped`); existing paths take precedence over names.
        checkpoint: of a run folder, "best" or "last" (the other if there is only one); None: the one that its recipe
            scores, `evaluation.checkpoint` of its configuration.

    Raises:
        UserError: no such file, folder or name, or no permission.
    """
    with touching(Path(model)):
        return _find(model, checkpoint)


def _find(model: str | os.PathLike, checkpoint: str | None) -> Path:
    if str(model).startswith(HUB[:-1]):  # a Path of it has one slash
        return find(_download(str(model).removeprefix(HUB[:-1]).removeprefix("/")))
    path = Path(model)
    named = shipped().get(str(model)) if not path.exists() else None
    if named is not None:
        return verified(named)
    if path.is_dir():
        names = sorted(CHECKPOINTS, key=(checkpoint or _scored(path)).__ne__)
        for name in (*(f"checkpoints/{name}.ckpt" for name in names), "model.safetensors"):
            if (path / name).is_file():
                return path / name
        raise UserError(
            f"{path}: no checkpoints/best.ckpt or last.ckpt in this folder, nor a model.safetensors; "
            "is it a run of `tasnet-attn train`?"
        )
    if not path.is_file():
        ships = "".join(f"{name}, " for name in shipped())
        raise UserError(
            f"{path}: no such model; give {ships}a run folder, a .ckpt, .safetensors or Asteroid .pth file, "
            f"or {HUB}USER/NAME"
        )
    return path


def _scored(run: Path) -> str:
    """The checkpoint that `evaluate` scores by a run's configuration."""
    file = run / "config.yml"
    section = read_yaml(file).get("evaluation") if file.is_file() else None
    chosen = section.get("checkpoint") if isinstance(section, dict) else None
    return chosen if chosen in CHECKPOINTS else CHECKPOINTS[0]


def _download(name: str) -> Path:
    """A model's three files from the hub, or from its cache; nothing else is fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(f"{HUB}{name}: not available from the Hugging Face Hub: {first_line(error)}") from error
