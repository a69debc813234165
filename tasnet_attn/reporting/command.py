"""The report: one self-contained HTML page from the saved scores of one or more evaluations.

It opens from disk and never uses the network: styles, scripts, spectrograms and audio are in the page.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader

from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.command import named
from tasnet_attn.evaluation.lengths import FILE, read
from tasnet_attn.evaluation.results import parts_of, read_summary, read_table
from tasnet_attn.files import write_text
from tasnet_attn.reporting import tables
from tasnet_attn.reporting.figures import by_length
from tasnet_attn.reporting.listening import Listening, files_of, has_audio
from tasnet_attn.reporting.pictures import FLOOR
from tasnet_attn.reporting.tables import System

TEMPLATES = Path(__file__).parent / "templates"


def report(
    folders: Iterable[Path],
    out: Path | None = None,
    *,
    seconds: float = 10.0,
    players: int = 8,
    audio: Literal["mp3", "flac"] = "mp3",
) -> Path:
    """Write the page.

    Args:
        folders: of `tasnet-attn evaluate`, or run folders that contain one; includes their baselines.
        out: the file; None: `report.html` in the first folder.
        seconds: of audio for each track.
        players: number of tracks with players, at most: evenly from the worst to the best.
        audio: of the page: "mp3", which every browser plays; "flac": 16 bits, exact, about eight times as large.

    Returns:
        The file.

    Raises:
        UserError: no folder, one without scores, or a bad number.
    """
    if not 0 < seconds < math.inf or players < 0:
        raise UserError(f"report: --seconds {seconds:g} must be above 0 and finite, --players {players} at least 0")
    systems = _systems([Path(folder) for folder in folders])
    out = systems[0].folder / "report.html" if out is None else Path(out)
    listening = Listening(seconds, audio)
    sections = _players(systems, listening, players)
    return _write(
        out,
        listening,
        title="Evaluation: " + ", ".join(system.name for system in systems),
        players=sections,
        about_title="Systems",
        about=tables.about(systems),
        essential=tables.ESSENTIAL,
        explained=systems[0].summary["conventions"],
        conventions=tables.conventions(systems),
        published=tables.published(systems, json.loads((TEMPLATES / "published.json").read_text(encoding="utf-8"))),
        comparison=tables.comparison(systems),
        distributions=tables.distributions(systems),
        tracks=tables.tracks(systems),
        silence=tables.silence(systems),
        by_length=_by_length(systems, out),
    )


def listen(title: str, clips: dict[str, dict[str, Path]], about: tables.Table, out: Path) -> Path:
    """Write a page of players alone.

    Args:
        title: the page's.
        clips: {player's title: {label: sound file}}, the mixture first; whole, as FLAC.
        about: what separated them.
        out: the file.

    Returns:
        The file.
    """
    listening = Listening(float("inf"), "flac")
    players = [listening.player(name, files) for name, files in clips.items()]
    return _write(out, listening, title=title, players=players, about_title="Models", about=about)


def _write(out: Path, listening: Listening, **parts: Any) -> Path:
    """The page: its players, and what else there is; without scores, their sections are left out."""
    pages = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = pages.get_template("report.html").render(
        **parts,
        floor=f"{FLOOR:g}",
        audio=json.dumps(listening.audio),
        style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        script=(TEMPLATES / "report.js").read_text(encoding="utf-8"),
    )
    page = page.encode("utf-8", "backslashreplace").decode()  # JSON may contain lone surrogates
    return write_text(out, page)


def _by_length(systems: Sequence[System], out: Path) -> str:
    """The figure of systems evaluated by length, saved next to the page, as base64; "": there are none."""
    tables_ = {
        system.name: read(system.folder)
        for system in systems
        if (system.folder / FILE).is_file() and system.summary.get("by_length") != []  # an earlier evaluation's
    }
    if not tables_:
        return ""
    figure = by_length(tables_, out.with_name("by_length.png"))
    return base64.b64encode(figure.read_bytes()).decode()


def _systems(folders: Sequence[Path]) -> list[System]:
    if not folders:
        raise UserError("no folder to report on")
    found: list[System] = []
    for folder in folders:
        folder = folder / "evaluation" if (folder / "evaluation" / "scores.csv").is_file() else folder
        for each, scores, summary in _read(folder):
            name = f"{summary['name']} (baseline)" if each.parent.name == "baselines" else summary["name"]
            if name == "evaluation":  # the name of every run in earlier versions
                name = named(each)
            taken = {system.name for system in found}
            if name in taken:
                name += f" ({each.name})"
            while name in taken:
                name += "'"
            found.append(System(name, f"c{len(found) % tables.COLOURS}", each, summary, scores))
    return found


def _read(folder: Path) -> Iterator[tuple[Path, pd.DataFrame, dict[str, Any]]]:
    """An evaluation, its further masks and its baselines."""
    scores, summary = read_table(folder), read_summary(folder)
    yield folder, scores, summary
    for part in ("masks", "baselines"):
        for path in parts_of(folder, part, summary):
            yield path, read_table(path), read_summary(path)


def _players(systems: Sequence[System], listening: Listening, count: int) -> list[dict[str, Any]]:
    scores = pd.concat([system.scores for system in systems])
    means = scores[scores["metric"] == "SI-SNR"].fillna({"score": 0.0}).groupby("track", sort=False)["score"].mean()
    kept = {
        track: [s for s in systems if track in s.summary["tracks"] and has_audio(s.folder, track)]
        for track in means.sort_values(kind="stable").index
    }
    ranked = [track for track, those in kept.items() if those]
    if len(ranked) > count:
        ranked = [ranked[i] for i in np.linspace(0, len(ranked) - 1, count).round().astype(int)]
    return [
        listening.player(track, files_of(track, {s.name: (s.folder, list(s.summary["scores"])) for s in kept[track]}))
        for track in ranked
    ]
