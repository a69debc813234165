"""Augmentation of training segments; what is drawn is a pure function of the random generator that it is handed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Augmentation(NamedTuple):
    """What is done to the sources of a training segment, each drawn for itself; 0 turns a part off.

    Attributes:
        remix: probability that a segment is a new mixture, every source from an independently drawn segment.
        gain: dB; every source is amplified by -gain to gain, drawn uniformly.
        swap: probability that a source's channels are rotated by a random number of places (stereo: swapped).
        polarity: probability that a source's sign is turned.
    """

    remix: float = 0.0
    gain: float = 0.0
    swap: float = 0.0
    polarity: float = 0.0

    def check(self) -> Augmentation:
        """Itself.

        Raises:
            ValueError: no probability, or a negative gain.
        """
        for name in ("remix", "swap", "polarity"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} is a probability, between 0 and 1")
        if self.gain < 0:
            raise ValueError(f"gain {self.gain} dB is a range, -gain to gain; it cannot be negative")
        return self

    def describe(self) -> str:
        """What is on, with its value; the rest is named as off."""
        on = [f"{name} {value:g}{' dB' * (name == 'gain')}" for name, value in self._asdict().items() if value]
        off = [name for name, value in self._asdict().items() if not value]
        return (", ".join(on) or "none") + (f"; off: {', '.join(off)}" if off else "")

    def change(self, references: Tensor, rng: np.random.Generator) -> Tensor:
        """References [S, C, T] after gain, swap and polarity (itself if they are off); `remix` is the reader's."""
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
