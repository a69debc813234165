"""The report: one self-contained HTML page from the saved scores of one or more evaluations.

It opens from disk and asks no network for anything: styles, scripts, spectrograms and audio are in the page.
"""

from __future__ import annotations

import html
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.results import read_table
from tasnet_attn.evaluation.summary import compare
from tasnet_attn.files import write_text
from tasnet_attn.reporting.listening import Listening, has_audio

TEMPLATES = Path(__file__).parent / "templates"
COLOURS = 6
ESSENTIAL = ("SDR", "SI-SNRi")  # metrics that are unfolded at first


class System(NamedTuple):
    """One evaluation: its name, folder, summary, and rows of scores."""

    name: str
    folder: Path
    summary: dict[str, Any]
    rows: list[dict[str, Any]]

    def tracks(self, source: str, metric: str) -> dict[str, float]:
        """{track: score} of those that have a score."""
        wanted = (row for row in self.rows if (row["source"], row["metric"]) == (source, metric))
        return {row["track"]: row["score"] for row in wanted if math.isfinite(row["score"])}


def report(folders: Iterable[Path], out: Path | None = None, *, seconds: float = 10.0, players: int = 8) -> Path:
    """Write the page.

    Args:
        folders: of `tasnet-attn evaluate`, or run folders that hold one; their baselines come along.
        out: the file; None: `report.html` in the first folder.
        seconds: of audio for each track.
        players: tracks to listen to, at most: from the worst to the best, evenly.

    Returns:
        The file.

    Raises:
        UserError: no folder, or one without scores.
    """
    systems = _systems([Path(folder) for folder in folders])
    listening = Listening(seconds)
    sections = _players(systems, listening, players)
    sources = list(dict.fromkeys(source for system in systems for source in system.summary["scores"]))
    metrics = list(dict.fromkeys(row["metric"] for system in systems for row in system.rows))
    title = "Evaluation: " + ", ".join(system.name for system in systems)
    body = [
        f"<h1>{html.escape(title)}</h1>",
        _about(systems),
        "<h2>Scores by convention</h2>",
        '<p class="note">In dB; more is better. In brackets, 95 % bootstrap intervals over the tracks.</p>',
        *(_conventions(systems, sources, metric) for metric in metrics),
        _published(sources, systems),
        _comparison(systems, sources),
        "<h2>Distribution over tracks</h2>",
        '<p class="note">Box: quartiles and median of the tracks; whiskers: all of them; thin lines: each track.</p>',
        *(_boxes(systems, sources, metric) for metric in metrics),
        "<h2>Tracks</h2>",
        '<p class="note">Medians over the windows. A click on a column\'s head sorts.</p>',
        _tracks(systems, metrics),
        "<h2>Silence</h2>",
        _silence(systems),
        *(["<h2>Listen</h2>", *sections] if sections else []),
    ]
    path = systems[0].folder / "report.html" if out is None else Path(out)
    script, style = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.js", "report.css"))
    write_text(
        path,
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title>\n<style>{style}</style></head>\n<body>\n'
        + "\n".join(body)
        + f"\n{listening.script()}\n<script>{script}</script>\n</body>\n</html>\n",
    )
    return path


def _systems(folders: Sequence[Path]) -> list[System]:
    if not folders:
        raise UserError("no folder to report on")
    found: list[System] = []
    for folder in folders:
        folder = folder / "evaluation" if (folder / "evaluation" / "scores.csv").is_file() else folder
        below = sorted(path.parent for path in folder.glob("baselines/*/scores.csv"))
        for each in (folder, *below):
            rows = read_table(each)
            try:
                summary = json.loads((each / "summary.json").read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise UserError(f"{each / 'summary.json'}: cannot be read: {error}; evaluate again") from error
            name = summary["name"] if each == folder else f"{summary['name']} (baseline)"
            while name in {system.name for system in found}:
                name += "'"
            found.append(System(name, each, summary, rows))
    return found


def _about(systems: Sequence[System]) -> str:
    rows = []
    for index, system in enumerate(systems):
        facts = system.summary
        window = "whole tracks" if facts["window"] is None else f"{facts['window']:g} s"
        cells = _name(system, index), len(facts["tracks"]), f"{facts['seconds']:.0f} s", window, facts["backend"]
        rows.append([*cells, f"{facts['sample_rate']} Hz", facts["version"]])
    heads = ["system", "tracks", "audio", "BSSEval v4 windows", "backend", "sample rate", "version"]
    return _table(heads, rows)


def _conventions(systems: Sequence[System], sources: Sequence[str], metric: str) -> str:
    names = list(systems[0].summary["conventions"])
    rows = []
    for source in (*sources, None):
        for index, system in enumerate(systems):
            if source is None:
                means = system.summary["mean over sources"].get(metric)
                if means and len(system.summary["scores"]) > 1:
                    rows.append(["<em>mean of sources</em>", _name(system, index), *(_number(means[n]) for n in names)])
            elif found := system.summary["scores"].get(source, {}).get(metric):
                cells = (_number(found[n]["value"]) + _interval(found[n]) for n in names)
                rows.append([html.escape(source), _name(system, index), *cells])
    opened = " open" if metric in ESSENTIAL else ""
    explained = "; ".join(f"{name}: {text}" for name, text in systems[0].summary["conventions"].items())
    table = _table(["source", "system", *names], rows, numbers=range(2, 2 + len(names)))
    note = f'<p class="note">{html.escape(explained)}.</p>' if metric == ESSENTIAL[0] else ""
    return f"<details{opened}><summary>{html.escape(metric)}</summary>{table}{note}</details>"


def _published(sources: Sequence[str], systems: Sequence[System]) -> str:
    known = json.loads((TEMPLATES / "published.json").read_text(encoding="utf-8"))
    speakers = any(system.summary.get("interchangeable") for system in systems)
    rows = []
    for figure in known:
        for source, value in figure["values"].items():
            if source in sources or (source == "speakers" and speakers):
                where = f"{figure['on']}, {figure['convention']}"
                tag = f'<span class="tag">published</span> {html.escape(figure["source"])}'
                rows.append([html.escape(figure["system"]), source, figure["metric"], _number(value), where, tag])
    if not rows:
        return ""
    heads = ["system", "source", "metric", "dB", "on, convention", "whose figure"]
    note = (
        "Figures that others published, on the data that they name. They are not measured here, and comparable only on "
    )
    table = _table(heads, rows, numbers=(3,), row_class="published")
    return f'<h2>Published figures</h2><p class="note">{note}the same data by the same convention.</p>{table}'


def _comparison(systems: Sequence[System], sources: Sequence[str]) -> str:
    rows = []
    metrics = [metric for metric in ESSENTIAL if any(row["metric"] == metric for row in systems[0].rows)]
    for (i, one), (j, other) in itertools.combinations(enumerate(systems), 2):
        for source, metric in itertools.product(sources, metrics):
            found = compare(one.tracks(source, metric), other.tracks(source, metric))
            if found["tracks"]:
                p = "too few tracks" if found["p"] is None else f"{found['p']:.3g}"
                better = f"{found['better']} of {found['tracks']}"
                names = f"{_name(one, i)} minus {_name(other, j)}"
                rows.append([names, html.escape(source), metric, f"{found['difference']:+.2f}", better, p])
    if not rows:
        return ""
    heads = ["systems", "source", "metric", "median difference, dB", "tracks where the first is better", "p (Wilcoxon)"]
    note = (
        "The same tracks by both systems; Wilcoxon signed-rank test, two-sided, not corrected for several comparisons."
    )
    return f'<h2>Paired comparison</h2><p class="note">{note}</p>{_table(heads, rows, numbers=(3, 4, 5))}'


def _boxes(systems: Sequence[System], sources: Sequence[str], metric: str) -> str:
    lines = [
        (source, index, system.name, values)
        for source in sources
        for index, system in enumerate(systems)
        if (values := sorted(system.tracks(source, metric).values()))
    ]
    if not lines:
        return ""
    low, high = min(v[0] for *_, v in lines), max(v[-1] for *_, v in lines)
    low, high = math.floor(low - 0.5), math.ceil(high + 0.5)

    def x(value: float) -> float:
        return round(1000 * (value - low) / (high - low), 1)

    cells = []
    for source, index, name, values in lines:
        first, median, third = (float(q) for q in np.percentile(values, [25, 50, 75]))
        label = html.escape(source if len(systems) == 1 else f"{source}, {name}")
        every = "".join(f"M{x(value)} 3V19" for value in values)
        thick = 'stroke="currentColor" vector-effect="non-scaling-stroke"'
        cells.append(
            f'<div class="label">{label}</div><svg class="c{index % COLOURS}" viewBox="0 0 1000 22" role="img" '
            f'preserveAspectRatio="none" aria-label="{label}: median {median:.2f} dB">'
            f'<path d="{every}" {thick} stroke-opacity=".35"/>'
            f'<path d="M{x(values[0])} 11H{x(values[-1])}" {thick}/>'
            f'<rect x="{x(first)}" y="4" width="{round(x(third) - x(first), 1)}" height="14" fill="currentColor" '
            f'fill-opacity=".25" {thick}/>'
            f'<path d="M{x(median)} 2V20" {thick} stroke-width="3"/></svg><div class="v">{median:.2f}</div>'
        )
    axis = f'<div></div><div class="axis"><span>{low} dB</span><span>{high} dB</span></div><div class="v">median</div>'
    opened = " open" if metric in ESSENTIAL else ""
    name = html.escape(metric)
    return f'<details{opened}><summary>{name}</summary><div class="boxes">{"".join(cells)}{axis}</div></details>'


def _tracks(systems: Sequence[System], metrics: Sequence[str]) -> str:
    rows: dict[tuple[str, int, str], dict[str, Any]] = {}
    for index, system in enumerate(systems):
        for row in system.rows:
            rows.setdefault((row["track"], index, row["source"]), {})[row["metric"]] = row
    lines = []
    for (track, index, source), scores in rows.items():
        cells = [f"<td>{html.escape(track)}</td><td>{html.escape(source)}</td><td>{_name(systems[index], index)}</td>"]
        sdr = scores["SDR"]
        counts = {metric: scores[metric]["score"] if metric in scores else math.nan for metric in metrics}
        counts |= {"seconds": sdr["seconds"]}
        for value in counts.values():
            known = math.isfinite(value)
            cells.append(
                f'<td class="n" data-v="{value if known else ""}">{f"{value:.2f}" if known else "no score"}</td>'
            )
        unscored = f"{sdr['unscored']} of {sdr['windows']}"
        cells.append(f'<td class="n" data-v="{sdr["unscored"]}">{unscored}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    texts, numbers = ["track", "source", "system"], [*metrics, "seconds", "unscored windows"]
    heads = "".join(
        f'<th scope="col"{kind}><button type="button">{html.escape(head)}</button></th>'
        for kind, names in (("", texts), (' class="n"', numbers))
        for head in names
    )
    return (
        f'<div class="scroll"><table class="sortable" id="tracks"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _silence(systems: Sequence[System]) -> str:
    keys = {
        "windows": "windows",
        "unscored": "without score",
        "reference": "silent reference",
        "estimate": "silent estimate",
        "tracks without score": "tracks without score",
        "infinite": "infinite scores",
    }
    rows = [
        [_name(system, index), html.escape(source), *(counts[key] for key in keys)]
        for index, system in enumerate(systems)
        for source, counts in system.summary["silence"].items()
    ]
    note = (
        "A window where a reference or an estimate is silent has no BSSEval score, for any source, as in museval; a "
        "source that is silent throughout a track has none in it. Neither these nor infinite scores count anywhere."
    )
    return f'<p class="note">{note}</p>{_table(["system", "source", *keys.values()], rows, numbers=range(2, 8))}'


def _players(systems: Sequence[System], listening: Listening, count: int) -> list[str]:
    means: dict[str, list[float]] = {}
    for row in (row for system in systems for row in system.rows if row["metric"] == "SI-SNR"):
        if any(
            has_audio(system.folder, row["track"]) for system in systems if row["track"] in system.summary["tracks"]
        ):
            means.setdefault(row["track"], []).append(row["score"] if math.isfinite(row["score"]) else 0.0)
    ranked = sorted(means, key=lambda track: float(np.mean(means[track])))
    if len(ranked) > count:
        ranked = [ranked[i] for i in np.linspace(0, len(ranked) - 1, count).round().astype(int)]
    sections = []
    for track in ranked:
        kept = [s for s in systems if track in s.summary["tracks"] and has_audio(s.folder, track)]
        folders = {system.name: system.folder for system in kept}
        sections.append(listening.player(track, folders, list(kept[0].summary["scores"])))
    return sections


def _name(system: System, index: int) -> str:
    return f'<span class="dot c{index % COLOURS}"></span>{html.escape(system.name)}'


def _number(value: float | None) -> str:
    return "no score" if value is None else f"{round(value, 2) + 0.0:.2f}"  # no -0.00


def _interval(found: dict[str, Any]) -> str:
    return "" if found["low"] is None else f" <small>[{found['low']:.2f}, {found['high']:.2f}]</small>"


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Iterable[int] = (), row_class: str = ""
) -> str:
    """Cells are HTML; columns in `numbers` are set to the right."""
    right = set(numbers)

    def line(cells: Sequence[Any], tag: str) -> str:
        return "".join(f"<{tag}{' class=n' if i in right else ''}>{cell}</{tag}>" for i, cell in enumerate(cells))

    body = "".join(f"<tr{f' class={row_class}' if row_class else ''}>{line(row, 'td')}</tr>" for row in rows)
    head = line([html.escape(head) for head in heads], "th")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
