"""Figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import Tensor

from tasnet_attn.files import whole
from tasnet_attn.reporting.pictures import COLOUR_MAP, FLOOR, kilohertz, mel_spectrogram

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        style: dict[str, Any] = {"color": f"C{number % 10}", "marker": "osD^vPX"[number % 7], "label": plain(name)}
        score.plot(table["length"], table["SI-SNRi"], **style)
        score.fill_between(table["length"], table["low"], table["high"], color=style["color"], alpha=0.15, linewidth=0)
        memory.plot(table["length"], table["memory"], **style)
        seconds.plot(table["length"], table["seconds"], **style)
    score.set(ylabel="SI-SNRi (dB)")
    memory.set(ylabel="memory (MB)", yscale="log")
    seconds.set(ylabel="computation per second (s)", yscale="log")
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


def plain(text: str) -> str:
    """A label as matplotlib draws it unchanged: a $ would begin a formula."""
    return text.replace("$", r"\$")


def spectrograms(signals: dict[str, Tensor], sample_rate: int, path: Path, seconds: float = 8.0) -> Path:
    """Draw signals into a file, see `draw_signals`.

    Args:
        signals: title -> [C, T]; the mixture first.
        sample_rate: Hz.
        path: the PNG file.
        seconds: length to draw, from the beginning.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.9 * len(signals)), layout="constrained")
    draw_signals(figure, {title: x[:, : int(seconds * sample_rate)] for title, x in signals.items()}, sample_rate)
    with whole(path, path.suffix) as part:
        figure.savefig(part, dpi=100)
    return path


def draw_signals(figure: Figure, signals: dict[str, Tensor], sample_rate: int) -> None:
    """Draw signals below each other as the report does: each waveform above its mel spectrogram, all on one scale.

    Args:
        figure: matplotlib's, empty.
        signals: title -> [C, T], of one length; the channels' mean is drawn.
        sample_rate: Hz.
    """
    arrays = {title: signal.T.numpy() for title, signal in signals.items()}
    seconds = len(next(iter(arrays.values()))) / sample_rate
    loudest = max(float(abs(signal.mean(-1)).max()) for signal in arrays.values()) or 1.0
    axes = figure.subplots(2 * len(arrays), sharex=True, height_ratios=[1, 2.2] * len(arrays))
    for wave, mel, (title, signal) in zip(axes[::2], axes[1::2], arrays.items(), strict=True):
        wave.plot(np.linspace(0, seconds, len(signal), endpoint=False), signal.mean(-1), linewidth=0.3)
        wave.set(ylim=(-loudest, loudest), yticks=[])
        wave.set_title(plain(title), loc="left", fontsize="medium")
        decibels, extent = mel_spectrogram(signal, sample_rate), (0.0, seconds, 0.0, 100.0)
        scale: dict[str, Any] = {"vmin": FLOOR, "vmax": 0, "cmap": COLOUR_MAP}
        image = mel.imshow(decibels, origin="lower", aspect="auto", extent=extent, **scale)
        labels, places = zip(*kilohertz(sample_rate), strict=True)
        mel.set_yticks(places, labels)
        mel.set_ylabel("kHz")
    axes[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=list(axes), label="dB re full scale")
