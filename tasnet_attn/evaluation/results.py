"""The files of an evaluation: `<track>.json` in museval's format, and the tables made from them.

A track's file holds what museval's would, and under "tasnet_attn" the scores of the whole track, how many windows are
silent, and the stamp of model, settings and audio that says whether the scores still hold.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tasnet_attn import files
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.scores import FRAMES, TrackScores
from tasnet_attn.evaluation.summary import CONVENTIONS, finite, summarise, track_value
from tasnet_attn.files import write_text

OURS = "tasnet_attn"
COLUMNS = ("track", "source", "metric", "score", "mean", "windows", "unscored", "seconds")


def file_name(track: str) -> str:
    """A track's name as a file name; names of ours get a % in front."""
    return f"%{track}" if track in ("summary", "baselines", "audio") else files.file_name(track)


def document(
    sources: list[str], scores: TrackScores, sample_rate: int, length: int, window: int, hop: int, facts: dict[str, Any]
) -> dict[str, Any]:
    """A track's file: museval's `targets`, and ours beside them.

    Args:
        sources: names.
        scores: of the track.
        sample_rate: Hz.
        length: samples of the track.
        window: samples.
        hop: samples.
        facts: what else to keep.
    """
    targets = []
    for index, source in enumerate(sources):
        windows = zip(*(scores.frames[metric][index].tolist() for metric in FRAMES), strict=True)
        frames = [
            {
                "time": number * hop / sample_rate,
                "duration": window / sample_rate,
                # museval too writes NaN for infinite scores; a file of its format has nothing else for them
                "metrics": {
                    metric: x if math.isfinite(x) else math.nan for metric, x in zip(FRAMES, values, strict=True)
                },
            }
            for number, values in enumerate(windows)
        ]
        targets.append({"name": source, "frames": frames})
    ours = {
        **facts,
        "version": version("tasnet-attn"),
        "sample_rate": sample_rate,
        "length": length,
        "whole": {source: {m: x[i].item() for m, x in scores.whole.items()} for i, source in enumerate(sources)},
        "silence": {
            source: {
                "reference": int(scores.silent[0, i].sum()),
                "estimate": int(scores.silent[1, i].sum()),
                "infinite": int(sum(scores.frames[metric][i].isinf().sum() for metric in FRAMES)),
            }
            for i, source in enumerate(sources)
        },
    }
    return {"museval_version": version("museval"), "targets": targets, OURS: ours}


def read_document(path: Path) -> dict[str, Any] | None:
    """A track's file, or None if there is none of ours.

    Raises:
        UserError: it is there, but damaged.
    """
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); remove it, and its track is scored again") from error
    return found if isinstance(found, dict) and OURS in found else None


def track_rows(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a track: {"track", "source", "metric", "values" (of the windows), "seconds"}."""
    seconds = found[OURS]["length"] / found[OURS]["sample_rate"]
    rows = []
    for target in found["targets"]:
        values = {metric: [frame["metrics"][metric] for frame in target["frames"]] for metric in FRAMES}
        values |= {metric: [score] for metric, score in found[OURS]["whole"][target["name"]].items()}
        for metric, scores in values.items():
            row = {"track": name, "source": target["name"], "metric": metric, "values": scores, "seconds": seconds}
            rows.append(row)
    return rows


def write_tables(out: Path, documents: dict[str, dict[str, Any]], **facts: Any) -> dict[str, Any]:
    """Write `scores.csv` and `summary.json` of {track: its file}; returns the summary."""
    rows = [row for name, found in documents.items() for row in track_rows(name, found)]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        scores = row["values"]
        values = (track_value(scores, convention) for convention in ("median of medians", "mean of means"))
        counts = len(scores), len(scores) - len(finite(scores))
        writer.writerow([row["track"], row["source"], row["metric"], *map(_cell, values), *counts, row["seconds"]])
    write_text(out / "scores.csv", table.getvalue())
    summary = {**facts, "version": version("tasnet-attn"), **_summary(rows, documents)}
    write_text(out / "summary.json", json.dumps(summary, indent=1, allow_nan=False))
    return summary


def _summary(rows: list[dict[str, Any]], documents: dict[str, dict[str, Any]]) -> dict[str, Any]:
    grouped: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        grouped.setdefault(row["source"], {}).setdefault(row["metric"], []).append(row)
    scores = {
        source: {
            m: summarise([r["values"] for r in group], [r["seconds"] for r in group]) for m, group in metrics.items()
        }
        for source, metrics in grouped.items()
    }
    silence: dict[str, dict[str, int]] = {}
    for source, metrics in grouped.items():
        sdr = metrics["SDR"]
        counts = {"windows": sum(len(r["values"]) for r in sdr)}
        counts["unscored"] = counts["windows"] - sum(len(finite(r["values"])) for r in sdr)
        counts["tracks without score"] = sum(not len(finite(r["values"])) for r in sdr)
        for key in ("reference", "estimate", "infinite"):
            counts[key] = sum(found[OURS]["silence"].get(source, {}).get(key, 0) for found in documents.values())
        silence[source] = counts
    return {
        "tracks": list(documents),
        "seconds": sum(found[OURS]["length"] / found[OURS]["sample_rate"] for found in documents.values()),
        "conventions": CONVENTIONS,
        "scores": scores,
        "mean over sources": _mean_over_sources(scores),
        "silence": silence,
    }


def _mean_over_sources(scores: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, float | None]]:
    """{metric: {convention: mean of the sources' values}}; None if a source has none."""
    means: dict[str, dict[str, float | None]] = {}
    for metric in dict.fromkeys(metric for metrics in scores.values() for metric in metrics):
        for convention in CONVENTIONS:
            values = [metrics[metric][convention]["value"] for metrics in scores.values()]
            known = None not in values
            means.setdefault(metric, {})[convention] = float(np.mean(values)) if known else None
    return means


def _cell(value: float) -> str:
    return repr(float(value)) if math.isfinite(value) else ""


def read_table(folder: Path) -> list[dict[str, Any]]:
    """The rows of a folder's `scores.csv`; "score" and "mean" are NaN where nothing was scored.

    Raises:
        UserError: no such file, or not such a file.
    """
    path = folder / "scores.csv"
    if not path.is_file():
        raise UserError(f"{path}: no such file; is {folder} a folder of `tasnet-attn evaluate`?")
    with path.open(encoding="utf-8", newline="") as opened:
        rows: Sequence[dict[str, Any]] = list(csv.DictReader(opened))
    try:
        for row in rows:
            row |= {key: float(row[key]) if row[key] else math.nan for key in ("score", "mean", "seconds")}
            row |= {key: int(row[key]) for key in ("windows", "unscored")}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a table of `tasnet-attn evaluate`: {error!r}") from error
    return list(rows)
