"""YAML: one loader and one writer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tasnet_attn.errors import UserError


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number and rejects repeated keys and nested anchors.

    (YAML 1.1 reads 1e-3 as text and silently takes the last of two equal keys; nested anchors grow without bound.)
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            node = self.anchors.get(event.anchor)
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


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
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
