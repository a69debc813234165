"""What every encoder and decoder is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tasnet_attn.config import Configurable
from tasnet_attn.nn import steps

EPS = 1e-8


class Encoded(NamedTuple):
    """A mixture in the feature domain.

    Attributes:
        features: [N, F, L], real: what the separator sees.
        carrier: [N, F, L], or [N, 2, F, L] for real and imaginary part: what is masked; it has the signal's level.
        scale: [N, 1, L] or [N, 1, 1]: what the features were divided by; references are encoded with the mixture's.
    """

    features: Tensor
    carrier: Tensor
    scale: Tensor


class Encoder(Configurable, nn.Module):
    """From waveform [N, T] to `Encoded`.

    To stream, an encoder states `stride`, `lead` and `trail`, and writes `initial_state` and `step`.

    Attributes:
        n_features: F.
        parts: real numbers to a bin, one after the other in the features: 2 where bins are complex, which only heads
            that say so take.
        latency: input samples after an output sample that its frames see; None: unbounded.
        clip_scaled: the scale is one of a whole clip: code that cuts a clip measures it first by `clip_scale`.
        framed: the clip's frames are centred on multiples of a hop, so that windows of frames can be joined.
        stride: samples between frames.
        lead: samples that the first step takes beside whole strides.
        trail: zeros that are read behind the end: there are (T + trail) // stride frames, at least one.
    """

    abstract = True
    n_features: int
    parts = 1
    latency: int | None = None
    clip_scaled = False
    framed = False
    stride: int
    lead = 0
    trail: int

    def forward(self, waveform: Tensor, scale: Tensor | None = None) -> Encoded:
        """Encode; `scale` given: divide by it instead of measuring one."""
        raise NotImplementedError

    def clip_scale(self, blocks: Iterable[Tensor], length: int) -> Tensor:
        """The scale of a clip of `length` samples that comes in blocks [C, t]: [C, 1, 1].

        This one encodes the clip at once; an encoder that can measure it in bounded memory does so.
        """
        return self(torch.cat(list(blocks), dim=-1)).scale

    def n_frames(self, length: int) -> int:
        """Frames of a waveform of `length` samples."""
        return max(1, (length + self.trail) // self.stride)

    def initial_state(self, batch: int) -> Tensor:
        """The samples before the first, zeros [N, t]."""
        raise NotImplementedError

    def step(self, samples: Tensor, state: Tensor) -> tuple[Encoded, Tensor]:
        """The frames that the next samples complete, and the samples that later frames still need.

        Args:
            samples: [N, l * stride], in the first step [N, lead + l * stride]; l frames, at least one.
            state: as the step before returned it, [N, t]; t is the same after every step.
        """
        raise NotImplementedError

    @property
    def cannot_stream(self) -> str:
        """Why not, in words that follow its name; empty: it can."""
        if self.clip_scaled:
            return "divides by the maximum of the whole clip"
        return "" if steps(type(self)) and self.latency is not None else "has no step of bounded latency"


class Decoder(Configurable, nn.Module):
    """From masked carriers [N, S, F, L] or [N, S, 2, F, L] to [N, S, length].

    Attributes:
        delay: samples that the first steps put before the signal's beginning.
    """

    abstract = True
    delay: int

    def forward(self, carriers: Tensor, length: int) -> Tensor:
        """Decode to exactly `length` samples."""
        raise NotImplementedError

    def initial_state(self, batch: int) -> Any:
        """The state before the first frame, for `batch` = N x S streams."""
        raise NotImplementedError

    def step(self, carriers: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The next l frames to the samples that later ones do not change, [N, S, l * stride]; and the next state."""
        raise NotImplementedError

    def rest(self, state: Any) -> Tensor:
        """The samples after the last frame, [N x S, t]."""
        raise NotImplementedError

    @property
    def cannot_stream(self) -> str:
        """As the encoder's."""
        return "" if steps(type(self)) else "has no step"


def overlap_further(segments: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Go on with an overlap-add: the samples that no later segment changes, and the rest.

    Args:
        segments: the next ones, overlap-added, [M, T'].
        before: what the last ones left, [M, t].
    """
    held = before.shape[-1]
    if held == 0:
        return segments, before
    waveform = torch.cat([segments[:, :held] + before, segments[:, held:]], dim=-1)
    return waveform[:, : waveform.shape[-1] - held], waveform[:, waveform.shape[-1] - held :]
