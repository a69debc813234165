"""The system to evaluate, a model or an oracle: its estimates of a track, and its identity.

Shapes: S sources, C channels, T samples.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasnet_attn.audio.resampling import exactly, resample, resampled
from tasnet_attn.config.components import is_ours
from tasnet_attn.data.track import Track
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.spool import Spool
from tasnet_attn.files import digest
from tasnet_attn.inference.segments import Stream, pick_device
from tasnet_attn.metrics.signals import Signals


class System:
    """A model or an oracle; arguments as for `evaluate`."""

    def __init__(
        self,
        model: Any,
        device: str,
        segment: float | None,
        overlap: float,
        order_by_references: bool,
        scored_rate: int | None = None,
    ) -> None:
        self.scored_rate = scored_rate
        self.rate: int | None = getattr(model, "sample_rate", None)  # an oracle may have any
        self.model, self.options, self.order_by_references = model, (segment, overlap), order_by_references
        self.device = pick_device(device)
        offered = ("sources", "sample_rate", "interchangeable", "forward")
        self.is_model = all(hasattr(model, name) for name in offered)  # otherwise it is called with the references
        self.interchangeable = getattr(model, "interchangeable", False)
        self.stamp = repr(model)
        if self.is_model:
            what = getattr(model, "config", self.stamp)
            weights: dict[str, Tensor] = getattr(model, "state_dict", dict)()
            classes = written(getattr(model, "modules", list)())
            self.stamp = fingerprint(what, weights, segment, overlap, order_by_references, *classes)

    def read(self, track: Track, mixture: Spool, references: Spool) -> tuple[list[str], int]:
        """Store a track's mixture and its references in the model's order; returns their names and the scored rate."""
        sources = list(getattr(self.model, "sources", track.sources))
        which = [track.sources.index(source) for source in sources]
        rate = self.scored_rate or track.sample_rate
        for block in resampled(self._checked(track, which), track.sample_rate, rate):
            mixture.write(block[0])
            references.write(block[1:])
        if 0 in (mixture.length, *mixture.lead):
            raise UserError(f"{track.name}: has no samples")
        return sources, rate

    def _checked(self, track: Track, which: list[int]) -> Iterator[Tensor]:
        """Blocks [1 + S, C, t]: the mixture, then the references."""
        for block in track.blocks():
            for what, signal in zip(("mixture", "references"), block, strict=True):
                if not signal.isfinite().all():
                    raise UserError(f"{track.name}: its {what} contain NaN or infinite samples; repair the data")
            if block[1].shape[1:] != block[0].shape:
                shapes = f"mixture {list(block[0].shape)}, references {list(block[1].shape)}"
                raise UserError(f"{track.name}: mixture and references differ in length or channels: {shapes}")
            yield torch.cat([block[0][None], block[1][which]])

    def estimate(self, name: str, rate: int, mixture: Signals, references: Signals, estimates: Spool) -> None:
        """Store the estimates [S, C, T] of a track at the rate of mixture and references."""
        if self.rate in (None, rate) or self.is_model and not self.order_by_references:
            blocks = self._blocks(rate, mixture, references)
        else:  # the references are needed at the model's rate too
            mixed, alone = (Signals.of(resample(x.read(), rate, self.rate)) for x in (mixture, references))
            blocks = resampled(self._blocks(self.rate, mixed, alone), self.rate, rate)
            blocks = exactly(blocks, mixture.length)
        for block in blocks:
            if not block.isfinite().all():
                raise UserError(f"{name}: the system's estimates have NaN or infinite samples; its training diverged")
            estimates.write(block)
        if estimates.signals().shape != references.shape:
            shapes = f"{list(estimates.signals().shape)}, not {list(references.shape)} like the references"
            raise UserError(f"{name}: the system's estimates are {shapes}")

    def _blocks(self, sample_rate: int, mixture: Signals, references: Signals) -> Iterator[Tensor]:
        if self.is_model:
            stream = Stream(self.model, sample_rate, *self.options, str(self.device))
            known = references if self.order_by_references else None
            return stream.run(mixture.pieces, mixture.length, known)
        if hasattr(self.model, "blocks"):
            return self.model.blocks(mixture, references)
        return iter([self.model(mixture.read(), references.read())])


def written(parts: Iterable[object]) -> list[str]:
    """Digests of the files that define the classes of others, so that what a changed class made is made again."""
    theirs = {type(part).__module__ for part in parts if not is_ours(type(part))}
    files = (getattr(sys.modules[name], "__file__", None) for name in theirs if not name.startswith("torch."))
    return sorted(digest([Path(file).read_bytes()]) for file in files if file)


def fingerprint(*parts: Any) -> str:
    """A digest of tensors, signals, mappings of them, and objects with a stable `repr`."""
    return digest(_pieces(parts), size=16)


def _pieces(parts: Any) -> Iterator[Any]:
    for part in parts:
        for name, content in part.items() if isinstance(part, dict) else [("", part)]:
            yield str(name)
            if isinstance(content, (Tensor, Signals)):
                yield repr(tuple(content.shape))
                for piece in content.pieces() if isinstance(content, Signals) else [content.detach()]:
                    yield repr(piece.dtype)
                    yield piece.cpu().contiguous().view(-1).view(torch.uint8).numpy().data
            else:
                yield repr(content)
