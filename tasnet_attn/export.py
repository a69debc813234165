"""`tasnet-attn export`: a trained model leaves its run folder."""

from __future__ import annotations

from pathlib import Path

import torch

from tasnet_attn.errors import UserError
from tasnet_attn.model import load, save, segment_samples


def export(model: str, to: str, out: Path | None = None) -> Path:
    """Write a model to one file and prove that what was written is the model.

    Args:
        model: a run folder, a checkpoint or a model file.
        to: "safetensors".
        out: the file; None: `model.safetensors` in the run folder, or beside the checkpoint.

    Returns:
        The file.

    Raises:
        UserError: the file would be its own source.
    """
    source = Path(model)
    original = load(source)
    file = out or (source if source.is_dir() else source.parent) / f"model.{to}"
    if file.exists() and source.exists() and file.samefile(source):
        raise UserError(f"{file}: is the model itself; give another --out")
    save(original, file)
    reloaded = load(file)
    fixed = segment_samples(original)
    noise = torch.randn(1, 2, fixed or original.sample_rate, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        if not torch.equal(original(noise), reloaded(noise)):
            file.unlink()
            raise RuntimeError(f"{file}: the written model separates differently; removed")
    return file
