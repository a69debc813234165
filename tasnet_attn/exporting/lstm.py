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
    """Stands in for `nn.LSTM`, batch first, while a graph is captured.

    Args:
        original: the layer.
        onnx: keep its weights as ONNX wants them: for each layer W [directions, 4H, D], R [directions, 4H, H] and
            B [directions, 8H], with the gates in the order i, o, f, c (torch's is i, f, c, o).
    """

    def __init__(self, original: nn.LSTM, onnx: bool) -> None:
        super().__init__()
        self.hidden, self.layers = original.hidden_size, original.num_layers
        self.directions = 2 if original.bidirectional else 1
        flat = [cast(Tensor, weight).detach() for weight in original._flat_weights]
        self.names = []
        for name, weight in _onnx_weights(flat, self.hidden, self.directions) if onnx else _named(flat):
            self.register_parameter(name, nn.Parameter(weight.clone(), requires_grad=False))
            self.names.append(name)

    def forward(self, x: Tensor, state: None = None) -> tuple[Tensor, None]:
        """[N, L, D] -> [N, L, directions * H]; whole signals only, so no state goes in or out."""
        start = x.new_zeros(self.layers * self.directions, x.shape[0], self.hidden)
        weights = [self.get_parameter(name) for name in self.names]
        return lstm(x, start, weights, self.layers, self.directions), None


def _named(flat: list[Tensor]) -> list[tuple[str, Tensor]]:
    return [(f"weight_{i}", weight) for i, weight in enumerate(flat)]


def _onnx_weights(flat: list[Tensor], hidden: int, directions: int) -> list[tuple[str, Tensor]]:
    def ordered(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (4, hidden))[[0, 3, 1, 2]].flatten(0, 1)

    named = []
    for layer in range(len(flat) // (4 * directions)):
        ways = [flat[4 * i : 4 * i + 4] for i in range(layer * directions, (layer + 1) * directions)]
        named.append((f"W{layer}", torch.stack([ordered(way[0]) for way in ways])))
        named.append((f"R{layer}", torch.stack([ordered(way[1]) for way in ways])))
        named.append((f"B{layer}", torch.stack([torch.cat([ordered(way[2]), ordered(way[3])]) for way in ways])))
    return named


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
    """The translation of `tasnet_attn::lstm` for `torch.onnx.export`: one ONNX LSTM for each layer."""
    from onnxscript import opset18 as op

    def translate(x, state, weights, layers: int, directions: int):
        way = "bidirectional" if directions == 2 else "forward"
        x = op.Transpose(x, perm=[1, 0, 2])  # ONNX Runtime has time first only
        for layer in range(layers):
            w, r, b = weights[3 * layer : 3 * layer + 3]
            y, _, _ = op.LSTM(x, w, r, b, hidden_size=r.shape[-1], direction=way)  # [L, directions, N, H]
            shape: Any = op.Constant(value_ints=[0, 0, -1])
            x = op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), shape)
        return op.Transpose(x, perm=[1, 0, 2])

    return {torch.ops.tasnet_attn.lstm.default: translate}
