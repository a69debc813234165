"""Encoders and decoders: learned gated, multi-phase gammatone and STFT, on asteroid-filterbanks' `Filterbank`.

Shapes: N = batch x channels, T samples, F features, L frames, S sources.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from asteroid_filterbanks import Decoder as Synthesis
from asteroid_filterbanks import Encoder as Analysis
from asteroid_filterbanks import Filterbank, FreeFB
from torch import Tensor, nn

from tasnet_attn.config import Configurable
from tasnet_attn.errors import at_least
from tasnet_attn.nn import cut

EPS = 1e-8


class Encoded(NamedTuple):
    """A mixture in the feature domain.

    Attributes:
        features: [N, F, L], real: what the separator sees.
        carrier: [N, F, L], or [N, 2, F, L] for real and imaginary part: what is masked; it has the signal's level.
        scale: [N, 1, L] or [N, 1, 1]: what the features were divided by; references are encoded with the mixture's.
    """

    features: Tensor
    carrier: Tensor
    scale: Tensor


class Encoder(Configurable, nn.Module):
    """From waveform [N, T] to `Encoded`.

    Attributes:
        n_features: F.
        latency: the samples that a frame looks ahead; None: unbounded.
        clip_scaled: the scale is one of a whole clip: whoever cuts a clip measures it first by `clip_scale`.
        framed: the clip's frames are known from its length alone (`n_frames`), so that windows of frames can be joined.
    """

    abstract = True
    n_features: int
    latency: int | None = None
    clip_scaled = False
    framed = False

    def forward(self, waveform: Tensor, scale: Tensor | None = None) -> Encoded:
        """Encode; `scale` given: divide by it instead of measuring one."""
        raise NotImplementedError

    def clip_scale(self, blocks: Iterable[Tensor], length: int) -> Tensor:
        """The scale of a clip of `length` samples that comes in blocks [C, t]: [C, 1, 1].

        This one encodes the clip at once; an encoder that can measure it in bounded memory does so.
        """
        return self(torch.cat(list(blocks), dim=-1)).scale


class Decoder(Configurable, nn.Module):
    """From masked carriers [N, S, F, L] or [N, S, 2, F, L] to [N, S, length]."""

    abstract = True

    def forward(self, carriers: Tensor, length: int) -> Tensor:
        """Decode to exactly `length` samples."""
        raise NotImplementedError


# ---- frames of any kernel and stride -------------------------------------------------------------------------------


def pad_to_frames(waveform: Tensor, kernel_size: int, stride: int) -> Tensor:
    """Zero-pad [..., T] so that frames cover every sample equally often: kernel - stride on the left, the rest right.

    With stride = kernel (TasNet's default) nothing is added on the left and the last segment is filled up. What is
    added does not depend on T (exporters want it so): its last frame leaves up to stride - 1 samples over.
    """
    return F.pad(waveform, (kernel_size - stride, kernel_size - 1))


def _stride(kernel_size: int, stride: int | None) -> int:
    """The stride that None stands for: the kernel size."""
    stride = kernel_size if stride is None else stride
    if not 0 < stride <= kernel_size:
        raise ValueError(f"stride {stride} must lie between 1 and the kernel size {kernel_size}")
    return stride


class _FrameEncoder(Encoder):
    """What learned and gammatone encoders share: framing, and the L2 norm of each segment (TasNet, section 2.1)."""

    def __init__(self, n_filters: int, kernel_size: int, stride: int | None) -> None:
        super().__init__()
        at_least(1, n_filters=n_filters, kernel_size=kernel_size)
        self.n_features, self.kernel_size = n_filters, kernel_size
        self.stride = _stride(kernel_size, stride)
        self.latency = kernel_size

    def forward(self, waveform: Tensor, scale: Tensor | None = None) -> Encoded:
        padded = pad_to_frames(waveform, self.kernel_size, self.stride).unsqueeze(1)
        if scale is None:
            energy = F.avg_pool1d(padded.square(), self.kernel_size, self.stride) * self.kernel_size
            scale = (energy + EPS**2).sqrt()  # EPS inside the root: no infinite gradient on silence
        features = self.code(padded, scale)
        return Encoded(features, features * scale, scale)

    def code(self, padded: Tensor, scale: Tensor) -> Tensor:
        """The non-negative code [N, F, L] of the normalised segments of `padded` [N, 1, T']."""
        raise NotImplementedError


class GatedEncoder(_FrameEncoder):
    """Learned encoder, w = relu(U x) * sigmoid(V x) of L2-normalised segments x.

    Args:
        n_filters: F, rows of U and of V (bias-free).
        kernel_size: samples in a segment.
        stride: samples between segments; None: the kernel size, no overlap.
        init: how U and V start. "glorot": Glorot normal of the linear maps that they are (500 filters of 220 samples: a
            standard deviation of 0.053), so that a code has about the level of a gammatone code; "filterbank": as
            `FreeFB` does, which counts every shift of a filter as an output (0.0043; version 0.1.0).

    Source: Luo & Mesgarani 2018, equations 4-5. How they start is not stated.
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
        # the maps are linear: dividing after them equals dividing the segments, and needs no copy of the segments
        return torch.relu(self.content(padded) / scale) * torch.sigmoid(self.gate(padded) / scale)


class GammatoneEncoder(_FrameEncoder):
    """Multi-phase gammatone encoder, relu(filterbank * x), without trainable parameters.

    The separator sees the code of L2-normalised segments over filters of unit energy, so that the level of the input
    and of the published filters (about 1e-3) does not matter to it; the paper leaves this open.

    Args:
        n_filters: F, even, at least 2 * n_centres.
        kernel_size: samples in a filter.
        sample_rate: Hz.
        stride: samples between frames; None: the kernel size.
        n_centres: centre frequencies; None: as many as fit below Nyquist; 24: the published bank.
        f_min: the lowest centre, Hz.
        erb_step: distance of the centres on the ERB-number scale.

    Source: Ditter & Gerkmann 2020.
    """

    def __init__(
        self,
        n_filters: int,
        kernel_size: int,
        sample_rate: int,
        stride: int | None = None,
        n_centres: int | None = None,
        f_min: float = 100.0,
        erb_step: float = 1.0,
    ) -> None:
        super().__init__(n_filters, kernel_size, stride)
        bank = GammatoneBank(n_filters, kernel_size, sample_rate, self.stride, n_centres, f_min, erb_step)
        self.analysis = Analysis(bank)
        energy = bank.filters()[0].square().sum().sqrt()  # the same for every filter
        self.energy: Tensor
        self.register_buffer("energy", energy, persistent=False)

    def filters(self) -> Tensor:
        """The bank, [n_filters, 1, kernel_size]."""
        return self.analysis.filters()

    def code(self, padded: Tensor, scale: Tensor) -> Tensor:
        return torch.relu(self.analysis(padded)) / (scale * self.energy)


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
        self.synthesis = Synthesis(FreeFB(n_filters, kernel_size, self.stride))

    def forward(self, carriers: Tensor, length: int) -> Tensor:
        return cut(self.synthesis(carriers), -1, self.kernel_size - self.stride, length)


# ---- gammatone ------------------------------------------------------------------------------------------------------


def erb_number(frequency: float) -> float:
    """E(f) = 9.265 ln(1 + f / (24.7 * 9.265)), the ERB-number scale; f in Hz."""
    return 9.265 * math.log1p(frequency / (24.7 * 9.265))


def erb_frequency(number: float) -> float:
    """The frequency in Hz of an ERB number: the inverse of `erb_number`."""
    return 24.7 * 9.265 * math.expm1(number / 9.265)


class GammatoneBank(Filterbank):
    """The multi-phase gammatone filters: g(t) = t^(p-1) exp(-2 pi b t) cos(2 pi f t + phi), order p = 2.

    Rows are ordered centre by centre: P phases phi_j = j pi / P, then the exact negatives of those P filters.

    Raises:
        ValueError: odd `n_filters`, fewer than two filters a centre, or centres above Nyquist.
    """

    def __init__(
        self,
        n_filters: int,
        kernel_size: int,
        sample_rate: int,
        stride: int | None = None,
        n_centres: int | None = None,
        f_min: float = 100.0,
        erb_step: float = 1.0,
    ) -> None:
        super().__init__(n_filters, kernel_size, stride=stride, sample_rate=sample_rate)
        if n_filters % 2:
            raise ValueError(f"n_filters must be even, every filter comes with its negative; got {n_filters}")
        if not 0 < f_min < sample_rate / 2:
            raise ValueError(f"f_min {f_min} Hz must lie between 0 and Nyquist, {sample_rate / 2} Hz")
        room = 1 + math.floor((erb_number(sample_rate / 2) - erb_number(f_min)) / erb_step)
        n_centres = room if n_centres is None else n_centres
        if n_centres > room:
            raise ValueError(f"only {room} centres fit below {sample_rate / 2} Hz; {n_centres} were asked for")
        if n_filters < 2 * n_centres:
            raise ValueError(f"{n_centres} centres need at least {2 * n_centres} filters; got {n_filters}")
        self.centres = [erb_frequency(erb_number(f_min) + k * erb_step) for k in range(n_centres)]
        self.register_buffer("_filters", self._generate(), persistent=False)

    def _generate(self) -> Tensor:
        times = torch.arange(1, self.kernel_size + 1, dtype=torch.float64) / self.sample_rate
        pairs, extra = divmod(self.n_filters // 2, len(self.centres))
        rows = []
        for k, centre in enumerate(self.centres):
            n_phases = pairs + (k < extra)  # the lowest centres take what is left over
            bandwidth = (24.7 + 0.108 * centre) / (math.pi / 2)  # b = ERB / (pi/2) for order 2
            envelope = times * torch.exp(-2 * math.pi * bandwidth * times)
            phases = torch.arange(n_phases, dtype=torch.float64)[:, None] * math.pi / n_phases
            filters = envelope * torch.cos(2 * math.pi * centre * times + phases)
            rows += [filters, -filters]
        bank = torch.cat(rows)
        rms = bank.square().mean(dim=1, keepdim=True).sqrt()
        return (bank * rms.max() / rms).float().unsqueeze(1)

    def filters(self) -> Tensor:
        """The bank, [n_filters, 1, kernel_size]."""
        return self._filters


# ---- STFT -----------------------------------------------------------------------------------------------------------

Window = Literal["hann", "hamming"]
Drop = Literal["dc", "nyquist"]


def _window(name: Window, n_fft: int) -> Tensor:
    try:
        return {"hann": torch.hann_window, "hamming": torch.hamming_window}[name](n_fft)
    except KeyError:
        raise ValueError(f"window {name!r} is neither 'hann' nor 'hamming'") from None


class STFTBank(Filterbank):
    """The STFT as a filterbank: rows are window * cos, then window * -sin, [2 (n_fft/2+1), 1, n_fft].

    Its convolution equals `torch.stft`; the encoder takes the FFT, which is faster, and this bank is its definition,
    for tests and for exports to formats that know convolutions but no FFT.
    """

    def __init__(self, n_fft: int, hop: int, window: Window = "hann") -> None:
        super().__init__(2 * (n_fft // 2 + 1), n_fft, stride=hop)
        angles = 2 * math.pi / n_fft * torch.outer(torch.arange(n_fft // 2 + 1.0), torch.arange(float(n_fft))).double()
        rows = torch.cat([angles.cos(), -angles.sin()]) * _window(window, n_fft)
        self.register_buffer("_filters", rows.float().unsqueeze(1), persistent=False)

    def filters(self) -> Tensor:
        """The bank, [2 (n_fft/2+1), 1, n_fft]."""
        return self._filters


class STFTEncoder(Encoder):
    """Centred STFT: features |X|**power of the scaled mixture, carrier the complex spectrogram, real and imaginary.

    Args:
        n_fft: window length in samples.
        hop: samples between frames; there are 1 + T // hop of them.
        window: "hann" or "hamming" (periodic).
        power: exponent of the magnitude; below 1 the magnitude is kept away from zero, where its gradient is infinite.
        normalise: "max": divide the clip by its largest magnitude (of one channel); None: leave its level.
        drop: leave the "nyquist" or the "dc" bin out (a power of two is easier to pool); the decoder puts a zero back.
        last_frame: False: leave out the last of the 1 + T // hop frames, unless it is the only one (AudioSlots: 64
            frames in 0.5 s). The frame before it still covers the end, if a window is four hops or longer.
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
    ) -> None:
        super().__init__()
        at_least(1, n_fft=n_fft, hop=hop)
        self.n_fft, self.hop, self.power, self.normalise, self.drop = n_fft, hop, power, normalise, drop
        self.last_frame = last_frame
        self.n_features = n_fft // 2 + 1 - (drop is not None)
        self.clip_scaled, self.framed = normalise == "max", True
        self.window: Tensor
        self.register_buffer("window", _window(window, n_fft), persistent=False)

    def n_frames(self, length: int) -> int:
        """Frames of a waveform of `length` samples."""
        return max(1, length // self.hop + self.last_frame)

    def clip_scale(self, blocks: Iterable[Tensor], length: int) -> Tensor:
        """The largest magnitude of every channel of a clip in blocks [C, t]: [C, 1, 1]."""
        half, left = self.n_fft // 2, self.n_frames(length)
        buffer, peaks = torch.empty(0), []
        for block in itertools.chain(blocks, [None]):
            if block is None:
                buffer = F.pad(buffer, (0, half))
            else:
                block = block.to(self.window)
                buffer = torch.cat([buffer, block], dim=-1) if len(buffer) else F.pad(block, (half, 0))
            count = min(left, (buffer.shape[-1] - self.n_fft) // self.hop + 1)
            if count > 0:
                samples = buffer[..., : (count - 1) * self.hop + self.n_fft]
                frames = torch.view_as_real(self._frames(samples)[..., self._bins, :])
                peaks.append(torch.linalg.vector_norm(frames, dim=-1).amax(dim=(1, 2)))
                buffer, left = buffer[..., count * self.hop :], left - count
        return torch.stack(peaks).amax(dim=0).clamp_min(EPS)[:, None, None]

    def forward(self, waveform: Tensor, scale: Tensor | None = None) -> Encoded:
        carrier = self.spectrum(waveform)
        magnitude = torch.linalg.vector_norm(carrier, dim=1)
        if scale is None:
            scale = magnitude.new_ones(magnitude.shape[0], 1, 1)
            if self.normalise == "max":
                scale = magnitude.amax(dim=(1, 2), keepdim=True).clamp_min(EPS)
        features = magnitude / scale
        if self.power != 1.0:
            features = features.clamp_min(EPS).pow(self.power)
        return Encoded(features, carrier, scale)

    def spectrum(self, waveform: Tensor) -> Tensor:
        """[N, T] -> real and imaginary part, [N, 2, F, L]."""
        padded = F.pad(waveform, (self.n_fft // 2, self.n_fft // 2))  # zeros: reflection fails on short inputs
        return self.kept(torch.view_as_real(self._frames(padded)).movedim(-1, 1))  # real first: for ONNX

    def _frames(self, padded: Tensor) -> Tensor:
        """[N, T'] -> all bins of the frames that fit, complex, [N, n_fft / 2 + 1, 1 + (T' - n_fft) // hop]."""
        return torch.stft(padded, self.n_fft, self.hop, window=self.window, center=False, return_complex=True)

    def kept(self, spectrum: Tensor) -> Tensor:
        """All bins and frames [..., n_fft / 2 + 1, 1 + T // hop] -> those that the settings keep, [..., F, L]."""
        if not self.last_frame and spectrum.shape[-1] > 1:
            spectrum = spectrum[..., :-1]
        return spectrum[..., self._bins, :]

    @property
    def _bins(self) -> slice:
        return {None: slice(None), "dc": slice(1, None), "nyquist": slice(None, -1)}[self.drop]


class STFTDecoder(Decoder):
    """Inverse of `STFTEncoder`: windowed overlap-add divided by the summed squared windows (least squares).

    Args: as the encoder's.
    """

    def __init__(self, n_fft: int, hop: int, window: Window = "hann", drop: Drop | None = None) -> None:
        super().__init__()
        at_least(1, n_fft=n_fft, hop=hop)
        self.n_fft, self.hop, self.drop = n_fft, hop, drop
        self.window: Tensor
        self.register_buffer("window", _window(window, n_fft), persistent=False)

    def forward(self, carriers: Tensor, length: int) -> Tensor:
        n, sources = carriers.shape[:2]
        if self.drop:
            carriers = F.pad(carriers, (0, 0, 1, 0) if self.drop == "dc" else (0, 0, 0, 1))
        waveform, weights = self.overlapped(carriers.flatten(0, 1))
        waveform = F.pad(waveform / weights.clamp_min(EPS), (0, 2 * self.hop))  # the last frame may end before T
        return waveform[:, self.n_fft // 2 : self.n_fft // 2 + length].view(n, sources, length)

    def overlapped(self, carriers: Tensor) -> tuple[Tensor, Tensor]:
        """[N, 2, n_fft / 2 + 1, L] -> windowed segments and squared windows, overlap-added, [N, T'] and [1, T']."""
        spectrum = torch.view_as_complex(carriers.movedim(1, -1).contiguous())
        segments = torch.fft.irfft(spectrum, n=self.n_fft, dim=1) * self.window[:, None]
        weights = self.window.square()[None, :, None].expand(1, -1, carriers.shape[-1])
        return self._overlap_add(segments), self._overlap_add(weights)

    def _overlap_add(self, segments: Tensor) -> Tensor:
        """[N, n_fft, L] -> [N, (L - 1) hop + n_fft]."""
        total = (segments.shape[-1] - 1) * self.hop + self.n_fft
        return F.fold(segments, (1, total), (1, self.n_fft), stride=(1, self.hop))[:, 0, 0]
