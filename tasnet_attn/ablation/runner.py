"""Performs the unfinished runs and shows their progress."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any

from tasnet_attn import config
from tasnet_attn.ablation.pools import LocalPool, RayPool, Task
from tasnet_attn.ablation.sweep import Cell, Run, Sweep
from tasnet_attn.ablation.worker import LOG, RESULT, read_epochs
from tasnet_attn.evaluation import command as evaluation

LOOK = 0.5  # seconds between two checks of the workers


@dataclass
class Status:
    """The progress of a run.

    Attributes:
        state: "waiting", "running", "finished", or "failed".
        epochs: see `read_epochs`.
        seconds: its duration.
        error: why it failed, one line.
        new: it was performed now, not found finished.
    """

    state: str = "waiting"
    epochs: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""
    new: bool = False


Show = Callable[[dict[str, Run], dict[str, Status]], None]


def read_result(run: Run) -> dict[str, Any] | None:
    """The result of a finished run, or None.

    Raises:
        UserError: the file is damaged.
    """
    file = run.folder / RESULT
    if not file.is_file():
        return None
    return config.read_json(file, dict, "remove it to score the run again")


def perform_all(
    runs: Sequence[Run], sweep: Sweep, pool: LocalPool | RayPool, show: Show, cells: Sequence[Cell]
) -> dict[str, Status]:
    """Perform every run of these cells that has no result; returns the status of all runs by name."""
    named = {run.name: run for run in runs}
    statuses = {name: Status() for name in named}
    futures: dict[Future[dict[str, Any]], str] = {}
    began = time.time()
    for name, run in named.items():
        task = _task(run, sweep)
        if _done(run, task["evaluate"]):
            statuses[name] = Status("finished", _epochs(run))
        elif run.cell in cells:
            futures[pool.submit(task)] = name
    show(named, statuses)
    while futures:
        done, _ = wait(futures, LOOK, FIRST_COMPLETED)
        for future in done:
            name = futures.pop(future)
            statuses[name] = _ended(named[name], future)
        for name in futures.values():
            _look(named[name], statuses[name], began)
        show(named, statuses)
    return statuses


def _done(run: Run, wanted: dict[str, dict[str, Any]]) -> bool:
    """Whether a run is trained and scored as required; additional BSSEval v3 scores are accepted."""
    if (result := read_result(run)) is None:
        return False
    scored = {split: _departures(how) for split, how in result.get("evaluation", {}).items()}
    return all(
        scored.get(split) in (_departures(how), _departures(how | {"v3": True})) for split, how in wanted.items()
    )


def _departures(how: dict[str, Any]) -> dict[str, Any]:
    """Drop settings that change nothing in an evaluation: a new version has new settings."""
    defaults = evaluation.complete({})
    return {key: value for key, value in how.items() if value != defaults.get(key)}


def _task(run: Run, sweep: Sweep) -> Task:
    """See `worker.perform`."""
    return {
        "cwd": os.getcwd(),
        "imports": config.IMPORTED,
        "folder": str(run.folder.absolute()),
        "trained": str(run.trained.absolute()),
        "arguments": run.arguments,
        "key": run.cell.key,
        "name": run.name if len(sweep.settings.seeds) > 1 else run.cell.name,
        "threads": sweep.settings.threads,
        "evaluate": dict.fromkeys(sweep.settings.evaluate, sweep.scoring(run.cell)),
    }


def _ended(run: Run, future: Future[dict[str, Any]]) -> Status:
    error = future.exception()
    answer: dict[str, Any] = {"error": str(error) or type(error).__name__, "seconds": 0.0} if error else future.result()
    state = "failed" if "error" in answer else "finished"
    return Status(state, _epochs(run), answer["seconds"], answer.get("error", ""), new=True)


def _look(run: Run, status: Status, began: float) -> None:
    """A run is running if its log was written since the sweep began; this works for every kind of pool."""
    log = run.folder / LOG
    if log.is_file() and log.stat().st_mtime >= began:
        status.state, status.new, status.epochs = "running", True, _epochs(run)


def _epochs(run: Run) -> list[dict[str, Any]]:
    try:
        return read_epochs(run.trained)
    except (ValueError, TypeError, KeyError):  # its last line is still being written
        return []
