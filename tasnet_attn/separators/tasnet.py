"""TasNet: a stack of LSTM layers with identity skips."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from tasnet_attn.nn import LSTM
from tasnet_attn.separators.base import Separator


class TasNet(Separator):
    """The baseline separator: LayerNorm, LSTM layers, a linear map to the masks.

    Identity skips connect the outputs of layers 2, 4, 6, ...: our reading of "an identity skip connection between every
    two LSTM layers starting from the second".

    Args:
        n_features: F.
        n_sources: S.
        hidden: LSTM units per direction.
        n_layers: LSTM layers.
        bidirectional: bidirectional LSTMs; the model is then not causal.
        input_norm: LayerNorm over the features of each frame.

    Source: Luo & Mesgarani 2018, section 2.3.
    """

    def __init__(
        self,
        n_features: int,
        n_sources: int,
        hidden: int = 500,
        n_layers: int = 4,
        bidirectional: bool = False,
        input_norm: bool = True,
    ) -> None:
        super().__init__()
        self.n_sources, self.causal = n_sources, not bidirectional
        width = hidden * (1 + bidirectional)
        self.norm = nn.LayerNorm(n_features) if input_norm else nn.Identity()
        self.lstms = nn.ModuleList(
            LSTM(width if i else n_features, hidden, bidirectional=bidirectional) for i in range(n_layers)
        )
        self.to_masks = nn.Linear(width, n_sources * n_features)

    def forward(self, features: Tensor) -> list[Tensor]:
        return self._run(features, [None] * len(self.lstms))[0]

    def initial_state(self, batch: int) -> list[tuple[Tensor, Tensor]]:
        return [cast(LSTM, lstm).initial_state(batch) for lstm in self.lstms]

    def step(self, features: Tensor, state: list) -> tuple[list[Tensor], list]:
        return self._run(features, state)

    def _run(self, features: Tensor, state: list) -> tuple[list[Tensor], list]:
        x, skip, new_state = self.norm(features.transpose(1, 2)), None, []
        for i, (lstm, carried) in enumerate(zip(self.lstms, state, strict=True), start=1):
            x, carried = lstm(x, carried)
            new_state.append(carried)
            if i % 2 == 0:
                x = x if skip is None else x + skip
                skip = x
        masks = self.to_masks(x).unflatten(-1, (self.n_sources, -1))  # [N, L, S, F]
        return [masks.permute(0, 2, 3, 1)], new_state
