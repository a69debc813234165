"""What one listens to in a report: excerpts, spectrograms, and players that switch between signals."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.results import file_name

WIDTH, HEIGHT = 640, 128  # of a spectrogram, pixels
FLOOR = -90.0  # dB below full scale that is black


class Listening:
    """Collects the players of a page and the audio that they share.

    Args:
        seconds: of an excerpt; the part where the quietest source is loudest is taken.

    Attributes:
        audio: {key: {"rate", "flac" (base64)}}.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.audio: dict[str, dict[str, Any]] = {}

    def player(self, track: str, folders: dict[str, Path], sources: Sequence[str]) -> dict[str, Any]:
        """A player for a track: mixture, and for each source the reference and every system's estimate.

        Args:
            track: its name.
            folders: {system: folder of an evaluation} that kept the track's audio.
            sources: their names.

        Returns:
            "track", "seconds" (of the excerpt), "signals" ("key" in `audio`, "label", "picture"), "about".
        """
        first = next(iter(folders.values()))
        files = {"mixture": _file(first, track, "mixture")}
        for source in sources:
            files[f"{source}: reference"] = _file(first, track, f"{source}.reference")
            for system, folder in folders.items():
                label = f"{source}: {system}" if len(folders) > 1 else f"{source}: estimate"
                files[label] = _file(folder, track, source)
        rate, signals = _read(files)
        start, stop = self._excerpt([x for label, x in signals.items() if label.endswith(": reference")], rate)
        peak = max(1.0, max(float(np.abs(x[start:stop]).max()) for x in signals.values()))
        shown = []
        for label, signal in signals.items():
            key, part = str(len(self.audio)), signal[start:stop] / peak
            self.audio[key] = {"rate": rate, "flac": _flac(part, rate)}
            shown.append({"key": key, "label": label, "picture": _spectrogram(part)})
        about = f"{start / rate:.1f} to {stop / rate:.1f} s; spectrogram 0 to {rate / 2000:g} kHz, dark is {FLOOR:g} dB"
        about += f"; turned down by {20 * np.log10(peak):.1f} dB, so that nothing clips" if peak > 1 else ""
        return {"track": track, "seconds": (stop - start) / rate, "signals": shown, "about": about}

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
    found = sorted((folder / "audio" / file_name(track)).glob(f"{_literal(file_name(name))}.*"))
    found = [file for file in found if file.stem == file_name(name)]
    if len(found) != 1:
        raise UserError(f"{folder / 'audio' / file_name(track)}: holds {len(found)} files for {name!r}; evaluate again")
    return found[0]


def _literal(name: str) -> str:
    """For glob: brackets taken literally."""
    return "".join(f"[{letter}]" if letter in "[?*" else letter for letter in name)


def _read(files: dict[str, Path]) -> tuple[int, dict[str, np.ndarray]]:
    import soundfile

    signals, rates = {}, set()
    for label, file in files.items():
        signals[label], rate = soundfile.read(file, dtype="float32", always_2d=True)
        rates.add((rate, signals[label].shape))
    if len(rates) != 1:
        folder = next(iter(files.values())).parent
        raise UserError(
            f"{folder}: its files differ in rate, length or channels, or from other systems'; evaluate again"
        )
    return rates.pop()[0], signals


def _flac(signal: np.ndarray, rate: int) -> str:
    """[T, C] as 16-bit FLAC, which all browsers read, in base64."""
    import soundfile

    whole = np.clip(np.round(signal * 32768.0), -32768, 32767).astype(np.int16)  # soundfile's own scale is 32767
    file = io.BytesIO()
    soundfile.write(file, whole, rate, "PCM_16", format="FLAC")
    return base64.b64encode(file.getvalue()).decode()


def _spectrogram(signal: np.ndarray) -> str:
    """The channels' mean of [T, C] as a PNG in base64: dB, the lowest frequency at the bottom."""
    import torch
    from matplotlib.image import imsave

    n_fft = 1024
    mono = torch.from_numpy(signal.mean(-1))
    hop = max(1, len(mono) // WIDTH)
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(mono, n_fft, hop, window=window, pad_mode="constant", return_complex=True).abs()
    pixels = torch.nn.functional.adaptive_max_pool2d(spectrum[None], (HEIGHT, min(WIDTH, spectrum.shape[-1])))[0]
    decibels = 20 * torch.log10(pixels / window.sum() * 2 + 1e-9)
    file = io.BytesIO()
    imsave(file, decibels.flip(0).numpy(), cmap="magma", vmin=FLOOR, vmax=0.0, format="png")
    return base64.b64encode(file.getvalue()).decode()
