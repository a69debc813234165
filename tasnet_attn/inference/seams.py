"""The effect of joining segments: stretches of a file compared with one whole pass over them."""

from __future__ import annotations

import torch
from torch import Tensor

from tasnet_attn.audio.reading import Sound
from tasnet_attn.inference.segments import SEGMENT, SHORTEST, Stream, in_order_of
from tasnet_attn.model import Separates

STRETCHES = 3
LONG = 2.5  # segments in a stretch: two seams


def verify_seams(
    model: Separates, sound: Sound, segment: float | None, overlap: float | None, device: str = "auto"
) -> str:
    """One line: SNR in dB, over all sources, of the joined estimates relative to one pass, for stretches of a file.

    A network of fixed length allows no longer pass; it is compared with segments that start half a segment later.

    Args:
        model: see `separate`.
        sound: the file.
        segment: see `separate`.
        overlap: see `separate`.
        device: see `separate`.
    """
    seconds = model.segment or segment or SEGMENT
    length = sum(block.shape[-1] for block in sound.blocks())
    size = min(length, round(LONG * seconds * sound.sample_rate))
    count = min(STRETCHES, length // size)
    starts = [round(i * (length - size) / max(1, count - 1)) for i in range(count)]
    ratios = []
    cut = Stream(model, sound.sample_rate, segment, overlap, device)
    whole = cut
    if model.segment is None:
        whole = Stream(model, sound.sample_rate, max(SHORTEST, size / sound.sample_rate), overlap, device)
        whole.streams = False
    later = 0 if model.segment is None else min(size - 1, round(seconds / 2 * sound.sample_rate))
    for start in starts:
        stretch = _read(sound, start, size)
        expected, found = _separated(whole, stretch[:, later:]), _separated(cut, stretch)[..., later:]
        if model.interchangeable:  # each pass has its own order
            found = in_order_of(expected, found)
        ratios.append(_snr(expected, found))
    against = "one whole pass" if model.segment is None else "segments half a segment later"
    shown = ", ".join(
        f"{ratio:.1f} dB at {start / sound.sample_rate:.0f} s" for ratio, start in zip(ratios, starts, strict=True)
    )
    return f"seams: {shown} (SNR of {size / sound.sample_rate:.1f} s compared with {against})"


def _read(sound: Sound, start: int, size: int) -> Tensor:
    kept, position = [], 0
    for block in sound.blocks():
        kept.append(block[:, max(0, start - position) : max(0, start + size - position)])
        position += block.shape[-1]
        if position >= start + size:
            break
    return torch.cat(kept, dim=-1)


def _separated(stream: Stream, mixture: Tensor) -> Tensor:
    return torch.cat(list(stream.run(lambda: [mixture], mixture.shape[-1])), dim=-1)


def _snr(expected: Tensor, found: Tensor) -> float:
    """SNR in dB, at most 200."""
    energy, difference = (x.double().square().sum() for x in (expected, expected - found))
    return 10 * torch.log10(energy / difference.clamp_min(1e-20 * energy)).nan_to_num(nan=200).item()  # nan: silence
