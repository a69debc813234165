"""The engines of a stream: the model itself, or its step as an ONNX file."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from tasnet_attn.errors import UserError
from tasnet_attn.filterbanks import Decoder, Encoder
from tasnet_attn.model import SourceSeparator


class Steps(Protocol):
    """From frames to sources, with the state kept by the caller; C channels, S sources.

    Attributes:
        sources: names.
        sample_rate: Hz.
        latency: maximum number of later samples that an output sample waits for.
        stride: samples per frame.
        lead: samples that the first step takes in addition to whole strides.
        trail: zeros read after the end: T samples have (T + trail) // stride frames, at least one.
        delay: samples before the beginning that the first steps return.
        device, dtype: of the input blocks.
    """

    sources: list[str]
    sample_rate: int
    latency: int
    stride: int
    lead: int
    trail: int
    delay: int
    device: torch.device
    dtype: torch.dtype

    def initial_state(self, channels: int) -> Any:
        """The state before the first sample."""
        ...

    def step(self, samples: Tensor, state: Any) -> tuple[Tensor, Any]:
        """[C, l * stride], the first time plus lead -> [C, S, l * stride] and the next state; `state` is used up."""
        ...

    def rest(self, state: Any) -> Tensor:
        """The samples after the last step's, [C, S, t]."""
        ...


def cannot_stream(model: Any) -> str:
    """Why a model cannot stream, with the part; empty: it can."""
    if not isinstance(model, SourceSeparator) or type(model).forward is not SourceSeparator.forward:
        return f"{type(model).__name__} has no step"
    if model.segment is not None:
        return f"the model takes whole segments of {model.segment} s"
    for part in (model.encoder, model.separator, model.decoder):
        if part.cannot_stream:
            kind = "encoder" if isinstance(part, Encoder) else "decoder" if isinstance(part, Decoder) else "separator"
            return f"{kind} {type(part).__name__} {part.cannot_stream}"
    return ""


class ModelSteps:
    """A model's own computation, part by part.

    Args:
        model: a causal one with bounded memory, in evaluation mode.

    Raises:
        UserError: a model that cannot stream; names the part.
    """

    def __init__(self, model: SourceSeparator) -> None:
        if why := cannot_stream(model):
            raise UserError(f"this model cannot stream: {why}")
        assert model.latency is not None
        self.model, self.sources, self.sample_rate = model, model.sources, model.sample_rate
        self.latency: int = model.latency
        self.stride, self.lead, self.trail = model.encoder.stride, model.encoder.lead, model.encoder.trail
        weight = next(model.parameters())
        self.delay, self.device, self.dtype = model.decoder.delay, weight.device, weight.dtype

    def initial_state(self, channels: int) -> dict[str, Any]:
        """The states of encoder, separator and decoder."""
        return {
            "encoder": self.model.encoder.initial_state(channels),
            "separator": self.model.separator.initial_state(channels),
            "decoder": self.model.decoder.initial_state(channels * len(self.sources)),
        }

    def step(self, samples: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """See `Steps`."""
        model = self.model
        encoded, encoder = model.encoder.step(samples, state["encoder"])
        stages, separator = model.separator.step(encoded.features, state["separator"])
        estimates, decoder = model.decoder.step(model.head.apply(stages[-1], encoded), state["decoder"])
        return model.gain[:, None] * estimates, {"encoder": encoder, "separator": separator, "decoder": decoder}

    def rest(self, state: dict[str, Any]) -> Tensor:
        """See `Steps`."""
        rest = self.model.decoder.rest(state["decoder"]).unflatten(0, (-1, len(self.sources)))
        return self.model.gain[:, None] * rest
