"""The files of an evaluation: `<track>.json` in museval's format, and the tables made from them.

A track's file has museval's contents, and under "tasnet_attn" the scores of the whole track, the number of silent
windows, and a stamp of model, settings and audio, which shows whether the scores are still valid.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasnet_attn import config, files, terminal
from tasnet_attn.audio.names import distinct
from tasnet_attn.errors import UserError, first_line
from tasnet_attn.evaluation.scores import FRAMES, TrackScores
from tasnet_attn.evaluation.summary import CONVENTIONS, summarise
from tasnet_attn.files import write_text
from tasnet_attn.version import __version__

OURS = "tasnet_attn"
FIGURE = dict[str, float | None]  # "value", "low", "high", "tracks"
SUMMARY: dict[str, Any] = {  # read by a report from summary.json
    "name": str,
    "tracks": list[str],
    "seconds": float,
    "window": float | None,
    "backend": str,
    "sample_rate": int,
    "version": str,
    "conventions": dict[str, str],
    "scores": dict[str, dict[str, dict[str, FIGURE]]],
    "mean over sources": dict[str, FIGURE],
    "silence": dict[str, dict[str, int]],
}
COLUMNS = ("track", "source", "metric", "score", "mean", "windows", "unscored", "seconds")


def file_name(track: str) -> str:
    """A track's name as a file name; our reserved names get a leading %."""
    return f"%{track}" if track in ("summary", "baselines", "audio") else files.file_name(track)


def signal_names(sources: Sequence[str]) -> list[str]:
    """The files of a track's audio: mixture, references, estimates; unique for any names of sources."""
    names = ["mixture", *(f"{source}.reference" for source in sources), *sources]
    return distinct([files.file_name(name) for name in names])


def document(
    sources: list[str], scores: TrackScores, sample_rate: int, length: int, window: int, hop: int, facts: dict[str, Any]
) -> dict[str, Any]:
    """A track's file: museval's `targets`, and our scores.

    Args:
        sources: names.
        scores: of the track.
        sample_rate: Hz.
        length: samples of the track.
        window: samples.
        hop: samples.
        facts: more facts to store.
    """
    targets = []
    for index, source in enumerate(sources):
        windows = zip(*(scores.frames[metric][index].tolist() for metric in FRAMES), strict=True)
        frames = [
            {
                "time": number * hop / sample_rate,
                "duration": window / sample_rate,
                # like museval, write NaN for infinite scores; the format has nothing else
                "metrics": {
                    metric: x if math.isfinite(x) else math.nan for metric, x in zip(FRAMES, values, strict=True)
                },
            }
            for number, values in enumerate(windows)
        ]
        targets.append({"name": source, "frames": frames})
    ours = {
        **facts,
        "version": __version__,
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
    """A track's file, or None if it does not exist or is not ours.

    Raises:
        UserError: it exists but is damaged.
    """
    if not path.is_file():
        return None
    found = config.read_json(path, object, "remove it to score its track again")
    return found if isinstance(found, dict) and OURS in found else None


def write_tables(out: Path, documents: dict[str, dict[str, Any]], **facts: Any) -> dict[str, Any]:
    """Write `scores.csv` and `summary.json` of {track: its file}; returns the summary."""
    table = _table(documents)
    write_text(out / "scores.csv", table.to_csv(index=False, lineterminator="\n"))
    summary = {**facts, "version": __version__, **_summary(table, documents)}
    write_text(out / "summary.json", json.dumps(summary, indent=1, allow_nan=False))
    return summary


def _table(documents: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """A row for each track, source and metric: COLUMNS. NaN (silence) and infinite windows do not count."""
    windows = []
    for track, found in documents.items():
        seconds = found[OURS]["length"] / found[OURS]["sample_rate"]
        for target in found["targets"]:
            scores = {metric: [frame["metrics"][metric] for frame in target["frames"]] for metric in FRAMES}
            scores |= {metric: [score] for metric, score in found[OURS]["whole"][target["name"]].items()}
            windows += [(track, target["name"], m, value, seconds) for m, values in scores.items() for value in values]
    table = pd.DataFrame(windows, columns=["track", "source", "metric", "value", "seconds"])
    table["value"] = table["value"].where(np.isfinite(table["value"]))
    grouped = table.groupby(["track", "source", "metric"], sort=False, as_index=False)
    rows = grouped.agg(
        score=("value", "median"),
        mean=("value", "mean"),
        windows=("value", "size"),
        unscored=("value", lambda values: values.isna().sum()),
        seconds=("seconds", "first"),
    )
    return rows[list(COLUMNS)]


def _summary(table: pd.DataFrame, documents: dict[str, dict[str, Any]]) -> dict[str, Any]:
    scores: dict[str, dict[str, Any]] = {}
    for (source, metric), tracks in table.groupby(["source", "metric"], sort=False):
        scores.setdefault(source, {})[metric] = summarise(tracks)
    silence: dict[str, dict[str, int]] = {}
    for source, sdr in table[table["metric"] == "SDR"].groupby("source", sort=False):
        counts = {
            "windows": sdr["windows"].sum(),
            "unscored": sdr["unscored"].sum(),
            "tracks without score": (sdr["unscored"] == sdr["windows"]).sum(),
        }
        for key in ("reference", "estimate", "infinite"):
            counts[key] = sum(found[OURS]["silence"].get(source, {}).get(key, 0) for found in documents.values())
        silence[source] = {key: int(count) for key, count in counts.items()}
    return {
        "tracks": list(documents),
        "rates": sorted({found[OURS]["sample_rate"] for found in documents.values()}),
        "seconds": sum(found[OURS]["length"] / found[OURS]["sample_rate"] for found in documents.values()),
        "conventions": CONVENTIONS,
        "scores": scores,
        "mean over sources": _mean_over_sources(scores),
        "silence": silence,
    }


def _mean_over_sources(scores: dict[str, dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """{metric: {convention: mean of the sources' values}}; None if a source has none."""
    means: dict[str, dict[str, float | None]] = {}
    for metric in dict.fromkeys(metric for metrics in scores.values() for metric in metrics):
        for convention in CONVENTIONS:
            values = [metrics[metric][convention]["value"] for metrics in scores.values() if metric in metrics]
            means.setdefault(metric, {})[convention] = None if None in values else float(np.mean(values))
    return means


def read_table(folder: Path) -> pd.DataFrame:
    """A folder's `scores.csv`: COLUMNS; "score" and "mean" are NaN where there is no score.

    Raises:
        UserError: no such file, or not such a file.
    """
    path = folder / "scores.csv"
    if not path.is_file():
        raise UserError(f"{path}: no such file; is {folder} a folder of `tasnet-attn evaluate`?")
    kinds = {name: str for name in COLUMNS[:3]} | {"windows": int, "unscored": int, "seconds": float}
    empty = {"score": [""], "mean": [""]}  # a track may be called "NA"
    refused = f"{path}: not a table of `tasnet-attn evaluate`"
    exact: Any = {"keep_default_na": False, "na_values": empty, "float_precision": "round_trip"}
    try:
        with files.touching(path):
            table = pd.read_csv(path, dtype=kinds, **exact)
        table = table[list(COLUMNS)].astype({"score": float, "mean": float})
    except (KeyError, ValueError, OverflowError) as error:
        raise UserError(f"{refused}: {first_line(error)}") from error
    if np.isinf(table[["score", "mean", "seconds"]].to_numpy()).any():
        raise UserError(f"{refused}: it contains an infinite number")
    metrics = table.groupby(["track", "source"])["metric"]
    if table.empty or metrics.agg(lambda names: names.duplicated().any() or "SDR" not in set(names)).any():
        raise UserError(f"{refused}: each track and source needs one row for each metric, including SDR")
    return table


def by_track(table: pd.DataFrame, metric: str) -> pd.Series:
    """Each track's mean over windows and sources in one metric; NaN if one of its sources has no score."""
    return table[table["metric"] == metric].groupby("track")["mean"].agg(lambda means: means.mean(skipna=False))


def read_summary(folder: Path) -> dict[str, Any]:
    """A folder's `summary.json`, possibly foreign: types of values are checked; texts may be anything.

    Raises:
        UserError: one line: no such file, damaged, or not such a file.
    """
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}; evaluate again") from error
    if not isinstance(summary, dict) or (missing := SUMMARY.keys() - summary.keys()):
        lacks = f": it lacks {', '.join(sorted(missing))}" if isinstance(summary, dict) else ""
        raise UserError(f"{path}: not a summary of `tasnet-attn evaluate`{lacks}; evaluate again")
    try:
        for key, annotation in SUMMARY.items():
            config.complete(summary[key], annotation, key)
        config.complete(summary.setdefault("about", {}), dict[str, str], "about")  # earlier versions had none
        for source, metrics in summary["scores"].items():
            for metric, found in metrics.items():
                for convention in summary["conventions"]:
                    if not {"value", "low", "high"} <= found.get(convention, {}).keys():
                        raise UserError(f"scores.{source}.{metric}.{convention}: lacks value, low or high")
    except UserError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}; evaluate again") from error
    return summary


def parts_of(folder: Path, part: str, summary: dict[str, Any]) -> list[Path]:
    """The folders of an evaluation's "masks" or "baselines", without those that an earlier evaluation left here."""
    listed = summary.get(part)  # earlier versions do not list masks
    found = [path.parent for path in sorted(folder.glob(f"{part}/*/scores.csv"))]
    return [path for path in found if listed is None or path.name in listed]


def shown(out: Path, summary: dict[str, Any]) -> str:
    """For the terminal: the table, in its width, and the files."""
    files = f"{out}: scores.csv, summary.json, <track>.json; a page: tasnet-attn report {out}"
    return f"{table_of(summary, terminal.columns())}\n{files}"


def table_of(summary: dict[str, Any], width: int = 1000) -> str:
    """The metrics to show by source, with their intervals and convention."""
    convention, tracks = summary["convention"], len(summary["tracks"])
    metrics = list(dict.fromkeys(metric for by in summary["scores"].values() for metric in by))
    if missing := [metric for metric in summary["show"] if metric not in metrics]:
        raise UserError(f"evaluation.show: {missing[0]!r} is not scored; choose from {', '.join(metrics)}")
    wanted = summary["show"] or metrics
    columns = {
        source: {metric: _with_bounds(by[metric][convention]) for metric in wanted if metric in by}
        for source, by in summary["scores"].items()
    }
    if len(columns) > 1:
        means = summary["mean over sources"]
        columns["mean of sources"] = {metric: _with_bounds({"value": means[metric][convention]}) for metric in wanted}
    rows = [[metric, *(column.get(metric, "") for column in columns.values())] for metric in wanted]
    head = [summary["name"]] + [text for key in ("oracle", "checkpoint") if (text := summary.get(key))]
    about = f"dB over {tracks} track{'s' * (tracks != 1)}, {convention}: {CONVENTIONS[convention]}"
    about += " [95 % interval]" if tracks > 1 else ""
    lines = [", ".join(head), terminal.table(["", *columns], rows, width), about]
    if summary["model_rate"] is not None and summary["rates"] != [summary["model_rate"]]:
        rates = " and ".join(map(str, summary["rates"]))
        lines.append(f"resampled to the model's {summary['model_rate']} Hz and back, scored at {rates} Hz")
    return "\n".join(lines)


def _with_bounds(found: dict[str, Any]) -> str:
    if found["value"] is None:
        return "no score"
    bounds = "" if found.get("low") is None else f" [{found['low']:.2f}, {found['high']:.2f}]"
    return f"{found['value']:.2f}{bounds}"
