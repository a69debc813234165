"""Exported files against eager: time and size of each format, opsets, and LTL 1_trans_0 on 20 s with its memory.

    python tests/benchmarks/bench_export.py [formats] [opsets] [long]       (all three without arguments)

Every number of a table comes from one run; times are medians of CPU time, interleaved, one thread: other load has
little effect.
"""

import os
import sys

os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import platform
import resource
import statistics
import subprocess
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

from tasnet_attn import load, save
from tasnet_attn.exporting import formats, fresh
from tasnet_attn.filterbanks import GatedEncoder, LearnedDecoder
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import LTL

torch.set_num_threads(1)


def ltl(**settings):
    torch.manual_seed(0)
    names = ["vocals", "accompaniment"]
    return SourceSeparator(
        names, 44100, GatedEncoder(500, 220), partial(LTL, **settings), LearnedDecoder(500, 220)
    ).eval()


def run_of(file, to):
    return fresh._onnx(str(file), 1) if to == "onnx" else fresh.RUNNERS[to](str(file))


def timed(calls, rounds):
    """{name: median seconds}, the calls in turn, after one round that is not counted."""
    seconds = {name: [] for name in calls}
    for i in range(rounds + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if i:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def sizes_and_times(folder):
    """A model of the demo's size and LTL's, on 2 s of one channel."""
    for title, model in (
        ("small LTL (hidden 128, 2 layers)", ltl(hidden=128, heads=2, transformer_layers=2)),
        ("LTL 1_trans_0", ltl()),
    ):
        mixture = 0.1 * torch.randn(1, 2 * 44100).numpy()
        calls = {"eager": partial(eager, model, mixture)}
        sizes = {}
        for to, form in formats.FORMATS.items():
            file = folder / f"model{form.suffix}"
            form.write(model, file, {})
            sizes[to] = file.stat().st_size
            if to not in ("safetensors", "safetensors-half", "asteroid"):
                calls[to] = partial(run_of(file, to), mixture)
        seconds = timed(calls, 5)
        print(f"\n{title}, {sum(p.numel() for p in model.parameters()):,} parameters, 2 s, one channel")
        print("| format | file, MB | CPU ms | relative to eager |\n|---|---|---|---|")
        for name in ["eager", *sizes]:
            size = f"{sizes[name] / 1e6:.1f}" if name in sizes else ""
            clock = (
                f"{1e3 * seconds[name]:.0f} | {seconds[name] / seconds['eager']:.2f}"
                if name in seconds
                else "as eager | "
            )
            print(f"| {name} | {size} | {clock} |")


def eager(model, mixture):
    with torch.inference_mode():
        return model(torch.from_numpy(mixture).unsqueeze(1)).squeeze(2).numpy()


def opsets(folder):
    """LTL 1_trans_0 on 5 s: how long the export takes, how many operations, how fast, how near."""
    model = ltl()
    mixture = 0.1 * torch.randn(1, 5 * 44100).numpy()
    expected, calls, rows = eager(model, mixture), {"eager": partial(eager, model, mixture)}, {}
    import onnx

    for opset in (18, 20, 23):
        formats.OPSET = opset
        file, start = folder / f"{opset}.onnx", time.process_time()
        try:
            formats.FORMATS["onnx"].write(model, file, {})
            written = time.process_time() - start
            run = run_of(file, "onnx")
            rows[opset] = (written, len(onnx.load(file).graph.node), abs(run(mixture) - expected).max())
            calls[opset] = partial(run, mixture)
        except Exception as error:  # noqa: BLE001 - what it says is the result
            print(f"opset {opset}: {str(error).splitlines()[0]}")
    seconds = timed(calls, 3)
    print("\nLTL 1_trans_0, 5 s, one channel")
    print(
        "| | export, CPU s | operations | largest difference | CPU ms | relative to eager |\n|---|---|---|---|---|---|"
    )
    print(f"| eager | | | | {1e3 * seconds['eager']:.0f} | 1.00 |")
    for opset, (written, count, difference) in rows.items():
        clock = f"{1e3 * seconds[opset]:.0f} | {seconds[opset] / seconds['eager']:.2f}"
        print(f"| opset {opset} | {written:.1f} | {count} | {difference:.1e} | {clock} |")
    formats.OPSET = 18


def one(kind, file, out):
    """In its own process: run 20 s, print the time and the highest memory beyond what loading took."""
    mixture = 0.1 * torch.randn(1, 20 * 44100, generator=torch.Generator().manual_seed(0)).numpy()
    run = partial(eager, load(file)) if kind == "eager" else run_of(file, "onnx")
    run(mixture[:, :44100])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    estimates = run(mixture)
    elapsed = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    import numpy as np

    np.save(out, estimates)
    print(f"{elapsed:.2f} {(peak - before) / 1024:.0f} {peak / 1024:.0f}")


def long(folder):
    """LTL 1_trans_0 on 20 s: 4010 frames, whose attention ONNX Runtime materialises."""
    import numpy as np

    model = ltl()
    files = {"eager": save(model, folder / "m.safetensors"), "onnx": folder / "m.onnx"}
    formats.FORMATS["onnx"].write(model, files["onnx"], {})
    found = {name: [] for name in files}
    for _ in range(3):
        for name, file in files.items():
            command = [sys.executable, __file__, "one", name, str(file), str(folder / f"{name}.npy")]
            found[name].append([float(x) for x in subprocess.check_output(command, text=True).split()])
    print("\nLTL 1_trans_0, 20 s (4010 frames), one channel, each in its own process, medians of 3")
    print("| | CPU s | relative to eager | memory beyond 1 s, MB | in all, MB |\n|---|---|---|---|---|")
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    for name, (seconds, extra, whole) in medians.items():
        print(f"| {name} | {seconds:.2f} | {seconds / medians['eager'][0]:.2f} | {extra:.0f} | {whole:.0f} |")
    ours, theirs = (np.load(folder / f"{name}.npy") for name in ("eager", "onnx"))
    print(f"largest difference {abs(ours - theirs).max():.1e} of {abs(ours).max():.2g}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        one(*sys.argv[2:5])
    else:
        names = ("torch", "onnx", "onnxscript", "onnxruntime")
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, one thread;", ", ".join(f"{n} {version(n)}" for n in names)
        )
        parts = {"formats": sizes_and_times, "opsets": opsets, "long": long}
        with tempfile.TemporaryDirectory() as temporary:
            for part in sys.argv[1:] or parts:
                parts[part](Path(temporary))
