"""What `tasnet-attn ablate` adds to its cells: the same runs through it, and in a bare loop of `train` and `evaluate`.

Both sides run one cell at a time on one thread and are processes of their own, so that each pays its imports.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

os.environ |= {"GOMP_SPINCOUNT": "0", "OMP_NUM_THREADS": "1"}

SMALL = Path(__file__).parents[2] / "recipes" / "ablations" / "small" / "base.yml"
SWEEP = """
base: [{base}]
axes: {{model.separator.lstm_before: [0, 1], model.separator.ffn: [32, 64]}}
seeds: [{seeds}]
evaluate: [test]
"""
BARE = """
import torch
from tasnet_attn.evaluation.command import run
from tasnet_attn.training.command import train
torch.set_num_threads(1)
for each in {runs!r}:
    folder = str(train(each))
    run(folder, folder, folder + "/test")
"""


def timed(command):
    """(wall, CPU) seconds of a process and its children."""
    before, began = os.times(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, cpu


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3, help="runs = 4 x seeds, of about 15 s each")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {version('torch')}")
    with tempfile.TemporaryDirectory() as folder:
        sweep = Path(folder) / "sweep.yml"
        sweep.write_text(SWEEP.format(base=SMALL, seeds=", ".join(map(str, range(options.seeds)))))
        from tasnet_attn.ablation.sweep import read

        runs = [run.arguments for run in read(sweep).runs(Path(folder) / "bare")]
        bare = timed([sys.executable, "-W", "ignore", "-c", BARE.format(runs=runs)])
        command = [sys.executable, "-W", "ignore", "-m", "tasnet_attn.cli", "ablate", str(sweep)]
        through = timed([*command, "--out", f"{folder}/ablate"])
        again = timed([*command, "--out", f"{folder}/ablate"])
    print(f"{len(runs)} runs, one at a time        wall      CPU")
    for name, seconds in (("bare loop", bare), ("ablate", through), ("ablate, nothing to do", again)):
        print(f"  {name:24} {seconds[0]:7.1f} s {seconds[1]:7.1f} s")
    print(f"  overhead                 {through[0] / bare[0] - 1:8.1%} {through[1] / bare[1] - 1:9.1%}")


if __name__ == "__main__":
    main()
