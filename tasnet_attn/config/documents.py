"""YAML: one loader and one writer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from tasnet_attn.errors import UserError, first_line

REPEATED = 1_000_000  # characters that aliases may add
QUOTES = ("'", '"', "|", ">", "!", "&", "*")  # what begins a text that is written in another way
DAY = "tag:yaml.org,2002:timestamp"
PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "seq", "map", "str")}


class _Loader(yaml.SafeLoader):
    """SafeLoader of plain data that reads 1e-3 as a number and rejects repeated keys and anchors that grow.

    (YAML 1.1 reads 1e-3 as text, and 2024-05-01, which may be a folder, as a date; it silently takes the last of two
    equal keys; nested anchors, and long texts repeated by aliases, grow without bound.)
    """

    repeated = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            node = self.anchors.get(event.anchor)
            if isinstance(node, yaml.ScalarNode):
                self.repeated += len(node.value)
                if self.repeated > REPEATED:
                    raise yaml.composer.ComposerError(
                        None, None, f"*{event.anchor} repeats too much text; write it out", event.start_mark
                    )
            if isinstance(node, yaml.CollectionNode):
                raise yaml.composer.ComposerError(
                    None, None, f"*{event.anchor} refers to more than one value; write it out", event.start_mark
                )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name = self.construct_object(key, deep=True)
            if not isinstance(name, (str, int, float)):
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} cannot be a key", key.start_mark)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != DAY]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# no dates, bytes, sets or pairs, not even where a tag asks for them: they are not plain data
_Loader.yaml_constructors = {
    tag: make for tag, make in yaml.SafeLoader.yaml_constructors.items() if tag is None or tag in PLAIN
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str) -> Any:
    """Plain data from YAML.

    Raises:
        ValueError: not YAML; one line says where.
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except yaml.YAMLError as error:
        problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
        raise ValueError((f"line {mark.line + 1}: " if mark else "") + (problem or "not YAML")) from error


def parse_value(text: str) -> Any:
    """Plain data from the value of an option: YAML, but a text without quotes is taken as it is, with any `#`.

    Examples:
        >>> parse_value("songs #2"), parse_value("[1, two]"), parse_value("1e-3"), parse_value("'5'")
        ('songs #2', [1, 'two'], 0.001, '5')

    Raises:
        ValueError: see `parse_yaml`.
    """
    data = parse_yaml(text)
    if text.lstrip()[:1] in QUOTES or isinstance(data, (dict, list)):
        return data
    return text if isinstance(data, str) or "#" in text else data


def write_yaml(data: Any) -> str:
    """YAML from plain data, in the order of its keys."""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file that contains a mapping; for a run folder its `config.yml`.

    Raises:
        UserError: no such file, or not such a file; its text is not repeated.
    """
    file = file / "config.yml" if file.is_dir() else file
    if not file.is_file():
        raise UserError(f"{file}: no such file; give a configuration (YAML) or a run folder")
    try:
        content = parse_yaml(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        reason = "not text" if isinstance(error, UnicodeDecodeError) else error
        raise UserError(f"{file}: not a configuration: {reason}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{file}: not a configuration: it must be a mapping with keys like model, data, trainer")
    return content


def read_json(file: Path, kind: type, fix: str) -> Any:
    """One of a run's own JSON files.

    Args:
        file: the file.
        kind: what it contains, dict or list; object: anything.
        fix: what to do if it is damaged.

    Raises:
        UserError: it is damaged, for example cut off, or cannot be read.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}", status=1) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: damaged ({first_line(error)}); {fix}") from error
    if not isinstance(content, kind):
        raise UserError(f"{file}: damaged (contains no {kind.__name__}); {fix}")
    return content
