"""Separators at equal CPU time: how many steps that is for each (`plan`), and what they reach with it (`table`)."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasnet_attn import config
from tasnet_attn.ablation.sweep import Sweep, read
from tasnet_attn.ablation.tables import short
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.results import read_table
from tasnet_attn.files import write_text
from tasnet_attn.losses import SISNR
from tasnet_attn.model import SourceSeparator

CHECKS = 6  # validations in a training
DRAWS = 2000
SETS = {"test": "test", "unseen speakers": "speakers"}  # column: folder in the run's


def step_seconds(full: dict[str, Any], steps: int) -> float:
    """CPU seconds of a training step on one thread: the median of some, of noise, after two to warm up."""
    model, data = SourceSeparator.from_config(full["model"]), full["data"]["init_args"]
    length = round(data["segment"] * model.sample_rate)
    optimizer = torch.optim.Adam(model.parameters())
    times = []
    for _ in range(steps + 2):
        references = torch.randn(data["batch_size"], len(model.sources), 1, length)
        began = time.process_time()
        optimizer.zero_grad()
        SISNR()(model.analyse(references.sum(1)), references, model).backward()
        optimizer.step()
        times.append(time.process_time() - began)
    return float(np.median(times[2:]))


def plan(sweep: Path, seconds: float, out: Path, steps: int = 5) -> None:
    """Write a sweep on top of `sweep` whose cells train for as many steps as `seconds` of this machine's CPU hold."""
    torch.set_num_threads(1)
    cells = {}
    for cell in read(sweep).cells:
        each = step_seconds(cell.config, steps)
        count = max(CHECKS, round(seconds / each))
        batch = cell.config["data"]["init_args"]["batch_size"]
        cells[cell.name] = {
            "trainer.max_steps": count,
            "task.lr_scheduler.init_args.T_max": count,
            "data.init_args.segments_per_epoch": batch * (count // CHECKS),
        }
        print(f"{cell.name}: {each:.3f} s of CPU a step, {count} steps", flush=True)
    write_text(out, config.write_yaml({"sweep": os.path.relpath(sweep, out.parent), "cells": cells}))


def mixtures(sweep: Sweep, out: Path, folder: str) -> dict[str, dict[str, float]]:
    """{cell: {mixture: SI-SNRi, dB, the mean over seeds and speakers}} of what is scored."""
    found: dict[str, list[dict[str, float]]] = {}
    for run in sweep.runs(out):
        table = read_table(run.folder / folder)
        scores = table[table["metric"] == "SI-SNRi"].groupby("track")["mean"].mean().to_dict()
        found.setdefault(run.cell.name, []).append(scores)
    return {
        cell: {name: float(np.mean([each[name] for each in all_])) for name in all_[0]} for cell, all_ in found.items()
    }


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """The mean, and its 95 % interval by bootstrap over the mixtures."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (DRAWS, len(values)))].mean(1)
    return float(values.mean()), *map(float, np.percentile(means, [2.5, 97.5]))


def table(file: Path, out: Path) -> str:
    """The table: each cell on both sets, and what it has more than the first cell on the same mixtures."""
    sweep = read(file)
    scores = {column: mixtures(sweep, out, folder) for column, folder in SETS.items()}
    first = sweep.cells[0].name
    columns = [title for column in SETS for title in (f"{column}, dB", f"minus {first}")]
    rows = [["separator", "parameters", "MACs/s", "steps", *columns]]
    for cell in sweep.cells:
        row = [cell.name, f"{cell.parameters:,}", short(cell.macs), str(cell.config["trainer"]["max_steps"])]
        for each in scores.values():
            ours = np.array([each[cell.name][name] for name in each[first]])
            mean, low, high = interval(ours)
            row.append(f"{mean:.2f} ({low:.2f} to {high:.2f})")
            mean, low, high = interval(ours - np.array(list(each[first].values())))
            verdict = "" if low > 0 or high < 0 else ", undecided"
            row.append("" if cell.name == first else f"{mean:+.2f} ({low:+.2f} to {high:+.2f}){verdict}")
        rows.append(row)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    seeds = len(sweep.settings.seeds)
    note = (
        f"SI-SNRi, the mean over {seeds} seeds, with 95 % intervals over the mixtures, the seeds' spread not in them."
    )
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:], "", note])


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python recipes/debian2mix/local/budget.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    planning = commands.add_parser("plan", help="write the sweep with every cell's number of steps")
    planning.add_argument("sweep", type=Path)
    planning.add_argument("seconds", type=float, help="of CPU time for each training")
    planning.add_argument("out", type=Path, help="the file to write")
    showing = commands.add_parser("table", help="print what the sweep's runs reached")
    showing.add_argument("sweep", type=Path, help="the file that plan wrote")
    showing.add_argument("out", type=Path, help="the sweep's folder")
    options = parser.parse_args(arguments)
    try:
        config.import_modules(["tasnet_attn.separators.asteroid"])
        if options.command == "plan":
            plan(options.sweep, options.seconds, options.out)
        else:
            print(table(options.sweep, options.out))
    except UserError as error:
        print(f"budget: {error}", file=sys.stderr)
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
