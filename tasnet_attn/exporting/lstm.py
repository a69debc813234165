"""LSTM layers as one operation of the graph: exporters would otherwise unroll them and fix the number of frames.

`tasnet_attn::lstm` exists only while a graph is captured. Then torch.export's graph gets torch's own LSTM instead
(`restore`) and ONNX's graph gets ONNX's (`to_onnx`), so that no file depends on this library.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

Result = tuple[Tensor, Tensor, Tensor]


@torch.library.custom_op("tasnet_attn::lstm", mutates_args=())
def lstm(x: Tensor, h: Tensor, c: Tensor, weights: list[Tensor], layers: int, directions: int) -> Result:
    """[N, L, D] and the state, twice [layers * directions, N, H] -> [N, L, directions * H] and the next state."""
    with torch.autocast("cpu", enabled=False):
        y, h, c = torch.lstm(x, (h, c), weights, True, layers, 0.0, False, directions == 2, True)
        return y, h.clone(), c.clone()


@lstm.register_fake
def _(x: Tensor, h: Tensor, c: Tensor, weights: list[Tensor], layers: int, directions: int) -> Result:
    return x.new_empty(x.shape[0], x.shape[1], directions * h.shape[-1]), torch.empty_like(h), torch.empty_like(c)


class GraphLSTM(nn.Module):
    """Stands in for an `nn.LSTM`, ours or a user's, while a graph is captured."""

    def __init__(self, original: nn.LSTM) -> None:
        super().__init__()
        self.hidden, self.layers, self.batch_first = original.hidden_size, original.num_layers, original.batch_first
        self.directions = 2 if original.bidirectional else 1
        self.weights = nn.ParameterList(cast(list[Tensor], original._flat_weights))

    def flatten_parameters(self) -> None:
        """Does nothing: some modules call it before the layer."""

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """[N, L, D] -> [N, L, directions * H], or with N and L exchanged; and the final state."""
        x = x if self.batch_first else x.transpose(0, 1)
        zeros = x.new_zeros(self.layers * self.directions, x.shape[0], self.hidden)
        y, h, c = lstm(x, *(state or (zeros, zeros)), list(self.weights), self.layers, self.directions)
        return (y if self.batch_first else y.transpose(0, 1)), (h, c)


def restore(program: torch.export.ExportedProgram) -> None:
    """Replace `tasnet_attn::lstm` by torch's own LSTM, so that the file loads without this library."""
    graph = program.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.tasnet_attn.lstm.default:
            x, h, c, weights, layers, directions = node.args
            with graph.inserting_before(node):
                arguments = (x, [h, c], weights, True, layers, 0.0, False, directions == 2, True)
                whole = graph.call_function(torch.ops.aten.lstm.input, arguments)
            whole.meta["val"] = node.meta["val"]
            node.replace_all_uses_with(whole)
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

    def translate(x, h, c, weights, layers: int, directions: int):
        way = "bidirectional" if directions == 2 else "forward"
        x = op.Transpose(x, perm=[1, 0, 2])  # ONNX Runtime only supports time first
        after: list[Any] = []
        for layer in range(layers):
            first = 4 * directions * layer
            ways = [[ordered(w) for w in weights[first + 4 * d : first + 4 * d + 4]] for d in range(directions)]
            w, r = (op.Concat(*(way[i] for way in ways), axis=0) for i in (0, 1))
            b = op.Concat(*(op.Concat(way[2], way[3], axis=1) for way in ways), axis=0)
            hidden = weights[first + 1].shape[-1]
            ends: list[Any] = [op.Constant(value_ints=[directions * place]) for place in (layer, layer + 1)]
            state = (op.Slice(each, *ends) for each in (h, c))  # of axis 0
            y, *carried = op.LSTM(x, w, r, b, None, *state, hidden_size=hidden, direction=way)  # [L, directions, N, H]
            after.append(carried)
            shape: Any = op.Constant(value_ints=[0, 0, -1])
            x = op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), shape)
        h, c = (op.Concat(*each, axis=0) for each in zip(*after, strict=True))
        return op.Transpose(x, perm=[1, 0, 2]), h, c

    return {torch.ops.tasnet_attn.lstm.default: translate}
