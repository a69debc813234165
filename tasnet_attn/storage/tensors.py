"""Model files: a description and tensors in one safetensors file; reading one runs no code and trusts nothing in it."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tasnet_attn.errors import UserError, first_line
from tasnet_attn.files import whole
from tasnet_attn.model import SourceSeparator
from tasnet_attn.storage.shapes import well_formed

HEADER = "tasnet_attn"
VERSIONS = ("tasnet-attn", "torch", "asteroid-filterbanks")


class Described(NamedTuple):
    """The contents of a file: the model's description, its weights by name, and other facts of its header."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    facts: dict[str, Any]


def is_safetensors(file: Path) -> bool:
    """Whether a model file is read as safetensors, by its content: any name will do; else by its suffix.

    A safetensors file begins with the length of its header, 8 bytes, and the header, JSON.
    """
    try:
        with file.open("rb") as opened:
            head = opened.read(9)
    except OSError:
        head = b""  # its reader says why
    known = head[8:] == b"{" or head[:4] == b"PK\x03\x04" or head[:1] == b"\x80"  # the last two: torch.save's
    return head[8:] == b"{" if known else file.suffix in (".safetensors", "")


def read_facts(file: Path) -> dict[str, Any]:
    """A model file's header, without its weights and without facts that have not the shape of ours."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            header = json.loads((opened.metadata() or {}).get(HEADER, "null"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: not a model file of this library: {first_line(error)}") from error
    facts = well_formed(header) if isinstance(header, dict) else {}
    if lacking := [name for name in ("sources", "sample_rate") if name not in facts]:
        raise UserError(f"{file}: not a model file of this library: its header has no {' and no '.join(lacking)}")
    return facts


def read_safetensors(file: Path) -> Described:
    """Read a safetensors file; without our header, the `config.json` next to it describes the model."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            header = (opened.metadata() or {}).get(HEADER)
            weights = {name: opened.get_tensor(name) for name in opened.keys()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: not a model file (safetensors): {first_line(error)}") from error
    beside = file.with_name("config.json")
    if header is None and beside.is_file():
        header = beside.read_text(encoding="utf-8", errors="replace")
    if header is None:
        raise UserError(f"{file}: a safetensors file, but not one of this library: it has no {HEADER!r} header")
    try:
        facts = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: its {HEADER!r} header is damaged: {error!r}") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("config"), dict):
        raise UserError(f"{file}: its {HEADER!r} header is damaged: it describes no model (config)")
    return Described(facts.pop("config"), weights, facts)


def write_safetensors(
    file: Path, config: dict[str, Any], weights: dict[str, Tensor], facts: dict[str, Any], dtype: torch.dtype | None
) -> Path:
    """Write a description and weights, atomically.

    Args:
        file: the file.
        config: the description.
        weights: by name.
        facts: other facts for the header.
        dtype: to store floating-point weights (float16 halves the file); None: unchanged.

    Raises:
        UserError: a weight is too large for `dtype`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    stored = {}
    for name, tensor in weights.items():
        tensor = tensor.detach().cpu().contiguous()
        if dtype is not None and tensor.is_floating_point():
            if not tensor.to(dtype).isfinite().all() and tensor.isfinite().all():
                raise UserError(f"{name} contains a weight that is too large for {str(dtype).removeprefix('torch.')}")
            tensor = tensor.to(dtype)
        stored[name] = tensor
    header = {**facts, "config": config}
    with whole(file) as part:
        try:
            save_file(stored, part, metadata={"format": "pt", HEADER: json.dumps(header)})
        except SafetensorError as error:
            raise UserError(f"{file}: cannot be written: {first_line(error)}", status=1) from error
        os.chmod(part, 0o666 & ~_umask())  # safetensors creates files that only their owner can read
    return file


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def header(model: SourceSeparator, facts: dict[str, Any] | None = None) -> dict[str, Any]:
    """A file's facts, without the model's description."""
    own = {
        "name": model.separator.name,
        "sources": model.sources,
        "sample_rate": model.sample_rate,
        "versions": versions(),
    }
    return {**(facts or {}), **own}


def versions() -> dict[str, str]:
    """The versions to record in a file."""
    return {name: version(name) for name in VERSIONS}
