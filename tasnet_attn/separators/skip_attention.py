"""Skip attention: the hourglass joins its skip and upsampled features by attention along frequency."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasnet_attn.separators.hourglass import Hourglass, Level, Sum


class SkipAttention(nn.Module):
    """LayerNorm(SA + E) + D: the skip features E attend to the upsampled features D and to themselves, frame by frame.

    Rows are frequencies, one head, bias-free maps: Q = E W_Q, and K, V = [D; E] W_K, W_V. A key whose projection is all
    zero is excluded; a query whose projection is all zero (or that has no key left) attends to nothing, SA = 0.

    Args:
        channels: d.

    Source: Yuan et al. 2019, section III.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(channels, channels, bias=False) for _ in range(3))
        self.norm = nn.LayerNorm(channels, eps=1e-8)

    def forward(self, skip: Tensor, up: Tensor) -> Tensor:
        """E and D, both [N, d, F, L] -> [N, d, F, L]."""
        e, d = (x.permute(0, 3, 2, 1) for x in (skip, up))  # [N, L, F, d]: a frame is one item of the batch
        both = torch.cat([d, e], dim=2)  # the vertical concatenation, 2F rows
        q, k, v = self.query(e), self.key(both), self.value(both)
        present = k.ne(0).any(dim=-1).unsqueeze(2)  # [N, L, 1, 2F]
        some = present.any(dim=-1, keepdim=True)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=present | ~some)  # scaled by 1 / sqrt(d)
        attended = attended * (q.ne(0).any(dim=-1, keepdim=True) & some)
        return (self.norm(attended + e) + d).permute(0, 3, 2, 1)


class SkipAttentionHourglass(Hourglass):
    """Stacked hourglass with skip attention at the levels of every stack; other arguments as in `Hourglass`.

    Args:
        n_features: F.
        n_sources: S.
        levels: where skips are joined by attention, 0 is full resolution; None: everywhere, as in the paper.
        settings: see `Hourglass`.

    Source: Yuan et al. 2019 (SA-SHN), on Park's network: 16 layers in 4 stacks of 4 levels.
    """

    merge = SkipAttention

    def __init__(self, n_features: int, n_sources: int, levels: list[int] | None = None, **settings: Any) -> None:
        super().__init__(n_features, n_sources, **settings)
        for stack in self.stacks if levels is not None else ():
            chain: list[Any] = [stack.hourglass]
            while isinstance(chain[-1].inner, Level):
                chain.append(chain[-1].inner)
            if unknown := set(levels or ()) - set(range(len(chain))):
                raise ValueError(f"levels {sorted(unknown)} are not within 0 to {len(chain) - 1}")
            for number, level in enumerate(chain):
                if number not in (levels or ()):
                    level.merge = Sum(level.skip[0].out_channels)
