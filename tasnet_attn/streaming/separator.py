"""Separation while the sound arrives, equal to the model on the whole of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tasnet_attn.errors import UserError, at_least
from tasnet_attn.filterbanks import Decoder, Encoder
from tasnet_attn.model import SourceSeparator

Step = Callable[[Tensor, Any], tuple[Tensor, Any]]  # samples [C, t] and the state -> [C, S, t'] and the next state


def cannot_stream(model: Any) -> str:
    """Why a model cannot stream, naming the part that hinders it; empty: it can."""
    if not isinstance(model, SourceSeparator) or type(model).forward is not SourceSeparator.forward:
        return f"{type(model).__name__} has no step"
    if model.segment is not None:
        return f"the model takes whole segments of {model.segment} s"
    for part in (model.encoder, model.separator, model.decoder):
        if part.cannot_stream:
            kind = "encoder" if isinstance(part, Encoder) else "decoder" if isinstance(part, Decoder) else "separator"
            return f"{kind} {type(part).__name__} {part.cannot_stream}"
    return ""


class StreamingSeparator:
    """Blocks of a mixture in, blocks of its sources out, in constant memory; blocks may have any length.

    All that comes out is, one block after the other, the model's output on the whole mixture, to rounding.

    Args:
        model: a causal model whose memory is bounded: LTL with a window, TasNet, a causal one of your own. It is used
            as it is: put it into evaluation mode before.
        channels: of the mixture.

    Attributes:
        latency: samples that an output sample waits for at most, beyond its own; `process` delays by as many.
        behind: samples fed whose outputs are still to come.

    Raises:
        UserError: a model that cannot stream; says which part of it.
    """

    def __init__(self, model: SourceSeparator, channels: int = 1) -> None:
        at_least(1, channels=channels)
        if why := cannot_stream(model):
            raise UserError(f"this model cannot stream: {why}")
        assert model.latency is not None
        self.model, self.channels, self.latency = model, channels, model.latency
        self.device = next(model.parameters()).device
        self.step = model_step(model)
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next block is the first of a new stream."""
        self.state = initial_state(self.model, self.channels)
        self.waiting = torch.empty(self.channels, 0, device=self.device)
        self.fed = self.given = self.frames = 0
        self.early = self.model.decoder.delay  # samples to drop: they lie before the beginning
        sources = len(self.model.sources)
        self.late = torch.zeros(sources, self.channels, self.latency, device=self.device)  # what `process` hands out

    @property
    def behind(self) -> int:
        """Samples fed whose outputs are still to come."""
        return self.fed - self.given

    def feed(self, block: Tensor) -> Tensor:
        """The next block [C, t] -> what is final now, [S, C, t']; t' may be 0."""
        self._check(block)
        self.fed += block.shape[-1]
        return self._given(self._advanced(block.to(self.waiting)))

    def flush(self) -> Tensor:
        """The rest, [S, C, t'], so that all of it is as long as what was fed; then as after `reset`."""
        encoder, length = self.model.encoder, self.fed
        frames = encoder.n_frames(length) if length else 0
        needed = (encoder.lead if self.frames == 0 else 0) + (frames - self.frames) * encoder.stride
        zeros = self.waiting.new_zeros(self.channels, max(0, needed - self.waiting.shape[-1]))
        outputs = [self._advanced(zeros)] if frames > self.frames else []
        rest = self.model.decoder.rest(self.state["decoder"]).unflatten(0, (self.channels, -1)).transpose(0, 1)
        outputs.append(self._begun(rest * self.model.gain))
        left = torch.cat(outputs, dim=-1)
        left = F.pad(left, (0, max(0, self.behind - left.shape[-1])))[..., : self.behind]
        self.reset()
        return left

    def process(self, block: Tensor) -> Tensor:
        """For audio callbacks: [C, t] -> [S, C, t], delayed by `latency` samples, zeros at first."""
        ready = torch.cat([self.late, self.feed(block)], dim=-1)
        self.late = ready[..., block.shape[-1] :]
        return ready[..., : block.shape[-1]]

    def _check(self, block: Tensor) -> None:
        if block.dim() != 2 or block.shape[0] != self.channels:
            raise UserError(f"a block is [{self.channels}, samples]; got {list(block.shape)}")
        if not torch.isfinite(block).all():
            raise UserError("a block has samples that are not finite: all that follows would be lost to them")

    def _advanced(self, samples: Tensor) -> Tensor:
        """Everything that these samples complete, [S, C, t]."""
        encoder = self.model.encoder
        self.waiting = torch.cat([self.waiting, samples], dim=-1)
        lead = encoder.lead if self.frames == 0 else 0
        frames = max(0, (self.waiting.shape[-1] - lead) // encoder.stride)
        if frames == 0:
            return self.waiting.new_empty(len(self.model.sources), self.channels, 0)
        used = lead + frames * encoder.stride
        now, self.waiting = self.waiting[:, :used], self.waiting[:, used:]
        with torch.inference_mode():
            estimates, self.state = self.step(now, self.state)
        self.frames += frames
        return self._begun(estimates.transpose(0, 1))

    def _begun(self, estimates: Tensor) -> Tensor:
        """Without the samples before the beginning."""
        early = min(self.early, estimates.shape[-1])
        self.early -= early
        return estimates[..., early:]

    def _given(self, estimates: Tensor) -> Tensor:
        self.given += estimates.shape[-1]
        return estimates


def initial_state(model: SourceSeparator, channels: int) -> dict[str, Any]:
    """The state of all parts before the first sample."""
    return {
        "encoder": model.encoder.initial_state(channels),
        "separator": model.separator.initial_state(channels),
        "decoder": model.decoder.initial_state(channels * len(model.sources)),
    }


def model_step(model: SourceSeparator) -> Step:
    """The model's own arithmetic: samples [C, t] and a state to [C, S, t'] and the next state."""

    def step(samples: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        encoded, encoder = model.encoder.step(samples, state["encoder"])
        stages, separator = model.separator.step(encoded.features, state["separator"])
        estimates, decoder = model.decoder.step(model.head.apply(stages[-1], encoded), state["decoder"])
        return model.gain * estimates, {"encoder": encoder, "separator": separator, "decoder": decoder}

    return step
