"""The short-time Fourier transform as encoder and decoder."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tasnet_attn.errors import at_least
from tasnet_attn.filterbanks.base import EPS, Decoder, Encoded, Encoder, overlap_further

Window = Literal["hann", "hamming"]
Drop = Literal["dc", "nyquist"]


def _window(name: Window, n_fft: int) -> Tensor:
    try:
        return {"hann": torch.hann_window, "hamming": torch.hamming_window}[name](n_fft)
    except KeyError:
        raise ValueError(f"window {name!r} is neither 'hann' nor 'hamming'") from None


def _check(n_fft: int, hop: int) -> None:
    at_least(1, n_fft=n_fft, hop=hop)
    if hop > n_fft:
        raise ValueError(f"hop {hop} is longer than a window of {n_fft}: samples between windows would be lost")


class STFTEncoder(Encoder):
    """Centred STFT: features |X|**power of the scaled mixture, carrier the complex spectrogram, real and imaginary.

    Complex features are X |X|**(power - 1), with the real and imaginary part of each bin interleaved: F doubles.

    Args:
        n_fft: window length in samples.
        hop: samples between frames, at most n_fft; there are 1 + T // hop frames.
        window: "hann" or "hamming" (periodic).
        power: exponent of the magnitude; below 1 the magnitude is kept away from zero, where its gradient is infinite.
        normalise: "max": divide the clip by its largest magnitude (of one channel); None: keep its level.
        drop: drop the "nyquist" or the "dc" bin (a power of two is easier to pool); the decoder inserts a zero.
        last_frame: False: drop the last of the 1 + T // hop frames, unless it is the only one (AudioSlots: 64
            frames in 0.5 s). The frame before it still covers the end if a window is four hops or longer.
        features: "magnitude", or "complex" (for `Mask(kind="complex")`).
    """

    def __init__(
        self,
        n_fft: int,
        hop: int,
        window: Window = "hann",
        power: float = 1.0,
        normalise: Literal["max"] | None = None,
        drop: Drop | None = None,
        last_frame: bool = True,
        features: Literal["magnitude", "complex"] = "magnitude",
    ) -> None:
        super().__init__()
        _check(n_fft, hop)
        if not power > 0:
            raise ValueError(f"power {power} must be above 0: with 0 every magnitude is 1")
        if features not in ("magnitude", "complex"):
            raise ValueError(f"features {features!r} is neither 'magnitude' nor 'complex'")
        self.n_fft, self.hop, self.power, self.normalise, self.drop = n_fft, hop, power, normalise, drop
        self.last_frame = last_frame
        self.parts = 1 + (features == "complex")
        self.n_features = self.parts * (n_fft // 2 + 1 - (drop is not None))
        self.clip_scaled, self.framed = normalise == "max", True
        self.before, self.after = n_fft // 2, n_fft - n_fft // 2  # a frame's samples before its centre, and from it on
        self.stride, self.lead, self.trail = hop, self.after - hop, hop * last_frame
        self.latency = n_fft - 1 if self.lead >= 0 and not self.clip_scaled else None
        self.window: Tensor
        self.register_buffer("window", _window(window, n_fft), persistent=False)

    @property
    def cannot_stream(self) -> str:
        return "needs a hop of at most half its window" if self.lead < 0 else super().cannot_stream

    def clip_scale(self, blocks: Iterable[Tensor], length: int) -> Tensor:
        """The largest magnitude of every channel of a clip in blocks [C, t]: [C, 1, 1]."""
        left = self.n_frames(length)
        buffer, peaks = torch.empty(0), []
        for block in itertools.chain(blocks, [None]):
            if block is None:
                buffer = F.pad(buffer, (0, self.after))
            else:
                block = block.to(self.window)
                buffer = torch.cat([buffer, block], dim=-1) if len(buffer) else F.pad(block, (self.before, 0))
            count = min(left, (buffer.shape[-1] - self.n_fft) // self.hop + 1)
            if count > 0:
                samples = buffer[..., : (count - 1) * self.hop + self.n_fft]
                frames = torch.view_as_real(self._frames(samples)[..., self._bins, :])
                peaks.append(torch.linalg.vector_norm(frames, dim=-1).amax(dim=(1, 2)))
                buffer, left = buffer[..., count * self.hop :], left - count
        return torch.stack(peaks).amax(dim=0).clamp_min(EPS)[:, None, None]

    def forward(self, waveform: Tensor, scale: Tensor | None = None) -> Encoded:
        return self._encoded(self.spectrum(waveform), scale)

    def initial_state(self, batch: int) -> Tensor:
        return self.window.new_zeros(batch, self.before)

    def step(self, samples: Tensor, state: Tensor) -> tuple[Encoded, Tensor]:
        samples = torch.cat([state, samples], dim=-1)
        carrier = torch.view_as_real(self._frames(samples)).movedim(-1, 1)[..., self._bins, :]  # real first: for ONNX
        return self._encoded(carrier, None), samples[..., samples.shape[-1] - (self.n_fft - self.hop) :]

    def _encoded(self, carrier: Tensor, scale: Tensor | None) -> Encoded:
        magnitude = torch.linalg.vector_norm(carrier, dim=1)
        if scale is None:
            scale = magnitude.new_ones(magnitude.shape[0], 1, 1)
            if self.normalise == "max":
                scale = magnitude.amax(dim=(1, 2), keepdim=True).clamp_min(EPS)
        features = magnitude / scale
        if self.parts == 2:
            features = self._compressed(carrier / scale.unsqueeze(1), features)
        elif self.power != 1.0:
            features = features.clamp_min(EPS).pow(self.power)
        return Encoded(features, carrier, scale)

    def _compressed(self, spectrum: Tensor, magnitude: Tensor) -> Tensor:
        """[N, 2, F, L] -> X |X|**(power - 1), parts interleaved, [N, 2 F, L]."""
        if self.power != 1.0:
            spectrum = spectrum * magnitude.clamp_min(EPS).pow(self.power - 1).unsqueeze(1)
        return spectrum.transpose(1, 2).flatten(1, 2)

    def spectrum(self, waveform: Tensor) -> Tensor:
        """[N, T] -> real and imaginary part, [N, 2, F, L]."""
        padded = F.pad(waveform, (self.before, self.after))  # zeros: reflection fails on short inputs
        return self.kept(torch.view_as_real(self._frames(padded)).movedim(-1, 1))  # real first: for ONNX

    def _frames(self, padded: Tensor) -> Tensor:
        """[N, T'] -> all bins of the frames that fit, complex, [N, n_fft / 2 + 1, 1 + (T' - n_fft) // hop]."""
        return torch.stft(padded, self.n_fft, self.hop, window=self.window, center=False, return_complex=True)

    def kept(self, spectrum: Tensor) -> Tensor:
        """All bins and frames [..., n_fft / 2 + 1, 1 + T // hop] -> the selected ones, [..., F, L]."""
        if not self.last_frame and spectrum.shape[-1] > 1:
            spectrum = spectrum[..., :-1]
        return spectrum[..., self._bins, :]

    @property
    def _bins(self) -> slice:
        return {None: slice(None), "dc": slice(1, None), "nyquist": slice(None, -1)}[self.drop]


class STFTDecoder(Decoder):
    """Inverse of `STFTEncoder`: windowed overlap-add divided by the summed squared windows (least squares).

    Args: see the encoder.
    """

    def __init__(self, n_fft: int, hop: int, window: Window = "hann", drop: Drop | None = None) -> None:
        super().__init__()
        _check(n_fft, hop)
        self.n_fft, self.hop, self.drop, self.delay = n_fft, hop, drop, n_fft // 2
        self.window: Tensor
        self.register_buffer("window", _window(window, n_fft), persistent=False)

    def forward(self, carriers: Tensor, length: int) -> Tensor:
        n, sources = carriers.shape[:2]
        waveform, weights = self.overlapped(carriers.flatten(0, 1))
        waveform = F.pad(waveform / weights.clamp_min(EPS), (0, 2 * self.hop))  # the last frame may end before T
        return waveform[:, self.delay : self.delay + length].view(n, sources, length)

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        zeros = self.window.new_zeros(batch + 1, self.n_fft - self.hop)
        return zeros[1:], zeros[:1]

    def step(self, carriers: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        waveform, weights = self.overlapped(carriers.flatten(0, 1))
        waveform, more = overlap_further(waveform, state[0])
        weights, more_weights = overlap_further(weights, state[1])
        return (waveform / weights.clamp_min(EPS)).unflatten(0, carriers.shape[:2]), (more, more_weights)

    def rest(self, state: tuple[Tensor, Tensor]) -> Tensor:
        return state[0] / state[1].clamp_min(EPS)

    def overlapped(self, carriers: Tensor) -> tuple[Tensor, Tensor]:
        """[N, 2, F, L] -> windowed segments and squared windows, overlap-added, [N, T'] and [1, T']."""
        if self.drop:
            carriers = F.pad(carriers, (0, 0, 1, 0) if self.drop == "dc" else (0, 0, 0, 1))
        spectrum = torch.view_as_complex(carriers.movedim(1, -1).contiguous())
        segments = torch.fft.irfft(spectrum, n=self.n_fft, dim=1) * self.window[:, None]
        weights = self.window.square()[None, :, None].expand(1, -1, carriers.shape[-1])
        return self._overlap_add(segments), self._overlap_add(weights)

    def _overlap_add(self, segments: Tensor) -> Tensor:
        """[N, n_fft, L] -> [N, (L - 1) hop + n_fft]."""
        total = (segments.shape[-1] - 1) * self.hop + self.n_fft
        return F.fold(segments, (1, total), (1, self.n_fft), stride=(1, self.hop))[:, 0, 0]
