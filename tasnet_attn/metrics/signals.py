"""Signals scored piece by piece: an hour of them need not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

PIECE = 1 << 16  # samples per piece


class Signals:
    """Signals [..., T] read in pieces on demand.

    Args:
        piece: samples start .. stop, [..., stop - start].
        length: T.

    Attributes:
        shape: [..., T].
        device: where the pieces are.
    """

    def __init__(self, piece: Callable[[int, int], Tensor], length: int) -> None:
        self._piece, self.length = piece, length
        empty = piece(0, 0)
        self.shape, self.device = torch.Size([*empty.shape[:-1], length]), empty.device

    @classmethod
    def of(cls, signals: Tensor | Signals) -> Signals:
        """Signals from a tensor in memory."""
        return signals if isinstance(signals, cls) else cls(lambda a, b: signals[..., a:b], signals.shape[-1])  # type: ignore[index]

    def read(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Samples start .. stop (None: to the end), fewer at the end of the signals."""
        stop = self.length if stop is None else min(stop, self.length)
        return self._piece(min(start, stop), stop)

    def cut(self, start: int, stop: int) -> Signals:
        """Samples start .. stop as `Signals`; a short part is read here, only once."""
        if stop - start <= PIECE:
            return Signals.of(self.read(start, stop))
        return Signals(lambda a, b: self._piece(start + a, start + b), stop - start)

    def map(self, change: Callable[[Tensor], Tensor]) -> Signals:
        """The signals with a function applied to every piece that keeps its length."""
        return Signals(lambda a, b: change(self._piece(a, b)), self.length)

    def pieces(self) -> Iterator[Tensor]:
        """All pieces in order."""
        for start in range(0, self.length, PIECE):
            yield self.read(start, start + PIECE)
