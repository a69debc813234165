"""From tokens of a spectrogram to one slot for each source: a query transformer, or Slot Attention instead.

Shapes: N batch x channels, S slots, M tokens, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasnet_attn.config import Configurable
from tasnet_attn.errors import at_least


class Slots(Configurable, nn.Module):
    """Refines S queries into slots by attending to tokens; permuting the queries permutes the slots. `width` is D."""

    abstract = True
    width: int

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Queries [N, S, D], tokens [N, M, D] -> slots [N, S, D]."""
        raise NotImplementedError


class Attention(nn.Module):
    """Multi-head attention of [N, S, D] to [N, M, D]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        at_least(1, heads=heads)
        if width % heads:
            raise ValueError(f"heads {heads} must divide the width {width}")
        self.heads = heads
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """[N, S, D], [N, M, D] -> [N, S, D]."""
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(context).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))


class QueryLayer(nn.Module):
    """Self-attention among the queries first, then attention to the tokens, then an MLP; each added to its input."""

    def __init__(self, width: int, heads: int, ffn: int, norm_first: bool) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.among, self.across = Attention(width, heads), Attention(width, heads)
        self.ffn = nn.Sequential(nn.Linear(width, ffn), nn.ReLU(), nn.Linear(ffn, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """[N, S, D], [N, M, D] -> [N, S, D]."""
        x = self._add(0, x, lambda y: self.among(y, y))
        x = self._add(1, x, lambda y: self.across(y, tokens))
        return self._add(2, x, self.ffn)

    def _add(self, part: int, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        norm = self.norms[part]
        return x + function(norm(x)) if self.norm_first else norm(x + function(x))


class QueryTransformer(Slots):
    """AudioSlots' transformer on learned queries.

    Args:
        width: D; the paper's is 4096.
        n_layers: layers.
        heads: attention heads; they divide the width. Not stated in the paper: 8 is our choice.
        ffn: hidden width of the MLPs. Not stated: None, our choice, is the width (0.7 G parameters at 4096).
        norm_first: LayerNorm before each part (our choice: it trains without tuning), or after it.

    Source: Reddy et al. 2023, section 2.
    """

    def __init__(
        self, width: int = 4096, n_layers: int = 4, heads: int = 8, ffn: int | None = None, norm_first: bool = True
    ) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.ModuleList(QueryLayer(width, heads, ffn or width, norm_first) for _ in range(n_layers))
        self.norm = nn.LayerNorm(width) if norm_first else nn.Identity()

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        for layer in self.layers:
            queries = layer(queries, tokens)
        return self.norm(queries)


class SlotAttention(Slots):
    """Slot Attention: in each iteration, slots compete for the tokens and a GRU updates them.

    Its slots start from the same learned queries as the transformer's (our choice: random samples, as in its paper,
    would make the outputs random).

    Args:
        width: D.
        iterations: iterations, all with the same weights.
        ffn: hidden width of the MLP after the GRU; None: the width.

    Source: Locatello et al. 2020, algorithm 1.
    """

    def __init__(self, width: int = 4096, iterations: int = 3, ffn: int | None = None) -> None:
        super().__init__()
        self.width, self.iterations = width, iterations
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.gru = nn.GRUCell(width, width)
        self.ffn = nn.Sequential(nn.Linear(width, ffn or width), nn.ReLU(), nn.Linear(ffn or width, width))
        self.norm_tokens, self.norm_slots, self.norm_ffn = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        keys, values = self.key_value(self.norm_tokens(tokens)).chunk(2, dim=-1)
        slots = queries
        for _ in range(self.iterations):
            scores = self.query(self.norm_slots(slots)) @ keys.transpose(1, 2) * self.width**-0.5  # [N, S, M]
            share = torch.softmax(scores, dim=1) + 1e-8  # over the slots: they compete
            updates = share / share.sum(-1, keepdim=True) @ values
            slots = self.gru(updates.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
            slots = slots + self.ffn(self.norm_ffn(slots))
        return slots
