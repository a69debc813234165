"""`tasnet-attn ablate`: runs a sweep file, writes tables with statistics and figures, and resumes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tasnet_attn import config, terminal
from tasnet_attn.ablation import sweep as sweeps
from tasnet_attn.ablation.cost import real_time_factor
from tasnet_attn.ablation.display import Display
from tasnet_attn.ablation.figures import draw
from tasnet_attn.ablation.plan import plan
from tasnet_attn.ablation.pools import LocalPool, RayPool
from tasnet_attn.ablation.runner import Status, perform_all, read_result
from tasnet_attn.ablation.sweep import Run, Sweep
from tasnet_attn.ablation.tables import claim_rows, collect, score_rows, write
from tasnet_attn.errors import UserError
from tasnet_attn.extras import require
from tasnet_attn.files import holding, touching, write_text

BUSY = "another `ablate` is using this folder; wait for it, or give another --out"


def ablate(
    sweep: Path,
    out: Path | None = None,
    jobs: int = 1,
    ray: str | None = None,
    gpus: float = 0.0,
    dry_run: bool = False,
    only: Sequence[str] = (),
) -> int:
    """Run every cell of a sweep with every seed, and report.

    Args:
        sweep: the sweep file.
        out: the folder; None: `exp/<folder of the sweep file>_<its name>`.
        jobs: number of runs at a time, on this machine.
        ray: address of a Ray cluster to use instead.
        gpus: GPUs per run on the Ray cluster; fractions share one.
        dry_run: print cells, their cost, and commands; write nothing.
        only: train only the cells with these names or patterns; the report has all finished cells.

    Returns:
        The exit status: 0, or 1 if a run failed.

    Raises:
        UserError: a bad sweep file, or a folder that cannot be written or is in use.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs} must be at least 1")
    require("matplotlib")  # fail now, not after days of training
    checked = sweeps.read(sweep)
    out = out or Path("exp") / f"{sweep.absolute().parent.name}_{sweep.stem}"
    cells = checked.chosen(only) if only else checked.cells
    if dry_run:
        _print_cells(checked, print)
        plan(checked, checked.runs(out), cells)
        return 0
    with holding(out, ".lock", f"{out}: {BUSY}"), terminal.log(out / terminal.LOG):
        _print_cells(checked, terminal.say)
        runs = checked.runs(out)
        threads = checked.settings.threads
        pool = RayPool(ray, threads, gpus) if ray else LocalPool(jobs, threads)
        began, display = time.time(), Display()
        try:
            statuses = perform_all(runs, checked, pool, display, cells)
        except KeyboardInterrupt:
            print("stopped; run the same command to resume", file=sys.stderr)
            return 130
        finally:
            pool.close()
        _check_there(runs, statuses)
        with touching(out):
            _report(checked, runs, out, statuses, time.time() - began)
    return int(any(status.state == "failed" for status in statuses.values()))


def _check_there(runs: Sequence[Run], statuses: dict[str, Status]) -> None:
    """If the folder was removed meanwhile, the sweep must not report empty results."""
    for run in runs:
        if statuses[run.name].state == "finished" and read_result(run) is None:
            raise UserError(f"{run.folder}: removed while the sweep ran; run the same command again", status=1)


def _print_cells(sweep: Sweep, say: Callable[[str], None]) -> None:
    seeds = len(sweep.settings.seeds)
    say(f"{sweep.path}: {len(sweep.cells)} cells x {seeds} seed{'s' * (seeds > 1)}")
    rows = [[f"  {cell.name}", f"{cell.parameters:,} parameters", cell.key] for cell in sweep.cells]
    say(terminal.table(["", "", ""], rows, width=1000).lstrip("\n"))
    uncounted = [cell for cell in sweep.cells if cell.uncounted]
    if uncounted:
        names = "; ".join(cell.name for cell in uncounted)
        say(f"note: the multiply-accumulates of {names} cannot be counted ({uncounted[0].uncounted})")


def _report(sweep: Sweep, runs: Sequence[Run], out: Path, statuses: dict[str, Status], seconds: float) -> None:
    done = {run.cell.name for run in runs if statuses[run.name].state == "finished"}
    found = collect(sweep, runs, out, statuses, _speeds(sweep, out, done))
    write(found, out)
    figures = draw(found, out)
    rows, note = score_rows(found)
    print(terminal.table([*rows[0]], [[*row.values()] for row in rows]), note, sep="\n\n")
    for claim in claim_rows(found):
        says, *facts, answer = claim.values()
        print(f"\nclaim: {says}", *(f"  {fact}" for fact in facts), f"  {answer.strip('*')}", sep="\n")
    new = [status for status in statuses.values() if status.new]
    states = [status.state for status in statuses.values()]
    took = f"{terminal.duration(sum(status.seconds for status in new))} of theirs in {terminal.duration(seconds)}"
    count = f"{states.count('finished')} of {len(states)} runs finished, {states.count('failed')} failed"
    print(f"\n{count}; {len(new)} ran now: {took}")
    print(f"{out}: {', '.join(['cells.csv', 'table.md', 'times.md', *(figure.name for figure in figures)])}")


def _speeds(sweep: Sweep, out: Path, done: set[str]) -> dict[str, list[float]]:
    """Real-time factors of the finished cells, measured once, when none of our workers run."""
    file = out / "speed.json"
    fix = "remove it: the speeds are then measured again"
    kept: dict[str, list[float]] = config.read_json(file, dict, fix) if file.is_file() else {}
    for cell in sweep.cells:
        if cell.name in done and cell.key not in kept:
            kept[cell.key] = real_time_factor(cell.config["model"])
            write_text(file, json.dumps(kept, indent=1))
    return {cell.name: kept[cell.key] for cell in sweep.cells if cell.key in kept}
