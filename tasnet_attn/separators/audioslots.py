"""AudioSlots: from a spectrogram to one embedding for each source, and from each embedding to a spectrogram."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasnet_attn.errors import at_least
from tasnet_attn.separators.base import Separator
from tasnet_attn.separators.resnet import ResNet
from tasnet_attn.separators.slots import QueryTransformer, Slots


class AudioSlots(Separator):
    """ResNet encoder, slots, spatial broadcast decoder; the stages are magnitudes in the encoder's domain, |X|**0.3.

    With one source and clean speech it is the paper's autoencoder (`evaluation.oracles.Autoencoder`). F and L may have
    any size; the paper's are 256 x 64 (0.5 s) and 256 x 128 (1 s).

    Args:
        n_features: F.
        n_sources: S, the number of slots.
        encoder: from spectrogram to a grid of features; None: `ResNet()`, ResNet-34.
        slots: from the grid to slots; None: `QueryTransformer()`, the paper's.
        decoder_hidden: width of the MLP that decodes a slot at a position.
        decoder_layers: its linear layers, at least 2.
        bands: octaves of the Fourier position code, sine and cosine of 2**k pi x for each axis.
        token_positions: the grid's tokens get the position code too.
        chunk: frames; longer inputs are cut into chunks of this length, and the slots of a chunk are the initial
            queries of the next, so that the sources keep their order (the paper's future work); None: all frames are
            one chunk.
        output: "linear", or "softplus" to exclude negative magnitudes (heads treat those as zero).

    `encoder` and `slots` become parts of the separator: give each separator its own.

    Source: Reddy et al. 2023, section 2. It does not state the MLP, the bands, the tokens' code or the last
    non-linearity: the defaults are ours.
    """

    def __init__(
        self,
        n_features: int,
        n_sources: int,
        encoder: ResNet | None = None,
        slots: Slots | None = None,
        decoder_hidden: int = 512,
        decoder_layers: int = 4,
        bands: int = 8,
        token_positions: bool = True,
        output: Literal["linear", "softplus"] = "linear",
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        if decoder_layers < 2:
            raise ValueError(f"decoder_layers {decoder_layers} must be at least 2")
        if output not in ("linear", "softplus"):
            raise ValueError(f"output {output!r} is neither 'linear' nor 'softplus'")
        at_least(1, chunk=chunk)
        self.bands, self.chunk = bands, chunk
        self.encoder = encoder or ResNet()
        self.slots = slots or QueryTransformer()
        width = self.slots.width
        self.to_tokens = nn.Linear(self.encoder.channels, width)
        self.token_code = nn.Linear(4 * bands, width, bias=False) if token_positions else None
        self.queries = nn.Parameter(torch.randn(n_sources, width))
        self.decoder = SpatialBroadcast(width, 4 * bands, decoder_hidden, decoder_layers)
        self.output = nn.Softplus() if output == "softplus" else nn.Identity()

    def forward(self, features: Tensor) -> list[Tensor]:
        if self.chunk is None:
            return [self._decoded(self.embed(features), *features.shape[1:])]
        slots, magnitudes = None, []
        for part in features.split(self.chunk, dim=-1):
            slots = self.embed(F.pad(part, (0, self.chunk - part.shape[-1])), slots)
            magnitudes.append(self._decoded(slots, features.shape[1], self.chunk))
        return [torch.cat(magnitudes, dim=-1)[..., : features.shape[-1]]]

    def embed(self, features: Tensor, before: Tensor | None = None) -> Tensor:
        """The slots, embeddings of the sources: [N, F, L] -> [N, S, D]; `before`: those of the previous chunk."""
        grid = self.encoder(features.unsqueeze(1))
        tokens = self.to_tokens(grid.flatten(2).transpose(1, 2))  # [N, M, D]
        if self.token_code is not None:
            tokens = tokens + self.token_code(self._code(*grid.shape[2:]).flatten(0, 1))
        queries = self.queries.expand(features.shape[0], -1, -1) if before is None else before
        return self.slots(queries, tokens)

    def _decoded(self, slots: Tensor, bins: int, frames: int) -> Tensor:
        return self.output(self.decoder(slots, self._code(bins, frames)))

    def _code(self, bins: int, frames: int) -> Tensor:
        return fourier_code(bins, frames, self.bands, self.queries.device).to(self.queries.dtype)


class SpatialBroadcast(nn.Module):
    """Every pair of slot and position code goes through one MLP.

    The first layer is linear, so it splits exactly: W [s; p] = W_s s + W_p p. The copies [.., F, L, D + E] are never
    built; the largest tensor is [N, S, F, L, hidden].

    Source: Watters et al. 2019; Reddy et al. 2023, section 2.
    """

    def __init__(self, width: int, code: int, hidden: int, n_layers: int) -> None:
        super().__init__()
        self.from_slot = nn.Linear(width, hidden)
        self.from_code = nn.Linear(code, hidden, bias=False)
        fan_in = width + code  # both are parts of one layer and are initialised like it
        for weight in (self.from_slot.weight, self.from_code.weight):
            nn.init.uniform_(weight, -(fan_in**-0.5), fan_in**-0.5)
        layers: list[nn.Module] = [nn.ReLU()]
        for _ in range(n_layers - 2):
            layers += [nn.Linear(hidden, hidden), nn.ReLU()]
        self.rest = nn.Sequential(*layers, nn.Linear(hidden, 1))

    def forward(self, slots: Tensor, code: Tensor) -> Tensor:
        """Slots [N, S, D], code [F, L, E] -> [N, S, F, L]."""
        return self.rest(self.from_slot(slots)[:, :, None, None] + self.from_code(code)).squeeze(-1)


def fourier_code(bins: int, frames: int, bands: int, device: torch.device | None = None) -> Tensor:
    """Sines and cosines of 2**k pi x, k < bands, for both axes scaled to (-1, 1): [bins, frames, 4 * bands]."""
    rates = math.pi * 2.0 ** torch.arange(bands, device=device)
    codes = []
    for length in (bins, frames):
        places = (torch.arange(length, device=device) + 0.5) * (2 / length) - 1
        angles = places[:, None] * rates
        codes.append(torch.cat([angles.sin(), angles.cos()], dim=-1))
    frequency, time = codes
    return torch.cat([frequency[:, None].expand(-1, frames, -1), time.expand(bins, -1, -1)], dim=-1)
