"""Separation while the sound arrives, equal to the model on the whole of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasnet_attn.errors import UserError, at_least
from tasnet_attn.model import SourceSeparator
from tasnet_attn.streaming.steps import ModelSteps, Steps


class StreamingSeparator:
    """Blocks of a mixture in, blocks of its sources out, in constant memory; blocks may have any length.

    All that comes out is, one block after the other, the model's output on the whole mixture, to rounding.

    Args:
        model: a causal model whose memory is bounded: LTL with a window, TasNet, a causal one of your own. It is used
            as it is: put it into evaluation mode before. Or any other `Steps`, as `OnnxSteps(file)`.
        channels: of the mixture.

    Attributes:
        latency: samples that an output sample waits for at most, beyond its own; `process` delays by as many.
        behind: samples fed whose outputs are still to come.

    Raises:
        UserError: a model that cannot stream; says which part of it.
    """

    def __init__(self, model: SourceSeparator | Steps, channels: int = 1) -> None:
        at_least(1, channels=channels)
        self.steps: Steps = ModelSteps(model) if isinstance(model, nn.Module) else model
        self.channels, self.latency = channels, self.steps.latency
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next block is the first of a new stream."""
        self.state = self.steps.initial_state(self.channels)
        self.waiting = torch.empty(self.channels, 0, device=self.steps.device, dtype=self.steps.dtype)
        self.fed = self.given = self.frames = 0
        self.early = self.steps.delay  # samples to drop: they lie before the beginning
        self.late = self.waiting.new_zeros(len(self.steps.sources), self.channels, self.latency)  # `process` gives them

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
        steps = self.steps
        frames = max(1, (self.fed + steps.trail) // steps.stride) if self.fed else 0
        needed = (steps.lead if self.frames == 0 else 0) + (frames - self.frames) * steps.stride
        zeros = self.waiting.new_zeros(self.channels, max(0, needed - self.waiting.shape[-1]))
        outputs = [self._advanced(zeros)] if frames > self.frames else []
        with torch.inference_mode():
            outputs.append(self._begun(steps.rest(self.state).transpose(0, 1)))
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
        if (block - block).any():  # 0 for every number but infinity and NaN; `isfinite` takes four times as long
            raise UserError("a block has samples that are not finite: all that follows would be lost to them")

    def _advanced(self, samples: Tensor) -> Tensor:
        """Everything that these samples complete, [S, C, t]."""
        steps = self.steps
        self.waiting = torch.cat([self.waiting, samples], dim=-1)
        lead = steps.lead if self.frames == 0 else 0
        frames = max(0, (self.waiting.shape[-1] - lead) // steps.stride)
        if frames == 0:
            return self.waiting.new_empty(len(steps.sources), self.channels, 0)
        used = lead + frames * steps.stride
        now, self.waiting = self.waiting[:, :used], self.waiting[:, used:]
        with torch.inference_mode():
            estimates, self.state = steps.step(now, self.state)
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
