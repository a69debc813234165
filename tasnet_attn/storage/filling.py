"""Loading a file's weights into a model, safely.

A file from a stranger cannot ask for more memory than it contains: the model is first built on the meta device, where
tensors have shapes and no memory, and must match the file's tensors before it is built for use.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from tasnet_attn.errors import UserError, first_line
from tasnet_attn.model import SourceSeparator

LARGEST = 10**6  # largest setting of a model, unless its file is larger; and largest bank not in the file (1 GiB):
BUFFERS = 1 << 28
DEPTH = 100
SLACK = 1 << 20  # bytes by which a model may exceed its file's tensors, for constants
NODES = 100_000  # of a description; one that refers to its own parts has no end

Model = TypeVar("Model", bound=nn.Module)


def fill(file: Path, config: Any, weights: dict[str, Any], build: Callable[[], Model]) -> Model:
    """Build a model and load a file's weights into it, if the two match.

    Args:
        file: for messages.
        config: the description for `build`; its numbers are checked.
        weights: by name.
        build: makes the model.

    Raises:
        UserError: numbers or a model out of proportion to the file, weights of other names, shapes or kinds, NaN.
    """
    for name, tensor in weights.items():
        if not isinstance(tensor, Tensor):
            raise UserError(f"{file}: {name!r} is not a tensor")
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise UserError(f"{file}: {name!r} is not a plain tensor")
    held = sum({s._cdata: s.nbytes() for s in (w.untyped_storage() for w in weights.values())}.values())
    _check_numbers(file, config, max(LARGEST, held))
    shapes = _on_meta(file, build, len(weights))
    if isinstance(shapes, SourceSeparator):
        weights = shapes.of_today(weights)
    expected, kept = shapes.state_dict(), shapes.state_dict(keep_vars=True)
    misfit = f"{file}: the weights do not fit the model that the file describes: "
    for name in sorted(expected.keys() ^ weights.keys()):
        raise UserError(f"{misfit}{name!r} is {'missing' if name in expected else 'not a part of it'}")
    for name, tensor in expected.items():
        given = weights[name]
        if given.shape != tensor.shape:
            raise UserError(f"{misfit}{name!r} is {list(given.shape)}, not {list(tensor.shape)}")
        if given.is_floating_point() != tensor.is_floating_point() or given.is_complex():
            raise UserError(f"{misfit}{name!r} is {given.dtype}, not {tensor.dtype}")
    stated = {id(tensor): tensor.numel() * weights[name].element_size() for name, tensor in kept.items()}  # tied: once
    if sum(stated.values()) > held + SLACK:
        raise UserError(f"{file}: describes a model of {sum(stated.values()):,} bytes; its weights are {held:,}")
    for name, given in weights.items():
        if not (given if given.element_size() > 1 else given.float()).isfinite().all():  # float8 has no such test
            raise UserError(
                f"{file}: weights contain NaN or infinity ({name}); the training diverged or the file is damaged"
            )
    if sum(buffer.numel() for buffer in shapes.buffers()) > BUFFERS + held:
        raise UserError(f"{file}: describes filters of more than {BUFFERS} numbers, which are not in the file")
    model = build()
    model.load_state_dict(weights)
    return model.eval()


def check_nesting(file: Path, config: Any) -> None:
    """Reject a description that refers to its own parts repeatedly: expanded, it would never end.

    Raises:
        UserError: it does.
    """
    todo, count = [(config, 0)], 0
    while todo:
        (value, depth), count = todo.pop(), count + 1
        if count > NODES or depth > DEPTH:
            raise UserError(f"{file}: its description of the model is endless; it is damaged or malicious")
        if isinstance(value, (dict, list, tuple)):
            todo += [(item, depth + 1) for item in (value.values() if isinstance(value, dict) else value)]


def _check_numbers(file: Path, value: Any, largest: int, path: str = "config") -> None:
    """Reject numbers out of proportion, before a constructor uses them."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_numbers(file, item, largest, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _check_numbers(file, item, largest, f"{path}[{i}]")
    elif isinstance(value, (int, float)) and not abs(value) <= largest:
        raise UserError(f"{file}: {path} is {value}: too large for a file of this size; it is damaged or malicious")


def _on_meta(file: Path, build: Callable[[], Model], tensors: int) -> Model:
    """Build without memory, and stop when there are more parameters than tensors in the file."""
    count = 0

    def more(module: nn.Module, name: str, parameter: Any) -> None:
        nonlocal count
        count += parameter is not None
        if count > 4 * tensors + 100:  # layers may register a parameter again in a wrapper
            raise UserError(f"{file}: the weights do not fit the model that the file describes: it has more layers")

    hook = register_module_parameter_registration_hook(more)
    try:
        with torch.device("meta"), NoDraws():
            return build()
    except (RuntimeError, OverflowError, MemoryError) as error:  # sizes too large even for a shape
        raise UserError(f"{file}: describes a model that cannot be built: {first_line(error)}") from error
    finally:
        hook.remove()


class NoDraws(TorchFunctionMode):
    """Initial weights are not drawn: the meta device has no values, and trying loads torch's compiler."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") in ("normal_", "uniform_"):
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)
