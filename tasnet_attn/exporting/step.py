"""The model's step as a graph: samples and a state in, estimates and the next state out.

Shapes: N channels, S sources, t samples, a whole number of strides.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_leaves, tree_unflatten

from tasnet_attn.errors import UserError
from tasnet_attn.exporting.graph import graph
from tasnet_attn.filterbanks import EPS
from tasnet_attn.model import SourceSeparator
from tasnet_attn.nn import Ring
from tasnet_attn.streaming import ModelSteps, cannot_stream

EXAMPLE = 3  # channels for recording a graph; tensors that depend on them are found with another number
OTHER = 5


class State:
    """The tensors of a model's state, flattened: names, shapes, and the axis of the channels.

    Attributes:
        names: of the tensors that a graph takes; empty tensors are not inputs.
        shapes: of each, for `EXAMPLE` channels.
        axes: of each, the axis of the channels; None: none.
        rings: of each, the axis along which it is a ring buffer, whose new frames only the graph returns; None: none.
    """

    def __init__(self, model: SourceSeparator) -> None:
        found, self.tree = tree_flatten_with_path(self._after_lead(model, EXAMPLE))
        others = tree_flatten_with_path(self._after_lead(model, OTHER))[0]
        self.leaves = [leaf for _, leaf in found]
        self.places = [i for i, leaf in enumerate(self.leaves) if isinstance(leaf, Tensor) and leaf.numel()]
        self.names = [_name(keystr(found[i][0])) for i in self.places]
        parts = tree_leaves(tree_unflatten(self.leaves, self.tree), is_leaf=lambda part: isinstance(part, Ring))
        slots = {id(leaf) for ring in parts if isinstance(ring, Ring) for leaf in ring}
        self.rings = [2 if id(self.leaves[i]) in slots else None for i in self.places]
        self.shapes = [list(self.leaves[i].shape) for i in self.places]
        self.axes: list[int | None] = []
        for shape, other in zip(self.shapes, (others[i][1].shape for i in self.places), strict=True):
            self.axes.append(next((axis for axis, size in enumerate(shape) if size != other[axis]), None))

    @staticmethod
    def _after_lead(model: SourceSeparator, channels: int) -> dict[str, Any]:
        state = ModelSteps(model).initial_state(channels)
        lead = state["encoder"].new_zeros(channels, model.encoder.lead)
        return {**state, "encoder": torch.cat([state["encoder"], lead], dim=-1)}

    def tensors(self) -> list[Tensor]:
        """The state of `EXAMPLE` channels before the first sample."""
        return [self.leaves[i].clone() for i in self.places]  # a tensor in two places would become one input

    def tree_of(self, tensors: tuple[Tensor, ...]) -> Any:
        """In the model's structure."""
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        return tree_unflatten(leaves, self.tree)

    def flat(self, tree: Any) -> list[Tensor]:
        """A state of the model as returned by the graph: only the new frames of ring buffers."""
        leaves = [leaf for _, leaf in tree_flatten_with_path(tree)[0]]
        return [leaves[i] for i in self.places]


def _name(path: str) -> str:
    """`['separator']['rings'][0].keys` -> separator.rings.0.keys."""
    return path.replace("'", "").replace("[", ".").replace("]", "").strip(".")


class StepGraph(nn.Module):
    """samples [N, t], the state -> estimates [N, S, t], the next state (for ring buffers: the new frames)."""

    def __init__(self, model: SourceSeparator, state: State) -> None:
        super().__init__()
        self.steps, self.state = ModelSteps(model), state
        self.model = model  # as a submodule, so that its weights are in the graph

    def forward(self, samples: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        estimates, state = self.steps.step(samples, self.state.tree_of(tensors))
        return estimates, *self.state.flat(state)


def step_program(model: SourceSeparator) -> tuple[torch.export.ExportedProgram, State]:
    """The step with N and the number of strides free.

    Raises:
        UserError: a model that cannot stream.
    """
    if why := cannot_stream(model):
        raise UserError(f"onnx-step: this model cannot stream: {why}")
    prepared = graph(model, one_lstm=True).model
    state = State(model)
    channels, frames = torch.export.Dim("channels"), torch.export.Dim("frames")
    dynamic: list[Any] = [{0: channels, 1: model.encoder.stride * frames}]
    for shape, axis in zip(state.shapes, state.axes, strict=True):
        each = None if axis is None else channels if shape[axis] == EXAMPLE else shape[axis] // EXAMPLE * channels
        dynamic.append({} if axis is None else {axis: each})
    samples = 0.1 * torch.randn(EXAMPLE, 7 * model.encoder.stride, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(
        StepGraph(prepared, state),
        (samples, *state.tensors()),
        dynamic_shapes=(dynamic[0], tuple(dynamic[1:])),
        strict=False,
    )
    return program, state


def about_step(model: SourceSeparator, state: State) -> dict[str, Any]:
    """Facts for the program that runs the step; see docs/streaming.md."""
    states = []
    for name, shape, axis, ring in zip(state.names, state.shapes, state.axes, state.rings, strict=True):
        sizes = [size // EXAMPLE if i == axis else size for i, size in enumerate(shape)]
        kind = str(state.leaves[state.places[state.names.index(name)]].dtype).removeprefix("torch.")
        states.append({"name": name, "shape": sizes, "channels": axis, "ring": ring, "type": kind})
    encoder, decoder = model.encoder, model.decoder
    return {
        "input": "samples [N, t] float32, t a multiple of the stride, and the states",
        "output": "estimates [N, S, t] float32, the first `delay` of all lie before the beginning, and `next.` states",
        "rings": "where a state has a ring axis, of R slots, `next.` is the new frames: frame f goes to slot f mod R",
        "stride": encoder.stride,
        "lead": encoder.lead,
        "trail": encoder.trail,
        "delay": decoder.delay,
        "rest": [name for name in state.names if name.startswith("decoder.")],  # a waveform and its divisor
        "floor": EPS,
        "gain": model.gain.tolist(),  # of each source, for the decoder's remainder; the estimates have it
        "latency": model.latency,
        "states": states,
    }
