"""Layers of YAML files and `--key value` overrides, and the part of them that is checked here."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tasnet_attn.config.components import (
    MOVED,
    Configurable,
    known,
    look_up,
    name_of,
    parts,
    settings,
    shown,
    with_former,
)
from tasnet_attn.config.documents import parse_value, parse_yaml, read_yaml
from tasnet_attn.errors import UserError

SECTIONS = ("model", "task", "data", "evaluation")  # checked by this reader; Lightning checks the others

WHOLE = {"model", "task", "data", "trainer", "early_stopping", "checkpoint", "seed_everything", "out"}  # a run's


class Layers(NamedTuple):
    """Files and overrides, combined.

    Attributes:
        ours: the sections of SECTIONS, layered; of `task` only the loss.
        theirs: everything else, in order, for Lightning's parser: `--config={json}` and `--key=value`.
    """

    ours: dict[str, Any]
    theirs: list[str]


def read(arguments: Sequence[str]) -> Layers:
    """Layer `--config FILE` and `--key value` in order; later ones win, key by key.

    A class that replaces another keeps the settings that both have.

    Raises:
        UserError: no such file, not YAML, a section that is not a mapping, an override without a value.
    """
    layers = Layers({}, [])
    for key, value in _options(arguments):
        if key == "--config":
            _add_file(layers, Path(_value(key, value)))
        elif _is_ours(keys := key.removeprefix("--").split(".")):
            _set(layers.ours, keys, _data(key, value))
        elif key.removeprefix("--") in FILES:
            _add(layers, {keys[0]: _data(key, value)}, "")
        elif key == "--out" and value == "":
            raise UserError("--out: needs a value")  # an empty path would be the working folder
        else:
            _check_theirs(_parsed(value), key.removeprefix("--").rstrip("+"))
            layers.theirs.append(key if value is None else f"{key}={value}")
    return layers


def _data(key: str, value: str | None) -> Any:
    try:
        return parse_value(_value(key, value))
    except ValueError as error:
        raise UserError(f"{key}: {error}") from error


def _parsed(value: str | None) -> Any:
    try:
        return parse_value(value or "")
    except ValueError:
        return value


# where Lightning's parser needs a class's full path, and would open a file
CLASSES = re.compile(
    r"task\.(optimizer|lr_scheduler)|trainer\.(logger|callbacks|plugins|profiler|strategy|accelerator)"
)
FILES = ("task", "trainer", "early_stopping", "checkpoint")  # sections that may also be the name of a file


def _check_theirs(value: Any, path: str) -> None:
    """Reject what Lightning's parser would import, or read without our loader's limits.

    Raises:
        UserError: a class of a module that this process has not imported, not a class, or nested anchors.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            _check_theirs(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for item in value:
            _check_theirs(item, path)
    elif isinstance(value, str) and (path.endswith(".class_path") or CLASSES.fullmatch(path)):
        where, module = path.removesuffix(".class_path"), value.rpartition(".")[0]
        if not all(part.isidentifier() for part in value.split(".")):
            raise UserError(f"{where}: {shown(value)} is not a class's name; use --config for a file of settings")
        if module and module.split(".")[0] not in sys.modules:
            raise UserError(f"{where}: unknown class {value!r}; add --import {module} if you trust it")
    elif isinstance(value, str) and "*" in value and "&" in value:  # that parser reads text as YAML
        try:
            parse_yaml(value)
        except ValueError as error:
            raise UserError(f"{path}: {error}") from error


def argument(key: str, value: Any) -> str:
    """`--key=value` that `read` takes for this value; a text that looks like another value is quoted.

    Lightning's parser quotes nothing: it knows where it expects text.
    """
    text = value if isinstance(value, str) else json.dumps(value)
    if isinstance(value, str) and _is_ours(key.split(".")):
        try:
            alike = parse_value(text) == value
        except ValueError:
            alike = False
        text = text if alike else json.dumps(text, ensure_ascii=False)
    return f"--{key}={text}"


def _is_ours(keys: list[str]) -> bool:
    return keys[0] in SECTIONS and (keys[0] != "task" or keys[1:2] == ["loss"])


def _value(key: str, value: str | None) -> str:
    if value is None:
        raise UserError(f"{key}: needs a value")
    return value


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """`--key=value` and `--key value`; a flag's value is None."""
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if not argument.startswith("--"):
            raise UserError(f"{argument}: expected --key value; use --config for configuration files")
        key, equals, value = argument.partition("=")
        if equals:
            yield key, value
        else:
            yield key, left.pop(0) if left and not left[0].startswith("--") else None


def _add_file(layers: Layers, file: Path) -> None:
    content = read_yaml(file)
    if content.keys() >= WHOLE:
        content = with_former(content)
    _add(layers, content, f"{file}: ")


def _add(layers: Layers, content: dict[str, Any], source: str) -> None:
    """Layer sections; messages begin with `source`."""
    theirs = {}
    try:
        for key, value in content.items():
            if key == "config":
                raise UserError("config: a configuration cannot include another one; give both by --config")
            if key in FILES and isinstance(value, str):
                value = read_yaml(Path(value))
            if key not in SECTIONS:
                theirs[key] = value
                continue
            if key == "data" and isinstance(value, str):
                value = {"class_path": value}
            if not isinstance(value, dict):
                raise UserError(f"{key}: {shown(value)} is not a mapping of settings")
            if key == "task":
                theirs[key] = {name: item for name, item in value.items() if name != "loss"}
                value = {name: item for name, item in value.items() if name == "loss"}
            layers.ours[key] = merged(layers.ours.get(key, {}), value, key)
        _check_theirs(theirs, "")
    except UserError as error:
        raise UserError(f"{source}{error}") from error
    if theirs:
        layers.theirs.append(f"--config={json.dumps(moved(theirs))}")


def moved(value: Any) -> Any:
    """The same with class paths of earlier versions updated."""
    if isinstance(value, dict):
        return {k: _moved_path(v) if k == "class_path" and isinstance(v, str) else moved(v) for k, v in value.items()}
    return [moved(item) for item in value] if isinstance(value, list) else value


def _moved_path(class_path: str) -> str:
    module, dot, name = class_path.rpartition(".")
    return f"{MOVED.get(module, module)}{dot}{name}"


def merged(below: Any, above: Any, path: str = "") -> Any:
    """Layer plain data: mappings key by key, other values as a whole; a component's arguments by its class."""
    if isinstance(below, str) and _is_component(above):
        below = {"class_path": below}
    if isinstance(above, str) and _is_component(below):
        above = {"class_path": above}
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    if not (_is_component(below) or _is_component(above)):
        return below | {k: merged(below[k], v, _below(path, k)) if k in below else v for k, v in above.items()}
    (old, kept), (new, arguments) = (_resolved(x, path) for x in (below, above))
    if new is not None and old is not None and new != old:
        cls = next((cls for cls in known(Configurable) if name_of(cls) == new or cls.__name__ == new), None)
        kept = {key: item for key, item in kept.items() if cls is None or key in settings(cls)}
    joined = kept | {k: merged(kept[k], v, _below(path, k)) if k in kept else v for k, v in arguments.items()}
    named = {} if new is None and old is None else {"class_path": new or old}
    return named | ({"init_args": joined} if joined else {})


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _is_component(value: Any) -> bool:
    return isinstance(value, dict) and bool(value.keys() & {"class_path", "init_args"})


def _resolved(value: Any, path: str) -> tuple[str | None, dict[str, Any]]:
    """A component's class and arguments, special names resolved: 2_trans_0 is an LTL."""
    class_path, arguments = parts(value, path)
    if class_path is None:
        return None, arguments
    try:
        cls, named = look_up(class_path, Configurable, path)
    except UserError:
        return class_path, arguments
    for key, implied in named.items():
        if arguments.get(key, implied) != implied:
            raise UserError(f"{path}.{key}: {arguments[key]!r} contradicts {class_path!r}; leave one of them out")
    return name_of(cls), {**arguments, **named}


def _set(data: dict[str, Any], keys: list[str], value: Any) -> None:
    """Layer one value on plain data; in a component, keys other than class_path and init_args are arguments."""
    for i in range(1, len(keys)):
        at: Any = data
        for part in keys[:i]:
            at = at.get(part) if isinstance(at, dict) else None
        component = isinstance(at, str) or _is_component(at)
        if component and keys[i] not in ("class_path", "init_args") and keys[i - 1] != "init_args":
            return _set(data, [*keys[:i], "init_args", *keys[i:]], value)
    layer: Any = value
    for part in reversed(keys):
        layer = {part: layer}
    data.update(merged(data, layer))
    return None
