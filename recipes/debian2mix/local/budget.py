"""Separators at equal CPU time: the number of steps for each (`plan`), and their scores (`table`)."""

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tasnet_attn import config
from tasnet_attn.ablation.sweep import Run, Sweep, read
from tasnet_attn.ablation.tables import short
from tasnet_attn.errors import UserError, reported
from tasnet_attn.evaluation import command as evaluation
from tasnet_attn.evaluation.results import by_track, read_table
from tasnet_attn.files import write_text
from tasnet_attn.losses import SISNR
from tasnet_attn.model import SourceSeparator

CHECKS = 6  # validations in a training
DRAWS = 2000
SETS = {"test": "test", "unseen speakers": "speakers"}  # column: folder in the run's


class Steps:
    """A cell's training step, timed on noise.

    Args:
        full: its configuration.
    """

    def __init__(self, full: dict[str, Any]) -> None:
        self.model, self.data = SourceSeparator.from_config(full["model"]), full["data"]["init_args"]
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.seconds: list[float] = []

    def take(self) -> None:
        """One more, on this process's CPU time."""
        length = round(self.data["segment"] * self.model.sample_rate)
        references = torch.randn(self.data["batch_size"], len(self.model.sources), 1, length)
        began = time.process_time()
        self.optimizer.zero_grad()
        SISNR()(self.model.analyse(references.sum(1)), references, self.model).backward()
        self.optimizer.step()
        self.seconds.append(time.process_time() - began)


def plan(sweep: Path, seconds: float, out: Path, steps: int = 5) -> None:
    """Write a sweep on top of `sweep` whose cells train for as many steps as fit into `seconds` of this machine's CPU.

    A step's time is the median of `steps`, after two to warm up; the cells take turns, so that other load slows all of
    them equally.
    """
    torch.set_num_threads(1)
    cells, timed = {}, [(cell, Steps(cell.config)) for cell in read(sweep).cells]
    for _ in range(steps + 2):
        for _, one in timed:
            one.take()
    for cell, one in timed:
        each, batch = float(np.median(one.seconds[2:])), one.data["batch_size"]
        epoch = max(1, round(seconds / each / CHECKS))
        cells[cell.name] = {
            "trainer.max_steps": CHECKS * epoch,
            "task.lr_scheduler.init_args.T_max": CHECKS * epoch,
            "data.init_args.segments_per_epoch": batch * epoch,
        }
        print(f"{cell.name}: {each:.3f} s of CPU per step, {CHECKS * epoch} steps", flush=True)
    write_text(out, config.write_yaml({"sweep": os.path.relpath(sweep, out.parent), "cells": cells}))


def ended(sweep: Sweep, out: Path) -> list[Run]:
    """The runs that were trained and scored on the first test set."""
    return [run for run in sweep.runs(out) if (run.folder / SETS["test"] / "scores.csv").is_file()]


def score(file: Path, out: Path, speakers: Path) -> None:
    """Score the runs on unseen speakers; existing scores are kept."""
    for run in ended(read(file), out):
        evaluation.run(str(run.trained), str(speakers), str(run.folder / SETS["unseen speakers"]))


def mixtures(runs: list[Run], folder: str) -> pd.DataFrame:
    """SI-SNRi in dB, the mean over speakers: a row for each mixture that all runs have, a column (cell, seed) a run.

    Raises:
        UserError: there is no such mixture.
    """
    found = {(run.cell.name, run.seed): by_track(read_table(run.folder / folder), "SI-SNRi") for run in runs}
    table = pd.DataFrame(found).dropna()
    if table.empty:
        raise UserError(f"{folder}: no mixture has a score in all of {', '.join(run.name for run in runs)}")
    return table


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """The mean, and its 95 % interval by bootstrap over the mixtures."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (DRAWS, len(values)))].mean(1)
    return float(values.mean()), *map(float, np.percentile(means, [2.5, 97.5]))


def table(file: Path, out: Path) -> str:
    """The table: each cell on both sets, and its difference from the first cell on the same mixtures."""
    sweep = read(file)
    runs = ended(sweep, out)
    scores = {column: mixtures(runs, folder) for column, folder in SETS.items()}
    seeds = Counter(run.cell.name for run in runs)
    cells = [cell for cell in sweep.cells if cell.name in seeds]
    if not cells:
        raise UserError(f"{out}: no run is trained and scored; run `tasnet-attn ablate {file} --out {out}`")
    first = cells[0].name
    columns = [title for column in SETS for title in (f"{column}, dB", f"minus {first}")]
    rows = [["separator", "parameters", "MACs/s", "steps", "seeds", *columns]]
    for cell in cells:
        row = [cell.name, f"{cell.parameters:,}", short(cell.macs), str(cell.config["trainer"]["max_steps"])]
        row.append(str(seeds[cell.name]))
        for each in scores.values():
            ours = each[cell.name]
            mean, low, high = interval(ours.mean(axis=1).to_numpy())
            each_seed = f"; {', '.join(f'{value:.2f}' for value in ours.mean())}" if ours.shape[1] > 1 else ""
            row.append(f"{mean:.2f} ({low:.2f} to {high:.2f}){each_seed}")
            mean, low, high = interval((ours.mean(axis=1) - each[first].mean(axis=1)).to_numpy())
            of_seeds = (ours.mean() - each[first].mean()).dropna()
            decided = (low > 0 or high < 0) and (of_seeds * mean > 0).all()
            verdict = "" if decided else ", undecided"
            row.append("" if cell.name == first else f"{mean:+.2f} ({low:+.2f} to {high:+.2f}){verdict}")
        rows.append(row)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    note = (
        "SI-SNRi: the mean over the seeds, its 95 % interval over the mixtures (without the spread of seeds), and the "
        "seeds' means. Undecided: the interval of the difference contains zero, or the seeds disagree."
    )
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:], "", note])


@reported("budget")
def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python recipes/debian2mix/local/budget.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    planning = commands.add_parser("plan", help="write the sweep with every cell's number of steps")
    planning.add_argument("sweep", type=Path)
    planning.add_argument("seconds", type=float, help="of CPU time for each training")
    planning.add_argument("out", type=Path, help="the file to write")
    showing = commands.add_parser("table", help="score the sweep's runs and print the table")
    showing.add_argument("sweep", type=Path, help="the file that plan wrote")
    showing.add_argument("out", type=Path, help="the sweep's folder")
    showing.add_argument("speakers", type=Path, help="the data of the second test set, which is scored first")
    options = parser.parse_args(arguments)
    config.import_modules(["tasnet_attn.separators.asteroid"])
    if options.command == "plan":
        plan(options.sweep, options.seconds, options.out)
    else:
        score(options.sweep, options.out, options.speakers)
        print(table(options.sweep, options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
