"""Signals on disk during scoring: an hour of references and estimates need not fit into memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tasnet_attn.files import touching
from tasnet_attn.metrics.signals import Signals


class Spool:
    """Blocks [..., t] in a file, appended one by one; pickled as the file's path.

    Args:
        path: the file; its owner removes it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.length = path, 0
        self.lead: tuple[int, ...] = (0,)
        self.dtype = "float32"

    def write(self, block: Tensor) -> None:
        """Add a block of the same leading dimensions and type."""
        samples = block.detach().cpu().movedim(-1, 0).contiguous().numpy()
        self.lead, self.dtype, self.length = samples.shape[1:], samples.dtype.str, self.length + len(samples)
        with touching(self.path), self.path.open("ab") as file:
            file.write(samples.data)

    def signals(self) -> Signals:
        """The signal."""
        return Signals(self._piece, self.length)

    def _piece(self, start: int, stop: int) -> Tensor:
        size = int(np.prod(self.lead))
        offset = start * size * np.dtype(self.dtype).itemsize
        with touching(self.path):
            samples = np.fromfile(self.path, self.dtype, (stop - start) * size, offset=offset)
        return torch.from_numpy(samples.reshape(-1, *self.lead)).movedim(0, -1).contiguous()
