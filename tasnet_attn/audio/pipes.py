"""Streams of samples through pipes: raw, or a wav of unknown length."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from tasnet_attn.audio.kinds import MAGIC, UNSIZED, mpeg_frame
from tasnet_attn.errors import UserError

TYPES: dict[str, np.dtype] = {"f32": np.dtype("<f4"), "s16": np.dtype("<i2"), "s32": np.dtype("<i4")}
WAV = {(1, 16): "s16", (1, 32): "s32", (3, 32): "f32"}  # format tag, bits
EXTENSIBLE, ENDLESS = 0xFFFE, 0xFFFFFFFF
FILES = (  # the first bytes of files that are no raw samples; those of two bytes may be samples
    *(b"fLaC", b"OggS", b"RF64", b"RIFX", b"RIFF", b"riff", b"FORM", b"caff", b".snd", b"ID3"),
    *(magic for magic, *_ in MAGIC if len(magic) > 2),
)


@dataclass(frozen=True)
class Layout:
    """The format of samples in a pipe: interleaved, little-endian.

    Args:
        sample_rate: Hz.
        channels: number of channels.
        coding: 32-bit float, or signed integers with full scale 1.
        wav: they follow a wav header.
    """

    sample_rate: int
    channels: int
    coding: str = "f32"
    wav: bool = False


def opened(pipe: BinaryIO, raw: Layout) -> tuple[Layout, bytes, int | None]:
    """The format of the input: the wav header's, if there is one, else `raw`.

    Returns:
        The format, the bytes of sound already read, and the number of its bytes if the header states it.

    Raises:
        UserError: a wav of another coding than 16 or 32 bits, an incomplete or damaged header, or another kind of file.
    """
    head = _exactly(pipe, 12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return raw, _raw(pipe, head), None
    coding, channels, rate = None, 0, 0
    while True:
        header = _exactly(pipe, 8)
        if len(header) < 8:
            raise UserError("standard input: an incomplete wav header")
        name, size = header[:4], struct.unpack("<I", header[4:])[0]
        if name == b"data":
            break
        body = _exactly(pipe, size + size % 2)
        if name == b"fmt " and len(body) >= 16:
            tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
            coding = WAV.get((struct.unpack("<H", body[24:26])[0] if tag == EXTENSIBLE else tag, bits))
    if coding is None or not channels or not rate:
        raise UserError("standard input: a wav stream must have 16- or 32-bit integers or 32-bit floats; convert it")
    if rate * channels * TYPES[coding].itemsize > 0xFFFFFFFF:  # more than the header of a wav can state
        raise UserError(f"standard input: {rate} Hz, {channels} channels: its header is damaged")
    return Layout(rate, channels, coding, wav=True), b"", size if 0 < size < UNSIZED else None


def _raw(pipe: BinaryIO, head: bytes) -> bytes:
    """The first bytes of raw samples; an error if they are those of a file."""
    frame = mpeg_frame(head)
    if frame:  # four bytes that samples may have too: look at the next frame
        head += _exactly(pipe, frame + 4 - len(head))
    if head.startswith(FILES) or head[4:8] == b"ftyp" or (frame and mpeg_frame(head[frame:])):
        raise UserError(
            "standard input: is a sound file, not raw samples or a wav; convert it first: ffmpeg -i FILE -f wav - | ..."
        )
    return head


def blocks(
    pipe: BinaryIO, layout: Layout, size: int, before: bytes = b"", length: int | None = None
) -> Iterator[Tensor]:
    """Blocks [C, size], the last one shorter; an incomplete sample at the end is dropped.

    Args:
        pipe: see `opened`.
        layout: see `opened`.
        size: samples of a block.
        before: bytes already read.
        length: bytes after which the sound ends and something else may follow; None: it lasts until the pipe's end.
    """
    kind = TYPES[layout.coding]
    width = kind.itemsize * layout.channels
    while True:
        # complete samples, even if a block is shorter than `before`
        wanted = max(size, -(-len(before) // width)) * width
        if length is not None:
            wanted = min(wanted, length)
            length -= wanted
        data = before + _exactly(pipe, wanted - len(before))
        before = b""
        samples = np.frombuffer(data, kind, len(data) // width * layout.channels).astype(np.float32)
        if kind.kind == "i":
            samples /= 2.0 ** (8 * kind.itemsize - 1)
        if len(samples):
            yield torch.from_numpy(samples.reshape(-1, layout.channels).T.copy())
        if len(data) < wanted or length == 0:
            return


def header(layout: Layout) -> bytes:
    """The header of a wav of unknown length; empty for raw samples."""
    if not layout.wav:
        return b""
    kind = TYPES[layout.coding]
    width = kind.itemsize * layout.channels
    tag = 3 if kind.kind == "f" else 1
    form = struct.pack(
        "<HHIIHH", tag, layout.channels, layout.sample_rate, layout.sample_rate * width, width, 8 * kind.itemsize
    )
    endless = struct.pack("<I", ENDLESS)
    return b"RIFF" + endless + b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + endless


def coded(audio: Tensor, layout: Layout) -> tuple[bytes, int]:
    """[C, t] as bytes, and the number of samples clipped to full scale."""
    kind, samples = TYPES[layout.coding], audio.T.contiguous().numpy()
    if kind.kind == "f":
        return samples.astype(kind).tobytes(), 0
    top = 2.0 ** (8 * kind.itemsize - 1)
    scaled = np.round(samples.astype(np.float64) * top)
    held = scaled.clip(-top, top - 1)
    return held.astype(kind).tobytes(), int((held != scaled).sum())


def _exactly(pipe: BinaryIO, size: int) -> bytes:
    """Read this many bytes, fewer only at the end: a pipe may return less at a time."""
    parts, left = [], size
    while left > 0:
        part = pipe.read(min(left, 1 << 20))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
