"""Augmentation of training segments; the draws are a pure function of the given random generator."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PROBABILITIES = ("remix", "swap", "polarity", "reverb", "noise")
SNR = (10.0, 40.0)  # dB, of mixture to noise, drawn uniformly
COLOUR = (0.0, 2.0)  # slope of the noise's power over frequency, drawn uniformly too: f**0 is white, f**-2 brown
# ranges of a room's volume, distances and time to fall by 60 dB, drawn uniformly
VOLUME, RT60, DISTANCE = (20.0, 80.0), (0.15, 0.5), (0.3, 2.0)  # cubic metres, seconds, metres
SOUND = 343.0  # metres per second


class Augmentation(NamedTuple):
    """Augmentation of the sources of a training segment, each drawn independently; 0 turns a part off.

    Attributes:
        remix: probability that a segment is a new mixture, every source from an independently drawn segment.
        gain: dB; every source is amplified by -gain to gain, drawn uniformly.
        swap: probability that a source's channels are rotated by a random number of places (stereo: swapped).
        polarity: probability that a source's sign is flipped.
        speed: every source is played faster by a factor between 1 / (1 + speed) and 1 + speed, drawn uniformly in its
            logarithm; this shifts pitch and formants.
        reverb: probability that the sources of a segment get the reverberation of a small room, see `room`.
        noise: probability that a mixture gets noise of a random colour, 10 to 40 dB below it; sources get none.
    """

    remix: float = 0.0
    gain: float = 0.0
    swap: float = 0.0
    polarity: float = 0.0
    speed: float = 0.0
    reverb: float = 0.0
    noise: float = 0.0

    def check(self) -> Augmentation:
        """Itself.

        Raises:
            ValueError: not a probability, a negative gain, or an invalid speed.
        """
        for name in PROBABILITIES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} is a probability, between 0 and 1")
        if self.gain < 0:
            raise ValueError(f"gain {self.gain} dB is a range, -gain to gain; it cannot be negative")
        if not 0 <= self.speed <= 1:
            raise ValueError(f"speed {self.speed} makes factors of 1 / (1 + speed) to 1 + speed; it is between 0 and 1")
        return self

    def describe(self) -> str:
        """The parts that are on, with their values, then the names of those that are off."""
        on = [f"{name} {value:g}{' dB' * (name == 'gain')}" for name, value in self._asdict().items() if value]
        off = [name for name, value in self._asdict().items() if not value]
        return (", ".join(on) or "none") + (f"; off: {', '.join(off)}" if off else "")

    def factors(self, sources: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """The speed factor of each source, [sources]."""
        return np.exp(rng.uniform(-1, 1, sources) * np.log1p(self.speed))

    def change(self, references: Tensor, rng: np.random.Generator) -> Tensor:
        """References [S, C, T] after gain, swap and polarity; unchanged if they are off.

        The reader does `remix` and `speed`; `reverb` and `noise` have their own functions.
        """
        sources, channels, _ = references.shape
        if self.gain:
            decibels = torch.from_numpy(rng.uniform(-self.gain, self.gain, sources)).float()
            references = references * 10 ** (decibels / 20)[:, None, None]
        if self.swap and channels > 1:
            places = rng.integers(1, channels, sources) * (rng.random(sources) < self.swap)
            references = torch.stack([x.roll(int(n), 0) for x, n in zip(references, places, strict=True)])
        if self.polarity:
            signs = torch.from_numpy(np.where(rng.random(sources) < self.polarity, -1, 1))
            references = references * signs[:, None, None]
        return references

    def place(self, references: Tensor, sample_rate: int, rng: np.random.Generator) -> Tensor:
        """References [S, C, T] in a small room, or unchanged."""
        if rng.random() >= self.reverb:
            return references
        from scipy.signal import fftconvolve

        responses = room(references.shape[:2], sample_rate, rng).astype(np.float32)
        return torch.from_numpy(fftconvolve(references.numpy(), responses, axes=-1)[..., : references.shape[-1]].copy())

    def disturb(self, mixture: Tensor, rng: np.random.Generator) -> Tensor:
        """A mixture [C, T] with noise, or unchanged."""
        if rng.random() >= self.noise:
            return mixture
        sound = torch.from_numpy(coloured(tuple(mixture.shape), rng.uniform(*COLOUR), rng)).to(mixture)
        return mixture + sound * mixture.square().mean().sqrt() * 10 ** (-rng.uniform(*SNR) / 20)


def coloured(shape: tuple[int, ...], slope: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Gaussian noise [..., T] whose power falls as frequency**-slope, with mean power 1 and mean 0.

    Source: Timmer & Koenig 1995, "On generating power law noise".
    """
    spectrum = np.fft.rfft(rng.standard_normal(shape))
    spectrum[..., 1:] *= np.arange(1, spectrum.shape[-1]) ** (-slope / 2)
    spectrum[..., 0] = 0
    noise = np.fft.irfft(spectrum, shape[-1])
    return noise / np.sqrt(np.square(noise).mean() + 1e-20)


def room(shape: tuple[int, ...], sample_rate: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Impulse responses [S, C, t] of sources in one small room: the direct sound at time 0, then a diffuse field.

    All sources share the room; each has its own distance, each channel its own field. The field begins after a mean
    free path; its energy is the direct sound's times (distance / critical distance)^2.

    Source: Polack 1988 (exponentially decaying Gaussian noise); Kuttruff, Room Acoustics (mean free path and critical
    distance).
    """
    volume, seconds = rng.uniform(*VOLUME), rng.uniform(*RT60)
    distances = rng.uniform(*DISTANCE, shape[0])
    surface = 6 * volume ** (2 / 3)  # a cube's
    first = round(4 * volume / surface / SOUND * sample_rate)
    times = np.arange(max(1, round(seconds * sample_rate)))
    field = rng.standard_normal((*shape, len(times))) * 10 ** (-3 * times / (seconds * sample_rate))
    field /= np.sqrt(np.square(field).sum(-1, keepdims=True))
    critical = 0.057 * np.sqrt(volume / seconds)
    direct = np.zeros((*shape, 1 + first))
    direct[..., 0] = 1
    return np.concatenate([direct, field * (distances / critical)[:, None, None]], axis=-1)
