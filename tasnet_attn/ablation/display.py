"""Shows how far a sweep is: a table that is drawn anew on a terminal, a line for every change elsewhere."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from tasnet_attn.ablation.runner import Status
from tasnet_attn.ablation.sweep import Run, is_si_snr


class Display:
    """Called with runs and statuses whenever something may have changed.

    Args:
        stream: where to.
        live: draw a table; None: if the stream is a terminal.
    """

    def __init__(self, stream: TextIO | None = None, live: bool | None = None) -> None:
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty() if live is None else live
        self.height = 0  # lines of the table on the screen
        self.said: dict[str, str] = {}

    def __call__(self, runs: dict[str, Run], statuses: dict[str, Status]) -> None:
        if self.live:
            self._draw(table(runs, statuses, shutil.get_terminal_size()))
        for name, status in statuses.items():
            if self.said.get(name, "waiting") != status.state:
                self.said[name] = status.state
                if not self.live or status.state == "failed":
                    self._say(runs[name], status, statuses)

    def _draw(self, lines: list[str]) -> None:
        up = f"\x1b[{self.height}A" if self.height else ""
        self.stream.write(up + "".join(f"\x1b[2K{line}\n" for line in lines) + "\x1b[J")
        self.stream.flush()
        self.height = len(lines)

    def _say(self, run: Run, status: Status, statuses: dict[str, Status]) -> None:
        done = sum(each.state in ("finished", "failed") for each in statuses.values())
        what = {"failed": f"failed: {status.error}", "finished": f"finished, {best(run, status)}"}
        if status.state == "finished" and not status.new:
            what["finished"] += ", found done"
        elif status.state == "finished":
            what["finished"] += f", in {status.seconds:.0f} s"
        self.stream.write(f"[{done}/{len(statuses)}] {run.name}: {what.get(status.state, status.state)}\n")
        self.stream.flush()
        self.height = 0  # a line of its own: the table begins anew below it


def table(runs: dict[str, Run], statuses: dict[str, Status], size: os.terminal_size) -> list[str]:
    """Lines that fit the terminal: how the sweep stands, then its runs, those that run or failed first."""
    counts = {state: sum(s.state == state for s in statuses.values()) for state in ("finished", "running", "failed")}
    head = f"{counts['finished']} of {len(runs)} finished, {counts['running']} running, {counts['failed']} failed"
    seconds = time_left(runs, statuses)
    head += "" if math.isnan(seconds) else f", about {_duration(seconds)} left"
    order = {"running": 0, "failed": 1, "waiting": 2, "finished": 3}
    names = sorted(runs, key=lambda name: order[statuses[name].state])
    room = max(1, size.lines - 4)
    rows: list[tuple[str, ...]] = [("run", "state", "epoch", "best", "time")]
    rows += [_row(runs[name], statuses[name]) for name in names[:room]]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    if len(names) > room:
        lines.append(f"... and {len(names) - room} more")
    return [line[: size.columns - 1] for line in [head, *lines]]


def _row(run: Run, status: Status) -> tuple[str, ...]:
    epochs = status.epochs or []
    epoch = str(epochs[-1]["epoch"]) if epochs else ""
    seconds = time.time() - status.began if status.state == "running" else status.seconds
    return run.name, status.state, epoch, best(run, status), _duration(seconds) if status.new else ""


def best(run: Run, status: Status) -> str:
    """The best validation so far."""
    losses = [epoch["valid_loss"] for epoch in status.epochs or [] if math.isfinite(epoch["valid_loss"])]
    if not losses:
        return ""
    return f"{-min(losses):.2f} dB" if is_si_snr(run.cell.config) else f"{min(losses):.4g}"


def time_left(runs: dict[str, Run], statuses: dict[str, Status]) -> float:
    """Seconds, from how long runs took so far; NaN if nothing is known yet."""
    took = [status.seconds for status in statuses.values() if status.state == "finished" and status.new]
    parts = {name: _part(runs[name], status) for name, status in statuses.items() if status.state == "running"}
    began = [(time.time() - statuses[name].began) / part for name, part in parts.items() if part > 0.1]
    known: Sequence[float] = took or began
    if not known:
        return math.nan
    waiting = sum(status.state == "waiting" for status in statuses.values())
    left = waiting + sum(1 - part for part in parts.values())
    return sum(known) / len(known) * left / max(1, len(parts))


def _part(run: Run, status: Status) -> float:
    """How much of a run is done, 0 to 1; 0 if it has no fixed length."""
    total = steps(run.cell.config)
    return min(1.0, status.epochs[-1]["step"] / total) if status.epochs and total else 0.0


def steps(config: dict[str, Any]) -> int | None:
    """The training steps that a configuration asks for, on one device; None: until it stops getting better."""
    trainer, data = config["trainer"], config["data"]["init_args"]
    limits = []
    if (trainer["max_steps"] or -1) > 0:
        limits.append(trainer["max_steps"])
    if (trainer["max_epochs"] or -1) > 0:
        limits.append(trainer["max_epochs"] * max(1, data["segments_per_epoch"] // data["batch_size"]))
    return min(limits, default=None)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
