"""The base class of separators: from features to a list of stages."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tasnet_attn.config import Configurable
from tasnet_attn.nn import steps


class Separator(Configurable, nn.Module):
    """Estimates each source's raw mask or magnitude from the mixture's features.

    The constructor takes `n_features` and `n_sources` first; the model fills them in. `causal` means that an output
    frame depends on no later input frame; a causal separator also has `initial_state` and `step`, whose states are
    tensors of the same shapes from the first frame on.
    """

    abstract = True
    given = ("n_features", "n_sources")
    causal = False

    @property
    def name(self) -> str:
        """The name for tables, figures and model cards: the class's name unless it has its own notation."""
        return type(self).__name__

    def forward(self, features: Tensor) -> list[Tensor]:
        """[N, F, L] -> stages, each [N, S, F, L]; the last is the result, earlier ones are for deep supervision."""
        raise NotImplementedError

    def initial_state(self, batch: int) -> Any:
        """The state before the first frame, for `batch` = N streams."""
        raise NotImplementedError(f"{type(self).__name__} is not causal and cannot stream")

    def step(self, features: Tensor, state: Any) -> tuple[list[Tensor], Any]:
        """`forward` on the next block of frames [N, F, l]; also returns the next state."""
        raise NotImplementedError(f"{type(self).__name__} is not causal and cannot stream")

    @property
    def cannot_stream(self) -> str:
        """The reason, worded to follow its name; empty: it can stream in constant memory."""
        if not self.causal:
            return "is not causal"
        return "" if steps(type(self)) else "has no step"
