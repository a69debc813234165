"""BSSEval by museval, mir_eval, fast_bss_eval and ours: the same signals in one run, times and the largest difference.

Noise is well conditioned; the bundled songs are not (band-limited: there museval's SIR and SAR are what differs).
fast_bss_eval and mir_eval have no version 4: they are compared on version 3, mono, whole signals. A side whose package
is missing says so.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "0")  # before torch and OpenMP are loaded

import argparse
import platform
import statistics
import time
import warnings
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import results
import soundfile
import torch

from tasnet_attn.compat import museval
from tasnet_attn.data.stem_folders import SONGS
from tasnet_attn.metrics import bss_eval, bss_eval_sources

RATE = 44100


def noise(sources: int, seconds: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Coloured stereo references, and estimates with interference and noise, float64 [S, C, T]."""
    references = torch.randn(sources, 2, seconds * RATE, dtype=torch.float64)
    references[..., 1:] += 0.5 * references[..., :-1].clone()
    mixing = torch.eye(sources).double() + 0.1 * torch.randn(sources, sources).double()
    return references, torch.einsum("ij,jct->ict", mixing, references) + 0.1 * torch.randn_like(references)


def song(seconds: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A bundled song and estimates with interference and noise."""
    folder = sorted((SONGS / "train").iterdir())[0]
    stems = [soundfile.read(folder / f"{s}.ogg", stop=seconds * RATE)[0].T for s in ("guitar", "backing")]
    references = torch.from_numpy(np.stack(stems))
    return references, references + 0.1 * references.flip(0) + 1e-3 * torch.randn_like(references)


def timed(function, repeats: int):
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - started)
    return statistics.median(times), result


def difference(ours, theirs) -> float:
    """The largest difference in dB where both are finite."""
    gaps = [abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)) for a, b in zip(ours, theirs, strict=True)]
    return float(max(np.max(gap[np.isfinite(gap)], initial=0.0) for gap in gaps))


def row(name: str, seconds: float, slowest: float, gap: str) -> None:
    print(f"  {name:<22}{seconds:>9.2f} s{slowest / seconds:>8.1f} x   {gap}")


def version_4(title: str, signals: tuple[torch.Tensor, torch.Tensor], repeats: int) -> None:
    references, estimates = signals
    print(f"\nv4, {title}, 1 s windows (time, ratio to museval, largest difference to museval)")
    arrays = [x.numpy().transpose(0, 2, 1).copy() for x in signals]
    bss_eval(references[..., :RATE], estimates[..., :RATE], RATE)  # warm up
    fast, ours = timed(lambda: bss_eval(references, estimates, RATE), 2 * repeats + 1)
    slow, theirs = timed(lambda: museval.evaluate(*arrays, win=RATE, hop=RATE), repeats)
    gaps = {n: difference([ours[n]], [x]) for n, x in zip(("SDR", "ISR", "SIR", "SAR"), theirs, strict=True)}
    results.keep(f"BSSEval v4, {title}, s", fast)
    row("museval", slow, slow, "")
    row("ours", fast, slow, "  ".join(f"{name} {gap:.1e} dB" for name, gap in gaps.items()))


def version_3(title: str, signals: tuple[torch.Tensor, torch.Tensor], repeats: int) -> None:
    references, estimates = (x[:, :1].contiguous() for x in signals)
    print(f"\nv3 sources, {title}, first channel, whole signal (time, ratio to museval, largest difference to museval)")
    stereo = [x.numpy().transpose(0, 2, 1).copy() for x in (references, estimates)]
    mono = [x[:, 0].numpy().copy() for x in (references, estimates)]
    slow, theirs = timed(lambda: museval.metrics.bss_eval_sources(*stereo, compute_permutation=False)[:3], repeats)
    expected = [x[:, 0] for x in theirs]
    row("museval", slow, slow, "")
    try:
        from mir_eval.separation import bss_eval_sources as mir

        seconds, found = timed(lambda: mir(*mono, compute_permutation=False)[:3], repeats)
        row("mir_eval", seconds, slow, f"{difference(expected, found):.1e} dB")
    except ImportError:
        print("  mir_eval: not installed")
    try:
        import fast_bss_eval

        def fast():  # its exact solver does not run under NumPy 2: ten steps of conjugate gradients
            return fast_bss_eval.bss_eval_sources(*mono, compute_permutation=False, use_cg_iter=10)[:3]

        seconds, found = timed(fast, 2 * repeats + 1)
        row("fast_bss_eval (CG)", seconds, slow, f"{difference(expected, found):.1e} dB")
    except ImportError:
        print("  fast_bss_eval: not installed (pip install fast_bss_eval)")
    seconds, ours = timed(lambda: bss_eval_sources(references, estimates), 2 * repeats + 1)
    results.keep(f"BSSEval v3, {title}, s", seconds)
    row("ours", seconds, slow, f"{difference(expected, list(ours.values())):.1e} dB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument(
        "--repeats", type=int, default=1, help="of the slow sides; the fast ones run twice as often, plus one"
    )
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    cores = f"{os.cpu_count()} cores, {options.threads} threads of torch"
    names = ("tasnet-attn", "torch", "numpy", "scipy", "museval", "mir_eval", "fast_bss_eval")
    print(f"{platform.machine()}, {cores}; Python {platform.python_version()}")
    for name in names:
        try:
            print(f"{name} {version(name)}", end="; ")
        except PackageNotFoundError:
            print(f"{name} not installed", end="; ")
    print(f"{options.seconds} s, stereo, {RATE} Hz, float64; medians")
    for sources in (2, 4):
        version_4(f"noise, {sources} sources", noise(sources, options.seconds), options.repeats)
    version_4("a bundled song, 2 sources", song(options.seconds), options.repeats)
    version_3("noise, 2 sources", noise(2, options.seconds), options.repeats)


if __name__ == "__main__":
    main()
