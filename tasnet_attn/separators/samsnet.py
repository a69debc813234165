"""Sams-Net: attention over the frames of short slices, channel by channel, across all frequencies."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasnet_attn.nn import cut, recomputed
from tasnet_attn.separators.base import Separator

Scores = Literal["channel", "joint"]
Norm = Literal["channels", "frequencies"]
Scale = Literal["channels", "width"]


class SamsNet(Separator):
    """Modules of sliced attention and separable convolution; the stage is a mask before its activation.

    Any number of frames: the time axis is cut into at most `slices` parts of equal length, and the last part is padded,
    masked in the attention and cropped.

    Args:
        n_features: F.
        n_sources: S.
        channels: of the stem and of every module.
        n_modules: modules, each sliced attention and then a separable convolution.
        heads: attention heads, each of full width.
        slices: parts of the time axis; a frame attends only to its own part. 1: plain attention.
        joint: one network with a mask for each source; otherwise one network for each source, trained and applied
            independently of each other.
        scores: "channel": each channel has its own frame-to-frame scores, a sum over frequency; "joint": one for all
            channels, a sum over channels and frequency.
        norm: axis of LayerNorm: the "frequencies" of each channel and frame, which are also one vector for the
            attention, or the "channels" of each frame and bin.
        out_kernel: width and height of the last convolution.
        scale: divisor of the scores: the root of the "channels", the paper's d_k; or of the "width" of the vectors that
            they are products of (F, or channels * F), as in models of version 0.1.0.
        gradient_checkpointing: keep only the input of each sub-layer and recompute the rest for the gradients: about
            half the memory, one more forward pass, the same numbers.

    Source: Li et al. 2019, section 2. The text leaves open how attention contracts (per channel is our reading), the
    axis of LayerNorm, the last convolution and whether the sources share weights: these defaults are ours. The
    published total of 3.7 M parameters does not follow from the text.
    """

    former: ClassVar[dict[str, Any]] = {"scale": "width"}

    def __init__(
        self,
        n_features: int,
        n_sources: int,
        channels: int = 64,
        n_modules: int = 3,
        heads: int = 2,
        slices: int = 12,
        joint: bool = False,
        scores: Scores = "channel",
        norm: Norm = "frequencies",
        out_kernel: int = 3,
        scale: Scale = "channels",
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if slices < 1:
            raise ValueError(f"slices {slices} must be at least 1")
        if scores not in ("channel", "joint"):
            raise ValueError(f"scores {scores!r} is neither 'channel' nor 'joint'")
        if norm not in ("channels", "frequencies"):
            raise ValueError(f"norm {norm!r} is neither 'channels' nor 'frequencies'")
        if out_kernel % 2 == 0:
            raise ValueError(f"out_kernel {out_kernel} must be odd")
        if scale not in ("channels", "width"):
            raise ValueError(f"scale {scale!r} is neither 'channels' nor 'width'")

        def network(n_masks: int) -> nn.Sequential:
            modules: list[nn.Module] = []
            for _ in range(n_modules):
                attention = SlicedAttention(channels, heads, slices, scores, scale)
                for function in (attention, separable(channels)):
                    modules.append(Residual(function, channels, n_features, norm, gradient_checkpointing))
            stem = nn.Conv2d(1, channels, 3, padding=1)
            return nn.Sequential(stem, *modules, nn.Conv2d(channels, n_masks, out_kernel, padding=out_kernel // 2))

        self.networks = nn.ModuleList([network(n_sources)] if joint else [network(1) for _ in range(n_sources)])

    def forward(self, features: Tensor) -> list[Tensor]:
        x = features.transpose(1, 2).unsqueeze(1)  # [N, 1, L, F]: a slice of frames is then contiguous
        return [torch.cat([network(x) for network in self.networks], dim=1).transpose(2, 3)]


def separable(channels: int) -> nn.Sequential:
    """Depthwise 3x3 and pointwise 1x1 convolution."""
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.Conv2d(channels, channels, 1))


class Residual(nn.Module):
    """LayerNorm(x + f(x)), Li et al. 2019, section 2."""

    def __init__(
        self, function: nn.Module, channels: int, n_features: int, norm: Norm, gradient_checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.function, self.over_channels = function, norm == "channels"
        self.norm = nn.LayerNorm(channels if self.over_channels else n_features)
        self.gradient_checkpointing = gradient_checkpointing

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, L, F] -> the same."""
        return recomputed(self.gradient_checkpointing, self._run, x)

    def _run(self, x: Tensor) -> Tensor:
        x = x + self.function(x)
        return self.norm(x.movedim(1, -1)).movedim(-1, 1).contiguous() if self.over_channels else self.norm(x)


class SlicedAttention(nn.Module):
    """Multi-head attention among the frames of a slice.

    Args:
        channels: of input and output; queries, keys and values of each head have as many.
        heads: heads, concatenated along the channels and mapped back by a 3x3 convolution.
        slices: maximum number of parts of the time axis.
        scores: see `SamsNet`.
        scale: see `SamsNet`.
    """

    def __init__(
        self, channels: int, heads: int, slices: int, scores: Scores = "channel", scale: Scale = "channels"
    ) -> None:
        super().__init__()
        self.heads, self.slices, self.scores = heads, slices, scores
        self.scale = channels**-0.5 if scale == "channels" else None  # None: torch uses the width of the vectors
        self.project_in = nn.Conv2d(channels, 3 * heads * channels, 1)  # queries, then keys, then values of all heads
        self.project_out = nn.Conv2d(heads * channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, L, F] -> the same."""
        length = x.shape[2]
        part = (length + self.slices - 1) // self.slices
        n_parts = (length + part - 1) // part  # fewer than `slices` if some would be empty
        missing = n_parts * part - length
        qkv = F.pad(self.project_in(x), (0, 0, 0, missing)).unflatten(2, (n_parts, part))
        if self.scores == "joint":  # [N, 3 heads, parts, part, channels * F]
            qkv = qkv.unflatten(1, (3 * self.heads, -1)).permute(0, 1, 3, 4, 2, 5).flatten(-2)
        q, k, v = (each.flatten(1, 2) for each in qkv.chunk(3, dim=1))  # [N, scores * parts, part, width]
        real = torch.arange(n_parts * part, device=x.device).view(n_parts, 1, part) < length  # otherwise padding
        mask = real.repeat(q.shape[1] // n_parts, 1, 1).unsqueeze(0)  # [1, scores * parts, 1, part]
        # softmax(Q K^T / sqrt(d_k)) V, d_k the number of feature maps (section 2)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale).unflatten(1, (-1, n_parts))
        if self.scores == "joint":
            attended = attended.unflatten(-1, (-1, x.shape[3])).permute(0, 1, 4, 2, 3, 5).flatten(1, 2)
        return self.project_out(cut(attended.flatten(2, 3), 2, 0, length))
