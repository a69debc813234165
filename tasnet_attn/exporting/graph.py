"""The model as one graph of real numbers, [N, T] -> [N, S, T], for every exporter."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from tasnet_attn.exporting.lstm import GraphLSTM
from tasnet_attn.model import SourceSeparator


class Graph(nn.Module):
    """The computation of every exported file: [N, T] -> [N, S, T], N independent channels."""

    def __init__(self, model: SourceSeparator) -> None:
        super().__init__()
        self.model = model

    def forward(self, mixture: Tensor) -> Tensor:
        """Mixture [N, T] -> estimates [N, S, T]."""
        return self.model(mixture.unsqueeze(1)).squeeze(2)


def graph(model: SourceSeparator, one_lstm: bool = False) -> Graph:
    """A copy of the model in evaluation mode; `one_lstm` makes each of its LSTMs one operation, `tasnet_attn::lstm`."""
    prepared = copy.deepcopy(model).eval().requires_grad_(False)
    for parent in list(prepared.modules()) if one_lstm else ():
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.LSTM) and child.bias and not child.proj_size:
                setattr(parent, name, GraphLSTM(child))
    return Graph(prepared)
