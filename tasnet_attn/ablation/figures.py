"""The figures of a sweep, in the papers' style."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tasnet_attn.ablation.quantities import label
from tasnet_attn.ablation.settings import Panels, matches, name_of
from tasnet_attn.ablation.statistics import estimate
from tasnet_attn.ablation.sweep import Cell
from tasnet_attn.ablation.tables import Found
from tasnet_attn.files import file_name, whole
from tasnet_attn.separators import LTL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOTATION = r"\d+_trans_\d+"
LINES = ("-", "--", ":", "-.")


def draw(found: Found, out: Path) -> list[Path]:
    """Draw every figure that the sweep's results allow; returns the files."""
    from matplotlib import rc_context

    if found.epochs.empty:
        return []
    with rc_context({"text.parse_math": False}):  # a $ in a cell's name begins no formula
        return _draw(found, out)


def _draw(found: Found, out: Path) -> list[Path]:
    metric = found.sweep.settings.metric
    paths = [curves(found, out / "curves.png", found.sweep.path.stem, Panels())]
    for name, panels in found.sweep.settings.figures.items():
        paths.append(curves(found, out / f"{file_name(name)}.png", name, panels))
    paths.append(scatter(found, "parameters", metric, out / "parameters.png"))
    paths.append(scatter(found, "seconds_to_best", metric, out / "time.png"))
    grid = coordinates(found.sweep.cells)
    if len(grid.columns) == 2:
        paths.append(heat_map(found, grid, metric, out / "grid.png"))
    return paths


def coordinates(cells: Sequence[Cell]) -> pd.DataFrame:
    """Grid coordinates of the cells: a row per cell, a column per axis; an axis of X_trans_Y alone becomes X and Y."""
    places = {cell.name: cell.coordinates for cell in cells if cell.coordinates}
    if all(place.keys() == {"separator"} and re.fullmatch(NOTATION, place["separator"]) for place in places.values()):
        layers = {name: LTL.parse(place["separator"]) for name, place in places.items()}
        places = {name: {axis: str(number) for axis, number in place.items()} for name, place in layers.items()}
    return pd.DataFrame.from_dict(places, orient="index")


def curves(found: Found, path: Path, title: str, panels: Panels) -> Path:
    """Validation SI-SNR loss by epochs: thin lines for whole runs, bold for a cell's mean while all its seeds train."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    places = _panels(found.sweep.cells, panels)
    names = list(dict.fromkeys(curve for cells in places.values() for curve in cells))
    columns = min(2, len(places))
    rows = -(-len(places) // columns)
    figure = Figure(figsize=(4.5 + 4.5 * columns, 5 if rows == 1 else 3.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    lines: dict[str, Any] = {}
    for axis, (place, cells) in zip(axes, places.items(), strict=False):
        for curve, cell in cells.items():
            runs = found.epochs[found.epochs["cell"] == cell]
            if runs.empty:
                continue
            style = _style(names.index(curve))
            seeds = -runs.astype({"valid_si_snr": float}).pivot_table("valid_si_snr", "epoch", "seed", "last")
            axis.plot(seeds.index, seeds, linewidth=0.7, alpha=0.5, **style)
            together = seeds.loc[: runs.groupby("seed")["epoch"].max().min()]
            (lines[curve],) = axis.plot(together.index, together.mean(axis=1, skipna=False), linewidth=2.2, **style)
        axis.set_title(place, fontsize=10)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supxlabel("epoch", fontsize=10)
    figure.supylabel("validation loss: −SI-SNR, mean of the sources (dB)", fontsize=10)
    count = len(found.sweep.settings.seeds)
    figure.suptitle(title + (" (thin: runs; bold: their mean)" if count > 1 else ""), fontsize=11)
    figure.legend(lines.values(), lines, loc="outside right upper", fontsize=8)
    return _save(figure, path)


def _panels(cells: Sequence[Cell], panels: Panels) -> dict[str, dict[str, str]]:
    """{panel: {curve: cell}}; a curve's label has the coordinates that its panel's title lacks."""
    chosen = [cell for cell in cells if matches(cell.name, panels.only)]
    places: dict[str, dict[str, str]] = {}
    for cell in chosen:
        if cell.coordinates or not panels.panels:
            place = {axis: cell.coordinates.get(axis, "") for axis in panels.panels}
            curve = {axis: value for axis, value in cell.coordinates.items() if axis not in place}
            named = name_of(curve) if panels.panels else cell.name
            places.setdefault(name_of(place), {})[named] = cell.name
    for cell in chosen:
        if not cell.coordinates and panels.panels:
            places = places or {"": {}}
            for curves_of_one in places.values():
                curves_of_one[cell.name] = cell.name
    return places


def scatter(found: Found, across: str, metric: str, path: Path) -> Path:
    """The metric against parameters or time, with its 95 % interval."""
    figure, axis = _figure(9, 5)
    for cell in found.sweep.cells:
        x, y = found.estimate(cell.name, across), found.estimate(cell.name, metric)
        if math.isnan(x.mean) or math.isnan(y.mean):
            continue
        vertical = [[y.mean - y.low], [y.high - y.mean]] if math.isfinite(y.low) else None
        number = found.sweep.cells.index(cell)
        style: dict[str, Any] = {"color": f"C{number % 10}", "marker": "osD^vPX"[number // 10 % 7]}
        axis.errorbar([x.mean], [y.mean], yerr=vertical, linestyle="", capsize=3, label=cell.name, **style)
    axis.set(xlabel=label(across), ylabel=label(metric))
    axis.set_title(f"{found.sweep.path.stem} (bars: 95 % intervals)", fontsize=11)
    if across == "parameters":
        axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g} M" if value >= 1e6 else f"{value / 1e3:g} k")
    figure.legend(loc="outside right upper", fontsize=8)
    return _save(figure, path)


def heat_map(found: Found, places: pd.DataFrame, metric: str, path: Path) -> Path:
    """The metric over two axes of the grid, with half the width of the 95 % interval; `places` as of `coordinates`."""
    down, right = places.columns
    estimates = {name: found.estimate(name, metric) for name in places.index}
    grid = places.assign(cell=places.index).pivot(index=down, columns=right, values="cell")
    grid = grid.loc[places[down].unique(), places[right].unique()]
    values = grid.map(lambda name: estimates.get(name, estimate([])).mean).to_numpy()
    figure, axis = _figure(2.5 + 1.4 * len(grid.columns), 1.8 + 0.9 * len(grid))
    picture = axis.imshow(values, cmap="viridis", aspect="auto")
    axis.set_xticks(range(len(grid.columns)), grid.columns)
    axis.set_yticks(range(len(grid)), grid.index)
    axis.set(xlabel=right, ylabel=down)
    axis.set_title(f"{found.sweep.path.stem} (± 95 % interval)", fontsize=11)
    middle = np.nanmean([np.nanmin(values), np.nanmax(values)])
    for (row, column), name in np.ndenumerate(grid.to_numpy()):
        if name not in estimates:
            continue
        value = estimates[name]
        half = "" if math.isnan(value.low) else f"\n± {value.high - value.mean:.2f}"
        text = "failed" if math.isnan(value.mean) else f"{value.mean:.2f}{half}"
        color = "white" if value.mean < middle else "black"
        axis.text(column, row, text, ha="center", va="center", color=color, fontsize=9)
    figure.colorbar(picture, label=label(metric))
    return _save(figure, path)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axis = figure.subplots()
    axis.grid(False)
    return figure, axis


def _style(number: int) -> dict[str, Any]:
    return {"color": f"C{number % 10}", "linestyle": LINES[number // 10 % len(LINES)]}


def _save(figure: Figure, path: Path) -> Path:
    with whole(path, path.suffix) as part:
        figure.savefig(part, dpi=100)
    return path
