"""Figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from tasnet_attn.files import whole


def by_length(tables: dict[str, pd.DataFrame], path: Path) -> Path:
    """Score, memory and time against the length of excerpts, a line for each system.

    Args:
        tables: {system: its `by_length.csv`, see `evaluation.lengths`}.
        path: the PNG file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    score, memory, seconds = figure.subplots(1, 3)
    for number, (name, table) in enumerate(tables.items()):
        style: dict[str, Any] = {"color": f"C{number % 10}", "marker": "osD^vPX"[number % 7], "label": name}
        score.plot(table["length"], table["SI-SNRi"], **style)
        score.fill_between(table["length"], table["low"], table["high"], color=style["color"], alpha=0.15, linewidth=0)
        memory.plot(table["length"], table["memory"], **style)
        seconds.plot(table["length"], table["seconds"], **style)
    score.set(ylabel="SI-SNRi (dB)")
    memory.set(ylabel="memory (MB)", yscale="log")
    seconds.set(ylabel="computation for a second (s)", yscale="log")
    lengths = sorted({length for table in tables.values() for length in table["length"]})
    for axis in (score, memory, seconds):
        axis.set_xscale("log")
        axis.set_xticks(lengths, [f"{length:g}" for length in lengths])
        axis.minorticks_off()
        axis.set_xlabel("length of an excerpt (s)")
    figure.legend(*score.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    with whole(path, path.suffix) as part:
        figure.savefig(part, dpi=100)
    return path


def spectrograms(signals: dict[str, Tensor], sample_rate: int, path: Path, seconds: float = 8.0) -> Path:
    """Draw magnitude spectrograms below each other, on one colour scale.

    Args:
        signals: title -> [C, T]; the channels' mean is drawn.
        sample_rate: Hz.
        path: the PNG file.
        seconds: how much of the beginning to draw.
    """
    from matplotlib.figure import Figure

    n_fft, hop = 2048, 512
    figure = Figure(figsize=(10, 1.7 * len(signals)), layout="constrained")
    axes = figure.subplots(len(signals), sharex=True, squeeze=False)[:, 0]
    for axis, (title, signal) in zip(axes, signals.items(), strict=True):
        mono = signal.mean(0)[: int(seconds * sample_rate)]
        spectrum = torch.stft(mono, n_fft, hop, window=torch.hann_window(n_fft), return_complex=True)
        decibels = 20 * torch.log10(spectrum.abs() / n_fft * 4 + 1e-8)
        extent = (0.0, len(mono) / sample_rate, 0.0, sample_rate / 2000)
        picture = axis.imshow(decibels, origin="lower", aspect="auto", extent=extent, vmin=-90, vmax=0, cmap="magma")
        axis.set(title=title, ylabel="kHz", ylim=(0, min(12.0, sample_rate / 2000)))
    axes[-1].set_xlabel("seconds")
    figure.colorbar(picture, ax=list(axes), label="dB re full scale")
    with whole(path, path.suffix) as part:
        figure.savefig(part, dpi=100)
    return path
