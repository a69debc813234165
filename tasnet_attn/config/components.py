"""Components: objects that record their arguments, the classes that can be named, and the description of both."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import os
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from tasnet_attn.errors import UserError
from tasnet_attn.extras import advice

PACKAGE = __name__.partition(".")[0]
BASES = ("torch", "pytorch_lightning", "builtins")  # whose constructors have no settings
IMPORTED: list[str] = []  # imported by `import_modules`; our other processes need them too
MOVED = {"tasnet_attn.schedules": "tasnet_attn.training.schedules"}  # modules named in files of earlier versions
OPTIONAL = {  # our classes that need an extra, and their modules
    name: "tasnet_attn.separators.asteroid"
    for name in ("DPRNN", "DPTransformer", "LSTMMasker", "SuDORMRF", "TDConvNet")
}


class Configurable:
    """Mixin: records the arguments that an object was built with, for `describe`.

    Attributes:
        given: arguments that the owner fills in, never a file: a separator's `n_features` and `n_sources`, a data set's
            `sources` and `sample_rate` come from the model.
        fixed: settings of its base that a class sets itself, although its constructor passes others on by `**`.
        abstract: true in the body of a base class, which cannot be named itself.
        least: minimum values of numbers, if not 1 for a size (0 if that is the default) and 0 for other numbers.
        former: for settings that older model files lack, the value that such a file stands for.
    """

    given: ClassVar[tuple[str, ...]] = ()
    fixed: ClassVar[tuple[str, ...]] = ()
    abstract: ClassVar[bool] = True
    least: ClassVar[dict[str, float]] = {}
    former: ClassVar[dict[str, Any]] = {}
    _arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Record the arguments; `copy` and `pickle` call this without any and restore the record themselves."""
        self = super().__new__(cls)
        positional = [name for name, setting in settings(cls).items() if not setting.keyword_only]  # type: ignore[arg-type]
        object.__setattr__(self, "_arguments", {**dict(zip(positional, args, strict=False)), **kwargs})
        return self

    @classmethod
    def parse(cls, name: str) -> dict[str, Any]:
        """The arguments for a special name, for example 2_trans_0; an error for classes without such names."""
        raise ValueError(f"{name!r} is not a name of a {cls.__name__}")

    @classmethod
    def meant(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments, with None replaced by its meaning: equal for equal objects."""
        return arguments


class Setting(NamedTuple):
    """One argument of a constructor."""

    annotation: Any
    default: Any
    keyword_only: bool


@functools.cache
def settings(function: Any) -> dict[str, Setting]:
    """The arguments of a class or function by name, including its base's if a constructor passes them on by `**`.

    A class without its own constructor has its base's.
    """
    found: dict[str, Setting] = {}
    if not inspect.isclass(function):
        _add_settings(found, function, skip=0)
        return found
    for cls in function.__mro__:
        constructor = cls.__dict__.get("__init__")
        if constructor is None or cls.__module__.partition(".")[0] in BASES:
            continue
        if not _add_settings(found, constructor, skip=1):
            break
    return {name: setting for name, setting in found.items() if name not in getattr(function, "fixed", ())}


def _add_settings(found: dict[str, Setting], function: Callable[..., Any], skip: int) -> bool:
    """Add a function's arguments; returns whether it takes more by `**`."""
    hints = _hints(function)
    open_end = False
    for name, parameter in list(inspect.signature(function).parameters.items())[skip:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            open_end = True
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            keyword_only = parameter.kind is parameter.KEYWORD_ONLY or open_end
            found.setdefault(name, Setting(hints.get(name, Any), parameter.default, keyword_only))
    return open_end


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Evaluated annotations; one with a name that does not exist at run time is ignored."""
    function = inspect.unwrap(function)
    hints: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        try:
            hints[name] = typing.get_type_hints(types.SimpleNamespace(__annotations__={name: annotation}),
                                                getattr(function, "__globals__", {}))[name]  # fmt: skip
        except (NameError, AttributeError, TypeError, SyntaxError):
            hints[name] = Any
    return hints


# ---- classes that can be named ---------------------------------------------------------------------------------------


def import_modules(names: Iterable[str]) -> None:
    """Import the user's modules (`--import`), also from the working folder: configurations can then name their classes.

    Raises:
        UserError: no such module, or it raises; names file and line.
    """
    here = os.getcwd()
    for name in names:
        if name not in IMPORTED:
            IMPORTED.append(name)
        sys.path.append(here)  # for this import only, and last: no file of the folder replaces a library
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if lacks := advice(error):
                raise UserError(f"--import {name}: {lacks}") from error
            if error.name is not None and name.startswith(error.name):
                raise UserError(f"--import {name}: no such module, neither installed nor in {here}") from error
            raise UserError(f"--import {name}: {error}{place(error, name)}") from error
        except Exception as error:  # any exception in a user's module is reported to the user
            raise UserError(f"--import {name}: {type(error).__name__}: {error}{place(error, name)}") from error
        finally:
            sys.path.remove(here)


def known(base: type, classes: Iterable[type] = ()) -> list[type]:
    """The classes that can be used for `base`: subclasses imported by this process, ours first."""
    found = dict.fromkeys(classes)
    todo: list[type] = list(base.__subclasses__())
    while todo:
        cls = todo.pop()
        todo += cls.__subclasses__()
        found[cls] = None
    named = [
        cls
        for cls in [*found, base]
        if not cls.__dict__.get("abstract") and not cls.__name__.startswith("_") and not _is_a_double(cls)
    ]
    return sorted(dict.fromkeys(named), key=lambda cls: (not is_ours(cls), cls.__name__))


def _is_a_double(cls: type) -> bool:
    """Whether a class has the name of its base: torch.export creates such a class for every module."""
    return any((cls.__module__, cls.__qualname__) == (of.__module__, of.__qualname__) for of in cls.__mro__[1:])


def is_ours(cls: type) -> bool:
    """Whether a class is this library's."""
    return cls.__module__.partition(".")[0] == PACKAGE


def look_up(class_path: str, base: type, path: str, classes: Iterable[type] = ()) -> tuple[type, dict[str, Any]]:
    """The class for a bare name, a full path or a special name (2_trans_0), and the settings that the name implies.

    Args:
        class_path: the name.
        base: what the class must be.
        path: the name's place, for messages.
        classes: candidates that take precedence.

    Raises:
        UserError: no such class, or two with one name.
    """
    module, _, name = class_path.rpartition(".")
    module = MOVED.get(module, module)
    classes = list(classes)
    candidates = known(base, [cls for cls in classes if issubclass(cls, base)])
    named = [
        cls
        for cls in candidates
        if cls.__name__ == name and f"{cls.__module__}.".startswith(f"{module}." * bool(module))
    ]
    named = [cls for cls in named if cls in classes] or named
    if not module:
        named = [cls for cls in named if is_ours(cls)] or named
        for cls in candidates if not named and hasattr(base, "parse") else ():
            try:
                return cls, cls.parse(class_path)  # type: ignore[attr-defined]
            except ValueError:
                continue
    places = {
        f"{cls.__module__}.{cls.__name__}": cls for cls in sorted(named, key=lambda cls: cls.__module__)
    }  # a module imported again: its last class
    if len(places) > 1:
        raise UserError(f"{path}: {name!r} is the name of several classes: {', '.join(places)}; give the full path")
    if places:
        return next(iter(places.values())), {}
    if module and not f"{module}.".startswith(f"{PACKAGE}."):
        raise UserError(
            f"{path}: unknown class {class_path!r}; add --import {module} (in Python: import {module} first) "
            "if you trust it"
        )
    if name in OPTIONAL and module in ("", OPTIONAL[name]):
        raise UserError(f"{path}: {name!r} is not imported automatically; add --import {OPTIONAL[name]}")
    names = [cls.__name__ for cls in candidates]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(dict.fromkeys(names)) or 'none'}"
    raise UserError(f"{path}: no class {class_path!r}; {hint}")


def name_of(cls: type) -> str:
    """The name to store: for our classes the bare name, so that moving a file breaks no model; else the full path."""
    return cls.__name__ if is_ours(cls) else f"{cls.__module__}.{cls.__name__}"


def place(error: BaseException, module: str) -> str:
    """Where a user's code raised: ` (file:line)`."""
    frames = traceback.extract_tb(error.__traceback__)
    file = getattr(sys.modules.get(module), "__file__", None)
    theirs = [frame for frame in frames if frame.filename == file]
    theirs = theirs or [frame for frame in frames if frame.filename.endswith(f"{module.rpartition('.')[2]}.py")]
    return f" ({theirs[-1].filename}:{theirs[-1].lineno})" if theirs else ""


# ---- objects as plain data ------------------------------------------------------------------------------------------


def describe(value: Any) -> Any:
    """Describe a component or a plain value, including every default; `build` makes an equal object from it.

    Args:
        value: a `Configurable`, a `functools.partial` of one, or a (nested) list, dict, path or scalar.
    """
    if isinstance(value, functools.partial):
        return _written(value.func, value.keywords)  # type: ignore[arg-type]
    if isinstance(value, type) and issubclass(value, Configurable):
        return _written(value, {})
    if isinstance(value, Configurable):
        return _written(type(value), value._arguments)
    if isinstance(value, Mapping):
        return {key: describe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def with_former(value: Any) -> Any:
    """A file's description, with settings that it is too old to have set to `Configurable.former`."""
    if isinstance(value, list):
        return [with_former(item) for item in value]
    if not isinstance(value, dict):
        return value
    filled = {key: with_former(item) for key, item in value.items()}
    if isinstance(name := value.get("class_path"), str) and isinstance(value.get("init_args"), dict):
        for cls in known(Configurable):
            if cls.__name__ == name.rpartition(".")[2]:
                filled["init_args"] = {**getattr(cls, "former", {}), **filled["init_args"]}
    return filled


def _written(cls: type[Configurable], arguments: dict[str, Any]) -> dict[str, Any]:
    filled = {
        name: describe(arguments.get(name, setting.default))
        for name, setting in settings(cls).items()  # type: ignore[arg-type]
        if name not in cls.given
    }
    return {"class_path": name_of(cls), "init_args": filled}


def parts(value: Any, path: str) -> tuple[str | None, dict[str, Any]]:
    """class_path and init_args of a component's description."""
    if isinstance(value, str):
        return value, {}
    if not isinstance(value, dict):
        raise UserError(f"{path}: {shown(value)} must be a class's name or class_path with init_args")
    if unknown := value.keys() - {"class_path", "init_args"}:
        key = sorted(map(str, unknown))[0]
        raise UserError(f"{path}: unexpected key {key!r} next to class_path; put it under init_args")
    class_path, arguments = value.get("class_path"), value.get("init_args", {})
    if "class_path" in value and not isinstance(class_path, str):
        raise UserError(f"{path}.class_path: {shown(class_path)} is not a class's name")
    if not isinstance(arguments, dict):
        raise UserError(f"{path}.init_args: {shown(arguments)} is not a mapping of settings")
    return class_path, dict(arguments)


def shown(value: Any) -> str:
    """A value for a message."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
