"""LTL: LSTM layers, transformer layers, LSTM layers."""

from __future__ import annotations

import re
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from tasnet_attn.errors import at_least
from tasnet_attn.nn import (
    BLOCK,
    FFN,
    LSTM,
    Init,
    Norm,
    TransformerLayer,
    beyond_window,
    exporting,
    recomputed,
    sinusoids,
)
from tasnet_attn.separators.base import Separator


class LTL(Separator):
    """The separator written X_trans_Y: X LSTM layers, transformer layers, Y LSTM layers, a linear map to the masks.

    The paper calls its unidirectional models causal although attention over all segments is not; here `attention` is
    causal unless the LSTMs are bidirectional. Without a first LSTM nothing encodes order: use `positional` then.

    Args:
        n_features: F.
        n_sources: S.
        lstm_before: X, may be 0.
        transformer_layers: layers of self-attention and feed-forward, may be 0.
        lstm_after: Y, may be 0.
        hidden: LSTM units per direction. The transformer is as wide as the LSTM's output, twice this if bidirectional;
            when X = 0 it is as wide as F.
        heads: attention heads; they divide that width.
        ffn: hidden width of the feed-forward part.
        bidirectional: bidirectional LSTMs.
        attention: "causal" or "full"; None: causal unless bidirectional.
        window: frames that a frame sees to either side, including itself; None: all.
        positional: "sinusoidal" adds a code before the transformer; None adds none.
        init: initialisation of the transformer's weight matrices, whose biases become zero; nothing else is changed.
        dropout: on the residual branches of the transformer.
        input_norm: LayerNorm over the features of each frame.
        norm: of the transformer's layers, "post" or "pre", which adds a LayerNorm after the last one.
        ffn_layer: the hidden layer of the feed-forward parts, "linear" or "lstm" (DPTNet).
        project: the linear map to the masks; False: none, for a path of `DualPath`, which is as wide as its features.
        gradient_checkpointing: keep only the input of the LSTMs and of each transformer layer, see `nn.recomputed`.

    Source: "Blending the attention mechanism in TasNet" (hal-02986238). The paper leaves open heads, positional code
    and dropout.
    """

    least = {"lstm_before": 0, "transformer_layers": 0}

    def __init__(
        self,
        n_features: int,
        n_sources: int,
        lstm_before: int = 1,
        transformer_layers: int = 4,
        lstm_after: int = 0,
        hidden: int = 500,
        heads: int = 4,
        ffn: int = 256,
        bidirectional: bool = False,
        attention: Literal["causal", "full"] | None = None,
        window: int | None = None,
        positional: Literal["sinusoidal"] | None = None,
        init: Init = "xavier_uniform",
        dropout: float = 0.0,
        input_norm: bool = False,
        norm: Norm = "post",
        ffn_layer: FFN = "linear",
        project: bool = True,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        at_least(0, lstm_before=lstm_before, transformer_layers=transformer_layers, lstm_after=lstm_after)
        at_least(1, hidden=hidden, window=window)
        if attention not in (None, "causal", "full"):
            raise ValueError(f"attention {attention!r} is neither 'causal' nor 'full'")
        if positional not in (None, "sinusoidal"):
            raise ValueError(f"positional {positional!r} is neither 'sinusoidal' nor null")
        causal = self.meant({"attention": attention, "bidirectional": bidirectional})["attention"] == "causal"
        self.n_sources, self.positional, self.window = n_sources, positional, window
        self.causal = not bidirectional and (causal or transformer_layers == 0)

        width = n_features
        self.norm = nn.LayerNorm(n_features) if input_norm else nn.Identity()
        self.before = LSTM(width, hidden, lstm_before, bidirectional) if lstm_before else None
        width = hidden * (1 + bidirectional) if lstm_before else width
        settings = (heads, ffn, causal, window, dropout, norm, ffn_layer)
        layers = [TransformerLayer(width, *settings) for _ in range(transformer_layers)]
        self.transformer = nn.ModuleList(layers)
        self.norm_transformer = nn.LayerNorm(width) if norm == "pre" and layers else nn.Identity()
        self.after = LSTM(width, hidden, lstm_after, bidirectional) if lstm_after else None
        width = hidden * (1 + bidirectional) if lstm_after else width
        if not project and width != n_sources * n_features:
            raise ValueError(f"project: false gives {width} numbers per frame; {n_sources * n_features} are needed")
        self.to_masks = nn.Linear(width, n_sources * n_features) if project else nn.Identity()
        for layer in layers:
            layer.initialise(init)

    @staticmethod
    def parse(name: str) -> dict[str, int]:
        """Read the paper's notation: ``LTL(500, 2, **LTL.parse("2_trans_0"))``.

        Examples:
            >>> LTL.parse("2_trans_0")
            {'lstm_before': 2, 'lstm_after': 0}
        """
        match = re.fullmatch(r"(\d+)_trans_(\d+)", name)
        if match is None:
            raise ValueError(f"{name!r} does not have the form X_trans_Y, like 2_trans_0")
        return {"lstm_before": int(match[1]), "lstm_after": int(match[2])}

    @classmethod
    def meant(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments | {"attention": arguments["attention"] or ("full" if arguments["bidirectional"] else "causal")}

    @property
    def name(self) -> str:
        """The paper's notation, like 2_trans_0."""
        return "{}_trans_{}".format(*(lstm.num_layers if lstm else 0 for lstm in (self.before, self.after)))

    def forward(self, features: Tensor) -> list[Tensor]:
        start = {"frame": 0, "before": None, "rings": [None] * len(self.transformer), "after": None}
        return self._run(features, start)[0]

    def initial_state(self, batch: int) -> dict[str, Any]:
        before, after = (lstm and lstm.initial_state(batch) for lstm in (self.before, self.after))
        rings = [cast(TransformerLayer, layer).initial_state(batch) for layer in self.transformer]
        frame = torch.zeros((), dtype=torch.long, device=next(self.parameters()).device)
        return {"frame": frame, "before": before, "rings": rings, "after": after}

    def step(self, features: Tensor, state: dict[str, Any]) -> tuple[list[Tensor], dict[str, Any]]:
        masks = []
        for block in [features] if exporting() else features.split(BLOCK, dim=-1):  # else their number is fixed
            stages, state = self._run(block, state)
            masks += stages
        return [torch.cat(masks, dim=-1)], state

    @property
    def cannot_stream(self) -> str:
        bounded = not self.transformer or self.window is not None
        return super().cannot_stream or ("" if bounded else "has no window: its memory would grow without limit")

    def _run(self, features: Tensor, state: dict[str, Any]) -> tuple[list[Tensor], dict[str, Any]]:
        """Whole signals and streams; a whole signal needs no states and rings, its frames attend to each other."""
        frame, before, after = state["frame"], state["before"], state["after"]
        x = self.norm(features.transpose(1, 2))  # [N, L, F]
        if self.before is not None:
            x, before = recomputed(self.gradient_checkpointing, self.before, x, before)
        if self.positional:
            x = x + sinusoids(frame, x.shape[1], x.shape[2], x.device)
        rings, hidden = [], None
        if self.window is not None and isinstance(frame, Tensor):  # in a stream; one mask for all layers
            hidden = beyond_window(frame, x.shape[1], self.window)
        for layer, ring in zip(self.transformer, state["rings"], strict=True):
            assert isinstance(layer, TransformerLayer)
            if ring is None:
                x = recomputed(self.gradient_checkpointing, layer, x)
            else:
                x, ring = layer.step(x, ring, frame, hidden)
            rings.append(ring)
        x = self.norm_transformer(x)
        if self.after is not None:
            x, after = recomputed(self.gradient_checkpointing, self.after, x, after)
        masks = self.to_masks(x).unflatten(-1, (self.n_sources, -1))  # [N, L, S, F]
        new_state = {"frame": frame + features.shape[-1], "before": before, "rings": rings, "after": after}
        return [masks.permute(0, 2, 3, 1)], new_state
