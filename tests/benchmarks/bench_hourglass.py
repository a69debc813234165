"""Stacked hourglass: windows batched against one by one, SDPA against explicit attention, and 64 s of audio.

Run: GOMP_SPINCOUNT=0 python tests/benchmarks/bench_hourglass.py [--device cuda] [--seconds 64] [--threads 2]
Each part measures both sides in turn, in one run; memory is the growth of the process's peak (CUDA: of its allocator).
"""

import argparse
import functools
import math
import multiprocessing
import os
import platform
import re
import statistics
import time
from pathlib import Path

import torch
from results import keep

from tasnet_attn.filterbanks import STFTDecoder, STFTEncoder
from tasnet_attn.heads import Mask
from tasnet_attn.inference.segments import separate
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import Hourglass, SkipAttentionHourglass
from tasnet_attn.separators.skip_attention import SkipAttention

REPORT = {"n_poolings": 5, "channels": 64, "growth": 64, "stem": (64, 128, 128), "kernel_size": 3, "batch_norm": True}


def network(kind):
    """A complete model with the published spectrogram, untrained: the time does not depend on the weights."""
    separator = {
        "report, 34.7 M": functools.partial(Hourglass, **REPORT),
        "Park, 34.2 M": Hourglass,
        "skip attention, 37.3 M": SkipAttentionHourglass,
    }[kind]
    stft = {"n_fft": 1024, "hop": 256, "drop": "nyquist"}
    sources = ["accompaniment", "vocals"]
    encoder, decoder = STFTEncoder(**stft, normalise="max"), STFTDecoder(**stft)
    return SourceSeparator(sources, 8000, encoder, separator, decoder, Mask("clipped"), segment=2.016, stitch="middle")


def seconds(function, device):
    """Wall-clock time of a call."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak(device):
    """MiB: the most that this process (CUDA: its allocator) has had at once."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    # not getrusage: a child process inherits its parent's peak there
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**10


def in_turn(functions, device, repeats):
    """Median seconds of each function; they take turns, so that other load affects all equally."""
    with torch.inference_mode():
        times = [[seconds(function, device) for function in functions] for _ in range(repeats + 1)][1:]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def windows_batched(device):
    model = network("report, 34.7 M").to(device).eval()
    features = torch.rand(4, 512, 64, device=device)
    sizes = [1, 2, 4]
    runs = [functools.partial(lambda n: [model.separator(part) for part in features.split(n)], n) for n in sizes]
    times = in_turn(runs, device, repeats=3)
    print("\n4 windows, report's network    s      against one by one")
    for size, taken in zip(sizes, times, strict=True):
        print(f"{size} at a time                {taken:8.3f}   {times[0] / taken:8.2f} x")


def explicit(layer, skip, up):
    """Skip attention with the matrix of weights written out."""
    e, d = (x.permute(0, 3, 2, 1) for x in (skip, up))
    both = torch.cat([d, e], dim=2)
    q, k, v = layer.query(e), layer.key(both), layer.value(both)
    present = k.ne(0).any(-1).unsqueeze(2)
    scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~present, -torch.inf)
    attended = torch.softmax(scores, dim=-1).nan_to_num() @ v * q.ne(0).any(-1, keepdim=True)
    return (layer.norm(attended + e) + d).permute(0, 3, 2, 1)


def attention(device, write_out):
    """One layer at full resolution, 512 x 64 with 256 channels, in this process; (seconds, MiB of growth)."""
    torch.manual_seed(0)
    layer = SkipAttention(256).to(device)
    skip, up = torch.randn(2, 1, 256, 512, 64, device=device)
    run = functools.partial(explicit, layer, skip, up) if write_out else functools.partial(layer, skip, up)
    with torch.inference_mode():
        before = peak(device)
        run()
        grown = peak(device) - before
        error = (explicit(layer, skip[..., :4], up[..., :4]) - layer(skip[..., :4], up[..., :4])).abs().max().item()
        return statistics.median(seconds(run, device) for _ in range(5)), grown, error


def clip(device, kind, length):
    """A clip through `separate`; (seconds, MiB of growth)."""
    model = network(kind).to(device).eval()
    mixture = torch.randn(1, int(length * 8000))
    separate(model, mixture[:, :16_384], 8000, device=device)
    before = peak(device)
    return seconds(lambda: separate(model, mixture, 8000, device=device), device), peak(device) - before


def apart(function, threads, *arguments):
    """Call in a fresh process: its peak memory is then its own."""
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (threads,)) as pool:
        return pool.apply(function, arguments)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=64.0, help="of audio, for the report's network")
    parser.add_argument("--other-seconds", type=float, default=4.0, help="of audio, for the other two")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--only", choices=("windows", "attention", "clip"), help="one part")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    name = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor() or platform.machine()
    print(f"{name}, {os.cpu_count()} cores, {args.threads} threads, torch {torch.__version__}, {args.device}")
    if args.only in (None, "windows"):
        windows_batched(args.device)
    if args.only in (None, "attention"):
        attention_table(args)
    if args.only in (None, "clip"):
        clip_table(args)


def attention_table(args):
    print("\nskip attention, 512 x 64, d = 256    s     growth MiB")
    results = [apart(attention, args.threads, args.device, write_out) for write_out in (False, True)]
    for label, (taken, grown, _) in zip(("scaled_dot_product_attention", "explicit matrix"), results, strict=True):
        print(f"{label:30s} {taken:8.3f}   {grown:8.0f}")
    print(f"explicit / SDPA: {results[1][0] / results[0][0]:.2f} x time; largest difference {results[0][2]:.1e}")


def clip_table(args):
    print("\naudio through `separate`, 8 kHz mono")
    print("network                   audio s      s     real-time factor   growth MiB")
    for kind in ("report, 34.7 M", "Park, 34.2 M", "skip attention, 37.3 M"):
        length = args.seconds if kind.startswith("report") else args.other_seconds
        taken, grown = apart(clip, args.threads, args.device, kind, length)
        keep(f"hourglass, {kind}, {length:g} s of audio on {args.device}, s", taken)
        print(f"{kind:24s} {length:8.1f} {taken:8.1f} {taken / length:12.2f} {grown:14.0f}")


if __name__ == "__main__":
    main()
