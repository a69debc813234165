"""DualPath: features folded into a plane, with paths along its short and long axes in alternation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from tasnet_attn.errors import at_least
from tasnet_attn.nn import recomputed
from tasnet_attn.separators.base import Separator
from tasnet_attn.separators.folds import Bands, Fold, GlobalNorm
from tasnet_attn.separators.ltl import LTL

BLSTM = partial(LTL, lstm_before=1, transformer_layers=0, hidden=48, bidirectional=True)


class DualPath(Separator):
    """Blocks of two paths: `within` along the short axis of a plane, `across` along the long one.

    A path is any separator with one source and D features: an LTL by its name X_trans_Y, with its own settings.

    For spectrograms, the plane is bands of bins by frames, and `across` runs along time: if it is causal and each frame
    is standardised by itself, the model is causal and streams. For the code of a learned encoder, the plane is chunks
    of frames: with paths of one bidirectional LSTM and the norm "global" this is DPRNN. Memory is linear in the length
    if that of the paths is.

    Args:
        n_features: F.
        n_sources: S.
        fold: makes the plane from features, and masks from the plane: `Bands` or `Chunks`.
        width: D, channels at each place in the plane.
        n_blocks: pairs of paths.
        within: the path along the short axis, in all blocks.
        across: the path along the long axis.
        norm: of a path's output before it is added to its input: "layer", of each place separately, or "global", over
            the whole plane; None: neither norm nor sum, for paths that have their own, like DPTNet's.
        gradient_checkpointing: keep only the input of each block, see `nn.recomputed`.

    Source: Luo et al. 2020, arXiv 1910.06379; over bands and frames: ours (recipes/debian2mix/dual_path).
    """

    def __init__(
        self,
        n_features: int,
        n_sources: int,
        fold: Callable[[int, int, int], Fold] = Bands,
        width: int = 48,
        n_blocks: int = 3,
        within: Callable[[int, int], Separator] = BLSTM,
        across: Callable[[int, int], Separator] = BLSTM,
        norm: Literal["layer", "global"] | None = "layer",
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        at_least(1, width=width, n_blocks=n_blocks)
        if norm not in ("layer", "global", None):
            raise ValueError(f"norm {norm!r} is neither 'layer' nor 'global' nor null")
        self.fold = fold(n_features, n_sources, width)
        self.blocks = nn.ModuleList(Block(width, within, across, norm) for _ in range(n_blocks))
        first = self._blocks[0].across
        self.causal = self.fold.causal and first.causal and norm != "global"

    @property
    def cannot_stream(self) -> str:
        reason = self._blocks[0].across.cannot_stream
        return super().cannot_stream or (f"has a path across that {reason}" if reason else "")

    def forward(self, features: Tensor) -> list[Tensor]:
        return self._run(features, [None] * len(self.blocks))[0]

    def initial_state(self, batch: int) -> list[Any]:
        places = self.fold.n_places
        return [block.across.initial_state(batch * places) for block in self._blocks]

    def step(self, features: Tensor, state: list[Any]) -> tuple[list[Tensor], list[Any]]:
        return self._run(features, state)

    @property
    def _blocks(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    def _run(self, features: Tensor, state: list[Any]) -> tuple[list[Tensor], list[Any]]:
        plane, new_state = self.fold(features), []
        for block, carried in zip(self._blocks, state, strict=True):
            plane, carried = recomputed(self.gradient_checkpointing, block, plane, carried)
            new_state.append(carried)
        return [self.fold.unfolded(plane, features)], new_state


class Block(nn.Module):
    """The two paths, one after the other."""

    def __init__(
        self,
        width: int,
        within: Callable[[int, int], Separator],
        across: Callable[[int, int], Separator],
        norm: Literal["layer", "global"] | None,
    ) -> None:
        super().__init__()
        self.within, self.across = within(width, 1), across(width, 1)
        kind = {"layer": nn.LayerNorm, "global": GlobalNorm, None: None}[norm]
        self.norm_within, self.norm_across = (kind and kind(width) for _ in range(2))

    def forward(self, plane: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """[N, J, K, D], and the state of the path across (None: not carried) -> the same after both paths."""
        lines = plane.flatten(0, 1).transpose(1, 2)  # [N * J, D, K]
        plane = self._joined(plane, self.within(lines)[-1], self.norm_within)
        turned = plane.transpose(1, 2)  # [N, K, J, D]
        lines = turned.flatten(0, 1).transpose(1, 2)  # [N * K, D, J]
        stages, state = (self.across(lines), None) if state is None else self.across.step(lines, state)
        return self._joined(turned, stages[-1], self.norm_across).transpose(1, 2), state

    @staticmethod
    def _joined(plane: Tensor, stage: Tensor, norm: nn.Module | None) -> Tensor:
        """A path's output [N * J, 1, D, K] as [N, J, K, D], normalised and added to its input."""
        change = stage[:, 0].transpose(1, 2).unflatten(0, plane.shape[:2])
        return change if norm is None else plane + norm(change)
