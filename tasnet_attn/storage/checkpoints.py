"""Checkpoints: files of torch.save, read as plain data and tensors, without unpickling and within the file's size."""

from __future__ import annotations

import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from tasnet_attn.errors import UserError, first_line
from tasnet_attn.storage.tensors import Described

UNSAFE = re.compile(r"weights[_ ]only", re.IGNORECASE)  # torch's advice on how to run a file's code
NAMED = re.compile(r"GLOBAL ([\w.]+) was|class ([\w.]+) ")


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Read a file of torch.save with torch's reader of plain data; Asteroid's TorchVersion is read as text.

    Raises:
        UserError: not such a file, it contains more than plain data and tensors, or it unpacks to more than its size.
    """
    try:
        with file.open("rb") as opened:
            _check_size(file, opened)
            opened.seek(0)
            with torch.serialization.safe_globals([(str, "torch.torch_version.TorchVersion")]):
                # opened, because torch takes a name that ends with .safetensors for the other format
                checkpoint = torch.load(opened, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, OSError,
        AssertionError, MemoryError, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise UserError(f"{file}: not a checkpoint that can be read safely: {_reason(error)}") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{file}: contains a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


def _reason(error: Exception) -> str:
    text = first_line(error)
    if not UNSAFE.search(str(error)):
        return text
    named = next((name for match in NAMED.finditer(str(error)) for name in match.groups() if name), "")
    return (
        "it contains Python objects" + (f" ({named})" if named else "") + ", which are never run; only tensors are read"
    )


def _check_size(file: Path, opened: BinaryIO) -> None:
    """Reject a file that asks for more memory than its size, before any is allocated.

    torch.save stores its parts uncompressed, one after the other. Files of torch before 1.6 are a sequence of pickles;
    the fourth states the size of each part that follows.
    """
    size = opened.seek(0, 2)
    opened.seek(0)
    if zipfile.is_zipfile(opened):
        with zipfile.ZipFile(opened) as archive:
            parts = archive.infolist()
        packed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
        if packed or sum(part.file_size for part in parts) > size:
            raise UserError(f"{file}: not a checkpoint that can be read safely: unpacks to more than its size")
        return
    opened.seek(0)
    try:
        _, _, _, operations = ([*pickletools.genops(opened)] for _ in range(4))
    except ValueError as error:
        raise UserError(f"{file}: not a checkpoint that can be read safely: not a whole file of torch.save") from error
    stated = 0
    last: list[int | str | None] = [None] * 3
    for operation, value, _ in operations:
        if operation.name == "BINPERSID":  # ("storage", type, key, place, number, None)
            number = last[0] if isinstance(last[0], int) and last[1:] == ["NONE", "TUPLE"] else size + 1
            stated += max(number, 0)
        if "PUT" not in operation.name and operation.name != "MEMOIZE":
            last = [*last[1:], value if isinstance(value, int) else operation.name]
    if stated > size:
        raise UserError(f"{file}: not a checkpoint that can be read safely: asks for more memory than its size")


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
