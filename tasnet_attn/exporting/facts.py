"""Facts about a model's training: from its run folder, or from an earlier export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasnet_attn import config
from tasnet_attn.errors import UserError
from tasnet_attn.storage.checkpoints import read_checkpoint
from tasnet_attn.storage.shapes import INTERVAL, Maybe, fits
from tasnet_attn.storage.tensors import is_safetensors, read_safetensors

CONVENTION = "mean of medians"  # of the scores in a file; summary.json has the others
SETTINGS = ("data", "task", "early_stopping", "ema", "seed_everything")  # of config.yml; of its trainer section:
TRAINER = ("max_steps", "max_epochs", "max_time", "precision", "gradient_clip_val")
METRICS = ("SDR", "SIR", "ISR", "SAR", "SI-SNR", "SI-SNRi")
FIX = "restore or remove it"
SUMMARY = {"scores": Maybe({...: {...: {CONVENTION: Maybe(INTERVAL)}}}), "tracks": Maybe([object])}


def facts_of(file: Path, licence: str | None = None) -> dict[str, Any]:
    """Facts for a file's header.

    Args:
        file: the model file, as `storage.finding.find` returns it.
        licence: of the weights; None: that of an earlier export, else "not stated".

    Returns:
        "licence"; "training": data set, its fingerprint, task, trainer and seed, epochs and steps; "scores" of
        `evaluation/summary.json`. Unknown facts are left out, and so are paths of this machine.

    Raises:
        UserError: the file or one of the run's files is damaged.
    """
    known: dict[str, Any] = {}
    if is_safetensors(file):
        known = {**read_safetensors(file).facts}
    elif "model_name" in (checkpoint := read_checkpoint(file)):  # Asteroid's format
        infos = checkpoint.get("infos")
        known = _plain(infos) if isinstance(infos, dict) else {}
        known.pop("software_versions", None)
    else:
        run = file.parent.parent
        training = {key: _plain(checkpoint[key]) for key in ("epoch", "global_step") if key in checkpoint}
        known = {"training": {**_training(run), **training}}
        if scores := _scores(run / "evaluation" / "summary.json", file.stem):
            known["scores"] = scores
    stated = known.get("licence")
    known["licence"] = licence or (stated if isinstance(stated, str) and stated else "not stated")
    return known


def _training(run: Path) -> dict[str, Any]:
    file = run / "config.yml"
    if not file.is_file():
        return {}
    settings = config.read_yaml(file)
    training = {key: settings[key] for key in SETTINGS if key in settings}
    trainer = settings.get("trainer") or {}
    if not isinstance(trainer, dict):
        raise UserError(f"{file}: trainer must be a mapping of settings")
    training["trainer"] = {key: trainer[key] for key in TRAINER if key in trainer}
    record = run / "data.json"
    if record.is_file():
        training["data fingerprint"] = config.read_json(record, object, FIX)
    return _without_paths(_plain(training))


def _plain(value: Any) -> Any:
    """Values for JSON: a header takes no dates, tensors and keys of other types, which YAML and torch's files have."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _without_paths(value: Any) -> Any:
    """Keep only the last part of a path: the training machine's folders are private."""
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    return Path(value).name if isinstance(value, str) and "/" in value else value


def _scores(file: Path, checkpoint: str) -> dict[str, Any]:
    """{"convention", "tracks", "sources": {source: {metric: {"value", "low", "high"}}}}; none of another checkpoint."""
    if not file.is_file():
        return {}
    summary = config.read_json(file, object, FIX)
    if not fits(summary, SUMMARY):
        raise UserError(f"{file}: not a summary of `tasnet-attn evaluate`; evaluate again, or remove it")
    if summary.get("checkpoint") not in (None, checkpoint) or summary.get("oracle"):
        return {}
    sources: dict[str, Any] = {}
    for source, metrics in summary.get("scores", {}).items():
        kept = {name: row[CONVENTION] for name, row in metrics.items() if name in METRICS and CONVENTION in row}
        sources[source] = {name: {key: row[key] for key in ("value", "low", "high")} for name, row in kept.items()}
    return {"convention": CONVENTION, "tracks": len(summary.get("tracks", [])), "sources": sources}
