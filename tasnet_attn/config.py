"""Components remember the arguments they were built with, so that a model can be written down and built again.

A description is plain data: ``{"class_path": "tasnet_attn.separators.ltl.LTL", "init_args": {...}}``. Building one
looks the class up in a closed table and never imports by name: a stranger's file can only name classes of ours.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Iterable
from typing import Any

from tasnet_attn.errors import UserError

_EMPTY = inspect.Parameter.empty


class Configurable:
    """Mixin: keeps the arguments an object was built with, for `describe`.

    `deferred` marks a class that its owner finishes: `build` then returns a `functools.partial` instead of an object
    (a separator gets `n_features` and `n_sources` from the model it stands in, never from a file).
    """

    deferred = False
    _arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Record the arguments; `copy` and `pickle` come here without any, and restore the record themselves."""
        self = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind_partial(self, *args, **kwargs)
        object.__setattr__(self, "_arguments", dict(list(bound.arguments.items())[1:]))
        return self


def describe(value: Any) -> Any:
    """Write down a component or a plain value, every default included.

    Args:
        value: a `Configurable`, or a (nested) list, dict or scalar.

    Returns:
        Plain data that `build` turns back into an equal component.
    """
    if isinstance(value, Configurable):
        return _description(type(value), value._arguments)
    if isinstance(value, dict):
        return {key: describe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    return value


def _description(cls: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    filled = {name: arguments.get(name, parameter.default) for name, parameter in _parameters(cls).items()}
    if cls.deferred:  # n_features and n_sources, which the owner fills in, have no default and are not described
        filled = {name: value for name, value in filled.items() if _parameters(cls)[name].default is not _EMPTY}
    return {
        "class_path": f"{cls.__module__}.{cls.__qualname__}",
        "init_args": {name: describe(value) for name, value in filled.items()},
    }


def build(description: Any, classes: Iterable[type], path: str = "model") -> Any:
    """Build what `describe` wrote down.

    Args:
        description: plain data.
        classes: the closed table; the last part of a `class_path` selects from it, and its module must agree.
        path: where the description stands, for error messages.

    Raises:
        UserError: an unknown class, an unknown or missing key, or a value that the constructor refuses.
    """
    classes = list(classes)
    if isinstance(description, list):
        return [build(item, classes, f"{path}[{i}]") for i, item in enumerate(description)]
    if not isinstance(description, dict):
        return description
    if "class_path" not in description:
        return {key: build(item, classes, f"{path}.{key}") for key, item in description.items()}
    if unknown := description.keys() - {"class_path", "init_args"}:
        raise UserError(f"{path}: unexpected key {sorted(unknown)[0]!r} beside class_path; put it under init_args")
    cls = _look_up(description["class_path"], classes, path)
    raw = description.get("init_args") or {}
    known = _parameters(cls)
    for key in raw:
        if key not in known:
            hint = difflib.get_close_matches(key, known, n=1)
            guess = f"did you mean {hint[0]!r}?" if hint else f"it has {', '.join(known)}"
            raise UserError(f"{path}.{key}: {cls.__name__} has no such setting; {guess}")
    arguments = {key: build(item, classes, f"{path}.{key}") for key, item in raw.items()}
    if cls.deferred:
        return functools.partial(cls, **arguments)
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {cls.__name__}: {error}") from error


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    parameters = dict(inspect.signature(cls.__init__).parameters)  # type: ignore[misc]
    parameters.pop("self")
    return parameters


def _look_up(class_path: Any, classes: list[type], path: str) -> Any:
    """Find a class by its name; a module that is given must be the one the class comes from, or a package around it."""
    module, _, name = str(class_path).rpartition(".")
    for cls in classes:
        if cls.__qualname__ == name and (not module or f"{cls.__module__}.".startswith(f"{module}.")):
            return cls
    raise UserError(
        f"{path}: {class_path!r} is not one of this library's classes; "
        "if it is your own and you trust the file, pass it: load(path, classes=[YourClass])"
    )
