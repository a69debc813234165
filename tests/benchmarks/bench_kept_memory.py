"""A training step with and without `training.memory.kept`: CPU seconds, page faults, peak memory.

    python tests/benchmarks/bench_kept_memory.py [--steps 8] [--rounds 3] [RECIPE ...]

A recipe is a folder in recipes/. Steps on noise of its batch and excerpt, one thread; sides alternate, each round in
processes of its own; medians over rounds.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "0")

import results
import torch

from tasnet_attn import config
from tasnet_attn.losses import SISNR, Loss
from tasnet_attn.model import SourceSeparator
from tasnet_attn.training import memory
from tasnet_attn.training.command import parse

RECIPES = "debian2mix/audioslots", "debian2mix/dual_path", "debian2mix/tasnet", "synthsong/ltl_stft", "demo/ltl"
ROOT = Path(__file__).parents[2] / "recipes"


def measure(recipe: str, keep: bool, steps: int) -> dict[str, float]:
    """Medians of this process, after two steps to warm up."""
    torch.set_num_threads(1)
    files = (ROOT / recipe).parent / "base.yml", ROOT / recipe / "conf.yml"
    full = parse([f"--config={file}" for file in files])
    torch.manual_seed(0)
    model, data = SourceSeparator.from_config(full["model"]), full["data"]["init_args"]
    loss = config.build(full["task"]["loss"], Loss | None, "task.loss") or SISNR()
    optimizer = torch.optim.Adam(model.parameters())
    shape = data["batch_size"], len(model.sources), 1, round(data["segment"] * model.sample_rate)
    seconds, faults = [], []
    with memory.kept() if keep else contextlib.nullcontext():
        for _ in range(steps + 2):
            references = torch.randn(shape)
            began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            optimizer.zero_grad()
            loss(model.analyse(references.sum(1)), references, model).backward()
            optimizer.step()
            seconds.append(time.process_time() - began)
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": statistics.median(seconds[2:]), "faults": statistics.median(faults[2:]), "peak": peak}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipes", nargs="*", default=list(RECIPES), metavar="RECIPE")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)  # what a measuring process is to do
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*json.loads(options.one), options.steps)))
        return
    print("| recipe | s of CPU a step | kept | ratio | page faults a step | kept | peak, MiB | kept |")
    print("|---|---|---|---|---|---|---|---|")
    for recipe in options.recipes:
        found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
        for _ in range(options.rounds):
            for keep, measured in found.items():
                command = [sys.executable, __file__, f"--steps={options.steps}", f"--one={json.dumps([recipe, keep])}"]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                measured.append(json.loads(done.stdout.splitlines()[-1]))
        plain, kept = ({key: statistics.median(one[key] for one in each) for key in each[0]} for each in found.values())
        results.keep(f"a step of {recipe}, s", kept["seconds"])
        cells = [f"{plain['seconds']:.3f}", f"{kept['seconds']:.3f}", f"{kept['seconds'] / plain['seconds']:.2f}"]
        cells += [f"{each[key]:,.0f}" for key in ("faults", "peak") for each in (plain, kept)]
        print(f"| {recipe} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
