"""Measures the share of training time spent waiting for data."""

from __future__ import annotations

import time
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.profilers import PassThroughProfiler


class Waits(PassThroughProfiler):
    """Adds up the seconds of an epoch's steps and of the waits for their batches, by Lightning's names."""

    def __init__(self) -> None:
        super().__init__()
        self.restart()

    def restart(self) -> None:
        """An epoch begins."""
        self.seconds, self.began = {"train_dataloader_next": 0.0, "run_training_batch": 0.0}, 0.0

    def start(self, action_name: str) -> None:
        """The two actions do not overlap."""
        if action_name.rpartition(".")[2] in self.seconds:
            self.began = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """Add its duration."""
        name = action_name.rpartition(".")[2]
        if name in self.seconds:
            self.seconds[name] += time.perf_counter() - self.began

    def share(self) -> float:
        """Share of the time of all steps since `restart`, 0 to 1; NaN before the first."""
        total = sum(self.seconds.values())
        return self.seconds["train_dataloader_next"] / total if total else float("nan")


def waits(trainer: Trainer) -> Waits | None:
    """The trainer's profiler, unless it has another one."""
    profiler: Any = trainer.profiler  # type: ignore[attr-defined]
    return profiler if isinstance(profiler, Waits) else None
