"""What a signal looks like: its waveform and its mel spectrogram, with the ticks of their axes.

Shapes: T samples, C channels; the channels' mean is drawn.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import torch

WIDTH, HEIGHT = 640, 96  # of a spectrogram: frames at most, mel bands
FLOOR, COLOUR_MAP = -90.0, "magma"  # dB below full scale that is black; matplotlib's name of the colour map
WAVE = 320  # points of a waveform


def waveform(signal: np.ndarray) -> str:
    """A signal [T, C] within +-1 as an SVG path in a box of WAVE x 100: its envelope, filled."""
    pieces = np.array_split(signal.mean(-1), min(WAVE, len(signal)))
    highs = [f"{x} {49 - 49 * float(piece.max()):.0f}" for x, piece in enumerate(pieces)]
    lows = [f"{x} {51 - 49 * float(piece.min()):.0f}" for x, piece in enumerate(pieces)]
    return f"M{'L'.join(highs + lows[::-1])}Z"


def mel_spectrogram(signal: np.ndarray, rate: int) -> np.ndarray:
    """A signal [T, C] at `rate` Hz as dB below full scale [HEIGHT, frames], the lowest frequency first."""
    n_fft = 2 ** round(np.log2(0.046 * rate))
    mono = torch.from_numpy(signal.mean(-1))
    hop = max(1, min(len(mono) // WIDTH, n_fft // 2))
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(mono, n_fft, hop, window=window, pad_mode="constant", return_complex=True).abs()
    bins = np.linspace(0, rate / 2, n_fft // 2 + 1)
    edges = np.linspace(0, _mel(rate / 2), HEIGHT + 2)
    hertz = 700 * (10 ** (edges / 2595) - 1)
    widths = np.maximum((hertz[2:] - hertz[:-2]) / 2, bins[1])  # at least a bin, so that no band is empty
    bands = np.clip(1 - np.abs(bins - hertz[1:-1, None]) / widths[:, None], 0, None)
    bands = torch.from_numpy(bands / bands.sum(1, keepdims=True)).float()
    power = torch.nn.functional.adaptive_max_pool1d(bands @ spectrum.square(), min(WIDTH, spectrum.shape[-1]))
    return (10 * torch.log10(power / window.sum() ** 2 * 4 + 1e-18)).numpy()


def picture(signal: np.ndarray, rate: int) -> str:
    """A signal's mel spectrogram as a JPEG in base64."""
    from matplotlib.image import imsave

    file, decibels = io.BytesIO(), mel_spectrogram(signal, rate)[::-1]
    imsave(file, decibels, cmap=COLOUR_MAP, vmin=FLOOR, vmax=0.0, format="jpg", pil_kwargs={"quality": 80})
    return base64.b64encode(file.getvalue()).decode()


def kilohertz(rate: int) -> list[tuple[str, float]]:
    """Ticks of the frequency axis: (label, percent of the height)."""
    return [(f"{k:g}", round(100 * _mel(1000 * k) / _mel(rate / 2), 1)) for k in (0.5, 2, 8) if 2000 * k < 0.9 * rate]


def times(seconds: float) -> list[tuple[str, float]]:
    """Ticks of the time axis, at most eleven: (label, percent of the width)."""
    step = next(step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 600, seconds) if seconds <= 10 * step)
    return [(f"{n * step:g}", round(100 * n * step / seconds, 2)) for n in range(int(seconds / step + 1e-9) + 1)]


def _mel(hertz: float | np.ndarray) -> Any:
    """The mel scale as HTK has it."""
    return 2595 * np.log10(1 + hertz / 700)
