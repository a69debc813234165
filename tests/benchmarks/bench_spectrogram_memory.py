"""Peak memory: AudioSlots' decoder against the naive concatenation, Sams-Net's attention at 12 slices against 1.

Run: GOMP_SPINCOUNT=0 python tests/benchmarks/bench_spectrogram_memory.py [--device cuda] [--repeats 1]
Every row is measured in its own processes; memory is the growth of the process's peak (CUDA: of its allocator)
during a forward pass, or a forward and a backward pass, over what the inputs and weights take; medians.
"""

import argparse
import math
import multiprocessing
import os
import platform
import re
import statistics
from pathlib import Path

import torch

from tasnet_attn.separators.audioslots import SpatialBroadcast, fourier_code
from tasnet_attn.separators.samsnet import SlicedAttention


def peak(device):
    """MiB: the most that this process (CUDA: its allocator) has had at once."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**10


def naive_decoder(decoder, slots, code):
    """The slots copied to every position, the code appended, one unsplit first layer."""
    copies = slots[:, :, None, None].expand(-1, -1, *code.shape[:2], -1)
    joined = torch.cat([copies, code.expand(*slots.shape[:2], -1, -1, -1)], dim=-1)
    weight = torch.cat([decoder.from_slot.weight, decoder.from_code.weight], dim=1)
    return decoder.rest(torch.nn.functional.linear(joined, weight, decoder.from_slot.bias)).squeeze(-1)


def decoder(kind, width, device):
    """One chunk of 0.5 s, two slots, the defaults of `AudioSlots` but for the width."""
    module = SpatialBroadcast(width, code=32, hidden=512, n_layers=4).to(device)
    slots, code = torch.randn(1, 2, width, device=device), fourier_code(256, 64, 8, torch.device(device))
    return lambda: naive_decoder(module, slots, code) if kind == "naive" else module(slots, code)


def explicit_attention(q, k, v, attn_mask=None, scale=None):
    """Attention with the scores written out."""
    scores = q @ k.transpose(-1, -2) * (scale or q.shape[-1] ** -0.5)
    return (scores if attn_mask is None else scores.masked_fill(~attn_mask, -math.inf)).softmax(-1) @ v


def attention(kind, slices, frames, device):
    """One layer of 8 instead of 64 channels (memory is proportional to them) on all 2049 bins."""
    if kind == "explicit":
        torch.nn.functional.scaled_dot_product_attention = explicit_attention  # this process ends with the measurement
    module = SlicedAttention(8, 2, slices).to(device)
    x = torch.randn(1, 8, frames, 2049, device=device)
    return lambda: module(x)


def measure(make, arguments, backward, device, queue):
    """Put the growth of the peak in MiB into the queue."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    run = make(*arguments, device)
    with torch.set_grad_enabled(backward):
        before = peak(device)
        out = run()
        if backward:
            out.sum().backward()
        queue.put(peak(device) - before)


def table(title, make, rows, passes, device, repeats):
    """Print a row for each setting; ratios are to the first row of a group."""
    context = multiprocessing.get_context("spawn")
    for backward in passes:
        print(f"\n{title}, {'forward and backward' if backward else 'forward'}")
        print(f"{'':34}{'MiB':>9}{'ratio':>8}")
        for group in rows:
            first = None
            for name, arguments in group:
                results = []
                for _ in range(repeats):
                    queue = context.Queue()
                    process = context.Process(target=measure, args=(make, arguments, backward, device, queue))
                    process.start()
                    process.join()
                    if process.exitcode:
                        raise SystemExit(f"{name}: the measuring process ended with {process.exitcode}")
                    results.append(queue.get())
                memory = statistics.median(results)
                first = first or memory
                print(f"{name:34}{memory:9.0f}{memory / first:8.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"{os.cpu_count()} cores, 2 threads"
    print(f"{platform.machine()}, {name}, Python {platform.python_version()}, torch {torch.__version__}")
    rows = [[(f"{kind}, d = {width}", (kind, width)) for kind in ("split", "naive")] for width in (256, 1024, 4096)]
    table("AudioSlots' decoder, 256 x 64, 2 slots", decoder, rows, (False, True), options.device, options.repeats)
    rows = [
        [
            (f"{seconds:2} s, {slices:2} slices, {kind}", (kind, slices, 1 + seconds * 44100 // 1024))
            for kind in ("SDPA", "explicit")
            for slices in (12, 1)
        ]
        for seconds in (6, 60)
    ]
    table("Sams-Net's attention, 8 channels", attention, rows, (False,), options.device, options.repeats)


if __name__ == "__main__":
    main()
