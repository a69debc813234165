"""Layers that several systems share: attention, the transformer layer, positional codes, initialisation.

Shapes: N batch x channels, H heads, L frames, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from tasnet_attn.errors import at_least

Init = Literal["xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal"]
BLOCK = 256  # frames per step of a stream: large enough to be fast, small compared with long inputs
LEAST = 64  # queries in a block of windowed attention: with fewer, keys are copied too often
WIDTHS = {"cpu": 1}  # heads are zero-padded to a multiple that fused kernels accept; 8 on other devices
Norm = Literal["post", "pre"]
FFN = Literal["linear", "lstm"]
FUSED = 32  # frames from which on a step's attention uses the fused kernel


class LSTM(nn.LSTM):
    """nn.LSTM, batch first; CPUs run it in its weights' precision also under autocast: few support bfloat16 LSTMs."""

    def __init__(self, width: int, hidden: int, n_layers: int = 1, bidirectional: bool = False) -> None:
        super().__init__(width, hidden, n_layers, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # type: ignore[override]
        """[N, L, D] and the initial state -> [N, L, hidden (x 2)] and the final state."""
        if x.device.type != "cpu":
            return super().forward(x, state)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(next(self.parameters()).dtype), state)

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """Zeros, [n_layers (x 2), N, hidden] each."""
        zeros = next(self.parameters()).new_zeros(self.num_layers * (1 + self.bidirectional), batch, self.hidden_size)
        return zeros, zeros


def steps(cls: type) -> bool:
    """Whether a class's `step` belongs to its `forward`: no subclass overrides only one of them."""
    depth = {name: next(i for i, c in enumerate(cls.__mro__) if name in vars(c)) for name in ("forward", "step")}
    return depth["step"] <= depth["forward"]


def exporting() -> bool:
    """Whether torch.jit.trace or torch.export is recording this call."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


def recomputed(on: bool, function: Callable[..., Any], *inputs: Any) -> Any:
    """A module's (or method's) output; in training and if `on`, only its inputs are kept for the gradients.

    Everything else is recomputed when needed: less memory, one more forward pass, the same numbers.

    Args:
        on: the setting `gradient_checkpointing`.
        function: a module or its method.
        inputs: of the call.

    Source: Chen et al. 2016, arXiv 1604.06174.
    """
    module: Any = getattr(function, "__self__", function)
    if not (on and module.training and torch.is_grad_enabled()):
        return function(*inputs)
    norms = [each for each in module.modules() if isinstance(each, _BatchNorm)]
    again: dict[str, Any] = {"context_fn": lambda: (nullcontext(), _unmoved(norms))} if norms else {}
    return checkpoint(function, *inputs, use_reentrant=False, **again)


@contextmanager
def _unmoved(norms: list[_BatchNorm]) -> Iterator[None]:
    """Do not update running statistics: the first pass has done so."""
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum, norm.num_batches_tracked = momentum, count


def cut(x: Tensor, dim: int, start: int, length: int) -> Tensor:
    """`length` places of an axis from `start` on; when exporting never the full slice, which is a special case."""
    if exporting():
        x = torch.cat([x, x.narrow(dim, 0, 1)], dim)
    return x.narrow(dim, start, length)


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, window: int | None = None) -> Tensor:
    """Scaled dot-product attention, optionally causal, optionally in a bounded window (memory then linear in length).

    Args:
        q: [N, H, L, d].
        k: [N, H, L', d]; with L' > L the queries are the last L of the L' positions.
        v: [N, H, L', d].
        causal: a frame sees only itself and earlier frames.
        window: number of frames that a frame sees, including itself; without `causal`, as many on the other side.

    Returns:
        [N, H, L, d].

    Source: Vaswani et al. 2017, equation 1.
    """
    width = q.shape[-1]
    if missing := 0 if exporting() else -width % WIDTHS.get(q.device.type, 8):
        q, k, v = (F.pad(x, (0, missing)) for x in (q, k, v))
        return _attend(q, k, v, causal, window, scale=width**-0.5)[..., :width]
    return _attend(q, k, v, causal, window)


def _attend(q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int | None, **how: Any) -> Tensor:
    length, offset = q.shape[-2], k.shape[-2] - q.shape[-2]
    if offset == 0 and (window is None or not exporting() and window >= length):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, **how)
    if window is not None and not exporting():  # blocks would have a fixed number in an export
        return _banded(q, k, v, causal, window, **how)
    positions = torch.arange(k.shape[-2], device=q.device)
    mask = _allowed(positions[offset:], positions, causal, window)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **how)


def _allowed(now: Tensor, seen: Tensor, causal: bool, window: int | None) -> Tensor:
    """Which frames each frame sees, [frames now, frames seen]."""
    age = now[:, None] - seen
    near = torch.ones_like(age, dtype=torch.bool) if window is None else age < window
    return near & (age >= 0) if causal else near if window is None else near & (age > -window)


def _banded(q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int, **how: Any) -> Tensor:
    """`attend` in a window: blocks of queries, all in one call, each with the keys that it may see.

    (With a call for each block, training time would grow with the square of the length: a slice's gradient is as long
    as the whole.)
    """
    batch, length, offset = len(q), q.shape[-2], k.shape[-2] - q.shape[-2]
    block = min(max(LEAST, window // 2), length)
    count, before, after = -(-length // block), window - 1, 0 if causal else window - 1
    first, span = offset - before, before + block + after  # the position of the first key; the number of keys per block
    ends = -first, first + before + count * block + after - k.shape[-2]
    now, seen = torch.arange(block, device=q.device), torch.arange(span, device=q.device)
    starts = torch.arange(count, device=q.device)[:, None] * block
    keys = first + starts + seen
    mask = _allowed(now + before, seen, causal, window) & ((keys >= 0) & (keys < offset + length))[:, None]
    mask |= (starts + now >= length)[..., None]  # padding may see anything; seeing nothing would give NaN
    q = F.pad(q, (0, 0, 0, count * block - length)).unflatten(-2, (count, block))
    k, v = (F.pad(x, (0, 0, *ends)).unfold(-2, span, block).mT for x in (k, v))  # [N, H, count, span, d]
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))  # [N * count, H, ...]
    mask = mask[:, None].repeat(batch, 1, 1, 1)
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **how)
    return attended.unflatten(0, (batch, count)).transpose(1, 2).flatten(2, 3)[..., :length, :]


class Ring(NamedTuple):
    """Keys and values of the last frames of a stream: frame f is in slot f mod R.

    A step writes the new frames to the given ring buffer. An exported step cannot: it returns only their keys and
    values, [N, H, l, d], and the caller writes them.
    """

    keys: Tensor  # [N, H, R, d]
    values: Tensor  # [N, H, R, d]


def attend_further(
    q: Tensor, k: Tensor, v: Tensor, ring: Ring, frame: Tensor, hidden: Tensor | None
) -> tuple[Tensor, Ring]:
    """Causal `attend` on the next frames of a stream.

    For few frames the scores of earlier and new frames are computed separately and joined, which copies no keys or
    values. For many the fused kernel is faster despite the copies.

    Args:
        q: [N, H, l, d].
        k: [N, H, l, d].
        v: [N, H, l, d].
        ring: of R slots; R = 0: only these frames are seen.
        frame: number of frames before, an integer without axes.
        hidden: see `beyond_window`; None: all frames are seen, and the ring contains all of them in order.

    Returns:
        [N, H, l, d], and the ring after these frames.
    """
    if hidden is None:
        ring = Ring(torch.cat([ring.keys, k], dim=-2), torch.cat([ring.values, v], dim=-2))
        return attend(q, ring.keys, ring.values, causal=True), ring
    slots = ring.keys.shape[-2]
    if slots == 0:
        return attend(q, k, v, causal=True, window=1), ring
    if not exporting() and k.shape[-2] >= FUSED:
        keys, values = (torch.cat(each, dim=-2) for each in ((ring.keys, k), (ring.values, v)))
        attended = F.scaled_dot_product_attention(q, keys, values, attn_mask=~hidden)
        return attended, _written(ring, k, v, frame)
    q = q * q.shape[-1] ** -0.5
    scores = torch.cat([q @ ring.keys.mT, q @ k.mT], dim=-1)
    weights = scores.masked_fill(hidden, -torch.inf).softmax(dim=-1)
    attended = weights[..., :slots] @ ring.values + weights[..., slots:] @ v
    if exporting():
        return attended, Ring(k, v)
    return attended, _written(ring, k, v, frame)


def _written(ring: Ring, k: Tensor, v: Tensor, frame: Tensor) -> Ring:
    """The ring with the next frames in it."""
    slots = ring.keys.shape[-2]
    last = (frame + torch.arange(k.shape[-2], device=k.device))[-slots:] % slots
    for old, new in zip(ring, (k, v), strict=True):
        old.index_copy_(-2, last, new[..., -slots:, :])
    return ring


def beyond_window(frame: Tensor, length: int, window: int) -> Tensor:
    """Mask of what the next frames do not see, of a ring and of these frames: [length, window - 1 + length].

    Args:
        frame: number of frames before; slots that none of them has reached are not seen.
        length: number of frames now.
        window: see `attend`.
    """
    now = frame + torch.arange(length, device=frame.device)
    seen = torch.cat([_latest(frame, torch.arange(window - 1, device=frame.device)), now])
    age = now[:, None] - seen
    return (age < 0) | (age >= window) | (seen < 0)


def _latest(frame: Tensor, slots: Tensor) -> Tensor:
    """The last frame before `frame` in each slot of a ring; negative: none."""
    return frame - 1 - torch.remainder(frame - 1 - slots, len(slots))


class TransformerLayer(nn.Module):
    """Self-attention, then a feed-forward part (hidden layer, ReLU, linear map); each with residual and LayerNorm.

    Args:
        width: D.
        heads: H, divides D.
        ffn: width of the hidden layer.
        causal: see `attend`.
        window: see `attend`.
        norm: "post", after each sum, or "pre", before each part, without a norm at the end.
        ffn_layer: the hidden layer, "linear" or "lstm", which is bidirectional if the attention is (DPTNet: Chen et al.
            2020).
        dropout: on both residual branches; not inside the attention, where it would rule out fused kernels.

    Source: Vaswani et al. 2017, section 3.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        ffn: int,
        causal: bool,
        window: int | None = None,
        dropout: float = 0.0,
        norm: Norm = "post",
        ffn_layer: FFN = "linear",
    ) -> None:
        super().__init__()
        at_least(1, heads=heads, ffn=ffn)
        if width % heads:
            raise ValueError(f"heads {heads} must divide the width {width}")
        if norm not in ("post", "pre") or ffn_layer not in ("linear", "lstm"):
            raise ValueError(
                f"norm {norm!r} is not one of post, pre, or ffn_layer {ffn_layer!r} not one of linear, lstm"
            )
        self.heads, self.causal, self.window, self.norm_first = heads, causal, window, norm == "pre"
        self.project_in = nn.Linear(width, 3 * width)  # queries, keys, values
        self.project_out = nn.Linear(width, width)
        self.recurrent = LSTM(width, ffn, bidirectional=not causal) if ffn_layer == "lstm" else None
        hidden = 2 * ffn if self.recurrent and not causal else ffn
        first = nn.Identity() if self.recurrent else nn.Linear(width, ffn)
        self.ffn = nn.Sequential(first, nn.ReLU(), nn.Linear(hidden, width))
        self.norm_attention, self.norm_ffn = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[N, L, D] -> [N, L, D]."""
        q, k, v = self._projected(x)
        return self._finished(x, self.attend(q, k, v), None)[0]

    def initial_state(self, batch: int) -> Any:
        """The ring before the first frame (no slots yet without a window); with an LSTM also its state."""
        slots = 0 if self.window is None else self.window - 1
        weight = self.project_out.weight
        shape = batch, self.heads, slots, weight.shape[0] // self.heads
        ring = Ring(weight.new_zeros(shape), weight.new_zeros(shape))
        return (ring, self.recurrent.initial_state(batch)) if self.recurrent else ring

    def step(self, x: Tensor, state: Any, frame: Tensor, hidden: Tensor | None) -> tuple[Tensor, Any]:
        """`forward` on frames [N, l, D] after `frame` others, whose last ones are in the ring; and the next state.

        `hidden`: see `attend_further`; one for all layers with the same window.
        """
        if not self.causal:
            raise ValueError("attention that sees later frames has no step")
        q, k, v = self._projected(x)
        ring, carried = state if self.recurrent else (state, None)
        attended, ring = attend_further(q, k, v, ring, frame, hidden)
        x, carried = self._finished(x, attended, carried)
        return x, (ring, carried) if self.recurrent else ring

    def _projected(self, x: Tensor) -> Tensor:
        """Queries, keys and values, [3, N, H, L, D/H]."""
        x = self.norm_attention(x) if self.norm_first else x
        return self.project_in(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def _finished(self, x: Tensor, attended: Tensor, carried: Any) -> tuple[Tensor, Any]:
        """The layer after the attention [N, H, L, D/H]: output map, residuals, norms, feed-forward with its state."""
        x = x + self.dropout(self.project_out(attended.transpose(1, 2).flatten(-2)))
        x = x if self.norm_first else self.norm_attention(x)
        y = self.norm_ffn(x) if self.norm_first else x
        if self.recurrent:
            y, carried = self.recurrent(y, carried)
        x = x + self.dropout(self.ffn(y))
        return (x if self.norm_first else self.norm_ffn(x)), carried

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """`attend` with this layer's settings."""
        return attend(q, k, v, causal=self.causal, window=self.window)

    def initialise(self, init: Init) -> None:
        """Set the weight matrices by `init`, query, key and value maps separately; biases to zero."""
        set_weight = {
            "xavier_uniform": nn.init.xavier_uniform_,
            "xavier_normal": nn.init.xavier_normal_,
            "kaiming_uniform": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
            "kaiming_normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
        }[init]
        for module in self.modules():
            if isinstance(module, nn.Linear):
                for weight in module.weight.chunk(3) if module is self.project_in else (module.weight,):
                    set_weight(weight.data)
                nn.init.zeros_(module.bias)


def sinusoids(start: int | Tensor, length: int, width: int, device: torch.device | None = None) -> Tensor:
    """The fixed positional code of frames start .. start + length - 1, [length, width].

    Source: Vaswani et al. 2017, section 3.5.
    """
    positions = (start + torch.arange(length, device=device)).float()
    rates = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10_000.0) / width))
    angles = positions[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[:, :width]
