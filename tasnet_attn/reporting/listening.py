"""The players of a report: excerpts, and switching between signals."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasnet_attn.audio import audio_info, read_audio
from tasnet_attn.audio.writing import excerpt_bytes
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.results import file_name, signal_names
from tasnet_attn.reporting.pictures import kilohertz, picture, times, waveform

REFERENCE = ": reference"  # ends the label of a reference


class Listening:
    """Collects the players of a page and the audio that they share.

    Args:
        seconds: of an excerpt, the part where the quietest source is loudest.
        format: "mp3" or "flac".

    Attributes:
        audio: {key: {"rate", "data" (base64)}}.
    """

    def __init__(self, seconds: float, format: str) -> None:
        self.seconds, self.format = seconds, format
        self.audio: dict[str, dict[str, Any]] = {}

    def player(self, title: str, files: dict[str, Path]) -> dict[str, Any]:
        """A player.

        Args:
            title: what is heard, for example the track's name.
            files: {label: sound file}, the mixture first; all of one rate, length and number of channels.

        Returns:
            "title", "seconds" (of the excerpt), "signals" ("key" in `audio`, "label", "wave": an SVG path, "picture": a
            JPEG), "about"; "kilohertz" and "times": the axes' ticks.

        Raises:
            UserError: the files differ.
        """
        rate, signals = _read(files)
        references = [signal for label, signal in signals.items() if label.endswith(REFERENCE)]
        start, stop = self._excerpt(references or list(signals.values())[1:], rate)
        loudest = max(float(np.abs(x[start:stop]).max()) for x in signals.values()) or 1.0
        peak = max(1.0, loudest)
        shown = []
        for label, signal in signals.items():
            key, part = str(len(self.audio)), signal[start:stop] / peak
            data, written = excerpt_bytes(torch.from_numpy(part).T, rate, self.format)
            self.audio[key] = {"rate": written, "data": base64.b64encode(data).decode()}
            wave = waveform(signal[start:stop] / loudest)
            shown.append({"key": key, "label": label, "wave": wave, "picture": picture(part, rate)})
        seconds = (stop - start) / rate
        about = f"{start / rate:.1f} to {stop / rate:.1f} s; all waveforms to {_decibels(loudest)} full scale"
        about += f"; turned down by {_decibels(peak)}, to avoid clipping" if peak > 1 else ""
        axes = {"kilohertz": kilohertz(rate), "times": times(seconds)}
        return {"title": title, "seconds": seconds, "signals": shown, "about": about, **axes}

    def _excerpt(self, sources: Sequence[np.ndarray], rate: int) -> tuple[int, int]:
        """Start and end in samples of the part where the quietest source is loudest."""
        length = len(sources[0])
        if length <= self.seconds * rate:
            return 0, length
        size = max(1, round(self.seconds * rate))
        sums = np.cumsum([[0, *np.square(x).sum(-1)] for x in sources], axis=-1)
        starts = np.arange(0, length - size + 1, rate // 2 or 1)
        best = int(starts[(sums[:, starts + size] - sums[:, starts]).min(0).argmax()])
        return best, best + size


def has_audio(folder: Path, track: str) -> bool:
    """Whether an evaluation kept a track's audio."""
    return (folder / "audio" / file_name(track)).is_dir()


def files_of(track: str, systems: dict[str, tuple[Path, list[str]]]) -> dict[str, Path]:
    """A track's mixture, and for each source the reference and the estimates of the systems that have it, by label.

    Args:
        track: its name.
        systems: {name: folder of an evaluation that kept the track's audio, names of its sources}.

    Raises:
        UserError: a file is missing.
    """
    files: dict[str, Path] = {}
    for source in dict.fromkeys(source for _, sources in systems.values() for source in sources):
        for system, (folder, sources) in systems.items():
            if source not in sources:
                continue
            names, which = signal_names(sources), sources.index(source)
            label = f"{source}: {system}" if len(systems) > 1 else f"{source}: estimate"
            wanted = {"mixture": names[0], f"{source}{REFERENCE}": names[1 + which]}
            for key, name in (wanted | {label: names[1 + len(sources) + which]}).items():
                if key not in files:
                    files[key] = _file(folder, track, name)
    return files


def _file(folder: Path, track: str, name: str) -> Path:
    found = [file for file in (folder / "audio" / file_name(track)).iterdir() if file.stem == name]
    if len(found) != 1:
        raise UserError(f"{folder / 'audio' / file_name(track)}: has {len(found)} files for {name!r}; evaluate again")
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
