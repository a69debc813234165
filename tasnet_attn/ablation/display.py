"""Shows the progress of a sweep: a live table in a terminal, otherwise a line for every finished run."""

from __future__ import annotations

import math
import shutil
import sys
import time
from typing import TextIO

from tasnet_attn import terminal
from tasnet_attn.ablation.runner import Status
from tasnet_attn.ablation.sweep import Run, is_si_snr

DONE = ("finished", "failed")
ORDER = ("running", "failed", "waiting", "finished")  # shown first if the terminal has few lines


class Display:
    """Called with runs and statuses whenever something may have changed.

    Args:
        stream: where to write; None: standard error.
        live: redraw a table; None: if the stream is a terminal.
    """

    def __init__(self, stream: TextIO | None = None, live: bool | None = None) -> None:
        self.stream = stream or sys.stderr
        self.live = terminal.live() if live is None else live
        self.began, self.drawn = time.monotonic(), 0  # lines of the table now on the screen
        self.said: set[str] = set()

    def __call__(self, runs: dict[str, Run], statuses: dict[str, Status]) -> None:
        done = sum(status.state in DONE for status in statuses.values())
        for name, status in statuses.items():
            if status.state in DONE and name not in self.said:
                self.said.add(name)
                if status.state == "failed" or not (self.live or terminal.quiet()):
                    self._write(f"[{done}/{len(runs)}] {name}: {_end(runs[name], status)}\n")
        if self.live:
            self._write(self._table(runs, statuses))
            self.drawn = self.last.count("\n")

    def _write(self, text: str) -> None:
        """Print it instead of the table."""
        self.stream.write((f"\x1b[{self.drawn}F\x1b[J" if self.drawn else "") + text)
        self.stream.flush()
        self.drawn, self.last = 0, text

    def _table(self, runs: dict[str, Run], statuses: dict[str, Status]) -> str:
        size = shutil.get_terminal_size((100, 24))
        fit = max(1, size.lines - 4)
        shown = sorted(runs, key=lambda name: ORDER.index(statuses[name].state))[:fit]
        rows = [_row(name, runs[name], statuses[name]) for name in runs if name in shown]
        lines = terminal.table(["run", "state", "epochs", "best", "time"], rows, width=1000).splitlines()
        more = f", {len(runs) - fit} more not shown" if len(runs) > fit else ""
        lines.append(f"{self._summary(runs, statuses)}{more}")
        return "".join(f"{line[: size.columns - 1]}\n" for line in lines)

    def _summary(self, runs: dict[str, Run], statuses: dict[str, Status]) -> str:
        """Numbers of finished, running and failed runs, the best validation so far, and the remaining time."""
        states = [status.state for status in statuses.values()]
        done = sum(state in DONE for state in states)
        parts = [f"{done} of {len(runs)} runs done"]
        parts += [f"{states.count(state)} {state}" for state in ("running", "failed")]
        leader = min(runs, key=lambda name: _lowest(statuses[name]))
        if math.isfinite(_lowest(statuses[leader])):
            parts.append(f"best {best(runs[leader], statuses[leader])} ({leader})")
        ended = sum(status.new and status.state in DONE for status in statuses.values())
        if ended and done < len(runs):
            left = (time.monotonic() - self.began) / ended * (len(runs) - done)
            parts.append(f"about {terminal.duration(left)} left")
        return ", ".join(parts)


def best(run: Run, status: Status) -> str:
    """A run's best validation score so far."""
    lowest = _lowest(status)
    if math.isinf(lowest):
        return ""
    return f"{-lowest:.2f} dB" if "valid_si_snr" in status.epochs[0] or is_si_snr(run.cell.config) else f"{lowest:.4g}"


def _lowest(status: Status) -> float:
    losses = [-epoch["valid_si_snr"] if "valid_si_snr" in epoch else epoch["valid_loss"] for epoch in status.epochs]
    return min((loss for loss in losses if math.isfinite(loss)), default=math.inf)


def _row(name: str, run: Run, status: Status) -> list[str]:
    epochs = str(status.epochs[-1]["epoch"]) if status.epochs else ""
    took = terminal.duration(status.seconds) if status.seconds else ""
    return [name, status.state, epochs, best(run, status), took]


def _end(run: Run, status: Status) -> str:
    if status.state == "failed":
        return f"failed: {status.error}"
    how = f"in {terminal.duration(status.seconds)}" if status.new else "found done"
    return f"finished, {best(run, status)}, {how}"
