"""Frames of any kernel and stride, and the learned encoder and decoder of TasNet."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from asteroid_filterbanks import Decoder as Synthesis
from asteroid_filterbanks import Encoder as Analysis
from asteroid_filterbanks import FreeFB
from torch import Tensor, nn

from tasnet_attn.errors import at_least
from tasnet_attn.filterbanks.base import EPS, Decoder, Encoded, Encoder, overlap_further
from tasnet_attn.nn import cut


def pad_to_frames(waveform: Tensor, kernel_size: int, stride: int) -> Tensor:
    """Zero-pad [..., T] so that frames cover every sample equally often: kernel - stride on the left, the rest right.

    With stride = kernel (TasNet's default) nothing is added on the left and the last segment is padded. The padding
    does not depend on T, as exporters need, so up to stride - 1 samples remain after the last frame.
    """
    return F.pad(waveform, (kernel_size - stride, kernel_size - 1))


def _stride(kernel_size: int, stride: int | None) -> int:
    """The stride; None means the kernel size."""
    stride = kernel_size if stride is None else stride
    if not 0 < stride <= kernel_size:
        raise ValueError(f"stride {stride} must lie between 1 and the kernel size {kernel_size}")
    return stride


class FrameEncoder(Encoder):
    """Base of learned and gammatone encoders: framing, and the L2 norm of each segment (TasNet, section 2.1)."""

    def __init__(self, n_filters: int, kernel_size: int, stride: int | None) -> None:
        super().__init__()
        at_least(1, n_filters=n_filters, kernel_size=kernel_size)
        self.n_features, self.kernel_size = n_filters, kernel_size
        self.stride = _stride(kernel_size, stride)
        self.latency = self.trail = kernel_size - 1

    @classmethod
    def meant(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments | {"stride": _stride(arguments["kernel_size"], arguments["stride"])}

    def forward(self, waveform: Tensor, scale: Tensor | None = None) -> Encoded:
        return self._encoded(pad_to_frames(waveform, self.kernel_size, self.stride), scale)

    def initial_state(self, batch: int) -> Tensor:
        return next(itertools.chain(self.parameters(), self.buffers())).new_zeros(batch, self.kernel_size - self.stride)

    def step(self, samples: Tensor, state: Tensor) -> tuple[Encoded, Tensor]:
        if self.kernel_size == self.stride:
            return self._encoded(samples, None), state
        samples = torch.cat([state, samples], dim=-1)
        return self._encoded(samples, None), samples[..., samples.shape[-1] - state.shape[-1] :]

    def _encoded(self, padded: Tensor, scale: Tensor | None) -> Encoded:
        """All frames of `padded` [N, T']."""
        padded = padded.unsqueeze(1)
        if scale is None:
            energy = F.avg_pool1d(padded.square(), self.kernel_size, self.stride) * self.kernel_size
            scale = (energy + EPS**2).sqrt()  # EPS inside the root: no infinite gradient on silence
        features = self.code(padded, scale)
        return Encoded(features, features * scale, scale)

    def code(self, padded: Tensor, scale: Tensor) -> Tensor:
        """The non-negative code [N, F, L] of the normalised segments of `padded` [N, 1, T']."""
        raise NotImplementedError


class GatedEncoder(FrameEncoder):
    """Learned encoder, w = relu(U x) * sigmoid(V x) of L2-normalised segments x.

    Args:
        n_filters: F, rows of U and of V (bias-free).
        kernel_size: samples in a segment.
        stride: samples between segments; None: the kernel size, no overlap.
        init: initialisation of U and V. "glorot": Glorot normal of the linear maps (500 filters of 220 samples: a
            standard deviation of 0.053), so that a code has about the level of a gammatone code; "filterbank": like
            `FreeFB`, which counts every shift of a filter as an output (0.0043; version 0.1.0).

    Source: Luo & Mesgarani 2018, equations 4-5. The paper does not state the initialisation.
    """

    former: ClassVar[dict[str, Any]] = {"init": "filterbank"}

    def __init__(
        self,
        n_filters: int,
        kernel_size: int,
        stride: int | None = None,
        init: Literal["glorot", "filterbank"] = "glorot",
    ) -> None:
        super().__init__(n_filters, kernel_size, stride)
        if init not in ("filterbank", "glorot"):
            raise ValueError(f"init {init!r} is neither 'filterbank' nor 'glorot'")
        self.content = Analysis(FreeFB(n_filters, kernel_size, self.stride))
        self.gate = Analysis(FreeFB(n_filters, kernel_size, self.stride))
        if init == "glorot":
            for maps in (self.content, self.gate):
                for weight in maps.parameters():  # [F, 1, kernel_size]
                    nn.init.xavier_normal_(weight.squeeze(1))

    def code(self, padded: Tensor, scale: Tensor) -> Tensor:
        # the maps are linear: dividing their output equals dividing the segments, without a copy of them
        return torch.relu(self.content(padded) / scale) * torch.sigmoid(self.gate(padded) / scale)


class LearnedDecoder(Decoder):
    """Learned bias-free linear map from filters to segments, overlap-added.

    Args:
        n_filters: F.
        kernel_size: samples in a segment.
        stride: samples between segments; None: the kernel size.
    """

    def __init__(self, n_filters: int, kernel_size: int, stride: int | None = None) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, _stride(kernel_size, stride)
        self.delay = kernel_size - self.stride
        self.synthesis = Synthesis(FreeFB(n_filters, kernel_size, self.stride))

    @classmethod
    def meant(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments | {"stride": _stride(arguments["kernel_size"], arguments["stride"])}

    def forward(self, carriers: Tensor, length: int) -> Tensor:
        return cut(self._segments(carriers), -1, self.delay, length)

    def initial_state(self, batch: int) -> Tensor:
        return next(self.parameters()).new_zeros(batch, self.delay)

    def step(self, carriers: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        waveform, state = overlap_further(self._segments(carriers).flatten(0, 1), state)
        return waveform.unflatten(0, carriers.shape[:2]), state

    def rest(self, state: Tensor) -> Tensor:
        return state

    def _segments(self, carriers: Tensor) -> Tensor:
        """All segments, overlap-added: [N, S, F, L] to [N, S, T']."""
        if self.stride < self.kernel_size:
            return self.synthesis(carriers)
        # one matrix product: on a CPU up to six times as quick as a transposed convolution
        return (carriers.transpose(-2, -1) @ self.synthesis.get_filters().squeeze(1)).flatten(-2)
