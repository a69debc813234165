"""What a training command line says about its data, without the model, which may be anything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tasnet_attn.data import SegmentedData
from tasnet_attn.errors import UserError, explain

CONCERNS = ("--data", "--model.sources", "--model.sample_rate")


def configured(configs: Sequence[Path], overrides: Sequence[str] = ()) -> SegmentedData:
    """The data module that a training command line describes; what does not concern the data is not even read.

    Raises:
        UserError: no such file, a key or value that does not fit; names it.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    named = ", ".join(map(str, configs))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--model.sources", type=list[str], required=True)
    parser.add_argument("--model.sample_rate", type=int, required=True)
    parser.add_subclass_arguments(SegmentedData, "data", required=True)
    for key in ("sources", "sample_rate"):
        parser.link_arguments(f"model.{key}", f"data.init_args.{key}")
    settings = [("--config", json.dumps(_concerning(config))) for config in configs]
    for key, value in _options(overrides):
        if key == "--config":
            settings.append((key, json.dumps(_concerning(Path(value)))))
        elif key.startswith(CONCERNS):
            settings.append((key, value))
    if not any(key == "--data" or "class_path" in key + value for key, value in settings):
        what = "names no data set (data.class_path); a conf.yml goes on top of its base.yml: give both"
        raise UserError(f"{named}: {what}")
    try:
        return parser.instantiate_classes(parser.parse_args([f"{key}={value}" for key, value in settings])).data
    except (ArgumentError, ValueError) as error:
        raise UserError(f"{named}: {explain(error)}") from error


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """`--key=value` and `--key value`; a flag's value is ""."""
    waiting = None
    for argument in arguments:
        if argument.startswith("--"):
            if waiting:
                yield waiting, ""
            key, equals, value = argument.partition("=")
            waiting = None if equals else key
            if equals:
                yield key, value
        elif waiting:
            yield waiting, argument
            waiting = None
        else:
            raise UserError(f"{argument}: configuration files come first, then --key value")
    if waiting:
        yield waiting, ""


def _concerning(config: Path) -> dict[str, Any]:
    """What a YAML file says about the data."""
    import yaml

    file = config / "config.yml" if config.is_dir() else config
    try:
        content = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: not a configuration, which has `model` and `data`")
    model, data = content.get("model") or {}, content.get("data")
    if isinstance(data, str):
        data = {"class_path": data}
    kept = {key: model[key] for key in ("sources", "sample_rate") if key in model}
    return {"model": kept} | ({"data": data} if data else {})
