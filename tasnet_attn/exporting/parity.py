"""Verification: an exported file, run in a new process, gives the same outputs as the model.

Shapes: N channels, S sources, T samples.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasnet_attn.audio.reading import read_audio
from tasnet_attn.audio.resampling import resampled
from tasnet_attn.config import IMPORTED
from tasnet_attn.errors import UserError
from tasnet_attn.exporting.formats import FORMATS, Format, lengths
from tasnet_attn.model import SourceSeparator

SONG = ("test", 44100)  # the split of the excerpt; Hz
FLOOR = 1e-3  # outputs below -60 dB of full scale are compared with this


def cases(model: SourceSeparator) -> dict[str, np.ndarray]:
    """Mixtures [N, T] by name: music, noise and silence, in several lengths and batch sizes."""
    window, minimum = (lengths(model)[key] for key in ("window", "minimum"))
    shortest = int(minimum or 1)
    sizes = (
        [window] * 3 if window else [max(model.sample_rate, shortest), model.sample_rate // 2 + shortest + 7, shortest]
    )
    long, middle, short = (int(size) for size in sizes)
    music = _music(model.sample_rate, long + middle)
    noise = 0.1 * np.random.default_rng(0).standard_normal((3, max(long, short)), dtype=np.float32)
    stereo = music[:, :long]
    return {
        f"music, 2 channels of {long}": stereo,
        f"music, 1 channel of {middle}": music[:1, long : long + middle],
        f"music, 4 channels of {middle}": np.concatenate([music[:, :middle], music[:, long : long + middle]]),
        f"noise, 3 channels of {short}": noise[:, :short],
        f"noise, 1 channel of {long}": noise[:1, :long],
        f"silence, 2 channels of {middle}": np.zeros((2, middle), np.float32),
    }


def _music(sample_rate: int, length: int) -> np.ndarray:
    """A bundled song at the model's rate, [2, length], repeated if necessary."""
    split, rate = SONG
    folder = Path(str(resources("tasnet_attn"))) / "songs" / split
    stems = [read_audio(file) for file in sorted(next(iter(sorted(folder.iterdir()))).glob("*.ogg"))]
    mixture = torch.stack(stems).sum(0)
    if sample_rate != rate:
        mixture = torch.cat(list(resampled([mixture], rate, sample_rate)), dim=-1)
    mixture = mixture.expand(2, -1) if len(mixture) == 1 else mixture
    return mixture.repeat(1, math.ceil(length / mixture.shape[-1]))[:, :length].contiguous().numpy()


def prove(files: Sequence[tuple[SourceSeparator, Path, str]]) -> list[dict[str, Any]]:
    """Run files in one new process and compare them with their models.

    Args:
        files: (model, file, format) each. The formats "torchscript" and "torch-export" can contain code: use only your
            own files, or files that you trust.

    Returns:
        A report each: {"file", "sha256", "format", "tolerance", "largest difference", "lowest SNR", "passed", "cases",
        "versions"}; differences are absolute, SNR in dB relative to the model's output, None if equal.

    Raises:
        UserError: a file cannot be run at all.
    """
    mixtures = [cases(model) for model, _, _ in files]
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for i, (inputs, (_, file, to)) in enumerate(zip(mixtures, files, strict=True)):
            paths = {key: f"{folder}/{key}{i}.npz" for key in ("inputs", "outputs")}
            np.savez(paths["inputs"], **inputs)  # type: ignore[arg-type]
            jobs.append({"format": to, "file": str(Path(file).resolve()), **paths})
        todo = Path(folder) / "jobs.json"
        todo.write_text(
            json.dumps({"jobs": jobs, "threads": torch.get_num_threads(), "imports": IMPORTED}), encoding="utf-8"
        )
        # by its path, so that this library is imported only for formats that need it
        command = [sys.executable, "-P", str(Path(__file__).with_name("fresh.py")), str(todo)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            undone = [job["file"] for job in jobs if not Path(job["outputs"]).is_file()]
            raise UserError(f"{undone[0]}: cannot be run in a new process: {said}")
        reports = []
        for inputs, job, (model, file, to) in zip(mixtures, jobs, files, strict=True):
            with np.load(job["outputs"]) as outputs:
                reports.append(_report(model, Path(file), to, inputs, dict(outputs)))
    return reports


def parity(model: SourceSeparator, file: Path, to: str) -> dict[str, Any]:
    """`prove` for one file."""
    return prove([(model, file, to)])[0]


def _report(
    model: SourceSeparator, file: Path, to: str, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray]
) -> dict[str, Any]:
    rows = []
    for name, mixture in inputs.items():
        with torch.inference_mode():
            ours = model.eval()(torch.from_numpy(mixture).unsqueeze(1)).squeeze(2).numpy().astype(np.float64)
        rows.append({"case": name, **_compare(ours, outputs[name].astype(np.float64), FORMATS[to])})
    ratios = [row["SNR"] for row in rows if row["SNR"] is not None]
    return {
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "format": to,
        "tolerance": FORMATS[to].tolerance,
        "tolerance is": f"a part of the case's largest output, or of {FLOOR} where that is larger",
        "largest difference": max(row["difference"] for row in rows),
        "lowest SNR": min(ratios) if ratios else None,
        "passed": all(row["passed"] for row in rows),
        "cases": rows,
        "versions": _versions(to),
    }


def _compare(ours: np.ndarray, theirs: np.ndarray, format: Format) -> dict[str, Any]:
    if ours.shape != theirs.shape or not np.isfinite(theirs).all():
        return {"shape": list(theirs.shape), "difference": math.inf, "largest": 0.0, "SNR": -math.inf, "passed": False}
    difference, largest = float(np.abs(ours - theirs).max()), float(np.abs(ours).max())
    noise, signal = float(np.square(ours - theirs).sum()), float(np.square(ours).sum())
    ratio = None if noise == 0 else 10 * math.log10(max(signal, 1e-30) / noise)
    passed = difference <= format.tolerance * max(largest, FLOOR)
    if format.lowest_snr is not None and ratio is not None:
        passed = passed or ratio >= format.lowest_snr
    return {"shape": list(ours.shape), "difference": difference, "largest": largest, "SNR": ratio, "passed": passed}


def _versions(to: str) -> dict[str, str]:
    names = ["tasnet-attn", "torch"]
    names += FORMATS[to].needs
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def table(report: dict[str, Any]) -> str:
    """A report as text."""
    rows = [("case", "difference", "of largest", "SNR", "")]
    for row in report["cases"]:
        ratio = "equal" if row["SNR"] is None else f"{row['SNR']:.1f} dB"
        verdict = "" if row["passed"] else "FAILED"
        rows.append((row["case"], f"{row['difference']:.1e}", f"{row['largest']:.2g}", ratio, verdict))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    verdict, lowest = (
        "equal within" if report["passed"] else "NOT equal within",
        FORMATS[report["format"]].lowest_snr,
    )
    bound = f"{report['tolerance']:g} of the largest output" + (f" or {lowest:g} dB" if lowest is not None else "")
    return "\n".join([*lines, f"{report['file']} ({report['format']}): {verdict} {bound}"])
