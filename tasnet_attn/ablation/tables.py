"""What a sweep found: `cells.csv`, a row for every cell and seed, and the tables made of it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasnet_attn.ablation import statistics as stats
from tasnet_attn.ablation.runner import Status, read_result
from tasnet_attn.ablation.statistics import TIMES, Comparison, Estimate, compare, estimate, label, more_is_better
from tasnet_attn.ablation.sweep import Claim, Run, Sweep, is_si_snr
from tasnet_attn.files import write_text

EXACT = ("parameters", "macs_per_second")  # counted, not measured


@dataclass
class Found:
    """The results of a sweep.

    Attributes:
        sweep: it.
        rows: of `cells.csv`, one for each run.
        epochs: the runs' validations: cell, seed, epoch, step, valid_loss, seconds.
        tracks: the runs' scores of tracks: cell, seed, quantity (SPLIT:METRIC), track, score.
        speeds: {cell: its real-time factor, measured some times}.
    """

    sweep: Sweep
    rows: pd.DataFrame
    epochs: pd.DataFrame
    tracks: pd.DataFrame
    speeds: dict[str, list[float]]

    def samples(self, cell: str, quantity: str) -> tuple[dict[Any, float], str]:
        """The independent values that a cell has, and what they are: seeds, or with a single one, tracks."""
        rows = self.rows[self.rows["cell"] == cell]
        if quantity in EXACT:
            return dict.fromkeys((0, 1), float(rows[quantity].iloc[0])), "counts"
        if quantity == "real_time_factor":
            return dict(enumerate(self.speeds.get(cell, []))), "repeats"
        if len(self.sweep.settings.seeds) == 1 and ":" in quantity:
            tracks = self.tracks[(self.tracks["cell"] == cell) & (self.tracks["quantity"] == quantity)]
            return dict(zip(tracks["track"], tracks["score"], strict=True)), "tracks"
        values = rows.set_index("seed").reindex(columns=[quantity])[quantity].dropna()
        return values.astype(float).to_dict(), "seeds"

    def estimate(self, cell: str, quantity: str) -> Estimate:
        """Mean and 95 % interval."""
        return estimate(list(self.samples(cell, quantity)[0].values()))

    def compare(self, cell: str, other: str, quantity: str) -> Comparison:
        """A cell with another one."""
        (ours, paired), (theirs, _) = self.samples(cell, quantity), self.samples(other, quantity)
        return compare(ours, theirs, paired, more_is_better(quantity))

    def judge(self, claim: Claim) -> tuple[str, list[Comparison]]:
        """What the data say to a claim."""
        found = [self.compare(claim.cell, other, self.quantity(claim)) for other in claim.others]
        return stats.judge("better" if claim.better else "equal", found, claim.within), found

    def quantity(self, claim: Claim) -> str:
        """What a claim compares."""
        return claim.quantity or self.sweep.settings.metric


def collect(
    sweep: Sweep, runs: Sequence[Run], out: Path, statuses: dict[str, Status], speeds: dict[str, list[float]]
) -> Found:
    """Read every run's result.

    Args:
        sweep: it.
        runs: its runs.
        out: its folder.
        statuses: how the runs ended.
        speeds: {cell: real-time factors}.
    """
    rows: list[dict[str, Any]] = []
    epochs: list[dict[str, Any]] = []
    tracks: list[dict[str, Any]] = []
    for run in runs:
        status, place = statuses[run.name], {"cell": run.cell.name, "seed": run.seed}
        row = {
            **place,
            "state": status.state,
            "error": status.error,
            "folder": run.folder.relative_to(out).as_posix(),
            "overrides": json.dumps(run.cell.overrides),
            "parameters": run.cell.parameters,
            "macs_per_second": run.cell.macs if run.cell.uncounted else round(run.cell.macs),
            "real_time_factor": float(np.median(speeds.get(run.cell.name, math.nan))),
        }
        result = read_result(run) if status.state == "finished" else None
        if result is not None:
            row |= _measures(result, is_si_snr(run.cell.config))
            epochs += [place | epoch for epoch in result["epochs"]]
            for split, metrics in result["scores"].items():
                for metric, scores in metrics.items():
                    quantity = f"{split}:{metric}"
                    row[quantity] = estimate(list(scores.values())).mean
                    tracks += [place | {"quantity": quantity, "track": t, "score": x} for t, x in scores.items()]
        rows.append(row)
    return Found(
        sweep,
        pd.DataFrame(rows, dtype=object),  # whole numbers stay whole beside rows that have none
        pd.DataFrame(epochs, columns=["cell", "seed", "epoch", "step", "valid_loss", "seconds"]),
        pd.DataFrame(tracks, columns=["cell", "seed", "quantity", "track", "score"]),
        speeds,
    )


def _measures(result: dict[str, Any], si_snr: bool) -> dict[str, Any]:
    epochs = pd.DataFrame(result["epochs"])
    known = epochs[np.isfinite(epochs["valid_loss"])]
    best, seconds = known.loc[known["valid_loss"].idxmin()], float(known["seconds"].median())
    measures = {
        "epochs": int(epochs["epoch"].iloc[-1]),
        "epoch_seconds": seconds,
        "epochs_to_best": int(best["epoch"]),
        "seconds_to_best": int(best["epoch"]) * seconds,
        "valid_loss": float(best["valid_loss"]),
    }
    return measures | ({"valid_si_snr": -float(best["valid_loss"])} if si_snr else {})


def write(found: Found, out: Path) -> None:
    """Write `cells.csv`, `table.md` (the same whenever the sweep is run) and `times.md`."""
    write_text(out / "cells.csv", found.rows.to_csv(index=False, lineterminator="\n"))
    write_text(out / "table.md", score_table(found))
    write_text(out / "times.md", time_table(found))


def score_table(found: Found) -> str:
    """Scores and sizes, each cell beside the baseline; then the claims about them."""
    settings, baseline = found.sweep.settings, found.sweep.baseline.name
    metric = settings.metric
    scores = [f"{split}:{score}" for split in settings.evaluate for score in ("SI-SNRi", "SDR")]
    others = [q for q in ("valid_si_snr", *scores) if q != metric and q in found.rows]
    paired = found.samples(baseline, metric)[1]
    rows = []
    for cell in found.sweep.cells:
        row = {
            "cell": cell.name,
            "parameters": f"{cell.parameters:,}",
            "MACs/s": _short(cell.macs),
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
        states = found.rows.loc[found.rows["cell"] == cell.name, "state"]
        rows.append(row | {"runs": f"{(states == 'finished').sum()} of {len(states)}"})
    test = "Wilcoxon's signed-rank test" if paired == "tracks" else "t-test"
    note = (
        f"Means over {paired} with 95 % t-intervals. Differences from the baseline are paired by {paired}; p: paired "
        f"{test}, two-sided, not corrected for how many cells there are. Undecided: the intervals of the two cells "
        "overlap, or that of their difference holds 0."
    )
    claims = [claim for claim in settings.claims if found.quantity(claim) not in TIMES]
    return f"# {found.sweep.path.stem}\n\n{_markdown(rows)}\n{note}\n{_claims(found, claims)}"


def time_table(found: Found) -> str:
    """What depends on the machine; then the claims about it."""
    rows = [
        {"cell": cell.name, **{label(q): interval(found.estimate(cell.name, q), 3) for q in TIMES}}
        for cell in found.sweep.cells
    ]
    note = "Seconds of the machine that trained the cells, which may have had other work to do."
    claims = [claim for claim in found.sweep.settings.claims if found.quantity(claim) in TIMES]
    return f"# {found.sweep.path.stem}: times\n\n{_markdown(rows)}\n{note}\n{_claims(found, claims)}"


def _claims(found: Found, claims: Sequence[Claim]) -> str:
    rows = []
    for claim in claims:
        answer, comparisons = found.judge(claim)
        quantity = found.quantity(claim)
        differences = [
            f"{claim.cell} minus {other}: {_difference(comparison, quantity)}"
            for other, comparison in zip(claim.others, comparisons, strict=True)
        ]
        row = {"claim": claim.says, "compared": label(quantity), "found here": "; ".join(differences)}
        rows.append(row | {"this sweep": f"**{answer}**"})
    return f"\n## Claims\n\n{_markdown(rows)}" if rows else ""


def _difference(comparison: Comparison, quantity: str) -> str:
    if quantity in EXACT:
        return "" if math.isnan(comparison.difference.mean) else f"{comparison.difference.mean:,.0f}"
    return interval(comparison.difference, 3 if quantity in TIMES else 2)


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
    return "" if math.isnan(number) else f"{number:.3g}"


def _markdown(rows: Sequence[dict[str, str]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [[cell.replace("|", "\\|") for cell in row.values()] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
