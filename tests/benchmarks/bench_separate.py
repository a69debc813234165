"""`separate --jobs 2` of many short files against two bare processes that hold the model; then with --skip-existing.

Wall clock and CPU time, start of the processes included on both sides, in rounds that take turns. The bare processes
read, separate and write by soundfile and the model alone.

    python tests/benchmarks/bench_separate.py [--files 200] [--seconds 5] [--rounds 3]
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ["OMP_NUM_THREADS"] = "1"  # a core for each process, on both sides

from bench_memory import write_noise
from results import keep

from tasnet_attn import save
from tasnet_attn.demo import recipe
from tasnet_attn.model import SourceSeparator
from tasnet_attn.training.command import parse

BARE = """
import sys
from pathlib import Path
import soundfile, torch
from tasnet_attn import load
model, out = load(sys.argv[1]).eval(), Path(sys.argv[2])
with torch.inference_mode():
    for file in map(Path, sys.argv[3:]):
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
        stems = model(torch.from_numpy(samples.T.copy())[None])[0]
        (out / file.stem).mkdir(parents=True)
        for name, stem in zip(model.sources, stems):
            soundfile.write(out / file.stem / f"{name}.wav", stem.T.numpy(), rate, "FLOAT")
"""


def measured(*commands):
    """Wall clock and CPU seconds of processes side by side."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    started = [subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.DEVNULL) for words in commands]
    assert [process.wait() for process in started] == [0] * len(started)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - begin, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("files", 200), ("seconds", 5), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with TemporaryDirectory() as place:
        folder = Path(place)
        for number in range(options.files):
            write_noise(folder / "in" / f"{number:03}.wav", options.seconds, 44_100, 2, number)
        conf = [f"--config={recipe('demo') / name}" for name in ("base.yml", "ltl/conf.yml")]
        model = save(SourceSeparator.from_config(parse(conf)["model"]), folder / "model.safetensors")
        files = sorted((folder / "in").iterdir())
        ours = ("-m", "tasnet_attn.cli", "separate", folder / "in", "--model", model, "--jobs", 2, "--out")
        sides = {"separate --jobs 2": [], "two bare processes": [], "--skip-existing": []}
        for turn in range(options.rounds):
            sides["separate --jobs 2"].append(measured((*ours, folder / f"a{turn}")))
            bare = [("-c", BARE, model, folder / f"b{turn}", *files[half::2]) for half in range(2)]
            sides["two bare processes"].append(measured(*bare))
            sides["--skip-existing"].append(measured((*ours, folder / f"a{turn}", "--skip-existing")))
    what = f"{options.files} files of {options.seconds} s, stereo at 44.1 kHz"
    print(f"{platform.machine()}, torch {version('torch')}: {what}")
    medians = {side: [statistics.median(column) for column in zip(*rows, strict=True)] for side, rows in sides.items()}
    for side, (wall, cpu) in medians.items():
        keep(f"{what}, {side}, s of CPU", cpu)
        print(f"{side:20s} {wall:7.2f} s  {cpu:7.2f} s of CPU")
    ratios = [a / b for a, b in zip(medians["separate --jobs 2"], medians["two bare processes"], strict=True)]
    print(f"{'ratio':20s} {ratios[0]:7.2f}    {ratios[1]:7.2f}")
