"""Model files as data: a description and tensors, read without unpickling, importing or believing anything in them.

What a stranger's file can ask for is bounded by what it holds: a model is first built on the meta device, where tensors
have shapes and no memory, and must agree with the file's tensors before it is built for use.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from tasnet_attn.errors import UserError
from tasnet_attn.files import whole
from tasnet_attn.model import SourceSeparator

HEADER = "tasnet_attn"
VERSIONS = ("tasnet-attn", "torch", "asteroid-filterbanks")
HUB = "hf://"
HUB_FILES = ("config.json", "model.safetensors", "README.md")
LARGEST = 10**6  # no setting of a model is larger, unless its file is; and no bank that a file does not hold (1 GiB):
BUFFERS = 1 << 28

Model = TypeVar("Model", bound=nn.Module)


class Described(NamedTuple):
    """What a file holds: the model's description, its weights by name, and what else its header says."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    facts: dict[str, Any]


def find(model: str | os.PathLike) -> Path:
    """The file that MODEL stands for.

    Args:
        model: a model file, a Lightning checkpoint, a run folder (its best checkpoint), a folder in Hugging Face's
            layout, or `hf://user/name` on its hub.

    Raises:
        UserError: no such file, folder or name.
    """
    if str(model).startswith(HUB):
        return find(_download(str(model).removeprefix(HUB)))
    path = Path(model)
    if path.is_dir():
        for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "model.safetensors"):
            if (path / name).is_file():
                return path / name
        raise UserError(
            f"{path}: no checkpoints/best.ckpt or last.ckpt in this folder, nor a model.safetensors; "
            "is it a run of `tasnet-attn train`?"
        )
    if not path.is_file():
        raise UserError(
            f"{path}: no such model; give a run folder, a .ckpt, .safetensors or Asteroid .pth file, or {HUB}USER/NAME"
        )
    return path


def _download(name: str) -> Path:
    """A model's three files from the hub, or from its cache; nothing else of it is fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(f"{HUB}{name}: not to be had from the Hugging Face Hub: {_first_line(error)}") from error


def read_safetensors(file: Path) -> Described:
    """Read a safetensors file; without a header of ours, the `config.json` beside it describes the model."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            header = (opened.metadata() or {}).get(HEADER)
            weights = {name: opened.get_tensor(name) for name in opened.keys()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: not a model file (safetensors): {_first_line(error)}") from error
    beside = file.with_name("config.json")
    if header is None and beside.is_file():
        header = beside.read_text(encoding="utf-8", errors="replace")
    if header is None:
        raise UserError(f"{file}: a safetensors file, but not one of this library: it has no {HEADER!r} header")
    try:
        facts = json.loads(header)
        return Described(facts.pop("config"), weights, facts)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{file}: its {HEADER!r} header is damaged: {error!r}") from error


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Read what torch.save wrote, by its reader of plain data; Asteroid's TorchVersion is read as the text it is."""
    try:
        with torch.serialization.safe_globals([(str, "torch.torch_version.TorchVersion")]):
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, OSError) as error:
        reason = _first_line(error)
        raise UserError(f"{file}: not a checkpoint that can be read safely: {reason}") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{file}: holds a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


def write_safetensors(
    file: Path, config: dict[str, Any], weights: dict[str, Tensor], facts: dict[str, Any], dtype: torch.dtype | None
) -> Path:
    """Write a description and weights; the file appears whole or not at all.

    Args:
        file: the file.
        config: the description.
        weights: by name.
        facts: what else the header says.
        dtype: store floating-point weights so (float16 halves the file); None: as they are.

    Raises:
        UserError: a weight is too large for `dtype`.
    """
    from safetensors.torch import save_file

    stored = {}
    for name, tensor in weights.items():
        tensor = tensor.detach().cpu().contiguous()
        if dtype is not None and tensor.is_floating_point():
            if not tensor.to(dtype).isfinite().all() and tensor.isfinite().all():
                raise UserError(f"{name} holds a weight that is too large for {str(dtype).removeprefix('torch.')}")
            tensor = tensor.to(dtype)
        stored[name] = tensor
    header = {**facts, "config": config}
    with whole(file) as part:
        save_file(stored, part, metadata={"format": "pt", HEADER: json.dumps(header)})
        os.chmod(part, 0o666 & ~_umask())  # safetensors makes files that only their owner can read
    return file


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def header(model: SourceSeparator, facts: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a file says beside the model's description."""
    own = {"sources": model.sources, "sample_rate": model.sample_rate, "versions": versions()}
    return {**(facts or {}), **own}


def versions() -> dict[str, str]:
    """The versions that a file records."""
    return {name: version(name) for name in VERSIONS}


def fill(file: Path, config: Any, weights: dict[str, Any], build: Callable[[], Model]) -> Model:
    """Build a model and give it a file's weights, if the two agree.

    Args:
        file: for messages.
        config: the description that `build` follows; its numbers are looked at.
        weights: by name.
        build: makes the model.

    Raises:
        UserError: numbers or a model out of proportion to the file, weights of other names, shapes or kinds, NaN.
    """
    for name, tensor in weights.items():
        if not isinstance(tensor, Tensor):
            raise UserError(f"{file}: {name!r} is no tensor")
    _check_numbers(file, config, max(LARGEST, sum(tensor.numel() for tensor in weights.values())))
    shapes = _on_meta(file, build, len(weights))
    expected = shapes.state_dict()
    misfit = f"{file}: the weights do not fit the model that the file describes: "
    for name in sorted(expected.keys() ^ weights.keys()):
        raise UserError(f"{misfit}{name!r} is {'missing' if name in expected else 'not a part of it'}")
    for name, tensor in expected.items():
        given = weights[name]
        if given.shape != tensor.shape:
            raise UserError(f"{misfit}{name!r} is {list(given.shape)}, not {list(tensor.shape)}")
        if given.is_floating_point() != tensor.is_floating_point() or given.is_complex() or given.is_sparse:
            raise UserError(f"{misfit}{name!r} is {given.dtype}, not {tensor.dtype}")
        if not given.isfinite().all():
            raise UserError(
                f"{file}: weights hold NaN or infinity ({name}); the training diverged or the file is damaged"
            )
    if sum(buffer.numel() for buffer in shapes.buffers()) > BUFFERS + sum(len(w.flatten()) for w in weights.values()):
        raise UserError(f"{file}: describes filters of more than {BUFFERS} numbers, which are not in the file")
    model = build()
    model.load_state_dict(weights)
    return model.eval()


def _check_numbers(file: Path, value: Any, largest: int, path: str = "config") -> None:
    """Refuse numbers out of proportion, before a constructor counts to them."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_numbers(file, item, largest, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _check_numbers(file, item, largest, f"{path}[{i}]")
    elif isinstance(value, (int, float)) and not abs(value) <= largest:
        raise UserError(f"{file}: {path} is {value}: no model of a file of this size; it is damaged or hostile")


def _on_meta(file: Path, build: Callable[[], Model], tensors: int) -> Model:
    """Build without memory, and stop as soon as there are more parameters than the file has tensors."""
    count = 0

    def more(module: nn.Module, name: str, parameter: Any) -> None:
        nonlocal count
        count += parameter is not None
        if count > 4 * tensors + 100:  # layers may register a parameter again, wrapped
            raise UserError(f"{file}: the weights do not fit the model that the file describes: it has more layers")

    hook = register_module_parameter_registration_hook(more)
    try:
        with torch.device("meta"):
            return build()
    except (RuntimeError, OverflowError, MemoryError) as error:  # sizes beyond what even a shape can be
        raise UserError(f"{file}: describes a model that cannot be built: {_first_line(error)}") from error
    finally:
        hook.remove()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
