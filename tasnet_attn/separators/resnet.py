"""A residual network with group normalisation that keeps the resolution at its root."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from tasnet_attn.config import Configurable
from tasnet_attn.errors import at_least


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution if the shape changes.

    Source: He et al. 2016, figure 2 and section 3.3, with group instead of batch normalisation.
    """

    def __init__(self, n_in: int, n_out: int, stride: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
            nn.GroupNorm(groups, n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
            nn.GroupNorm(groups, n_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or n_in != n_out:
            self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.GroupNorm(groups, n_out))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[N, n_in, F, L] -> [N, n_out, F / stride, L / stride], rounded up."""
        return self.relu(self.body(x) + self.shortcut(x))


class ResNet(Configurable, nn.Module):
    """A ResNet for spectrograms: 3x3 root without stride or pooling, then four stages of strides 1, 2, 2, 2.

    Args:
        channels: of the first stage; each later stage has twice as many.
        blocks: residual blocks of each stage; (3, 4, 6, 3) is ResNet-34.
        groups: of the group normalisations; they divide `channels`. Not stated in the paper: 32 is our choice.

    Source: He et al. 2016, table 1; Wu & He 2018 for GroupNorm; AudioSlots for the root.
    """

    def __init__(self, channels: int = 64, blocks: Sequence[int] = (3, 4, 6, 3), groups: int = 32) -> None:
        super().__init__()
        if len(blocks) != 4 or min(blocks) < 1:
            raise ValueError(f"blocks {list(blocks)} must be four numbers, each at least 1")
        at_least(1, channels=channels, groups=groups)
        if channels % groups:
            raise ValueError(f"groups {groups} must divide channels {channels}")
        self.channels = 8 * channels
        self.root = nn.Sequential(
            nn.Conv2d(1, channels, 3, 1, 1, bias=False), nn.GroupNorm(groups, channels), nn.ReLU()
        )
        layers: list[nn.Module] = []
        width = channels
        for stage, n_blocks in enumerate(blocks):
            for i in range(n_blocks):
                layers.append(Block(width, channels * 2**stage, 2 if stage and i == 0 else 1, groups))
                width = channels * 2**stage
        self.stages = nn.Sequential(*layers)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """[N, 1, F, L] -> [N, 8 * channels, F / 8, L / 8], rounded up."""
        return self.stages(self.root(spectrogram))
