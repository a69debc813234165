"""What a sweep found: `cells.csv`, a row for every cell and seed, and the tables made of it."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasnet_attn.ablation import statistics as stats
from tasnet_attn.ablation.runner import Status, read_result
from tasnet_attn.ablation.statistics import TIMES, Comparison, Estimate, compare, estimate, label, more_is_better
from tasnet_attn.ablation.sweep import Cell, Claim, Run, Sweep, is_si_snr
from tasnet_attn.files import write_text

EXACT = ("parameters", "macs_per_second")  # counted, not measured


@dataclass
class Found:
    """The results of a sweep.

    Attributes:
        sweep: it.
        rows: of `cells.csv`.
        epochs: {cell: [its seeds' validations]}.
        tracks: {cell: {SPLIT:METRIC: {track: [its seeds' scores]}}}.
        speeds: {cell: its real-time factor, measured some times}.
    """

    sweep: Sweep
    rows: list[dict[str, Any]]
    epochs: dict[str, list[list[dict[str, Any]]]]
    tracks: dict[str, dict[str, dict[str, list[float]]]]
    speeds: dict[str, list[float]]

    def seeds(self, cell: str, quantity: str) -> dict[int, float]:
        """{seed: value} of a cell."""
        rows = [row for row in self.rows if row["cell"] == cell and row["state"] == "finished"]
        return {row["seed"]: row[quantity] for row in rows if isinstance(row.get(quantity), (int, float))}

    def samples(self, cell: str, quantity: str) -> tuple[dict[Any, float], str]:
        """The independent values that a cell has, and what they are: seeds, or with a single one, tracks."""
        if quantity in EXACT:
            value = next((row[quantity] for row in self.rows if row["cell"] == cell), math.nan)
            return {0: value, 1: value}, "counts"
        if quantity == "real_time_factor":
            return dict(enumerate(self.speeds.get(cell, []))), "repeats"
        if len(self.sweep.settings.seeds) == 1 and ":" in quantity:
            tracks = self.tracks.get(cell, {}).get(quantity, {})
            return {track: statistics.fmean(values) for track, values in tracks.items()}, "tracks"
        return self.seeds(cell, quantity), "seeds"

    def estimate(self, cell: str, quantity: str) -> Estimate:
        """Mean and 95 % interval."""
        return estimate(list(self.samples(cell, quantity)[0].values()))

    def compare(self, cell: str, other: str, quantity: str) -> Comparison:
        """A cell with another one."""
        (ours, paired), (theirs, _) = self.samples(cell, quantity), self.samples(other, quantity)
        return compare(ours, theirs, paired, more_is_better(quantity))

    def judge(self, claim: Claim) -> tuple[str, list[Comparison]]:
        """What the data say to a claim."""
        assert claim.cell is not None
        found = [self.compare(claim.cell, other, self.quantity(claim)) for other in claim.others]
        return stats.judge("better" if claim.better else "equal", found, claim.within), found

    def quantity(self, claim: Claim) -> str:
        """What a claim compares."""
        return claim.quantity or self.sweep.settings.metric


def collect(sweep: Sweep, out: Path, statuses: dict[str, Status], speeds: dict[str, list[float]]) -> Found:
    """Read every run's result.

    Args:
        sweep: it.
        out: its folder.
        statuses: how the runs ended.
        speeds: {cell: real-time factors}.
    """
    found = Found(sweep, [], {}, {}, speeds)
    for run in sweep.runs(out):
        status = statuses[run.name]
        row = _row(run, out, status, speeds.get(run.cell.name, []))
        result = read_result(run) if status.state == "finished" else None
        if result is not None:
            row |= _measures(run.cell, result)
            found.epochs.setdefault(run.cell.name, []).append(result["epochs"])
            for split, metrics in result["scores"].items():
                for metric, tracks in metrics.items():
                    kept = found.tracks.setdefault(run.cell.name, {}).setdefault(f"{split}:{metric}", {})
                    for track, value in tracks.items():
                        kept.setdefault(track, []).append(value)
        found.rows.append(row)
    return found


def _row(run: Run, out: Path, status: Status, speeds: Sequence[float]) -> dict[str, Any]:
    return {
        "cell": run.cell.name,
        "seed": run.seed,
        "state": status.state,
        "error": status.error,
        "folder": run.folder.relative_to(out).as_posix(),
        "overrides": json.dumps(run.cell.overrides),
        "parameters": run.cell.parameters,
        "macs_per_second": round(run.cell.macs),
        "real_time_factor": statistics.median(speeds) if speeds else math.nan,
    }


def _measures(cell: Cell, result: dict[str, Any]) -> dict[str, Any]:
    epochs = [epoch for epoch in result["epochs"] if math.isfinite(epoch["valid_loss"])]
    best = min(epochs, key=lambda epoch: epoch["valid_loss"])
    known = [epoch["seconds"] for epoch in epochs if math.isfinite(epoch["seconds"])]
    seconds = statistics.median(known) if known else math.nan
    measures = {
        "epochs": result["epochs"][-1]["epoch"],
        "epoch_seconds": seconds,
        "epochs_to_best": best["epoch"],
        "seconds_to_best": best["epoch"] * seconds,
        "valid_loss": best["valid_loss"],
    }
    if is_si_snr(cell.config):
        measures["valid_si_snr"] = -best["valid_loss"]
    for split, metrics in result["scores"].items():
        for metric, tracks in metrics.items():
            scores = [value for value in tracks.values() if math.isfinite(value)]
            measures[f"{split}:{metric}"] = statistics.fmean(scores) if scores else math.nan
    return measures


def write(found: Found, out: Path) -> None:
    """Write `cells.csv`, `table.md` (the same whenever the sweep is run) and `times.md`."""
    columns = list(dict.fromkeys(key for row in found.rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in found.rows:
        writer.writerow({k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()})
    write_text(out / "cells.csv", text.getvalue())
    write_text(out / "table.md", score_table(found))
    write_text(out / "times.md", time_table(found))


def score_table(found: Found) -> str:
    """Scores and sizes, each cell beside the baseline; then the claims about them."""
    settings, baseline = found.sweep.settings, found.sweep.baseline.name
    metric = settings.metric
    others = [q for q in ("valid_si_snr", *_track_metrics(found)) if q != metric and _known(found, q)]
    paired = found.samples(baseline, metric)[1]
    heads = ["cell", "parameters", "MACs/s", label(metric), "epochs to convergence", *map(label, others)]
    heads += [f"minus {baseline}", "p", "verdict", "runs"]
    rows = []
    for cell in found.sweep.cells:
        row = [cell.name, f"{cell.parameters:,}", _short(cell.macs), interval(found.estimate(cell.name, metric))]
        row.append(interval(found.estimate(cell.name, "epochs_to_best"), 1))
        row += [interval(found.estimate(cell.name, quantity)) for quantity in others]
        if cell.name == baseline:
            row += ["", "", "baseline"]
        else:
            comparison = found.compare(cell.name, baseline, metric)
            p = "" if math.isnan(comparison.p) else f"{comparison.p:.3f}"
            row += [interval(comparison.difference), p, comparison.verdict]
        done = sum(r["state"] == "finished" for r in found.rows if r["cell"] == cell.name)
        rows.append([*row, f"{done} of {len(settings.seeds)}"])
    test = "Wilcoxon's signed-rank test" if paired == "tracks" else "t-test"
    note = (
        f"Means over {paired} with 95 % t-intervals. Differences from the baseline are paired by {paired}; p: paired "
        f"{test}, two-sided, not corrected for how many cells there are. Undecided: the intervals of the two cells "
        "overlap, or that of their difference holds 0."
    )
    claims = [claim for claim in settings.claims if found.quantity(claim) not in TIMES]
    return f"# {found.sweep.path.stem}\n\n{_markdown(heads, rows)}\n{note}\n{_claims(found, claims)}"


def time_table(found: Found) -> str:
    """What depends on the machine; then the claims about it."""
    heads = ["cell", *map(label, TIMES)]
    rows = [
        [cell.name, *(interval(found.estimate(cell.name, quantity), 3) for quantity in TIMES)]
        for cell in found.sweep.cells
    ]
    note = "Seconds of the machine that trained the cells, which may have had other work to do."
    claims = [claim for claim in found.sweep.settings.claims if found.quantity(claim) in TIMES]
    return f"# {found.sweep.path.stem}: times\n\n{_markdown(heads, rows)}\n{note}\n{_claims(found, claims)}"


def _claims(found: Found, claims: Sequence[Claim]) -> str:
    if not claims:
        return ""
    rows = []
    for claim in claims:
        answer, comparisons = found.judge(claim)
        quantity = found.quantity(claim)
        differences = [
            f"{claim.cell} minus {other}: {_difference(comparison, quantity)}"
            for other, comparison in zip(claim.others, comparisons, strict=True)
        ]
        rows.append([claim.says, label(quantity), "; ".join(differences), f"**{answer}**"])
    return f"\n## Claims\n\n{_markdown(['claim', 'compared', 'found here', 'this sweep'], rows)}"


def _difference(comparison: Comparison, quantity: str) -> str:
    if quantity in EXACT:
        return f"{comparison.difference.mean:,.0f}"
    return interval(comparison.difference, 3 if quantity in TIMES else 2)


def _track_metrics(found: Found) -> list[str]:
    return [f"{split}:{metric}" for split in found.sweep.settings.evaluate for metric in ("SI-SNRi", "SDR")]


def _known(found: Found, quantity: str) -> bool:
    return any(quantity in row for row in found.rows)


def interval(value: Estimate, digits: int = 2) -> str:
    """`mean [low, high]`."""
    if math.isnan(value.mean):
        return ""
    mean, low, high = (f"{round(number, digits) + 0.0:,.{digits}f}" for number in (value.mean, value.low, value.high))
    return mean if math.isnan(value.low) else f"{mean} [{low}, {high}]"  # + 0.0: no -0.00


def _short(number: float) -> str:
    """A number with its thousands as a letter.

    >>> _short(92_162_304)
    '92.2 M'
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.3g}"


def _markdown(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
