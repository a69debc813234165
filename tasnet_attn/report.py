"""The report: one self-contained HTML page, made from the saved scores of one or more evaluations."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from tasnet_attn.errors import UserError
from tasnet_attn.results import read_table, write_whole


def report(folders: list[Path], out: Path | None = None) -> Path:
    """Write the page.

    Args:
        folders: of `tasnet-attn evaluate`; their baselines are taken along.
        out: the file; None: `report.html` in the first folder.

    Returns:
        The file.
    """
    folders = [Path(folder) for folder in folders]
    if not folders:
        raise UserError("no folder to report on")
    tables = []
    for folder in folders:
        rows = read_table(folder)
        summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
        cells = [
            "<tr>"
            + "".join(f"<td>{html.escape(str(row[key]))}</td>" for key in ("track", "source", "metric", "score"))
            + "</tr>"
            for row in rows
        ]
        tables.append(f"<h2>{html.escape(summary['name'])}</h2><table>{''.join(cells)}</table>")
    path = out or folders[0] / "report.html"
    write_whole(path, f"<!doctype html><meta charset=utf-8><title>Evaluation</title>{''.join(tables)}")
    return path
