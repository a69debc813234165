"""The identity of runs: a hash of what determines a run's results, and the folders that already have such runs."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

from tasnet_attn import config
from tasnet_attn.data import SegmentedData
from tasnet_attn.errors import UserError
from tasnet_attn.files import digest
from tasnet_attn.heads import Head
from tasnet_attn.losses import Loss
from tasnet_attn.model import SourceSeparator
from tasnet_attn.training.folder import FINISHED
from tasnet_attn.training.task import SeparationTask

# does not affect a run's results
ASIDE = ("out", "checkpoint", "ckpt_path", "seed_everything", "evaluation")
ASIDE_IN_DATA = ("workers", "cache")
ASIDE_IN_TRAINER = ("enable_progress_bar", "enable_model_summary", "log_every_n_steps", "logger", "default_root_dir")


def identity(full: dict[str, Any]) -> str:
    """The hash of what determines a run's results, except its seed.

    It does not depend on how the configuration is written: classes by bare name or full path, also of earlier versions;
    our, torch's and Lightning's defaults written out or not.

    Args:
        full: a run's configuration, as `parse` returns it or as in its `config.yml`.

    Raises:
        UserError: not a configuration, or it names an unknown class.
    """
    rest = {key: value for key, value in config.moved(full).items() if key not in ASIDE}
    model = config.complete_arguments(config.with_former(rest.pop("model", {})), SourceSeparator, "model")
    model["head"] = config.complete(model["head"] or "Mask", Head, "model.head")
    given = {"sources": model["sources"], "sample_rate": model["sample_rate"], "seed": full.get("seed_everything")}
    data = config.complete(rest.pop("data", None), SegmentedData, "data", **given)
    for key in ASIDE_IN_DATA:
        data["init_args"].pop(key, None)
    task = rest.pop("task", None) or {}
    loss = config.complete(task.pop("loss", None) or "SISNR", Loss, "task.loss")
    trainer = {key: value for key, value in rest.pop("trainer", {}).items() if key not in ASIDE_IN_TRAINER}
    theirs = {"pytorch_lightning.Trainer": trainer}
    theirs["pytorch_lightning.callbacks.EarlyStopping"] = rest.pop("early_stopping", {})
    parts = [_meant([model, data, loss], {config.name_of(cls): cls for cls in config.known(config.Configurable)})]
    parts += [_named({"class_path": path, "init_args": arguments}) for path, arguments in theirs.items()]
    parts += [_departures(_named(task), SeparationTask), rest]
    return digest([json.dumps(_without_nulls(parts), sort_keys=True)], 6)


def _meant(value: Any, classes: dict[str, type]) -> Any:
    """Components in a canonical form."""
    if isinstance(value, list):
        return [_meant(item, classes) for item in value]
    if not isinstance(value, dict):
        return value
    value = {key: _meant(item, classes) for key, item in value.items()}
    cls = classes.get(value.get("class_path", ""))
    return value if cls is None else value | {"init_args": cls.meant(value["init_args"])}  # type: ignore[attr-defined]


def _named(value: Any) -> Any:
    """Components of torch and Lightning without their defaults, if the class is imported."""
    if not isinstance(value, dict):
        return value
    if isinstance(path := value.get("class_path"), str):
        module, _, name = path.rpartition(".")
        cls = getattr(sys.modules.get(module), name, None)
        return {"class_path": path, **_departures(_named(value.get("init_args") or {}), cls)}
    return {key: _named(item) for key, item in value.items()}


def _departures(arguments: dict[str, Any], cls: Any) -> dict[str, Any]:
    """The arguments that differ from a class's defaults."""
    if not inspect.isclass(cls):
        return arguments
    taken = inspect.signature(cls).parameters
    plain = {key: list(p.default) if isinstance(p.default, tuple) else p.default for key, p in taken.items()}
    return {key: value for key, value in arguments.items() if key not in plain or plain[key] != value}


def _without_nulls(value: Any) -> Any:
    """Drop null settings: they were not set, and a new version has new ones."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def kept(runs: Path, wanted: set[str]) -> dict[str, Path]:
    """The folders of a sweep with the wanted runs, KEY-sSEED: by name, for earlier versions by config.yml."""
    found: dict[str, Path] = {}
    others = []
    for folder in sorted(runs.glob("*")):
        name = _run_name(folder)
        if name in wanted:
            found[name] = folder
        else:
            others.append(folder)
    for folder in others if len(found) < len(wanted) else ():
        if own := _own_name(folder):
            found.setdefault(own, folder)
    return found


def trained_elsewhere(out: Path, wanted: set[str]) -> dict[str, Path]:
    """The wanted runs, KEY-sSEED, that other sweeps next to `out` have trained to the end."""
    found: dict[str, Path] = {}
    for marker in sorted(out.absolute().parent.glob(f"*/runs/*/{FINISHED}")):
        name = _run_name(marker.parent)
        if name in wanted and marker.parents[2] != out.absolute() and _own_name(marker.parent) == name:
            found.setdefault(name, marker.parent)
    return found


def _own_name(folder: Path) -> str | None:
    """KEY-sSEED of the configuration in a folder; None: no run yet, or one with classes unknown to this sweep."""
    try:
        full = config.read_yaml(folder)
        return f"{identity(full)}-s{full.get('seed_everything')}"
    except UserError:
        return None


def _run_name(folder: Path) -> str:
    return "-".join(folder.name.split("-")[-2:])
