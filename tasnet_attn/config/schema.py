"""The constructor is the schema: plain data is checked against annotations, completed with defaults, and built."""

from __future__ import annotations

import difflib
import functools
import inspect
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from tasnet_attn.config.components import (
    Configurable,
    describe,
    is_ours,
    known,
    look_up,
    name_of,
    parts,
    place,
    settings,
    shown,
)
from tasnet_attn.errors import UserError, first_line

REQUIRED = inspect.Parameter.empty
MOST = 10**12  # no number of a model or of its data is larger


def build(value: Any, annotation: Any, path: str, classes: Iterable[type] = (), **given: Any) -> Any:
    """Build what a description describes.

    Args:
        value: plain data, checked here or before.
        annotation: its type: a component's base class, or any annotation of a constructor.
        path: its place, for messages.
        classes: classes that take precedence over those that `known` finds.
        given: arguments of the outermost component that its owner fills in.

    Raises:
        UserError: see `complete`, or a value that the constructor rejects.
    """
    return _make(complete(value, annotation, path, classes, **given), annotation, path, tuple(classes), given)


def _make(value: Any, annotation: Any, path: str, classes: tuple[type, ...], given: dict[str, Any]) -> Any:
    base, deferred = _component(annotation)
    if base is not None and value is not None:
        cls, _ = look_up(value["class_path"], base, path, classes)
        arguments = {
            name: _make(item, settings(cls)[name].annotation, f"{path}.{name}", classes, {})
            for name, item in value["init_args"].items()
        }
        if deferred:
            return functools.partial(cls, **arguments)
        return _construct(cls, {**arguments, **given}, path)
    if dataclass := _dataclass(annotation):
        made = {k: _make(v, settings(dataclass)[k].annotation, f"{path}.{k}", classes, {}) for k, v in value.items()}
        return _construct(dataclass, made, path)
    if isinstance(value, list):
        items = [_make(x, _inner(annotation, -1), f"{path}[{i}]", classes, {}) for i, x in enumerate(value)]
        return tuple(items) if _origin(annotation) is tuple else items
    if isinstance(value, dict):
        return {key: _make(item, _inner(annotation, -1), f"{path}.{key}", classes, {}) for key, item in value.items()}
    return Path(value) if isinstance(value, str) and Path in _alternatives(annotation) else value


def _construct(cls: type, arguments: dict[str, Any], path: str) -> Any:
    try:
        return cls(**arguments)
    except (TypeError, ValueError, AssertionError, ArithmeticError) as error:
        cls, path = _culprit(error, cls, arguments, path)
        if is_ours(cls):
            raise UserError(f"{path}: {cls.__name__}: {first_line(error)}") from error
        raise UserError(f"{path}: {type(error).__name__}: {first_line(error)}{place(error, cls.__module__)}") from error


def _culprit(error: BaseException, cls: type, arguments: dict[str, Any], path: str) -> tuple[type, str]:
    """The class that raised: the one being built, or one that it built from a deferred argument."""
    builders = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    for name, item in arguments.items():
        if isinstance(item, functools.partial) and any(type(builder) is item.func for builder in builders):
            return type(next(b for b in builders if type(b) is item.func)), f"{path}.{name}"
    return cls, path


def complete(value: Any, annotation: Any, path: str, classes: Iterable[type] = (), **given: Any) -> Any:
    """Check plain data against an annotation and fill in every default.

    Args:
        value: plain data, as from YAML.
        annotation: its type.
        path: its place, for messages.
        classes: see `build`.
        given: see `build`.

    Returns:
        Plain data that `complete` returns unchanged.

    Raises:
        UserError: one line: path, value, what is allowed, the nearest spelling.
    """
    base, deferred = _component(annotation)
    allowed = _alternatives(annotation)
    if value is None and (types.NoneType in allowed or Any in allowed):
        return None
    if base is not None:
        return _complete_component(value, base, deferred, path, tuple(classes), given)
    if dataclass := _dataclass(annotation):
        return complete_arguments(value, dataclass, path, tuple(classes))
    fitting = [one for one in allowed if _fits(value, one)]
    if not fitting:
        raise UserError(f"{path}: {shown(value)} {_wanted(allowed)}")
    one = fitting[0]
    if isinstance(value, (list, tuple)):
        return [complete(item, _inner(one, i), f"{path}[{i}]", classes) for i, item in enumerate(value)]
    if isinstance(value, dict):
        if typing.get_args(one)[:1] == (str,) and (wrong := [key for key in value if not isinstance(key, str)]):
            raise UserError(f"{path}: the key {wrong[0]!r} is not text; quote it")
        return {key: complete(item, _inner(one, -1), f"{path}.{key}", classes) for key, item in value.items()}
    return one(value) if one in (int, float) else str(value) if one is Path else value


def _complete_component(
    value: Any, base: type, deferred: bool, path: str, classes: tuple[type, ...], given: dict[str, Any]
) -> Any:
    class_path, arguments = parts(value, path)
    if class_path is None:
        names = ", ".join(cls.__name__ for cls in known(base, classes))
        raise UserError(f"{path}: has no class; set {path}.class_path to one of {names}")
    cls, named = look_up(class_path, base, path, classes)
    for key, implied in named.items():
        if arguments.get(key, implied) != implied:
            raise UserError(f"{path}.{key}: {arguments[key]!r} contradicts {class_path!r}; leave one of them out")
    for key in given.keys() & arguments.keys():
        if arguments.pop(key) != given[key]:
            raise UserError(f"{path}.{key}: the model or the run sets it to {shown(given[key])}; remove it here")
    skip = given.keys() if given or not deferred else getattr(cls, "given", ())
    return {
        "class_path": name_of(cls),
        "init_args": complete_arguments({**arguments, **named}, cls, path, classes, skip),
    }


def complete_arguments(
    arguments: Any, function: Callable[..., Any], path: str, classes: Iterable[type] = (), skip: Iterable[str] = ()
) -> dict[str, Any]:
    """Check the arguments of a class or function by name and fill in its defaults; `skip` those that others provide.

    Raises:
        UserError: see `complete`; an unknown or a missing argument.
    """
    if not isinstance(arguments, dict):
        raise UserError(f"{path}: {shown(arguments)} is not a mapping of settings")
    allowed = {name: setting for name, setting in settings(function).items() if name not in set(skip)}
    owner = getattr(function, "__name__", "it")
    for key in arguments:
        if key not in allowed:
            hint = difflib.get_close_matches(str(key), allowed, n=1)
            guess = f"did you mean {hint[0]!r}?" if hint else f"it has {', '.join(allowed) or 'none'}"
            raise UserError(f"{path}.{key}: {owner} has no such setting; {guess}")
    filled = {}
    for name, setting in allowed.items():
        if name in arguments:
            filled[name] = complete(arguments[name], setting.annotation, f"{path}.{name}", classes)
            if inspect.isclass(function) and issubclass(function, Configurable) and is_ours(function):
                _check_range(filled[name], _least(function, name, setting.default), f"{path}.{name}")
        elif setting.default is REQUIRED:
            raise UserError(f"{path}.{name}: {owner} requires it; set it")
        elif not is_dataclass(function):
            filled[name] = describe(setting.default)
    return filled


def _least(cls: type[Configurable], name: str, default: Any) -> float:
    """The minimum of a number in our classes: for a size 1, or 0 if that is the default."""
    return cls.least.get(name, 0 if default == 0 and default is not False else 1)


def _check_range(value: Any, least: float, path: str) -> None:
    """Reject sizes that are too small or larger than any machine, and other negative numbers."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            _check_range(item, min(least, 0), f"{path}[{i}]")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    least = least if isinstance(value, int) else min(least, 0)
    if not least <= value <= MOST:
        raise UserError(f"{path}: {value} must be " + (f"at most {MOST:,}" if value > MOST else f"at least {least}"))


# ---- annotations ----------------------------------------------------------------------------------------------------


def _component(annotation: Any) -> tuple[type | None, bool]:
    """The base of a component's annotation, and whether its owner builds it (`Callable[..., base]`)."""
    for one in _alternatives(annotation):
        if inspect.isclass(one) and issubclass(one, Configurable):
            return one, False
        if _origin(one) is Callable and len(typing.get_args(one)) == 2:
            result = typing.get_args(one)[1]
            if inspect.isclass(result) and issubclass(result, Configurable):
                return result, True
    return None, False


def _dataclass(annotation: Any) -> type | None:
    return next((one for one in _alternatives(annotation) if inspect.isclass(one) and is_dataclass(one)), None)


def _alternatives(annotation: Any) -> list[Any]:
    """The parts of a union; a single annotation as a list of one."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return list(typing.get_args(annotation))
    return [types.NoneType if annotation is None else annotation]


def _origin(annotation: Any) -> Any:
    origin = typing.get_origin(annotation) or annotation
    return Callable if origin in (Callable, typing.Callable) else origin


def _inner(annotation: Any, index: int) -> Any:
    """The annotations of the items of a list, tuple or mapping."""
    arguments = typing.get_args(annotation)
    if not arguments:
        return Any
    if _origin(annotation) is tuple and arguments[-1] is not Ellipsis:
        return arguments[min(index, len(arguments) - 1)]
    return arguments[-1] if arguments[-1] is not Ellipsis else arguments[0]


def _fits(value: Any, one: Any) -> bool:
    """Whether plain data matches one annotation (not a union); items of a list are checked later."""
    origin = _origin(one)
    if origin is typing.Literal:
        return any(value == choice and type(value) is type(choice) for choice in typing.get_args(one))
    if one is bool:
        return isinstance(value, bool)
    if one in (int, float):
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e308
        return number and (one is float or value == int(value))
    if one in (str, Path):
        return isinstance(value, str)
    if one is types.NoneType:
        return value is None
    if origin in (list, tuple, set, Sequence, Iterable):
        return isinstance(value, (list, tuple))
    if origin in (dict, Mapping):
        return isinstance(value, dict)
    return True  # a user's annotation that does not describe plain data


_WORDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text", Path: "a path"}


def _wanted(allowed: list[Any]) -> str:
    """What is allowed, in words: "is neither 'a' nor 'b'", "is not a whole number"."""
    words: list[str] = []
    for one in allowed:
        if _origin(one) is typing.Literal:
            words += [repr(choice) for choice in typing.get_args(one)]
        elif one is not types.NoneType:
            lists = {list: "a list", tuple: "a list", Sequence: "a list", dict: "a mapping", Mapping: "a mapping"}
            words.append(str(_WORDS.get(one) or lists.get(_origin(one)) or getattr(one, "__name__", one)))
    null = ["null"] * (types.NoneType in allowed)
    if len(words) + len(null) == 1:
        return f"is not {[*words, *null][0]}"
    return (
        f"is neither {' nor '.join([*words, *null])}"
        if len(words) < 3
        else f"is not one of {', '.join([*words, *null])}"
    )
