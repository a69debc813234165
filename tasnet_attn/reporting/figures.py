"""Figures."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tasnet_attn.files import whole


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
