"""Live separation, equal to the model's output on the whole recording."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasnet_attn.errors import UserError, at_least
from tasnet_attn.model import SourceSeparator
from tasnet_attn.streaming.steps import ModelSteps, Steps


class StreamingSeparator:
    """Separates a mixture block by block, in constant memory; blocks may have any length.

    The concatenated outputs equal the model's output on the whole mixture, to rounding.

    Args:
        model: a causal model with bounded memory: LTL with a window, TasNet, your own causal model. It is used
            unchanged, so put it into evaluation mode before. Or any other `Steps`, for example `OnnxSteps(file)`.
        channels: of the mixture.

    Attributes:
        latency: maximum number of later samples that an output sample waits for; `process` delays by this number.
        behind: samples fed whose outputs are not yet returned.

    Raises:
        UserError: a model that cannot stream; names the part.
    """

    def __init__(self, model: SourceSeparator | Steps, channels: int = 1) -> None:
        at_least(1, channels=channels)
        self.steps: Steps = ModelSteps(model) if isinstance(model, nn.Module) else model
        self.channels, self.latency = channels, self.steps.latency
        self.reset()

    def reset(self) -> None:
        """Start a new stream with the next block."""
        self.state = self.steps.initial_state(self.channels)
        self.waiting = torch.empty(self.channels, 0, device=self.steps.device, dtype=self.steps.dtype)
        self.fed = self.given = self.frames = 0
        self.early = self.steps.delay  # samples to drop, before the beginning
        self.late = self.waiting.new_zeros(len(self.steps.sources), self.channels, self.latency)  # for `process`

    @property
    def behind(self) -> int:
        """Samples fed whose outputs are not yet returned."""
        return self.fed - self.given

    def feed(self, block: Tensor) -> Tensor:
        """The next block [C, t] -> the samples that are final now, [S, C, t']; t' may be 0."""
        self._check(block)
        self.fed += block.shape[-1]
        return self._given(self._advanced(block.to(self.waiting)))

    def flush(self) -> Tensor:
        """The remaining samples, [S, C, t'], so that the outputs are as long as the input; then resets."""
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
        if (block - block).any():  # 0 for all numbers except infinity and NaN; `isfinite` takes four times as long
            raise UserError("a block has samples that are not finite: they would spoil all later output")

    def _advanced(self, samples: Tensor) -> Tensor:
        """The output samples that these samples complete, [S, C, t]."""
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
