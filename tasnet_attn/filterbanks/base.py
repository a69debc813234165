"""The base classes of encoders and decoders."""

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
        features: [N, F, L], real: the separator's input.
        carrier: [N, F, L], or [N, 2, F, L] for real and imaginary part: what the masks multiply; it has the signal's
            level.
        scale: [N, 1, L] or [N, 1, 1]: the divisor of the features; references are encoded with the mixture's.
    """

    features: Tensor
    carrier: Tensor
    scale: Tensor


class Encoder(Configurable, nn.Module):
    """From waveform [N, T] to `Encoded`.

    To stream, an encoder sets `stride`, `lead` and `trail`, and implements `initial_state` and `step`.

    Attributes:
        n_features: F.
        parts: real numbers per bin, adjacent in the features: 2 for complex bins, which need a head with the same
            `parts`.
        latency: input samples after an output sample that its frames see; None: unbounded.
        clip_scaled: the scale belongs to a whole clip: code that cuts a clip measures it first by `clip_scale`.
        framed: the clip's frames are centred on multiples of a hop, so that windows of frames can be joined.
        stride: samples between frames.
        lead: samples that the first step takes in addition to whole strides.
        trail: zeros read after the end: there are (T + trail) // stride frames, at least one.
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
        """The scale of a clip of `length` samples in blocks [C, t]: [C, 1, 1].

        This implementation encodes the whole clip; override it if the scale can be measured in bounded memory.
        """
        return self(torch.cat(list(blocks), dim=-1)).scale

    def n_frames(self, length: int) -> int:
        """Frames of a waveform of `length` samples."""
        return max(1, (length + self.trail) // self.stride)

    def initial_state(self, batch: int) -> Tensor:
        """The samples before the first one, zeros [N, t]."""
        raise NotImplementedError

    def step(self, samples: Tensor, state: Tensor) -> tuple[Encoded, Tensor]:
        """The frames completed by the next samples, and the samples that later frames still need.

        Args:
            samples: [N, l * stride], in the first step [N, lead + l * stride]; l frames, at least one.
            state: as returned by the previous step, [N, t]; t is the same after every step.
        """
        raise NotImplementedError

    @property
    def cannot_stream(self) -> str:
        """The reason, worded to follow its name; empty: it can stream."""
        if self.clip_scaled:
            return "divides by the maximum of the whole clip"
        return "" if steps(type(self)) and self.latency is not None else "has no step of bounded latency"


class Decoder(Configurable, nn.Module):
    """From masked carriers [N, S, F, L] or [N, S, 2, F, L] to [N, S, length].

    Attributes:
        delay: samples before the signal's beginning that the first steps return.
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
        """From the next l frames to the samples that later ones do not change, [N, S, l * stride]; the next state."""
        raise NotImplementedError

    def rest(self, state: Any) -> Tensor:
        """The samples after the last frame, [N x S, t]."""
        raise NotImplementedError

    @property
    def cannot_stream(self) -> str:
        """See `Encoder`."""
        return "" if steps(type(self)) else "has no step"


def overlap_further(segments: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Continue an overlap-add: returns the samples that no later segment changes, and the remainder.

    Args:
        segments: the next ones, overlap-added, [M, T'].
        before: the previous remainder, [M, t].
    """
    held = before.shape[-1]
    if held == 0:
        return segments, before
    waveform = torch.cat([segments[:, :held] + before, segments[:, held:]], dim=-1)
    return waveform[:, : waveform.shape[-1] - held], waveform[:, waveform.shape[-1] - held :]
