"""The model as one graph of real numbers, [N, T] -> [N, S, T], that every exporter can follow."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasnet_attn.config import describe
from tasnet_attn.exporting.lstm import GraphLSTM
from tasnet_attn.filterbanks import LearnedDecoder, STFTBank, STFTDecoder, STFTEncoder
from tasnet_attn.model import SourceSeparator
from tasnet_attn.nn import TransformerLayer
from tasnet_attn.separators import Hourglass, SkipAttentionHourglass
from tasnet_attn.separators.samsnet import SlicedAttention


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


class GraphLearnedDecoder(LearnedDecoder):
    """The output is always cut, so that no length is a special case."""

    def __init__(self, original: LearnedDecoder) -> None:
        _become(self, original)

    def forward(self, carriers: Tensor, length: int) -> Tensor:
        left = self.kernel_size - self.stride
        return F.pad(self.synthesis(carriers), (0, self.kernel_size))[..., left : left + length]


class GraphHourglass(Hourglass):
    """Padding by a fixed number of frames and always cutting: no number of frames is a special case."""

    def __init__(self, original: Hourglass) -> None:
        _become(self, original)

    def padded(self, features: Tensor) -> Tensor:
        bins, frames = features.shape[-2:]
        whole = (frames + self.multiple - 1) // self.multiple * self.multiple
        return F.pad(features, (0, self.multiple, 0, -bins % self.multiple))[..., :whole]

    def cropped(self, masks: Tensor, bins: int, frames: int) -> Tensor:
        return super().cropped(F.pad(masks, (0, 1)), bins, frames)


class GraphSlicedAttention(SlicedAttention):
    """Under a mask, and cut, whether or not the last part is full."""

    def __init__(self, original: SlicedAttention) -> None:
        _become(self, original)

    mask = staticmethod(SlicedAttention.real)

    def cropped(self, x: Tensor, length: int) -> Tensor:
        return super().cropped(F.pad(x, (0, 0, 0, 1)), length)


class GraphTransformerLayer(TransformerLayer):
    """Windowed attention under one mask for all frames: the blocks of `attend` would fix their number."""

    def __init__(self, original: TransformerLayer) -> None:
        _become(self, original)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.window is None:
            return super().attend(q, k, v)
        frames = torch.arange(q.shape[-2], device=q.device)
        age = frames[:, None] - frames
        allowed = (age < self.window) & (age >= 0 if self.causal else age > -self.window)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)


def _become(new: nn.Module, original: nn.Module) -> None:
    """Make `new` an object of another class with the same parts."""
    nn.Module.__init__(new)
    new.__dict__.update(original.__dict__)


REPLACEMENTS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    STFTEncoder: GraphSTFTEncoder,
    STFTDecoder: GraphSTFTDecoder,
    LearnedDecoder: GraphLearnedDecoder,
    TransformerLayer: GraphTransformerLayer,
    Hourglass: GraphHourglass,
    SkipAttentionHourglass: GraphHourglass,
    SlicedAttention: GraphSlicedAttention,
}


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
            if isinstance(child, nn.LSTM) and lstm != "torch":
                child = GraphLSTM(child, onnx=lstm == "onnx")
            elif type(child) in REPLACEMENTS:
                child = REPLACEMENTS[type(child)](child)
            setattr(parent, name, child.eval())
    return Graph(prepared)
