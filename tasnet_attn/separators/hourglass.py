"""Stacked hourglass: a sequence of convolutional encoder-decoders on the spectrogram, each with its own masks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from tasnet_attn.nn import cut, recomputed
from tasnet_attn.separators.base import Separator


def conv(n_in: int, n_out: int, kernel_size: int, batch_norm: bool, relu: bool = True) -> nn.Sequential:
    """A same-size convolution with bias, optionally with batch norm and ReLU; weights N(0, 1/fan-in), biases zero."""
    layer = nn.Conv2d(n_in, n_out, kernel_size, padding=kernel_size // 2)
    nn.init.normal_(layer.weight, std=(n_in * kernel_size**2) ** -0.5)  # Park's public network
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    norm = [nn.BatchNorm2d(n_out)] if batch_norm else []
    return nn.Sequential(layer, *norm, *([nn.ReLU(inplace=True)] if relu else []))


class Sum(nn.Module):
    """Joins the skip and the upsampled features of a level by adding them."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, skip: Tensor, up: Tensor) -> Tensor:
        """[N, c, F, L] twice -> [N, c, F, L]."""
        return skip + up


class Level(nn.Module):
    """One level of an hourglass and all levels below: out = merge(conv(x), upsampled(conv(inner(conv(pooled x))))).

    Args:
        channels: of this level and all levels below, down to the bottom: one more than the remaining poolings.
        batch_norm: after every convolution.
        merge: called with the channels of this level; joins skip and upsampled features, both [N, c, F, L].

    Source: Park et al. 2018, section 3.1.
    """

    def __init__(self, channels: Sequence[int], batch_norm: bool, merge: type[nn.Module]) -> None:
        super().__init__()
        here, below = channels[:2]
        self.skip = conv(here, here, 3, batch_norm)
        self.down = conv(here, below, 3, batch_norm)
        deepest = len(channels) == 2
        self.inner = conv(below, below, 3, batch_norm) if deepest else Level(channels[1:], batch_norm, merge)
        self.up = conv(below, here, 3, batch_norm)
        self.merge = merge(here)

    def forward(self, x: Tensor) -> Tensor:
        """[N, c, F, L] -> [N, c, F, L]; F and L must be divisible by 2 for every pooling."""
        low = self.up(self.inner(self.down(F.max_pool2d(x, 2))))
        return self.merge(self.skip(x), F.interpolate(low, scale_factor=2.0, mode="nearest"))


class Stack(nn.Module):
    """An hourglass and its outputs: features, raw masks, and the input of the next stack (except for the last).

    Args:
        channels: see `Level`.
        n_sources: S.
        kernel_size: of the mask head and of the two re-injections.
        batch_norm: after every convolution, head and re-injections too.
        merge: see `Level`.
        last: no re-injection follows.
    """

    def __init__(
        self,
        channels: Sequence[int],
        n_sources: int,
        kernel_size: int,
        batch_norm: bool,
        merge: type[nn.Module],
        last: bool,
    ) -> None:
        super().__init__()
        width = channels[0]
        self.hourglass = Level(channels, batch_norm, merge)
        self.features = nn.Sequential(conv(width, width, 3, batch_norm), conv(width, width, 1, batch_norm))
        self.head = conv(width, n_sources, kernel_size, batch_norm, relu=False)
        if not last:
            self.from_features = conv(width, width, kernel_size, batch_norm, relu=False)
            self.from_masks = conv(n_sources, width, kernel_size, batch_norm, relu=False)
        self.last = last

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, c, F, L] -> the next stack's input [N, c, F, L] and the masks [N, S, F, L]."""
        features = self.features(self.hourglass(x))
        masks = self.head(features)
        return (x if self.last else x + self.from_features(features) + self.from_masks(masks)), masks


class Hourglass(Separator):
    """Stacked hourglass network; one stage for each stack, so that a loss over all stages is deep supervision.

    The defaults are Park's public network (34,176,776 parameters with two sources). The report's networks are
    `n_poolings=5, stem=(64, 128, 128), kernel_size=3, batch_norm=True` with `channels=64, growth=64` (34,689,752) or
    with `channels=256` (42,752,792). The spectrogram may have any size: it is zero-padded to a multiple of
    2**n_poolings and cropped back.

    Args:
        n_features: F.
        n_sources: S, the number of masks.
        n_stacks: hourglasses.
        n_poolings: levels of an hourglass.
        channels: at full resolution.
        growth: channels that each pooling adds.
        stem: output channels of the first convolutions, 7x7, then 3x3; one more 3x3 leads to `channels`.
        kernel_size: of the mask head and the re-injections.
        batch_norm: after every convolution.
        gradient_checkpointing: keep only the input of the stem and of each stack, see `nn.recomputed`.

    Source: Park et al. 2018 (arXiv 1805.08559) and its public code; the report of its re-implementation.
    """

    merge: type[nn.Module] = Sum

    def __init__(
        self,
        n_features: int,
        n_sources: int,
        n_stacks: int = 4,
        n_poolings: int = 4,
        channels: int = 256,
        growth: int = 0,
        stem: Sequence[int] = (64, 128, 128, 128),
        kernel_size: int = 1,
        batch_norm: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        if n_stacks < 1 or n_poolings < 1 or not stem:
            raise ValueError(f"needs a stack, a pooling and a stem; got {n_stacks}, {n_poolings}, {list(stem)}")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} must be odd: an even one would shift the masks")
        self.multiple = 2**n_poolings
        widths = [1, *stem, channels]
        self.stem = nn.Sequential(
            *(conv(n_in, n_out, 3 if i else 7, batch_norm) for i, (n_in, n_out) in enumerate(pairwise(widths)))
        )
        levels = [channels + level * growth for level in range(n_poolings + 1)]
        self.stacks = nn.ModuleList(
            Stack(levels, n_sources, kernel_size, batch_norm, self.merge, last=i == n_stacks - 1)
            for i in range(n_stacks)
        )

    def forward(self, features: Tensor) -> list[Tensor]:
        bins, frames = features.shape[-2:]
        x = recomputed(self.gradient_checkpointing, self.stem, self.padded(features).unsqueeze(1))
        stages = []
        for stack in self.stacks:
            x, masks = recomputed(self.gradient_checkpointing, stack, x)
            stages.append(self.cropped(masks, bins, frames))
        return stages

    def padded(self, features: Tensor) -> Tensor:
        """Zero-pad [N, F, L] to multiples of 2**n_poolings."""
        bins, frames = features.shape[-2:]
        whole = (frames + self.multiple - 1) // self.multiple * self.multiple
        padded = F.pad(features, (0, self.multiple, 0, -bins % self.multiple))  # exporters need a fixed number
        return padded[..., :whole]

    def cropped(self, masks: Tensor, bins: int, frames: int) -> Tensor:
        """Undo `padded`: [N, S, F', L'] -> [N, S, F, L]."""
        return cut(masks[..., :bins, :], -1, 0, frames)
