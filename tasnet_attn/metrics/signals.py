"""Signals that are scored piece by piece: an hour of them need not lie in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

PIECE = 1 << 16  # samples taken at once


class Signals:
    """Signals [..., T] of which pieces are taken as they are asked for.

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
        """Of a tensor in memory."""
        return signals if isinstance(signals, cls) else cls(lambda a, b: signals[..., a:b], signals.shape[-1])  # type: ignore[index]

    def read(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Samples start .. stop (None: to the end), fewer where the signals end."""
        stop = self.length if stop is None else min(stop, self.length)
        return self._piece(min(start, stop), stop)

    def cut(self, start: int, stop: int) -> Signals:
        """Samples start .. stop as signals of their own; few of them are read here, once for all."""
        if stop - start <= PIECE:
            return Signals.of(self.read(start, stop))
        return Signals(lambda a, b: self._piece(start + a, start + b), stop - start)

    def map(self, change: Callable[[Tensor], Tensor]) -> Signals:
        """Every piece changed by a function that keeps its length."""
        return Signals(lambda a, b: change(self._piece(a, b)), self.length)

    def pieces(self) -> Iterator[Tensor]:
        """All samples in their order."""
        for start in range(0, self.length, PIECE):
            yield self.read(start, start + PIECE)
