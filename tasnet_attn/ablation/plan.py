"""`ablate --dry-run`: the estimated cost of a sweep, and the commands that train its cells."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

from tasnet_attn import config
from tasnet_attn.ablation.cost import step_seconds, steps_of_an_epoch
from tasnet_attn.ablation.sweep import Cell, Run, Sweep
from tasnet_attn.ablation.tables import short
from tasnet_attn.ablation.worker import RESULT, read_epochs


def plan(sweep: Sweep, runs: Sequence[Run], cells: Sequence[Cell]) -> None:
    """Print the cost of every cell, the remaining work, and a command for each run; writes nothing.

    Args:
        sweep: the sweep.
        runs: its runs.
        cells: the cells to train.
    """
    width = max(len(cell.name) for cell in cells)
    total = 0.0
    for cell in cells:
        of_cell = [run for run in runs if run.cell is cell]
        left = [run for run in of_cell if not (run.folder / RESULT).is_file()]
        each, how = _seconds(of_cell)
        total += each * len(left)
        rest = f"{len(left)} of {len(of_cell)} runs left"
        print(f"  {cell.name:{width}}  {short(cell.macs):>6} MACs/s  about {_text(each)} per run ({how}); {rest}")
    unknown = "" if math.isfinite(total) else "; some cells could not be timed"
    print(f"estimate: about {_text(total)} on one core, at most{unknown}; without scoring of tracks")
    imports = [part for module in config.IMPORTED for part in ("--import", module)]
    for run in runs:
        if run.cell in cells:
            command = ["tasnet-attn", "train", *imports, *run.arguments]
            print(f"OMP_NUM_THREADS={sweep.settings.threads} {shlex.join(command)}")


def _seconds(runs: Sequence[Run]) -> tuple[float, str]:
    """Upper bound of a run's seconds, and its source: earlier runs of the cell, or a short timing."""
    trainer, full = runs[0].cell.config["trainer"], runs[0].cell.config
    steps = steps_of_an_epoch(full)
    limited = trainer["max_epochs"] not in (None, -1)
    epochs = trainer["max_epochs"] if limited else math.nan
    unlimited = f"; {'only max_time' if trainer['max_time'] else 'no limit'} is set" if not limited else ""
    if trainer["max_steps"] >= 0:
        unlimited = ""
        epochs = min(trainer["max_steps"] / steps if steps else math.nan, epochs if limited else math.inf)
    found = [epoch["seconds"] for run in runs for epoch in read_epochs(run.trained)]
    if known := [seconds for seconds in found if math.isfinite(seconds)]:
        return sum(known) / len(known) * epochs, f"{len(known)} epochs trained{unlimited}"
    step = step_seconds(full)
    if math.isnan(step):
        return math.nan, "too large to be timed here"
    if trainer["max_steps"] >= 0:
        return step * trainer["max_steps"], f"timed: {_text(step)} per step"
    if steps is None:
        return math.nan, f"timed: {_text(step)} per step; their number depends on the data"
    return step * steps * epochs, f"timed: {_text(step * steps)} per epoch{unlimited}"


def _text(seconds: float) -> str:
    """A duration in words.

    Examples:
        >>> _text(90), _text(7200), _text(0.034)
        ('1.5 min', '2 h', '0.034 s')
    """
    if math.isnan(seconds):
        return "?"
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"
