"""The tables and box plots of a report, as data: templates/report.html draws them and escapes their texts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup

from tasnet_attn.evaluation.summary import compare

COLOURS = 6
ESSENTIAL = ("SDR", "SI-SNRi")  # metrics that are open at first
SAME = 0.01  # seconds by which the lengths of a track may differ in two evaluations


class System(NamedTuple):
    """One evaluation: its name and colour on the page, folder, summary, and table of scores."""

    name: str
    colour: str
    folder: Path
    summary: dict[str, Any]
    scores: pd.DataFrame

    @property
    def label(self) -> Markup:
        """Its colour and name."""
        return Markup('<span class="dot {}"></span>{}').format(self.colour, self.name)

    def tracks(self, source: str, metric: str) -> dict[str, float]:
        """{track: score} of those that have a score."""
        rows = self.scores[(self.scores["source"] == source) & (self.scores["metric"] == metric)]
        return rows.dropna(subset="score").set_index("track")["score"].to_dict()


class Table(NamedTuple):
    """Texts by rows; columns in `numbers` are right-aligned; with an `id` it can be sorted."""

    heads: Sequence[str]
    rows: list[list[Any]]
    numbers: Iterable[int] = ()
    row_class: str = ""
    id: str = ""


class Sortable(NamedTuple):
    """A cell sorted by a number, "" last."""

    text: str
    value: float | str


def about(systems: Sequence[System]) -> Table:
    """The evaluated system, and the date of its summary."""
    rows = []
    for system in systems:
        facts = system.summary
        window = "whole tracks" if facts["window"] is None else f"{facts['window']:g} s"
        seconds, rate = f"{facts['seconds']:.0f} s", f"{facts['sample_rate']} Hz"
        known = [facts["about"].get(key, "") for key in ("model", "steps", "data")]
        day = datetime.fromtimestamp((system.folder / "summary.json").stat().st_mtime).strftime("%Y-%m-%d")
        how = f"{window}, {facts['backend']}"
        rows.append([system.label, *known, len(facts["tracks"]), seconds, rate, how, day, facts["version"]])
    heads = ["system", "model", "steps", "data", "tracks", "audio", "sample rate", "BSSEval v4", "scored", "version"]
    return Table(heads, rows)


def conventions(systems: Sequence[System]) -> list[tuple[str, Table]]:
    """Every metric by every convention."""
    names = list(systems[0].summary["conventions"])
    found = []
    for metric in _metrics(systems):
        rows: list[list[Any]] = []
        for source, system in itertools.product(_sources(systems), systems):
            if values := system.summary["scores"].get(source, {}).get(metric):
                rows.append([source, system.label, *(_with_interval(values.get(name)) for name in names)])
        for system in systems:
            means = system.summary["mean over sources"].get(metric)
            if means and len(system.summary["scores"]) > 1:
                mean = Markup("<em>mean of sources</em>")
                rows.append([mean, system.label, *(_number(means.get(name)) for name in names)])
        found.append((metric, Table(["source", "system", *names], rows, range(2, 2 + len(names)))))
    return found


def published(systems: Sequence[System], figures: Iterable[dict[str, Any]]) -> Table:
    """Published figures for these sources."""
    sources = _sources(systems)
    if any(system.summary.get("interchangeable") for system in systems):
        sources.append("speakers")
    rows = []
    for figure in figures:
        where = f"{figure['on']}, {figure['convention']}"
        tag = Markup('<span class="tag">published</span> {}').format(figure["source"])
        for source, value in figure["values"].items():
            if source in sources:
                rows.append([figure["system"], source, figure["metric"], _number(value), where, tag])
    heads = ["system", "source", "metric", "dB", "on, convention", "whose figure"]
    return Table(heads, rows, (3,), "published")


def comparison(systems: Sequence[System]) -> Table:
    """Every pair of systems on their common tracks."""
    rows = []
    metrics = [metric for metric in ESSENTIAL if metric in set(systems[0].scores["metric"])]
    for one, other in itertools.combinations(systems, 2):
        common = _common(one, other)
        for source, metric in itertools.product(_sources(systems), metrics):
            ours = {track: score for track, score in one.tracks(source, metric).items() if track in common}
            found = compare(ours, other.tracks(source, metric))
            if found["tracks"]:
                p = "too few tracks" if found["p"] is None else f"{found['p']:.3g}"
                better = f"{found['better']} of {found['tracks']}"
                names = Markup("{} minus {}").format(one.label, other.label)
                rows.append([names, source, metric, f"{found['difference']:+.2f}", better, p])
    heads = ["systems", "source", "metric", "median difference, dB", "tracks where the first is better", "p (Wilcoxon)"]
    return Table(heads, rows, (3, 4, 5))


def _common(one: System, other: System) -> set[str]:
    """The tracks that both have: of one name and length, since another split may have others by the same names."""
    first, second = (each.scores.groupby("track")["seconds"].first() for each in (one, other))
    apart = first.sub(second).abs()  # NaN where one lacks the track; rounded at other rates
    return set(apart[apart < SAME].index)


def distributions(systems: Sequence[System]) -> list[tuple[str, dict[str, Any]]]:
    """Box plots by metric: the axis' ends, lines with positions from 0 to 1000, the position of 0 dB if within."""
    found = []
    for metric in _metrics(systems):
        lines = [
            (source, system, np.sort(list(values.values())))
            for source, system in itertools.product(_sources(systems), systems)
            if (values := system.tracks(source, metric))
        ]
        if lines:
            low = math.floor(min(values[0] for *_, values in lines) - 0.5)
            high = math.ceil(max(values[-1] for *_, values in lines) + 0.5)
            boxes = [
                {
                    "label": source if len(systems) == 1 else f"{source}, {system.name}",
                    "colour": system.colour,
                    "median": f"{np.median(values):.2f}",
                    "tracks": _positions(values, low, high),
                    "quartiles": _positions(np.percentile(values, [25, 50, 75]), low, high),
                }
                for source, system, values in lines
            ]
            zero = _positions(np.zeros(1), low, high)[0] if low < 0 < high else None
            found.append((metric, {"low": low, "high": high, "zero": zero, "lines": boxes}))
    return found


def tracks(systems: Sequence[System]) -> Table:
    """Every track's scores."""
    metrics, rows = _metrics(systems), []
    for system in systems:
        for (track, source), scores in system.scores.groupby(["track", "source"], sort=False):
            by_metric = scores.set_index("metric")
            sdr = by_metric.loc["SDR"]
            values = [*by_metric["score"].reindex(metrics), sdr["seconds"]]
            cells = [
                Sortable(f"{value:.2f}", value) if math.isfinite(value) else Sortable("no score", "")
                for value in values
            ]
            unscored = Sortable(f"{sdr['unscored']} of {sdr['windows']}", sdr["unscored"])
            rows.append([track, source, system.label, *cells, unscored])
    heads = ["track", "source", "system", *metrics, "seconds", "unscored windows"]
    return Table(heads, rows, range(3, len(heads)), id="tracks")


def silence(systems: Sequence[System]) -> Table:
    """Missing scores and their reasons."""
    keys = {
        "windows": "windows",
        "unscored": "without score",
        "reference": "silent reference",
        "estimate": "silent estimate",
        "tracks without score": "tracks without score",
        "infinite": "infinite scores",
    }
    rows = [
        [system.label, source, *(counts.get(key, "") for key in keys)]
        for system in systems
        for source, counts in system.summary["silence"].items()
    ]
    return Table(["system", "source", *keys.values()], rows, range(2, 8))


def _sources(systems: Sequence[System]) -> list[str]:
    return list(dict.fromkeys(source for system in systems for source in system.summary["scores"]))


def _metrics(systems: Sequence[System]) -> list[str]:
    return list(dict.fromkeys(metric for system in systems for metric in system.scores["metric"]))


def _positions(values: np.ndarray, low: int, high: int) -> list[float]:
    return [round(1000 * (float(value) - low) / (high - low), 1) for value in values]


def _number(value: float | None) -> str:
    return "no score" if value is None else f"{round(value, 2) + 0.0:.2f}"  # no -0.00


def _with_interval(found: dict[str, Any] | None) -> str | Markup:
    if found is None:  # a convention unknown to the other system's version
        return ""
    number = _number(found["value"])
    if found["low"] is None or found["high"] is None:
        return number
    return Markup("{} <small>[{}, {}]</small>").format(number, f"{found['low']:.2f}", f"{found['high']:.2f}")
