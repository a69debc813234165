"""LTL compared with Asteroid's time-domain models and a plain loop over its layers: at equal frames, and as published.

Every round takes each system once, so that ratios are of neighbours in time; tables give medians over rounds, and of
the ratios to LTL 1_trans_0 their spread. Memory is that of a fresh process. A run can be cut in pieces: FILE has every
round, and those of the same models, versions and machine are not run again.

    python tests/benchmarks/bench_time_domain.py --all             # every table, and --memory
    python tests/benchmarks/bench_time_domain.py [--only SETTING ...] [--rounds N] [--minutes M] [--out FILE] [--again]
    python tests/benchmarks/bench_time_domain.py --memory          # of LTL with window 64, over the length
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

os.environ.setdefault("GOMP_SPINCOUNT", "0")

import results
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import tasnet_attn
from tasnet_attn.ablation.cost import _Recurrent
from tasnet_attn.compat import asteroid
from tasnet_attn.filterbanks import GatedEncoder, LearnedDecoder
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import LTL, TasNet

THREADS = 2
FILTERS = 500
SETTINGS = {  # rate, seconds, kernel = stride, rounds
    "4 s at 8 kHz": (8000, 4, 40, 7),
    "20 s at 44.1 kHz": (44100, 20, 220, 5),
    "4 s at 8 kHz, as published": (8000, 4, 40, 7),
}
BASE = "LTL 1_trans_0"


class BareLTL(nn.Module):
    """What 1_trans_0 cannot do without: matrix products, nn.LSTM, SDPA, LayerNorm; no class of ours."""

    def __init__(self, kernel):
        super().__init__()
        self.kernel = kernel
        self.u, self.v = nn.Linear(kernel, 500, bias=False), nn.Linear(kernel, 500, bias=False)
        self.lstm = nn.LSTM(500, 500, batch_first=True)
        self.qkv = nn.ModuleList(nn.Linear(500, 1500) for _ in range(4))
        self.out = nn.ModuleList(nn.Linear(500, 500) for _ in range(4))
        self.wide = nn.ModuleList(nn.Linear(500, 256) for _ in range(4))
        self.narrow = nn.ModuleList(nn.Linear(256, 500) for _ in range(4))
        self.masks, self.decode = nn.Linear(500, 1000), nn.Linear(500, kernel, bias=False)

    def forward(self, mixture):
        x = F.pad(mixture[0], (0, -mixture.shape[-1] % self.kernel)).unflatten(-1, (-1, self.kernel))
        norm = x.norm(dim=-1, keepdim=True) + 1e-8
        w = torch.relu(self.u(x / norm)) * torch.sigmoid(self.v(x / norm))
        y = self.lstm(w)[0]
        for qkv, out, wide, narrow in zip(self.qkv, self.out, self.wide, self.narrow, strict=True):
            q, k, v = qkv(y).unflatten(-1, (3, 4, 125)).permute(2, 0, 3, 1, 4)
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            y = F.layer_norm(y + out(a.transpose(1, 2).flatten(-2)), (500,))
            y = F.layer_norm(y + narrow(torch.relu(wide(y))), (500,))
        masks = self.masks(y).unflatten(-1, (2, 500)).softmax(dim=-2)
        return self.decode(masks * (w * norm).unsqueeze(-2)).permute(0, 2, 1, 3).flatten(-2)[..., : mixture.shape[-1]]


def ours(separator, kernel, rate):
    return SourceSeparator(["a", "b"], rate, GatedEncoder(FILTERS, kernel), separator, LearnedDecoder(FILTERS, kernel))


def systems(setting):
    """{name: what makes the model}."""
    rate, _, kernel, _ = SETTINGS[setting]
    frames = {"n_filters": FILTERS, "kernel_size": kernel, "stride": kernel} if "published" not in setting else {}
    wide = partial(LTL, lstm_before=3, bidirectional=True, ffn=2048, transformer_layers=2)
    own = {
        BASE: LTL,
        "LTL 2_trans_0": partial(LTL, lstm_before=2),
        "LTL bidirectional 3_trans_0": wide,
        "TasNet 4 LSTM": TasNet,
        "TasNet 4 BLSTM": partial(TasNet, bidirectional=True),
    }
    found = {name: partial(ours, separator, kernel, rate) for name, separator in own.items()}
    if frames:
        found["plain torch, 1_trans_0"] = partial(BareLTL, kernel)
    else:
        found = {BASE: found[BASE]}
    for name in ("LSTMTasNet", "ConvTasNet", "DPRNNTasNet", "DPTNet"):
        found[f"Asteroid {name}"] = partial(getattr(asteroid.models, name), 2, sample_rate=rate, **frames)
    return found


def call_of(model):
    return (lambda x: model(x)[:, :, 0]) if isinstance(model, SourceSeparator) else model


def run(model, mixture, mode):
    """A training step's passes, or inference."""
    if mode == "inference":
        with torch.inference_mode():
            call_of(model)(mixture)
    else:
        model.zero_grad()
        call_of(model)(mixture).square().mean().backward()


def operations(model, mixture):
    """Floating-point operations of inference, attention and recurrent layers too; it takes the model's weights."""
    attention, skipped = F.scaled_dot_product_attention, []

    def attend(q, k, v, *others, is_causal=False, **how):  # the kernel does half of what the counter counts
        skipped.append(2 * q.numel() * k.shape[-2] if is_causal else 0)
        return attention(q, k, v, *others, is_causal=is_causal, **how)

    model.to("meta").requires_grad_(False)
    with (
        FlopCounterMode(display=False) as products,
        _Recurrent() as recurrent,
        patch.object(F, "scaled_dot_product_attention", attend),
    ):
        call_of(model)(mixture.to("meta"))
    return products.get_total_flops() + 2 * recurrent.macs - sum(skipped)


def timed(function):
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def peak():
    """Floating-point operations a second in a large matrix product."""
    a, b = torch.randn(2, 2048, 2048)
    return 2 * 2048**3 / min(timed(lambda: a @ b)[0] for _ in range(5))


def resident_peak(reset=False):
    """MiB, the most memory that this process has had resident since the last reset (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def in_fresh_process(*words):
    command = [sys.executable, "-W", "ignore", __file__, "--alone", *words]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return [float(word) for word in found[-2:]]


def made(seconds):
    """What figures depend on: while it is the same, rounds that stand are not run again."""
    package = Path(tasnet_attn.__file__).parent
    sources = [Path(__file__), *(package / name for name in ("nn.py", "model.py", "heads.py"))]
    sources += sorted([*package.glob("separators/*.py"), *package.glob("filterbanks/*.py")])
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    return f"{results.machine()}, {THREADS} threads, asteroid {version('asteroid')}, {seconds} s, sources {digest}"


def alone(setting, name, length):
    """MiB that inference and a training step add, of one system."""
    if setting == "window 64":
        mixture, make = torch.randn(1, 1, int(name) * 44100), partial(ours, partial(LTL, window=64), 220, 44100)
    else:
        mixture, make = torch.randn(1, 1, int(length)), systems(setting)[name]
    model, added = make(), []
    for mode in ("inference", "training step"):
        model.train(mode != "inference")
        before = resident_peak(reset=True)
        run(model, mixture, mode)
        added.append(resident_peak() - before)
    print(*added)


def measure(found, setting, wanted, rounds, until, seconds, keep):
    """Add rounds to those that are found, as many as are lacking; `keep` is called after each."""
    rows, began = found["rows"], time.time()
    if len(rows.get(BASE, {}).get("rounds", ())) >= rounds:
        return
    mixture = torch.randn(1, 1, round(SETTINGS[setting][0] * seconds))
    models = {name: make() for name, make in systems(setting).items() if name in wanted}
    for name, model in models.items():
        if name not in rows:
            parameters = sum(p.numel() for p in model.parameters())
            rows[name] = {"parameters": parameters, "rounds": [], "MiB": []}
            rows[name]["MiB"] = in_fresh_process(setting, name, str(mixture.shape[-1]))
        rows[name]["flops"] = operations(systems(setting)[name](), mixture)
        run(model, mixture, "inference")  # to warm up
    while len(rows[BASE]["rounds"]) < rounds and time.time() < until:
        new = {}
        for name, model in models.items():
            new[name] = {"peak": peak()}
            for mode in ("inference", "training step"):
                model.train(mode != "inference")
                new[name][mode] = timed(lambda model=model, mode=mode: run(model, mixture, mode))
        for name, figures in new.items():  # whole rounds only
            rows[name]["rounds"].append(figures)
        began, took = time.time(), time.time() - began
        found["seconds"] += took
        keep()
        print(f"{setting}: round {len(rows[BASE]['rounds'])} of {rounds}, {took:.0f} s", file=sys.stderr, flush=True)


def table(setting, rows, seconds):
    about = f"batch 1, {THREADS} threads; {len(rows[BASE]['rounds'])} rounds, which took {seconds:.0f} s"
    print(f"\ntwo sources, {setting}, {about}\n")
    print("| system | parameters | inference | CPU | ratio (spread) | of peak | MiB | training step | CPU | ", end="")
    print("ratio (spread) | MiB |\n|" + "---|" * 11)
    for name, row in rows.items():
        cells = [name, f"{row['parameters']:,}"]
        for mode, memory in zip(("inference", "training step"), row["MiB"], strict=True):
            wall, cpu = (statistics.median(r[mode][i] for r in row["rounds"]) for i in (0, 1))
            pairs = [a[mode][0] / b[mode][0] for a, b in zip(row["rounds"], rows[BASE]["rounds"], strict=True)]
            results.keep(f"{setting}: {name}, {mode}, s", wall)
            cells += [f"{wall:.3f} s", f"{cpu:.3f} s"]
            cells.append(f"{statistics.median(pairs):.2f} ({min(pairs):.2f}-{max(pairs):.2f})")
            if mode == "inference":
                share = statistics.median(row["flops"] / r[mode][0] / r["peak"] for r in row["rounds"])
                cells.append(f"{100 * share:.0f} %")
            cells.append(f"{memory:.0f}")
        print("| " + " | ".join(cells) + " |")
    if {"LTL bidirectional 3_trans_0", "TasNet 4 BLSTM"} <= set(rows):
        both = [rows[name]["rounds"] for name in ("LTL bidirectional 3_trans_0", "TasNet 4 BLSTM")]
        pairs = [a["inference"][0] / b["inference"][0] - 1 for a, b in zip(*both, strict=True)]
        middle, least, most = (f"{100 * x:+.0f}" for x in (statistics.median(pairs), min(pairs), max(pairs)))
        print("\ninference of bidirectional 3_trans_0 against the BLSTM TasNet: ", end="")
        print(f"{middle} % ({least} to {most}); the paper: -53 %")


def memory_over_length():
    print("LTL 1_trans_0 with window 64 at 44.1 kHz, MiB that inference and a training step add")
    for seconds in (5, 20, 80):
        inference, training = in_fresh_process("window 64", str(seconds), "")
        results.keep(f"LTL window 64, {seconds} s, inference, MiB", inference)
        results.keep(f"LTL window 64, {seconds} s, training step, MiB", training)
        print(f"  {seconds:3} s  {inference:7.0f}  {training:7.0f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench_time_domain.json"), help="rounds are kept there")
    parser.add_argument("--again", action="store_true", help="forget the rounds that stand")
    parser.add_argument("--all", action="store_true", help="every table, and --memory")
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--systems", nargs="+", metavar="NAME", help="of a new FILE: systems besides LTL 1_trans_0")
    parser.add_argument("--seconds", type=float, help="of sound, to try the script")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no further round after so many")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    if options.alone:
        return alone(*options.alone)
    print(results.machine())
    begin = time.time()
    if options.memory:
        return memory_over_length()
    stored = json.loads(options.out.read_text()) if options.out.exists() and not options.again else {}
    for setting in SETTINGS if options.all else options.only:
        seconds = options.seconds or SETTINGS[setting][1]
        if stored.get(setting, {}).get("made") != made(seconds):
            stored[setting] = {"made": made(seconds), "seconds": 0.0, "rows": {}}
        found = stored[setting]
        wanted = [BASE, *options.systems] if options.systems else systems(setting)
        rounds, until = options.rounds or SETTINGS[setting][3], begin + 60 * options.minutes
        measure(found, setting, wanted, rounds, until, seconds, lambda: options.out.write_text(json.dumps(stored)))
        if found["rows"][BASE]["rounds"]:
            table(setting, found["rows"], found["seconds"])
    if options.all:
        print()
        memory_over_length()
    print(f"\n{time.time() - begin:.0f} s now; {sum(each['seconds'] for each in stored.values()):.0f} s for all rounds")


if __name__ == "__main__":
    main()
