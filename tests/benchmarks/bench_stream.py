"""Blocks as they come, one core: the model, ONNX Runtime, ONNX Runtime with 8-bit integers, and what bounds them.

CPU time of the thread for each block; where the machine is shared it says more than the clock. "Real time" is
the part of a second of sound that its blocks take. The bound is the time to read all weights and rings once, at the
bandwidth that the same run measures over a buffer of that size, by a dot product with itself.

    taskset -c 0 python tests/benchmarks/bench_stream.py [--seconds 20] [--channels 2] [--blocks 5,10]
"""

import argparse
import os
import platform
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from results import keep

from tasnet_attn import StreamingSeparator
from tasnet_attn.demo import recipe
from tasnet_attn.exporting.formats import FORMATS
from tasnet_attn.filterbanks import GatedEncoder, LearnedDecoder
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import LTL, TasNet
from tasnet_attn.streaming import OnnxSteps
from tasnet_attn.training.command import parse

RATE, WARM = 44_100, 20


def full_size(separator):
    """The LTL paper's encoder and decoder about a separator: 500 filters of 5 ms."""
    encoder, decoder = GatedEncoder(500, 220), LearnedDecoder(500, 220)
    return SourceSeparator(["vocals", "accompaniment"], RATE, encoder, separator, decoder)


MODELS = {
    "demo": lambda: SourceSeparator.from_config(
        parse([f"--config={recipe('demo') / name}" for name in ("base.yml", "ltl/conf.yml")])["model"]
    ),
    "TasNet": lambda: full_size(TasNet),
    "1_trans_0": lambda: full_size(partial(LTL, heads=4, window=400)),
}


def engines(model, folder, channels):
    """The name of each engine, its steps, and the bytes that a frame reads: weights and rings."""
    rings = sum(
        4 * 2 * channels * layer.window * layer.project_out.in_features
        for layer in getattr(model.separator, "transformer", ())
    )
    yield "model", model, sum(4 * weight.numel() for weight in model.parameters()) + rings
    for name, to in (("ONNX", "onnx-step"), ("ONNX int8", "onnx-step-int8")):
        file = folder / f"model{FORMATS[to].suffix}"
        FORMATS[to].write(model, file, {})
        yield name, OnnxSteps(file), file.stat().st_size + rings


def durations(steps, block, seconds, channels):
    """CPU seconds of each block of noise, sorted; the first blocks, which fill caches, are not counted."""
    stream, noise = StreamingSeparator(steps, channels), 0.1 * torch.randn(channels, block)
    times = []
    for _ in range(WARM + round(seconds * RATE / block)):
        begin = time.thread_time()
        stream.feed(noise)
        times.append(time.thread_time() - begin)
    return np.sort(times[WARM:])


def seconds_to_read(size):
    """The least CPU time to read that many bytes once."""
    buffer = np.ones(size // 4, np.float32)
    times = []
    for _ in range(30):
        begin = time.thread_time()
        np.dot(buffer, buffer)
        times.append(time.thread_time() - begin)
    return min(times)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--blocks", default="5,10,20")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    versions = f"torch {torch.__version__}, ONNX Runtime {version('onnxruntime')}"
    print(f"{platform.machine()}, {versions}, {options.channels} channel(s) at {RATE} Hz")
    print(
        f"{'model':10} {'engine':10} {'block':>6} {'p50':>7} {'p99':>7} {'p99.9':>7} {'bound':>7}  ms of CPU; real time"
    )
    for name in options.models.split(","):
        model = MODELS[name]().eval()
        with TemporaryDirectory() as place:
            for engine, steps, size in engines(model, Path(place), options.channels):
                bound = 1000 * seconds_to_read(size)
                for milliseconds in map(float, options.blocks.split(",")):
                    times = 1000 * durations(
                        steps, round(milliseconds * RATE / 1000), options.seconds, options.channels
                    )
                    keep(f"stream, {name}, {engine}, {milliseconds:g} ms, ms of CPU", float(np.median(times)))
                    cells = " ".join(f"{np.percentile(times, part):7.2f}" for part in (50, 99, 99.9))
                    part = times.mean() / milliseconds
                    print(f"{name:10} {engine:10} {milliseconds:6g} {cells} {bound:7.2f}  {part:.2f}", flush=True)
