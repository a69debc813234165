"""The results of a sweep: `cells.csv`, a row for every cell and seed, and the tables made from it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasnet_attn.ablation import statistics as stats
from tasnet_attn.ablation.quantities import EXACT, TIMES, is_of_a_source, is_of_tracks, label, more_is_better, of_masks
from tasnet_attn.ablation.runner import Status, read_result
from tasnet_attn.ablation.settings import Claim
from tasnet_attn.ablation.statistics import Comparison, Estimate, compare, estimate
from tasnet_attn.ablation.sweep import Run, Sweep, is_si_snr
from tasnet_attn.evaluation.results import COLUMNS, parts_of, read_summary, read_table
from tasnet_attn.files import write_text


@dataclass
class Found:
    """The results of a sweep.

    Attributes:
        sweep: the sweep.
        rows: of `cells.csv`, one for each run.
        epochs: the runs' validations: cell, seed, epoch, step, valid_loss, valid_si_snr, seconds.
        tracks: the runs' scores of tracks: cell, seed, quantity (SPLIT:METRIC[:SOURCE]), track, score, mean, seconds.
        speeds: {cell: its real-time factor, measured several times}.
    """

    sweep: Sweep
    rows: pd.DataFrame
    epochs: pd.DataFrame
    tracks: pd.DataFrame
    speeds: dict[str, list[float]]

    def samples(self, cell: str, quantity: str) -> tuple[dict[Any, float], str]:
        """A cell's independent values, and their kind: seeds, or tracks if there is only one seed."""
        rows = self.rows[self.rows["cell"] == cell]
        if quantity in EXACT:
            return dict.fromkeys((0, 1), float(rows[quantity].iloc[0])), "counts"
        if quantity == "real_time_factor":
            return dict(enumerate(self.speeds.get(cell, []))), "repeats"
        if len(self.sweep.settings.seeds) == 1 and is_of_tracks(quantity):
            tracks = self.tracks[(self.tracks["cell"] == cell) & (self.tracks["quantity"] == quantity)]
            over_windows = "score" if self.sweep.settings.average.endswith("medians") else "mean"
            return dict(zip(tracks["track"], tracks[over_windows], strict=True)), "tracks"
        values = rows.set_index("seed").reindex(columns=[quantity])[quantity].dropna()
        return values.astype(float).to_dict(), "seeds"

    def estimate(self, cell: str, quantity: str) -> Estimate:
        """Mean and 95 % interval."""
        return estimate(list(self.samples(cell, quantity)[0].values()))

    def compare(self, cell: str, other: str | float, quantity: str, relative: bool = False) -> Comparison:
        """Compare a cell with another one, or with a published figure."""
        ours, paired = self.samples(cell, quantity)
        theirs = self.samples(other, quantity)[0] if isinstance(other, str) else dict.fromkeys(ours, other)
        return compare(ours, theirs, paired, more_is_better(quantity), relative)

    def judge(self, claim: Claim) -> tuple[str, list[Comparison]]:
        """The result for a claim."""
        found = [self.compare(claim.cell, other, self.quantity(claim), claim.relative) for other in claim.others]
        return stats.judge(found, None if claim.better else claim.bounds), found

    def quantity(self, claim: Claim) -> str:
        """The quantity that a claim is about."""
        return claim.quantity or self.sweep.settings.metric


def collect(
    sweep: Sweep, runs: Sequence[Run], out: Path, statuses: dict[str, Status], speeds: dict[str, list[float]]
) -> Found:
    """Read every run's result.

    Args:
        sweep: the sweep.
        runs: its runs.
        out: its folder.
        statuses: of the runs.
        speeds: {cell: real-time factors}.
    """
    rows: list[dict[str, Any]] = []
    epochs = [pd.DataFrame(columns=["cell", "seed", "epoch", "valid_loss", "valid_si_snr", "seconds"])]
    tables = [pd.DataFrame(columns=["cell", "seed", "split", *COLUMNS])]
    for run in runs:
        status, place = statuses[run.name], {"cell": run.cell.name, "seed": run.seed}
        row = {
            **place,
            "state": status.state,
            "error": status.error,
            "folder": Path(relpath(run.trained, out)).as_posix(),
            "overrides": json.dumps(run.cell.overrides),
            "parameters": run.cell.parameters,
            "macs_per_second": run.cell.macs if run.cell.uncounted else round(run.cell.macs),
            "real_time_factor": float(np.median(speeds.get(run.cell.name, math.nan))),
        }
        result = read_result(run) if status.state == "finished" else None
        if result is not None:
            known = pd.DataFrame(result["epochs"])
            if "valid_si_snr" not in known:  # trained by version 0.1.0
                known["valid_si_snr"] = -known["valid_loss"] if is_si_snr(run.cell.config) else math.nan
            row |= _measures(known)
            epochs.append(known.assign(**place))
            for split in sweep.settings.evaluate:
                tables += [each.assign(split=split, **place) for each in _scores(run.folder / split)]
        rows.append(row)
    tracks = _with_means(pd.concat(tables))
    averages = _averages(tracks, sweep.settings.average)
    rows = [row | averages.get((row["cell"], row["seed"]), {}) for row in rows]
    frame = pd.DataFrame(rows, dtype=object)  # keep integers although some rows have none
    return Found(sweep, frame, pd.concat(epochs), tracks, speeds)


def _scores(folder: Path) -> list[pd.DataFrame]:
    """The tables of an evaluation: its own, and those of further masks, with the masks in their metrics' names."""
    tables = [read_table(folder)]
    for below in parts_of(folder, "masks", read_summary(folder)):
        table = read_table(below)
        tables.append(table.assign(metric=[of_masks(metric, below.name) for metric in table["metric"]]))
    return tables


def _measures(epochs: pd.DataFrame) -> dict[str, Any]:
    known = epochs[np.isfinite(epochs["valid_loss"])]
    best, seconds = known.loc[known["valid_loss"].idxmin()], float(known["seconds"].median())
    measures = {
        "epochs": int(epochs["epoch"].iloc[-1]),
        "epoch_seconds": seconds,
        "epochs_to_best": int(best["epoch"]),
        "seconds_to_best": int(best["epoch"]) * seconds,
        "valid_loss": float(best["valid_loss"]),
    }
    return measures | {name: float(best[name]) for name in best.index if name.startswith("valid_si_snr")}


def _with_means(table: pd.DataFrame) -> pd.DataFrame:
    """Scores of tracks by quantity: of each source, SPLIT:METRIC:SOURCE, and their mean, SPLIT:METRIC."""
    means = table.groupby(["cell", "seed", "split", "metric", "track"], sort=False, as_index=False).agg(
        score=("score", lambda scores: scores.mean(skipna=False)),
        mean=("mean", lambda scores: scores.mean(skipna=False)),
        seconds=("seconds", "first"),
    )
    of_sources = table["split"] + ":" + table["metric"] + ":" + table["source"]
    parts = [means.assign(quantity=means["split"] + ":" + means["metric"]), table.assign(quantity=of_sources)]
    return pd.concat(parts)[["cell", "seed", "quantity", "track", "score", "mean", "seconds"]]


def _averages(tracks: pd.DataFrame, average: str) -> dict[tuple[str, int], dict[str, float]]:
    """{(cell, seed): {quantity: the average over the tracks}}, by a convention of `evaluation.summary`."""
    column = "score" if average.endswith("medians") else "mean"
    found: dict[tuple[str, int], dict[str, float]] = {}
    for (cell, seed, quantity), rows in tracks[tracks[column].notna()].groupby(
        ["cell", "seed", "quantity"], sort=False
    ):
        weights = rows["seconds"] if average == "length-weighted" else None
        value = np.median(rows[column]) if average.startswith("median") else np.average(rows[column], weights=weights)
        found.setdefault((cell, seed), {})[quantity] = float(value)
    return found


def write(found: Found, out: Path) -> None:
    """Write `cells.csv`, `table.md` (the same whenever the sweep is run) and `times.md`."""
    write_text(out / "cells.csv", found.rows.to_csv(index=False, lineterminator="\n"))
    write_text(out / "table.md", score_table(found))
    write_text(out / "times.md", time_table(found))


def score_table(found: Found) -> str:
    """Scores and sizes, each cell compared with the baseline; the scores of each source; the claims about them."""
    rows, note = score_rows(found)
    return f"# {found.sweep.path.stem}\n\n{_markdown(rows)}\n{note}\n{_source_table(found)}{_claims(claim_rows(found))}"


def score_rows(found: Found) -> tuple[list[dict[str, str]], str]:
    """A row per cell, by column titles; and a note on how to read them."""
    settings, baseline = found.sweep.settings, found.sweep.baseline.name
    metric = settings.metric
    others = [q for q in _scored(found) if q != metric]
    paired = found.samples(baseline, metric)[1]
    rows = []
    for cell in found.sweep.cells:
        row = {
            "cell": cell.name,
            "parameters": f"{cell.parameters:,}",
            "MACs/s": short(cell.macs),
            label(metric): interval(found.estimate(cell.name, metric)),
            "epochs to convergence": interval(found.estimate(cell.name, "epochs_to_best"), 1),
        }
        row |= {label(quantity): interval(found.estimate(cell.name, quantity)) for quantity in others}
        compared = found.compare(cell.name, baseline, metric)
        row |= {
            f"minus {baseline}": interval(compared.difference),
            "p": "" if math.isnan(compared.p) else f"{compared.p:.3f}",
            "verdict": compared.verdict,
        }
        if cell.name == baseline:
            row |= {f"minus {baseline}": "", "p": "", "verdict": "baseline"}
        rows.append(row | {"runs": _counted(found.rows[found.rows["cell"] == cell.name], metric)})
    test = "Wilcoxon's signed-rank test" if paired == "tracks" else "t-test"
    note = (
        f"Means over {paired} with 95 % t-intervals. Differences from the baseline are paired by {paired}; p: paired "
        f"{test}, two-sided, not corrected for the number of cells. Undecided: the intervals of the two cells "
        "overlap, or the interval of their difference contains 0. Runs without a score (silence) are left out."
    )
    if settings.evaluate and len(settings.seeds) > 1:
        note += f" Scores of tracks: {settings.average}, over tracks and over windows."
    elif settings.evaluate:  # their interval is over the tracks
        over_windows = "median" if settings.average.endswith("medians") else "mean"
        note += f" Scores of tracks: mean over the tracks of the {over_windows} over windows."
    return rows, note


def _counted(runs: pd.DataFrame, metric: str) -> str:
    """How many of a cell's runs are finished, and how many of these have a score, if not all."""
    finished = runs[runs["state"] == "finished"]
    scored = finished.reindex(columns=[metric])[metric].notna().sum()
    return f"{len(finished)} of {len(runs)}" + (f", {scored} scored" if scored < len(finished) else "")


def _scored(found: Found) -> list[str]:
    scores = [f"{split}:{score}" for split in found.sweep.settings.evaluate for score in found.sweep.settings.scores]
    return [q for q in dict.fromkeys(["valid_si_snr", *scores]) if q in found.rows]


def _source_table(found: Found) -> str:
    """The scores of each source, and their mean."""
    quantities = _scored(found)
    columns = [
        column for q in quantities for column in (*(c for c in found.rows if c.startswith(f"{q}:")), q)
        if column == q or is_of_a_source(column)
    ]  # fmt: skip
    if len(columns) == len(quantities):
        return ""
    rows = [
        {"cell": cell.name, **{label(q): interval(found.estimate(cell.name, q)) for q in columns}}
        for cell in found.sweep.cells
    ]
    return f"\n## Each source, and their mean\n\n{_markdown(rows)}"


def time_table(found: Found) -> str:
    """The table of what depends on the machine, and the claims about it."""
    rows = [
        {"cell": cell.name, **{label(q): interval(found.estimate(cell.name, q), 3) for q in TIMES}}
        for cell in found.sweep.cells
    ]
    note = "Seconds on the machine that trained the cells."
    return f"# {found.sweep.path.stem}: times\n\n{_markdown(rows)}\n{note}\n{_claims(claim_rows(found, times=True))}"


def claim_rows(found: Found, times: bool = False) -> list[dict[str, str]]:
    """The claims about scores and sizes, or about times, and their results."""
    rows = []
    for claim in found.sweep.settings.claims:
        quantity = found.quantity(claim)
        if (quantity in TIMES) != times:
            continue
        answer, comparisons = found.judge(claim)
        differences = [
            f"{claim.cell} minus {other}: {_difference(comparison, quantity, claim.relative)}"
            for other, comparison in zip(claim.others, comparisons, strict=True)
        ]
        row = {"claim": claim.says, "holds if": claim.condition, "compared": label(quantity)}
        rows.append(row | {"found here": "; ".join(differences), "this sweep": f"**{answer}**"})
    return rows


def _claims(rows: list[dict[str, str]]) -> str:
    return f"\n## Claims\n\n{_markdown(rows)}" if rows else ""


def _difference(comparison: Comparison, quantity: str, relative: bool) -> str:
    found, unit = comparison.difference, " %" if relative else ""
    if quantity in EXACT:
        return "" if math.isnan(found.mean) else f"{found.mean:,.{2 * relative}f}{unit}"
    return f"{interval(found, 3 if quantity in TIMES and not relative else 2)}{unit}"


def interval(value: Estimate, digits: int = 2) -> str:
    """`mean [low, high]`."""
    if math.isnan(value.mean):
        return ""
    mean, low, high = (f"{round(number, digits) + 0.0:,.{digits}f}" for number in (value.mean, value.low, value.high))
    return mean if math.isnan(value.low) else f"{mean} [{low}, {high}]"  # + 0.0: no -0.00


def short(number: float) -> str:
    """A number with a letter for its thousands.

    Examples:
        >>> short(92_162_304)
        '92.2 M'
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return "" if math.isnan(number) else f"{number:.3g}"


def _markdown(rows: Sequence[dict[str, str]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [[cell.replace("|", "\\|") for cell in row.values()] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
