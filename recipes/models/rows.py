"""Saved rows: a trained system's scores on test sets, track by track, so that tables can be made from these files.

`rows/<system>.json` has for every set the tracks' SI-SNRi and SDR in dB, in the order of the tracks' names.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.results import by_track, read_summary, read_table
from tasnet_attn.evaluation.summary import compare, summarise
from tasnet_attn.files import file_name, write_text
from tasnet_attn.inference import separate
from tasnet_attn.storage import load

ROWS = Path(__file__).parent / "rows"
METRICS = ("SI-SNRi", "SDR")


def row_of(folder: Path, corpus: str, source: str | None = None) -> dict[str, Any]:
    """A set's row, from a folder of `tasnet-attn evaluate`.

    Args:
        folder: the scores.
        corpus: the set's name.
        source: of named sources; None: the mean over a track's sources.

    Raises:
        UserError: no scores, or no such source.
    """
    table, summary = read_table(folder), read_summary(folder)
    if source is not None:
        if source not in set(table["source"]):
            raise UserError(f"{folder}: no source {source!r} was scored; choose from {', '.join(set(table['source']))}")
        table, corpus = table[table["source"] == source], f"{corpus}, {source}"
    scored = pd.DataFrame({metric: by_track(table, metric) for metric in METRICS}).dropna().sort_index()
    return {
        "corpus": corpus,
        "checkpoint": summary.get("checkpoint"),
        **{metric: [round(float(value), 2) for value in scored[metric]] for metric in METRICS},
        "tracks": hashlib.sha256("\n".join(scored.index).encode()).hexdigest()[:16],  # equal: the same tracks
    }


def interval(values: list[float]) -> dict[str, float]:
    """The mean over tracks with a 95 % bootstrap interval: "value", "low", "high"."""
    found = summarise(pd.DataFrame({"score": values, "mean": values, "seconds": 1.0}))["mean of means"]
    return {key: found[key] for key in ("value", "low", "high")}


def figures(row: dict[str, Any]) -> dict[str, Any]:
    """A row's figures for tables and headers: the metrics and the share better than the mixture, with intervals."""
    better = [float(value > 0) for value in row["SI-SNRi"]]
    return {
        "corpus": row["corpus"],
        "mixtures": len(better),
        **{metric: interval(row[metric]) for metric in METRICS},
        "better than the mixture": interval(better),
    }


def paired(one: dict[str, Any], other: dict[str, Any], seed: int = 0) -> dict[str, float] | None:
    """SI-SNRi of one row minus another's on the same tracks: mean, 95 % bootstrap interval, Wilcoxon's p.

    None if the tracks differ.
    """
    if one["tracks"] != other["tracks"]:
        return None
    ours, theirs = (dict(enumerate(row["SI-SNRi"])) for row in (one, other))
    differences = list(np.subtract(one["SI-SNRi"], other["SI-SNRi"]))
    return {**interval(differences), "p": compare(ours, theirs)["p"]}


def real_time_factor(model: Any, seconds: float = 10.0) -> float:
    """Seconds of one thread per second of one channel, the best of three."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    noise = 0.1 * torch.randn(1, round(seconds * model.sample_rate), generator=torch.Generator().manual_seed(0))
    took = []
    for _ in range(3):
        began = time.perf_counter()
        separate(model, noise, model.sample_rate)
        took.append(time.perf_counter() - began)
    torch.set_num_threads(before)
    return min(took) / seconds


def save(system: str, run: str, rows: list[dict[str, Any]], cost: str, **about: Any) -> Path:
    """Store a system's rows, keeping those of its other sets.

    Args:
        system: its name in tables.
        run: see `load`; for parameters and speed.
        rows: see `row_of`.
        cost: of its training, in words.
        about: more to store: a family, a seed, a remark.
    """
    model = load(run)
    file = ROWS / f"{file_name(system)}.json"
    kept = json.loads(file.read_text())["rows"] if file.is_file() else []
    new = {row["corpus"] for row in rows}
    content = {
        "system": system,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "cost": cost,
        "real time": round(real_time_factor(model), 4),
        **about,
        "rows": [*(row for row in kept if row["corpus"] not in new), *rows],
    }
    lines = json.dumps(content, indent=1, ensure_ascii=False)
    # numbers of a list on one line
    lines = re.sub(r"\[\s+([-\d.,\s]+?)\s+\]", lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", lines)
    return write_text(file, lines + "\n")


def read() -> list[dict[str, Any]]:
    """All systems that have rows, by name."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(ROWS.glob("*.json"))]
