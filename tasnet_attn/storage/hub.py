"""Hugging Face's folder layout: `config.json`, `model.safetensors` and a model card with the known facts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tasnet_attn.config import write_yaml
from tasnet_attn.files import write_text
from tasnet_attn.model import SourceSeparator
from tasnet_attn.storage.shapes import well_formed
from tasnet_attn.storage.tensors import header, write_safetensors

USE = """```python
import tasnet_attn

model = {load}
estimates = tasnet_attn.separate(model, mixture, sample_rate)  # [channels, samples] -> {{source: the same}}
```"""

FROM_FOLDER = 'tasnet_attn.SourceSeparator.from_pretrained("THIS FOLDER, OR ITS NAME ON THE HUB")'


def write_folder(
    model: SourceSeparator, folder: Path, facts: dict[str, Any] | None = None, dtype: torch.dtype | None = None
) -> Path:
    """Write the three files; see `storage.save_pretrained`."""
    about = {**header(model, facts), "config": model.config}
    text = card(model, about)  # first, because it needs a package of an extra
    write_safetensors(folder / "model.safetensors", model.config, model.state_dict(), header(model, facts), dtype)
    write_text(folder / "config.json", json.dumps(about, indent=1) + "\n")
    write_text(folder / "README.md", text.encode("utf-8", "backslashreplace").decode())  # JSON can have lone surrogates
    return folder


def card(model: SourceSeparator, facts: dict[str, Any], use: str | None = None) -> str:
    """The model card: what it does, how to use it, data, scores, settings, limits, licence.

    Args:
        model: the model.
        facts: its file's header; facts that have not the shape of ours are left out.
        use: the name of a shipped model; None: it is in a folder.
    """
    from huggingface_hub import ModelCard, ModelCardData

    facts = well_formed(facts)
    licence, training = facts.get("licence", "not stated"), facts.get("training") or {}
    front = ModelCardData(
        license=licence.lower() if licence != "not stated" else "other",
        library_name="tasnet-attn",
        pipeline_tag="audio-to-audio",
        tags=["audio-source-separation", model.separator.name.lower()],
    )
    n_weights = sum(parameter.numel() for parameter in model.parameters())
    rate = f"{model.sample_rate:,} Hz"
    lines = [
        f"---\n{front.to_yaml()}\n---",
        f"# {model.separator.name}: {', '.join(model.sources)}",
        f"Separates audio at {rate} into {', '.join(model.sources)}"
        f"{' (in no fixed order)' if model.interchangeable else ''}; {n_weights:,} parameters.",
        USE.format(load=f'tasnet_attn.load("{use}")' if use else FROM_FOLDER),
        "## Data",
        _block(training.get("data"), "Not recorded.") + _block(training.get("data fingerprint"), ""),
        *(["## Licences of the data", facts["credits"]] if facts.get("credits") else []),
        "## Scores",
        _test_table(facts["tested"]) if facts.get("tested") else _score_table(facts.get("scores")),
        "## Training",
        (f"Cost: {facts['cost']}.\n\n" if facts.get("cost") else "")
        + _block({key: value for key, value in training.items() if not key.startswith("data")}, "Not recorded."),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(model, facts)),
        "## Licence",
        f"Of the weights: {licence}." + (" Ask their authors." if licence == "not stated" else ""),
        "## Versions",
        ", ".join(f"{name} {number}" for name, number in facts.get("versions", {}).items()),
    ]
    return str(ModelCard("\n\n".join(lines) + "\n"))


def _block(value: Any, otherwise: str) -> str:
    return f"```yaml\n{write_yaml(value)}```\n" if value else otherwise


def _test_table(tested: list[dict[str, Any]]) -> str:
    """Scores from `recipes/models/ship.py`: of whole sets, each {"value", "low", "high"}."""
    metrics = ("SI-SNRi", "SDR", "better than the mixture")
    lines = [f"| set | mixtures | {' | '.join(metrics)} |", "|---|---|---|---|---|"]
    for row in tested:
        cells = []
        for metric in metrics:
            scale, unit = (100, "%") if metric == metrics[-1] else (1, "dB")
            digits = 0 if unit == "%" else 2
            found = row.get(metric, {})
            known = {key: found[key] for key in ("value", "low", "high") if found.get(key) is not None}
            told = {key: f"{scale * value:.{digits}f}" for key, value in known.items()}
            interval = f" ({told['low']} to {told['high']})" if {"low", "high"} <= told.keys() else ""  # not of one
            cells.append(f"{told['value']} {unit}{interval}" if told else "")
        lines.append(f"| {row['corpus']} | {row['mixtures']} | {' | '.join(cells)} |")
    return "Means over mixtures, with 95 % intervals (bootstrap over mixtures).\n\n" + "\n".join(lines)


def _score_table(scores: dict[str, Any] | None) -> str:
    if not scores or not scores.get("sources"):
        return "Not evaluated."
    rows = ["| source | metric | dB | 95 % interval |", "|---|---|---|---|"]
    for source, metrics in scores["sources"].items():
        for metric, row in metrics.items():
            if row["value"] is not None:
                known = row["low"] is not None and row["high"] is not None
                interval = f"{row['low']:.2f} to {row['high']:.2f}" if known else "one track: none"
                rows.append(f"| {source} | {metric} | {row['value']:.2f} | {interval} |")
    return f"On {scores['tracks']} tracks; {scores['convention']}, bootstrap over tracks.\n\n" + "\n".join(rows)


def _limits(model: SourceSeparator, facts: dict[str, Any]) -> list[str]:
    limits = ["Trained for the sources named above; other material is separated too, but how well is unknown."]
    limits += facts.get("fails") or []
    if facts.get("tested"):
        pass
    elif not facts.get("scores"):
        limits.append("It has not been scored yet.")
    elif facts["scores"]["tracks"] < 10:
        limits.append(f"Scored on {facts['scores']['tracks']} tracks only: the intervals are wide, or missing.")
    if model.segment is not None:
        limits.append(f"Processes {model.segment} s at once; longer audio is cut and joined again.")
    if not model.causal:
        limits.append("Not causal: it cannot run on a live stream.")
    else:
        limits.append(f"Causal, with a latency of {model.latency} samples.")
    limits.append("Every channel is separated independently: it does not use the stereo image.")
    return limits
