"""LSTM layers as one operation of the graph: the exporters would otherwise unroll them and freeze the time axis.

`tasnet_attn::lstm` exists only while a graph is captured. torch.export's graph then gets torch's own LSTM in its place
(`restore`), ONNX's gets ONNX's (`to_onnx`), so that no file depends on this library.
"""

from __future__ import annotations

import operator
from typing import Any, cast

import torch
from torch import Tensor, nn


@torch.library.custom_op("tasnet_attn::lstm", mutates_args=())
def lstm(x: Tensor, state: Tensor, weights: list[Tensor], layers: int, directions: int) -> Tensor:
    """[N, L, D] and the first state [layers * directions, N, H] -> [N, L, directions * H]."""
    with torch.autocast("cpu", enabled=False):
        return torch.lstm(x, (state, state), weights, True, layers, 0.0, False, directions == 2, True)[0]


@lstm.register_fake
def _(x: Tensor, state: Tensor, weights: list[Tensor], layers: int, directions: int) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], directions * state.shape[-1])


class GraphLSTM(nn.Module):
    """Stands in for an `nn.LSTM`, ours or a user's, while a graph is captured; whole signals only: no state goes in."""

    def __init__(self, original: nn.LSTM) -> None:
        super().__init__()
        self.hidden, self.layers, self.batch_first = original.hidden_size, original.num_layers, original.batch_first
        self.directions = 2 if original.bidirectional else 1
        self.weights = nn.ParameterList(cast(list[Tensor], original._flat_weights))

    def flatten_parameters(self) -> None:
        """Nothing: some modules call it before the layer."""

    def forward(self, x: Tensor, state: None = None) -> tuple[Tensor, None]:
        """[N, L, D] -> [N, L, directions * H], or with N and L exchanged."""
        x = x if self.batch_first else x.transpose(0, 1)
        start = x.new_zeros(self.layers * self.directions, x.shape[0], self.hidden)
        y = lstm(x, start, list(self.weights), self.layers, self.directions)
        return (y if self.batch_first else y.transpose(0, 1)), None


def restore(program: torch.export.ExportedProgram) -> None:
    """Put torch's own LSTM in the place of `tasnet_attn::lstm`: the file then loads without this library."""
    graph = program.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.tasnet_attn.lstm.default:
            x, state, weights, layers, directions = node.args
            with graph.inserting_before(node):
                arguments = (x, [state, state], weights, True, layers, 0.0, False, directions == 2, True)
                whole = graph.call_function(torch.ops.aten.lstm.input, arguments)
                output = graph.call_function(operator.getitem, (whole, 0))
            whole.meta["val"] = (node.meta["val"], state.meta["val"], state.meta["val"])
            output.meta["val"] = node.meta["val"]
            node.replace_all_uses_with(output)
            graph.erase_node(node)
    graph.lint()
    program.graph_module.recompile()


def to_onnx() -> dict[Any, Any]:
    """The translation of `tasnet_attn::lstm` for `torch.onnx.export`: one ONNX LSTM for each layer.

    torch's weights of a layer and direction are W [4H, D], R [4H, H] and two biases [4H], gates i, f, c, o; ONNX's have
    the gates i, o, f, c, and the directions in front. Constants are folded when the file is written.
    """
    from onnxscript import opset18 as op

    def ordered(weight: Any) -> Any:  # [4H, ...] -> [1, 4H, ...]
        hidden = weight.shape[0] // 4
        order: Any = op.Constant(value_ints=[g * hidden + unit for g in (0, 3, 1, 2) for unit in range(hidden)])
        axes: Any = op.Constant(value_ints=[0])
        return op.Unsqueeze(op.Gather(weight, order, axis=0), axes)

    def translate(x, state, weights, layers: int, directions: int):
        way = "bidirectional" if directions == 2 else "forward"
        x = op.Transpose(x, perm=[1, 0, 2])  # ONNX Runtime has time first only
        for layer in range(layers):
            first = 4 * directions * layer
            ways = [[ordered(w) for w in weights[first + 4 * d : first + 4 * d + 4]] for d in range(directions)]
            w, r = (op.Concat(*(way[i] for way in ways), axis=0) for i in (0, 1))
            b = op.Concat(*(op.Concat(way[2], way[3], axis=1) for way in ways), axis=0)
            hidden = weights[first + 1].shape[-1]
            y, _, _ = op.LSTM(x, w, r, b, hidden_size=hidden, direction=way)  # [L, directions, N, H]
            shape: Any = op.Constant(value_ints=[0, 0, -1])
            x = op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), shape)
        return op.Transpose(x, perm=[1, 0, 2])

    return {torch.ops.tasnet_attn.lstm.default: translate}
