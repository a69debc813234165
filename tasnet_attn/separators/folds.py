"""Folds: features to a plane with a short and a long axis, and the plane to masks.

Shapes: N batch x channels, F features, L frames, S sources, D width; J places along the long axis, K along the short.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasnet_attn.config import Configurable
from tasnet_attn.errors import at_least

EPS = 1e-8


def standardised(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Mean 0 and variance 1 over some axes; constants become 0."""
    centred = x - x.mean(dims, keepdim=True)
    return centred / (centred.square().mean(dims, keepdim=True) + EPS).sqrt()


class GlobalNorm(nn.Module):
    """LayerNorm over all axes of an item, with gain and offset per channel, the last axis ("gLN").

    Source: Luo & Mesgarani 2019, arXiv 1809.07454, section II.B.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """[N, ..., D] -> [N, ..., D]."""
        return standardised(x, tuple(range(1, x.dim()))) * self.weight + self.bias


class Fold(Configurable, nn.Module):
    """Features to a plane and a plane to masks.

    Attributes:
        causal: place j of the long axis is frame j and needs no later one.
        n_places: K.
    """

    abstract = True
    given = ("n_features", "n_sources", "width")
    causal = False
    n_places: int

    def forward(self, features: Tensor) -> Tensor:
        """[N, F, L] -> [N, J, K, D]."""
        raise NotImplementedError

    def unfolded(self, plane: Tensor, features: Tensor) -> Tensor:
        """[N, J, K, D], and the features that it was made from -> masks [N, S, F, L]."""
        raise NotImplementedError


class Bands(Fold):
    """Every frame in bands of neighbouring bins, narrow at low frequencies: K bands, J = L frames.

    Each band has its own map to D channels, and from its channels to its bins' masks. No norm follows the first map,
    which would remove a band's level. The maps' offsets are initialised at random (standard deviation 0.5), so that
    bands differ in silence.

    Args:
        n_features: F. An even number is taken as pairs, the two parts of complex bins, which are never split.
        n_sources: S.
        width: D.
        n_bands: K.
        warp: how fast bands widen; the mel scale's is Nyquist / 700 Hz: 5.7 at 8 kHz, 31.5 at 44.1 kHz.
        standardise: features over the whole "clip", or each "frame" separately, which is causal.
    """

    def __init__(
        self,
        n_features: int,
        n_sources: int,
        width: int,
        n_bands: int = 16,
        warp: float = 5.7,
        standardise: Literal["clip", "frame"] = "clip",
    ) -> None:
        super().__init__()
        at_least(1, n_bands=n_bands)
        if standardise not in ("clip", "frame"):
            raise ValueError(f"standardise {standardise!r} is neither 'clip' nor 'frame'")
        self.n_sources, self.n_places, self.causal = n_sources, n_bands, standardise == "frame"
        self.sizes = band_sizes(n_features, n_bands, warp)
        self.enter = nn.ModuleList(nn.Linear(size, width) for size in self.sizes)
        self.leave = nn.ModuleList(nn.Linear(width, n_sources * size) for size in self.sizes)
        for linear in self.enter:
            assert isinstance(linear, nn.Linear)
            nn.init.normal_(linear.bias, std=0.5)

    def forward(self, features: Tensor) -> Tensor:
        x = standardised(features.transpose(1, 2), (2,) if self.causal else (1, 2))  # [N, L, F]
        bands = zip(self.enter, x.split(self.sizes, dim=-1), strict=True)
        return torch.stack([enter(band) for enter, band in bands], dim=2)

    def unfolded(self, plane: Tensor, features: Tensor) -> Tensor:
        bands = zip(self.leave, plane.unbind(2), strict=True)
        masks = [leave(band).unflatten(-1, (self.n_sources, -1)) for leave, band in bands]  # [N, L, S, bins]
        return torch.cat(masks, dim=-1).permute(0, 2, 3, 1)


def band_sizes(n_features: int, n_bands: int, warp: float) -> list[int]:
    """Number of features in each band, in pairs if even; edges at ((1 + warp)^(k / K) - 1) / warp.

    Examples:
        >>> band_sizes(129, 8, 5.7)
        [6, 8, 10, 12, 16, 20, 25, 32]
    """
    if not warp > 0:
        raise ValueError(f"warp {warp} must be above 0")
    together = 2 if n_features % 2 == 0 else 1
    units = n_features // together
    if n_bands > units:
        raise ValueError(f"n_bands {n_bands} is more than there are bins, {units}")
    edges = [0]
    for k in range(1, n_bands + 1):
        edge = round(units * ((1 + warp) ** (k / n_bands) - 1) / warp)
        edges.append(min(max(edge, edges[-1] + 1), units - n_bands + k))
    return [together * (end - start) for start, end in zip(edges, edges[1:], strict=False)]


class Chunks(Fold):
    """Chunks of frames: K frames in each, J chunks. Masks are overlap-added and gated.

    Args:
        n_features: F.
        n_sources: S.
        width: D.
        size: K, frames in a chunk.
        hop: frames between chunks; None: half a chunk.

    Source: Luo et al. 2020, arXiv 1910.06379; chunks, gates and norm as in Asteroid's DPRNN.
    """

    def __init__(self, n_features: int, n_sources: int, width: int, size: int = 100, hop: int | None = None) -> None:
        super().__init__()
        at_least(1, size=size, hop=hop)
        self.n_sources, self.n_places, self.hop = n_sources, size, _hop(size, hop)
        self.norm, self.enter = GlobalNorm(n_features), nn.Linear(n_features, width)
        self.rectify, self.split = nn.PReLU(), nn.Linear(width, n_sources * width)
        self.content, self.gate = nn.Linear(width, width), nn.Linear(width, width)
        self.leave = nn.Linear(width, n_features, bias=False)

    @classmethod
    def meant(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments | {"hop": _hop(arguments["size"], arguments["hop"])}

    def forward(self, features: Tensor) -> Tensor:
        x = self.enter(self.norm(features.transpose(1, 2))).transpose(1, 2).unsqueeze(-1)  # [N, D, L, 1]
        chunks = F.unfold(x, (self.n_places, 1), padding=(self.n_places, 0), stride=(self.hop, 1))  # [N, D * K, J]
        return chunks.unflatten(1, (-1, self.n_places)).permute(0, 3, 2, 1)

    def unfolded(self, plane: Tensor, features: Tensor) -> Tensor:
        x = self.split(self.rectify(plane)).unflatten(-1, (self.n_sources, -1))  # [N, J, K, S, D]
        x = x.permute(0, 3, 4, 2, 1).flatten(0, 1).flatten(1, 2)  # [N * S, D * K, J]
        sizes = (self.n_places, 1), (1, 1), (self.n_places, 0), (self.hop, 1)
        x = F.fold(x, (features.shape[-1], 1), *sizes).squeeze(-1).transpose(1, 2)  # [N * S, L, D]
        masks = self.leave(torch.tanh(self.content(x)) * torch.sigmoid(self.gate(x)))
        return masks.unflatten(0, (-1, self.n_sources)).transpose(2, 3)


def _hop(size: int, hop: int | None) -> int:
    """The hop; None means half a chunk."""
    hop = max(1, size // 2) if hop is None else hop
    if hop > size:
        raise ValueError(f"hop {hop} is longer than a chunk of {size}: frames between them would be lost")
    return hop
