"""The model as one graph of real numbers, [N, T] -> [N, S, T], that every exporter can follow."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasnet_attn.config import describe
from tasnet_attn.exporting.lstm import GraphLSTM
from tasnet_attn.filterbanks import STFTBank, STFTDecoder, STFTEncoder
from tasnet_attn.model import SourceSeparator
from tasnet_attn.nn import TransformerLayer


class GraphSTFTEncoder(STFTEncoder):
    """The STFT as a convolution with the filters that define it: no complex numbers, no FFT."""

    def __init__(self, original: STFTEncoder) -> None:
        arguments = describe(original)["init_args"]
        super().__init__(**arguments)
        self.filters: Tensor
        self.register_buffer("filters", STFTBank(self.n_fft, self.hop, arguments["window"]).filters())

    def spectrum(self, waveform: Tensor) -> Tensor:
        padded = F.pad(waveform, (self.n_fft // 2, self.n_fft // 2)).unsqueeze(1)
        return self.kept(F.conv1d(padded, self.filters, stride=self.hop).unflatten(1, (2, -1)))


class GraphSTFTDecoder(STFTDecoder):
    """The inverse STFT as a transposed convolution with the windowed cosines and sines of its definition."""

    def __init__(self, original: STFTDecoder) -> None:
        arguments = describe(original)["init_args"]
        super().__init__(**arguments)
        # of a real signal's bins all but DC and Nyquist stand for two
        twice = torch.full((2, self.n_fft // 2 + 1, 1, 1), 2.0 / self.n_fft)
        twice[:, 0] = 1.0 / self.n_fft
        if self.n_fft % 2 == 0:
            twice[:, -1] = 1.0 / self.n_fft
        bank = STFTBank(self.n_fft, self.hop, arguments["window"]).filters()
        self.filters: Tensor
        self.squares: Tensor
        self.register_buffer("filters", (bank.unflatten(0, (2, -1)) * twice).flatten(0, 1))
        self.register_buffer("squares", self.window.square()[None, None])

    def overlapped(self, carriers: Tensor) -> tuple[Tensor, Tensor]:
        waveform = F.conv_transpose1d(carriers.flatten(1, 2), self.filters, stride=self.hop)
        frames = torch.ones_like(carriers[:1, 0, :1])  # [1, 1, L]
        return waveform[:, 0], F.conv_transpose1d(frames, self.squares, stride=self.hop)[0]


class GraphTransformerLayer(TransformerLayer):
    """Windowed attention under one mask for all frames: the blocks of `attend` would fix their number."""

    def __init__(self, original: TransformerLayer) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(original.__dict__)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.window is None:
            return super().attend(q, k, v)
        frames = torch.arange(q.shape[-2], device=q.device)
        age = frames[:, None] - frames
        allowed = (age < self.window) & (age >= 0 if self.causal else age > -self.window)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)


class Graph(nn.Module):
    """What every exported file computes: [N, T] -> [N, S, T], N channels, each of which is separated on its own."""

    def __init__(self, model: SourceSeparator) -> None:
        super().__init__()
        self.model = model

    def forward(self, mixture: Tensor) -> Tensor:
        """Mixture [N, T] -> estimates [N, S, T]."""
        return self.model(mixture.unsqueeze(1)).squeeze(2)


def graph(model: SourceSeparator, lstm: str = "torch") -> Graph:
    """A copy of the model, in evaluation mode, whose parts are replaced by what exporters can follow.

    Args:
        model: the model.
        lstm: "torch" leaves the LSTMs; "call" makes each one operation `tasnet_attn::lstm`; "onnx" likewise, with its
            weights in ONNX's order.
    """
    prepared = copy.deepcopy(model).eval().requires_grad_(False)
    for parent in list(prepared.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, STFTEncoder):
                child = GraphSTFTEncoder(child)
            elif isinstance(child, STFTDecoder):
                child = GraphSTFTDecoder(child)
            elif isinstance(child, TransformerLayer):
                child = GraphTransformerLayer(child)
            elif isinstance(child, nn.LSTM) and lstm != "torch":
                child = GraphLSTM(child, onnx=lstm == "onnx")
            else:
                continue
            setattr(parent, name, child.eval())
    return Graph(prepared)
