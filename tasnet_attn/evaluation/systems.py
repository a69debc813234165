"""What is evaluated, a model or an oracle: the estimates of a track, and what tells it from another.

Shapes: S sources, C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tasnet_attn.data.track import Track
from tasnet_attn.errors import UserError
from tasnet_attn.files import digest
from tasnet_attn.inference.segments import pick_device, separate


class System:
    """A model or an oracle; arguments as for `evaluate`."""

    def __init__(
        self, model: Any, device: str, segment: float | None, overlap: float, order_by_references: bool
    ) -> None:
        self.model, self.options, self.order_by_references = model, (segment, overlap), order_by_references
        self.device = pick_device(device)
        offered = ("sources", "sample_rate", "interchangeable", "forward")
        self.is_model = all(hasattr(model, name) for name in offered)  # else it is called with the references
        self.interchangeable = getattr(model, "interchangeable", False)
        self.stamp = repr(model)
        if self.is_model:
            what = getattr(model, "config", self.stamp)
            weights: dict[str, Tensor] = getattr(model, "state_dict", dict)()
            self.stamp = fingerprint(what, weights, segment, overlap, order_by_references)

    def read(self, track: Track) -> tuple[Tensor, Tensor, list[str]]:
        """Mixture, references in the model's order, and their names."""
        mixture, references = track.read()
        sources = list(getattr(self.model, "sources", track.sources))
        references = references[[track.sources.index(source) for source in sources]]
        for what, signal in (("mixture", mixture), ("references", references)):
            if not signal.isfinite().all():
                raise UserError(f"{track.name}: its {what} hold NaN or infinite samples; repair the data")
        if references.shape[1:] != mixture.shape:
            shapes = f"mixture {list(mixture.shape)}, references {list(references.shape)}"
            raise UserError(f"{track.name}: mixture and references differ in length or channels: {shapes}")
        if 0 in mixture.shape:
            raise UserError(f"{track.name}: has no samples")
        return mixture, references, sources

    def estimates(self, track: Track, mixture: Tensor, references: Tensor) -> Tensor:
        """[S, C, T]."""
        if self.is_model:
            known = references if self.order_by_references else None
            separated = separate(self.model, mixture, track.sample_rate, *self.options, str(self.device), known)
            estimates = torch.stack([separated[source] for source in self.model.sources])
        else:
            estimates = self.model(mixture, references)
        if estimates.shape != references.shape:
            shapes = f"{list(estimates.shape)}, not {list(references.shape)} like the references"
            raise UserError(f"{track.name}: the system's estimates are {shapes}")
        if not estimates.isfinite().all():
            raise UserError(f"{track.name}: the system's estimates hold NaN or infinite samples; its training diverged")
        return estimates


def fingerprint(*parts: Any) -> str:
    """A digest of tensors, of mappings of them, and of what has a stable `repr`."""
    return digest(_pieces(parts), size=16)


def _pieces(parts: Any) -> Iterator[Any]:
    for part in parts:
        for name, content in part.items() if isinstance(part, dict) else [("", part)]:
            yield str(name)
            if isinstance(content, Tensor):
                yield repr((content.dtype, tuple(content.shape)))
                yield content.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
            else:
                yield repr(content)
