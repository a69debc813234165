"""Joining half-overlapping windows of frames: every window keeps its middle, where it has context on both sides.

The rule of Park et al. 2018 for networks of fixed length, on a stream of audio blocks, in bounded memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tasnet_attn.filterbanks import Encoded, STFTEncoder
from tasnet_attn.model import SourceSeparator, segment_samples


class Window(NamedTuple):
    """The network sees frames start .. start + size; frames first .. stop are kept."""

    start: int
    first: int
    stop: int


def windows(frames: int, size: int, stride: int) -> list[Window]:
    """Windows that write every frame exactly once.

    The first window starts at 0 and each further one `stride` later; the last one is moved back to end with the frames.
    Adjacent windows meet in the middle of their overlap, so that all but the outer ones keep their middle `stride`
    frames. (Park's evaluation leaves the beginning of a clip of exactly one window silent; this does not.)

    Args:
        frames: in total, at least 1; fewer than `size` make one window, to be padded.
        size: frames of a window.
        stride: frames between windows, at most `size`.

    Examples:
        >>> windows(100, 64, 32)
        [Window(start=0, first=0, stop=48), Window(start=32, first=48, stop=80), Window(start=36, first=80, stop=100)]
    """
    starts = [*range(0, frames - size, stride), max(0, frames - size)]
    firsts = [0, *(i * stride + (size - stride) // 2 for i in range(1, len(starts)))]
    return [Window(*window) for window in zip(starts, firsts, [*firsts[1:], frames], strict=True)]


def stitch(network: Callable[[Tensor], Tensor], features: Tensor, plan: list[Window], size: int) -> Tensor:
    """Run a network on windows of frames, all in one batch, and join the frames that they keep.

    Args:
        network: [B, F, size] -> [B, S, F, size].
        features: [N, F, L], from frame `plan[0].start` on; zero-padded to the last window.
        plan: consecutive `windows`.
        size: frames of a window.

    Returns:
        [N, S, F, plan[-1].stop - plan[0].first].
    """
    cuts = [features[..., window.start - plan[0].start :][..., :size] for window in plan]
    batch = torch.stack([F.pad(cut, (0, size - cut.shape[-1])) for cut in cuts])  # [W, N, F, size]
    outputs = network(batch.flatten(0, 1)).unflatten(0, batch.shape[:2])
    kept = [out[..., w.first - w.start : w.stop - w.start] for out, w in zip(outputs, plan, strict=True)]
    return torch.cat(kept, dim=-1)


class SpectrogramReader:
    """Frames of a stream's spectrogram, equal to those of the whole signal's; requested in rising order.

    Args:
        encoder: the STFT.
        blocks: the signal, [C, t] each.
        length: samples in total.
        device: where to compute.
    """

    def __init__(self, encoder: STFTEncoder, blocks: Iterable[Tensor], length: int, device: torch.device) -> None:
        self.encoder, self.blocks, self.length, self.device = encoder, iter(blocks), length, device
        self.frames = encoder.n_frames(length)
        self.margin = math.ceil(encoder.n_fft / 2 / encoder.hop)  # frames next to a cut that are wrong because of it
        self.buffer: Tensor | None = None
        self.position = 0  # of the buffer's first sample

    def read(self, first: int, stop: int, scale: Tensor | None) -> Encoded:
        """Frames first .. stop; `scale` as in the encoder's `forward`; None: 1."""
        start = max(0, first - self.margin) * self.encoder.hop
        # what the last frame sees, and what the encoder must see to make it
        end = max((stop - 1) * self.encoder.hop + self.encoder.after, stop * self.encoder.hop - self.encoder.trail)
        samples = self._samples(start, min(self.length, end))
        scale = samples.new_ones(len(samples), 1, 1) if scale is None else scale
        features, carrier, _ = self.encoder(samples, scale)
        lead = first - start // self.encoder.hop
        return Encoded(features[..., lead : lead + stop - first], carrier[..., lead : lead + stop - first], scale)

    def _samples(self, start: int, stop: int) -> Tensor:
        if self.buffer is None:
            self.buffer = next(self.blocks)
        self.buffer, self.position = self.buffer[..., start - self.position :], start
        while self.buffer.shape[-1] < stop - start:
            self.buffer = torch.cat([self.buffer, next(self.blocks)], dim=-1)
        return self.buffer[..., : stop - start].to(self.device, self.encoder.window.dtype)


def stitched(
    model: SourceSeparator,
    blocks: Iterable[Tensor],
    length: int,
    scale: Tensor | None,
    device: torch.device,
    batch: int | None = None,
) -> Iterator[Tensor]:
    """Separate a clip by windows of the model's `segment`, half overlapping, joined frame by frame.

    Args:
        model: its encoder is an STFT.
        blocks: the mixture, [C, t] each.
        length: samples in total.
        scale: the clip's, see `Encoder.clip_scale`; None: 1.
        device: where the model is.
        batch: windows to process at once; None: 1 on a CPU, where more were slower, else 8.

    Returns:
        Blocks [S, C, t], on the CPU.
    """
    assert isinstance(model.encoder, STFTEncoder)
    samples = segment_samples(model)
    assert samples is not None
    hop, size = model.encoder.hop, model.encoder.n_frames(samples)
    reader = SpectrogramReader(model.encoder, blocks, length, device)
    plan = windows(reader.frames, size, max(1, size // 2))
    held, done = None, 0  # masked frames that later samples still need; samples returned so far
    batch = batch or (1 if device.type == "cpu" else 8)
    for i in range(0, len(plan), batch):
        group = plan[i : i + batch]
        begin, stop = group[0].start, group[-1].stop
        encoded = reader.read(begin, min(reader.frames, group[-1].start + size), scale)
        stage = stitch(lambda windowed: model.separator(windowed)[-1], encoded.features, group, size)
        kept = slice(group[0].first - begin, stop - begin)
        encoded = Encoded(encoded.features[..., kept], encoded.carrier[..., kept], encoded.scale)
        carriers = model.head.apply(stage, encoded)
        held = carriers if held is None else torch.cat([held, carriers], dim=-1)
        first = stop - held.shape[-1]  # the frame that `held` begins with
        ready = length if stop == reader.frames else max(done, (stop - reader.margin) * hop)
        estimates = model.decoder(held, ready - first * hop)[..., done - first * hop :]
        yield estimates.transpose(0, 1).float().cpu()
        done = ready
        held = held[..., max(0, done // hop - reader.margin) - first :]
