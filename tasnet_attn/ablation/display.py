"""Shows how far a sweep is: a bar on a terminal, a line for every change elsewhere."""

from __future__ import annotations

import math
import sys
from typing import TextIO

from tqdm import tqdm

from tasnet_attn.ablation.runner import Status
from tasnet_attn.ablation.sweep import Run, is_si_snr

DONE = ("finished", "failed")


class Display:
    """Called with runs and statuses whenever something may have changed.

    Args:
        stream: where to.
        live: draw a bar, which knows the time left; None: if the stream is a terminal.
    """

    def __init__(self, stream: TextIO | None = None, live: bool | None = None) -> None:
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty() if live is None else live
        self.bar: tqdm | None = None
        self.said: dict[str, str] = {}

    def __call__(self, runs: dict[str, Run], statuses: dict[str, Status]) -> None:
        done = sum(status.state in DONE for status in statuses.values())
        for name, status in statuses.items():
            if self.said.get(name, "waiting") != status.state:
                self.said[name] = status.state
                if not self.live or status.state == "failed":
                    tqdm.write(f"[{done}/{len(runs)}] {name}: {_change(runs[name], status)}", self.stream)
                    self.stream.flush()
        if self.live:
            if self.bar is None:
                self.bar = tqdm(
                    total=len(runs), initial=done, unit="run", smoothing=0, file=self.stream, dynamic_ncols=True
                )
            self.bar.n = done
            self.bar.set_postfix_str(summary(runs, statuses))

    def close(self) -> None:
        """Leave the bar as it is; what is printed next begins a line."""
        if self.bar is not None:
            self.bar.close()


def summary(runs: dict[str, Run], statuses: dict[str, Status]) -> str:
    """How many runs are running and failed, and the best validation so far."""
    counts = [f"{sum(s.state == state for s in statuses.values())} {state}" for state in ("running", "failed")]
    leader = min(runs, key=lambda name: _lowest(statuses[name]))
    if math.isfinite(_lowest(statuses[leader])):
        counts.append(f"best {best(runs[leader], statuses[leader])} ({leader})")
    return ", ".join(counts)


def best(run: Run, status: Status) -> str:
    """A run's best validation so far."""
    lowest = _lowest(status)
    if math.isinf(lowest):
        return ""
    return f"{-lowest:.2f} dB" if "valid_si_snr" in status.epochs[0] or is_si_snr(run.cell.config) else f"{lowest:.4g}"


def _lowest(status: Status) -> float:
    losses = [-epoch["valid_si_snr"] if "valid_si_snr" in epoch else epoch["valid_loss"] for epoch in status.epochs]
    return min((loss for loss in losses if math.isfinite(loss)), default=math.inf)


def _change(run: Run, status: Status) -> str:
    if status.state == "failed":
        return f"failed: {status.error}"
    if status.state != "finished":
        return status.state
    how = f"in {status.seconds:.0f} s" if status.new else "found done"
    return f"finished, {best(run, status)}, {how}"
