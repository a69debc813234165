"""What a track is: a song or an utterance with its references, read by segment."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor


class Track(ABC):
    """One song or utterance with its references.

    Attributes:
        name: unique in its split.
        sources: names, in the order of `read`.
        sample_rate: Hz.
        length: samples.
        channels: how many.
        files: what it is read from; errors name the first.
        variant: what beside files and sources decides what `read` gives, so that decoded copies can tell.
    """

    name: str
    sources: list[str]
    sample_rate: int
    length: int
    channels: int = 1
    files: Sequence[Path] = ()
    variant: object = None

    def __str__(self) -> str:
        return str(self.files[0]) if self.files else self.name

    @abstractmethod
    def read(self, start: int = 0, length: int | None = None) -> tuple[Tensor, Tensor]:
        """Samples start .. start + length (None: to the end): mixture [C, T], references [S, C, T]."""

    def read_source(self, which: int, start: int, length: int) -> Tensor:
        """Reference number `which` alone, [C, length]; override it where that reads less."""
        return self.read(start, length)[1][which]

    def speaker(self, which: int) -> str | None:
        """Whose voice source number `which` is; None: nobody that another source could be. Remixes ask for it."""
        return None

    def read_rest(self, start: int, length: int) -> Tensor:
        """What a mixture holds beside the sources, noise for example, [C, length] or a scalar 0."""
        return torch.zeros(())
