"""A model's results on shorter and longer excerpts: score, time and memory by length.

Shapes: S sources, C channels, T samples.
"""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tasnet_attn import terminal
from tasnet_attn.audio.resampling import resample
from tasnet_attn.data.track import Track
from tasnet_attn.errors import UserError, first_line
from tasnet_attn.evaluation.summary import summarise
from tasnet_attn.files import write_text
from tasnet_attn.inference.segments import pick_device
from tasnet_attn.metrics.matching import best_permutation
from tasnet_attn.metrics.si_snr import si_snr

FILE = "by_length.csv"
COLUMNS = ("length", "excerpts", "SI-SNR", "SI-SNRi", "low", "high", "seconds", "memory")
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # only Linux reports a process's peak


def by_length(model: Any, tracks: Sequence[Track], out: Path, lengths: Sequence[float], device: str) -> pd.DataFrame:
    """Separate excerpts of several lengths, each in one piece, and write `by_length.csv`.

    Every length gets the same sound: the beginnings of the tracks that are at least as long as the longest length, cut
    into pieces.

    Args:
        model: of any length; stays on its device and in its mode.
        tracks: tracks shorter than the longest length are skipped.
        out: the folder.
        lengths: seconds.
        device: where it runs, as for `evaluate`.

    Returns:
        A row per length: "length" (s), "excerpts", "SI-SNR", "SI-SNRi" and its 95 % interval over the tracks, "low" and
        "high" (dB), "seconds" of computation per second of sound, "memory" (peak in MB; NaN if unknown).

    Raises:
        UserError: a model of fixed length, an oracle, a bad length, or no track that is long enough.
    """
    lengths, chosen = checked(model, tracks, lengths)
    place, training = next(model.parameters()).device, model.training
    model.eval().to(pick_device(device))
    try:
        rows = [_row(model, chosen, length, lengths[-1]) for length in lengths]
    finally:
        model.to(place).train(training)
    table = pd.DataFrame(rows)
    write_text(out / FILE, table.to_csv(index=False, lineterminator="\n"))
    return table


def checked(model: Any, tracks: Sequence[Track], lengths: Sequence[float]) -> tuple[list[float], list[Track]]:
    """The lengths in order and the tracks that are long enough; raises like `by_length`."""
    if getattr(model, "segment", None) is not None or not isinstance(model, torch.nn.Module):
        raise UserError(f"evaluation.by_length: {type(model).__name__} does not separate excerpts of any length")
    lengths = sorted(set(lengths))
    rate: int = model.sample_rate  # type: ignore[assignment]
    if not all(1 <= length * rate < math.inf for length in lengths):
        raise UserError(f"evaluation.by_length: {lengths} must be finite and at least one sample, in seconds")
    chosen = [track for track in tracks if track.length >= lengths[-1] * track.sample_rate]
    if not chosen:
        raise UserError(f"evaluation.by_length: no track is {lengths[-1]:g} s long; give shorter lengths")
    return lengths, chosen


def read(folder: Path) -> pd.DataFrame:
    """The table that `by_length` wrote into a folder.

    Raises:
        UserError: not such a table.
    """
    path = folder / FILE
    try:
        table = pd.read_csv(path)
        return table.astype(dict.fromkeys(COLUMNS, float))
    except (KeyError, ValueError) as error:  # of pandas, too
        raise UserError(f"{path}: not a table of `tasnet-attn evaluate --by-length`: {first_line(error)}") from error


def shown(table: pd.DataFrame) -> str:
    """The table for the terminal."""
    heads = ["excerpt", "SI-SNRi, dB", "computation for a second", "memory"]
    rows = []
    for row in table.rename(columns={"SI-SNRi": "gained"}).itertuples():
        bounds = "" if pd.isna(row.low) else f" [{row.low:.2f}, {row.high:.2f}]"
        memory = "" if pd.isna(row.memory) else f"{row.memory:.0f} MB"
        gained = "" if pd.isna(row.gained) else f"{row.gained:.2f}{bounds}"
        rows.append([f"{row.length:g} s", gained, f"{row.seconds:.3f} s", memory])
    return terminal.table(heads, rows, terminal.columns())


def _row(model: Any, tracks: Sequence[Track], length: float, longest: float) -> dict[str, Any]:
    """The excerpts of one length; the first one is separated once before, as a warm-up."""
    size, count = round(length * model.sample_rate), int(longest / length + 1e-9)
    scores, took, memory = [], 0.0, math.nan
    for number, track in enumerate(tracks):
        mixture, references = _beginning(model, track, size * count)
        found = []
        for start in range(0, size * count, size):
            piece, alone = mixture[:, start : start + size], references[..., start : start + size]
            if number == start == 0:
                _estimates(model, piece)
                memory = _peak(model, piece)
            began = time.perf_counter()
            estimates = _estimates(model, piece)
            took += time.perf_counter() - began
            found.append(_scored(model, piece, alone, estimates))
        scores.append(np.nanmean(np.array(found), axis=0) if np.isfinite(found).any() else np.full(2, np.nan))
    means = np.array(scores)
    table = pd.DataFrame({"score": means[:, 1], "mean": means[:, 1], "seconds": longest})
    gained = summarise(table)["mean of means"]
    return {
        "length": length,
        "excerpts": count * len(tracks),
        "SI-SNR": float(np.nanmean(means[:, 0])) if np.isfinite(means).any() else math.nan,
        "SI-SNRi": gained["value"],
        "low": gained["low"],
        "high": gained["high"],
        "seconds": took / (length * count * len(tracks)),
        "memory": memory,
    }


def _beginning(model: Any, track: Track, samples: int) -> tuple[Tensor, Tensor]:
    """The first samples of a track at the model's rate: mixture [C, T], references [S, C, T] in the model's order."""
    mixture, references = track.read(0, math.ceil(samples * track.sample_rate / model.sample_rate))
    which = [track.sources.index(source) for source in model.sources]
    both = torch.cat([mixture[None], references[which]])
    if track.sample_rate != model.sample_rate:
        both = resample(both, track.sample_rate, model.sample_rate)
    both = torch.nn.functional.pad(both, (0, max(0, samples - both.shape[-1])))[..., :samples]
    return both[0], both[1:]


def _estimates(model: Any, mixture: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(mixture[None].to(next(model.parameters()).device))[0].cpu()


def _scored(model: Any, mixture: Tensor, references: Tensor, estimates: Tensor) -> tuple[float, float]:
    """SI-SNR and SI-SNRi, dB: the mean over the sources that are not silent."""
    references, estimates, mixture = references.double(), estimates.double(), mixture.double()
    pairs = si_snr(references[:, None], estimates[None]).mean(-1)  # [reference, estimate]
    order = best_permutation(pairs.nan_to_num()) if model.interchangeable else range(len(references))
    own = torch.stack([pairs[i, j] for i, j in enumerate(order)])
    before = si_snr(references, mixture[None].expand_as(references)).mean(-1)
    heard = references.abs().amax((1, 2)) > 0
    if not heard.any():
        return math.nan, math.nan
    return float(own[heard].mean()), float((own - before)[heard].mean())


def _peak(model: Any, mixture: Tensor) -> float:
    """Peak memory of separating, in MB, above the memory before; NaN: this system does not report it."""
    device = next(model.parameters()).device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        _estimates(model, mixture)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    if not sys.platform.startswith("linux"):
        return math.nan
    try:
        ctypes.CDLL(None).malloc_trim(0)  # freed memory counts as used until it is returned
    except AttributeError:  # another C library
        return math.nan
    RESET.write_text("5")  # reset the peak
    resident = _status("VmRSS")
    _estimates(model, mixture)
    return (_status("VmHWM") - resident) / 1e3


def _status(key: str) -> float:
    """A number of kB."""
    return float(STATUS.read_text().split(f"{key}:")[1].split()[0])
