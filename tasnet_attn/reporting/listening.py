"""What one listens to in a report: excerpts, spectrograms, and players that switch between signals."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasnet_attn.audio import audio_info, read_audio
from tasnet_attn.audio.writing import excerpt_bytes
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.results import file_name, signal_names

WIDTH, HEIGHT = 640, 96  # of a spectrogram, pixels
FLOOR = -90.0  # dB below full scale that is black
WAVE = 320  # points of a waveform


class Listening:
    """Collects the players of a page and the audio that they share.

    Args:
        seconds: of an excerpt; the part where the quietest source is loudest is taken.
        format: "mp3" or "flac".

    Attributes:
        audio: {key: {"rate", "data" (base64)}}.
    """

    def __init__(self, seconds: float, format: str) -> None:
        self.seconds, self.format = seconds, format
        self.audio: dict[str, dict[str, Any]] = {}

    def player(self, track: str, folders: dict[str, Path], sources: Sequence[str]) -> dict[str, Any]:
        """A player for a track: mixture, and for each source the reference and every system's estimate.

        Args:
            track: its name.
            folders: {system: folder of an evaluation} that kept the track's audio.
            sources: their names.

        Returns:
            "track", "seconds" (of the excerpt), "signals" ("key" in `audio`, "label", "wave": an SVG path, "picture": a
            JPEG), "about"; "kilohertz" and "times": the axes' ticks, (label, percent of the height or width).
        """
        first, names = next(iter(folders.values())), signal_names(sources)
        files = {"mixture": _file(first, track, names[0])}
        references, estimates = names[1 : len(sources) + 1], names[len(sources) + 1 :]
        for source, reference, estimate in zip(sources, references, estimates, strict=True):
            files[f"{source}: reference"] = _file(first, track, reference)
            for system, folder in folders.items():
                label = f"{source}: {system}" if len(folders) > 1 else f"{source}: estimate"
                files[label] = _file(folder, track, estimate)
        rate, signals = _read(files)
        start, stop = self._excerpt([x for label, x in signals.items() if label.endswith(": reference")], rate)
        peak = max(1.0, max(float(np.abs(x[start:stop]).max()) for x in signals.values()))
        loudest = max(float(np.abs(x[start:stop]).max()) for x in signals.values()) or 1.0
        shown = []
        for label, signal in signals.items():
            key, part = str(len(self.audio)), signal[start:stop] / peak
            data, written = excerpt_bytes(torch.from_numpy(part).T, rate, self.format)
            self.audio[key] = {"rate": written, "data": base64.b64encode(data).decode()}
            wave = _waveform(signal[start:stop] / loudest)
            shown.append({"key": key, "label": label, "wave": wave, "picture": _spectrogram(part, rate)})
        about = (
            f"{start / rate:.1f} to {stop / rate:.1f} s of the track; all waveforms to {_decibels(loudest)} full scale"
        )
        about += f"; turned down by {_decibels(peak)}, so that nothing clips" if peak > 1 else ""
        seconds = (stop - start) / rate
        axes = {"kilohertz": _kilohertz(rate), "times": _times(seconds)}
        return {"track": track, "seconds": seconds, "signals": shown, "about": about, **axes}

    def _excerpt(self, references: Sequence[np.ndarray], rate: int) -> tuple[int, int]:
        """Start and end, samples: where the quietest reference is loudest."""
        length, size = len(references[0]), round(self.seconds * rate)
        if length <= size:
            return 0, length
        sums = np.cumsum([[0, *np.square(x).sum(-1)] for x in references], axis=-1)
        starts = np.arange(0, length - size + 1, rate // 2 or 1)
        best = int(starts[(sums[:, starts + size] - sums[:, starts]).min(0).argmax()])
        return best, best + size


def has_audio(folder: Path, track: str) -> bool:
    """Whether an evaluation kept a track's audio."""
    return (folder / "audio" / file_name(track)).is_dir()


def _file(folder: Path, track: str, name: str) -> Path:
    found = [file for file in (folder / "audio" / file_name(track)).iterdir() if file.stem == name]
    if len(found) != 1:
        raise UserError(f"{folder / 'audio' / file_name(track)}: holds {len(found)} files for {name!r}; evaluate again")
    return found[0]


def _read(files: dict[str, Path]) -> tuple[int, dict[str, np.ndarray]]:
    signals, rates = {}, set()
    for label, file in files.items():
        signals[label] = read_audio(file).T.numpy()
        rates.add((audio_info(file).sample_rate, signals[label].shape))
    if len(rates) != 1:
        folder = next(iter(files.values())).parent
        raise UserError(
            f"{folder}: its files differ in rate, length or channels, or from other systems'; evaluate again"
        )
    return rates.pop()[0], signals


def _decibels(amplitude: float) -> str:
    return f"{20 * np.log10(amplitude):.1f} dB"


def _waveform(signal: np.ndarray) -> str:
    """The channels' mean of [T, C] within +-1 as an SVG path in a box of WAVE x 100: its envelope, filled."""
    pieces = np.array_split(signal.mean(-1), min(WAVE, len(signal)))
    highs = [f"{x} {49 - 49 * float(piece.max()):.0f}" for x, piece in enumerate(pieces)]
    lows = [f"{x} {51 - 49 * float(piece.min()):.0f}" for x, piece in enumerate(pieces)]
    return f"M{'L'.join(highs + lows[::-1])}Z"


def _mel(hertz: float | np.ndarray) -> Any:
    """The mel scale as HTK has it."""
    return 2595 * np.log10(1 + hertz / 700)


def _kilohertz(rate: int) -> list[tuple[str, float]]:
    """Ticks of the frequency axis."""
    return [(f"{k:g}", round(100 * _mel(1000 * k) / _mel(rate / 2), 1)) for k in (0.5, 2, 8) if 2000 * k < 0.9 * rate]


def _times(seconds: float) -> list[tuple[str, float]]:
    """Ticks of the time axis, at most eleven."""
    step = next(step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 600, seconds) if seconds <= 10 * step)
    return [(f"{n * step:g}", round(100 * n * step / seconds, 2)) for n in range(int(seconds / step + 1e-9) + 1)]


def _spectrogram(signal: np.ndarray, rate: int) -> str:
    """The channels' mean of [T, C] as a JPEG in base64: dB over mel, the lowest frequency at the bottom."""
    from matplotlib.image import imsave

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
    decibels = 10 * torch.log10(power / window.sum() ** 2 * 4 + 1e-18)
    file = io.BytesIO()
    imsave(file, decibels.flip(0).numpy(), cmap="magma", vmin=FLOOR, vmax=0.0, format="jpg", pil_kwargs={"quality": 80})
    return base64.b64encode(file.getvalue()).decode()
