"""LTL against a bare loop over its layers, and beside Asteroid's time-domain models."""

import os
import platform
import statistics
import sys
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "0")

import torch
import torch.nn.functional as F
from torch import nn

from tasnet_attn.compat import asteroid
from tasnet_attn.filterbanks import GatedEncoder, LearnedDecoder
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import LTL, TasNet

THREADS = 2


class BareLTL(nn.Module):
    """What 1_trans_0 cannot do without: matrix products, nn.LSTM, SDPA, LayerNorm; no class of ours."""

    def __init__(self):
        super().__init__()
        self.u, self.v = nn.Linear(220, 500, bias=False), nn.Linear(220, 500, bias=False)
        self.lstm = nn.LSTM(500, 500, batch_first=True)
        self.qkv = nn.ModuleList(nn.Linear(500, 1500) for _ in range(4))
        self.out = nn.ModuleList(nn.Linear(500, 500) for _ in range(4))
        self.wide = nn.ModuleList(nn.Linear(500, 256) for _ in range(4))
        self.narrow = nn.ModuleList(nn.Linear(256, 500) for _ in range(4))
        self.masks, self.decode = nn.Linear(500, 1000), nn.Linear(500, 220, bias=False)

    def forward(self, mixture):
        x = F.pad(mixture[0], (0, -mixture.shape[-1] % 220)).unflatten(-1, (-1, 220))
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


def median_time(call, runs):
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def alternately(first, second, runs):
    """Medians of both, and of the ratio pair by pair: the machine's speed drifts."""
    pairs = [(median_time(first, 1), median_time(second, 1)) for _ in range(runs)]
    return *(statistics.median(column) for column in zip(*pairs, strict=True)), statistics.median(
        a / b for a, b in pairs
    )


def ours(separator, kernel=220, rate=44_100):
    return SourceSeparator(["a", "b"], rate, GatedEncoder(500, kernel), separator, LearnedDecoder(500, kernel))


def against_the_bare_loop():
    model, bare = ours(LTL).eval(), BareLTL().eval()
    mixture = torch.randn(1, 1, 20 * 44_100)
    with torch.inference_mode():
        a, b, ratio = alternately(lambda: model(mixture), lambda: bare(mixture), 9)
    print("1_trans_0 (500, 220), 20 s at 44.1 kHz, forward")
    print(f"  ours {a:.3f} s   bare loop {b:.3f} s   ratio (median of pairs) {ratio:.3f}\n")


SYSTEMS = {
    "LTL 1_trans_0": lambda: ours(LTL, 40, 8000),
    "LTL 2_trans_0": lambda: ours(partial(LTL, lstm_before=2), 40, 8000),
    "TasNet 4 LSTM": lambda: ours(TasNet, 40, 8000),
    "TasNet 4 BLSTM": lambda: ours(partial(TasNet, bidirectional=True), 40, 8000),
    "Asteroid LSTMTasNet": lambda: asteroid.models.LSTMTasNet(2, sample_rate=8000),
    "Asteroid ConvTasNet": lambda: asteroid.models.ConvTasNet(2, sample_rate=8000),
    "Asteroid DPTNet": lambda: asteroid.models.DPTNet(2, sample_rate=8000),
}


def resident_peak(reset=False):
    """MiB, the most memory that this process has had resident since the last reset (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def measure(name):
    """One row, in a process of its own, so that the memory is this system's."""
    model, mixture = SYSTEMS[name](), torch.randn(1, 1, 4 * 8000)
    call = model if name.startswith("Asteroid") else lambda x: model(x)[:, :, 0]
    with torch.inference_mode():
        before = resident_peak(reset=True)
        forward = median_time(lambda: call(mixture), 5)
        inference = resident_peak() - before

    def step():
        model.zero_grad()
        call(mixture).square().mean().backward()

    training = median_time(step, 3)
    peak = resident_peak() - before
    count = sum(p.numel() for p in model.parameters())
    print(count, forward, training, inference, peak)


def beside_asteroid():
    import subprocess

    print("two sources, 4 s at 8 kHz, one channel; ours: 500 filters of 5 ms, hidden 500; Asteroid's: its defaults")
    print(
        f"{'':22}{'parameters':>12}{'forward':>10}{'ratio':>7}{'training':>10}{'ratio':>7}"
        f"{'+MB fwd':>9}{'+MB train':>10}"
    )
    base = None
    for name in SYSTEMS:
        out = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, name], capture_output=True, text=True, check=True
        )
        count, forward, training, inference, peak = map(float, out.stdout.split()[-5:])
        base = base or (forward, training)
        print(
            f"{name:22}{count:12,.0f}{1e3 * forward:7.0f} ms{forward / base[0]:7.2f}"
            f"{1e3 * training:7.0f} ms{training / base[1]:7.2f}{inference:9.0f}{peak:10.0f}"
        )


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    if len(sys.argv) > 1:
        measure(sys.argv[1])
    else:
        print(f"{platform.machine()}, {THREADS} threads, torch {version('torch')}, asteroid {version('asteroid')}\n")
        against_the_bare_loop()
        beside_asteroid()
