"""What a file is, read off its content, never off its ending; and how much sound its header promises.

Only decoders that are named here ever see a file: a playlist that calls itself x.mp3 opens nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

HEAD = 1 << 16  # bytes that are looked at; an ID3 tag (a picture) is jumped over
UNSIZED = 0x7FFF0000  # sizes from here on, and 0, are a stream's that nobody came back to fill in


class Kind(NamedTuple):
    """How a file is read.

    Attributes:
        name: what it is, for messages.
        demuxer: FFmpeg's name of the container; None: libsndfile reads it.
        promised: samples by its header; None: it makes no claim, or one that only decoding shows.
        claims: the container's own length is a claim, to which padding behind the sound is cut.
        cut: the file shows that it ends in mid-stream.
        links: (start, end) of the streams of an Ogg file that stand one behind the other, in bytes.
    """

    name: str
    demuxer: str | None = None
    promised: int | None = None
    claims: bool = False
    cut: bool = False
    links: tuple[tuple[int, int], ...] = ()


def kind_of(path: Path) -> Kind | None:
    """The kind of a regular file; None: no sound that can be read here.

    Raises:
        ValueError, LookupError, ArithmeticError: a header that contradicts itself or breaks off.
    """
    try:
        return _kind_of(path)
    except struct.error as error:
        raise ValueError(f"a header that breaks off: {error}") from error


def _kind_of(path: Path) -> Kind | None:
    with path.open("rb") as file:
        head = file.read(HEAD)
        if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
            return _wave(file, head)
        if head[:4] == b"riff" and head[24:28] == b"wave":
            return Kind("w64", promised=_w64(file))
        if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
            return Kind("aiff", promised=_aiff(file))
        if head[:4] == b".snd":
            return Kind("au", promised=_au(head))
        if head[:4] == b"fLaC":
            total = int.from_bytes(head[21:26], "big") & 0xFFFFFFFFF
            return Kind("flac", promised=total) if total else Kind("flac", "flac")
        if head[:4] == b"OggS":
            return _ogg(file)
        if head[:4] == b"caff":
            return Kind("caf", promised=_caf(file))
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return Kind("avi", "avi")
        for start, name, demuxer, claims in MAGIC:
            if head.startswith(start):
                return Kind(name, demuxer, claims=claims)
        if head[4:8] == b"ftyp" or head[4:8] in (b"moov", b"mdat", b"wide", b"free"):
            return Kind("mp4", "mov", claims=True)
        return _elementary(file, head)


MAGIC = (  # first bytes, name, FFmpeg's demuxer, whether its length is a claim
    (b"\x1a\x45\xdf\xa3", "matroska", "matroska", False),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "wma", "asf", False),
    (b"wvpk", "wavpack", "wv", True),
    (b"\x0b\x77", "ac3", "ac3", False),
    (b"FLV\x01", "flv", "flv", False),
    (b"MAC ", "ape", "ape", False),
    (b"TTA1", "tta", "tta", False),
    (b"#!AMR", "amr", "amr", False),
    (b"\x00\x00\x01\xba", "mpeg", "mpeg", False),
)


def _chunks(file: BinaryIO, start: int, order: str = "<") -> Iterator[tuple[bytes, int, int]]:
    """(name, position, size) of the chunks of a RIFF or AIFF file."""
    position = start
    while True:
        file.seek(position)
        header = file.read(8)
        if len(header) < 8:
            return
        name, size = header[:4], struct.unpack(order + "I", header[4:])[0]
        yield name, position + 8, size
        position += 8 + size + size % 2


def _wave(file: BinaryIO, head: bytes) -> Kind:
    align, coding, wide = 0, 0, None
    for name, position, size in _chunks(file, 12):
        file.seek(position)
        if name == b"ds64":
            wide = struct.unpack("<Q", file.read(16)[8:])[0]
        elif name == b"fmt ":
            coding, _, _, _, align = struct.unpack("<HHIIH", file.read(14))
        elif name == b"data":
            there = file.seek(0, 2) - position
            size = wide if wide is not None and size == 0xFFFFFFFF else size
            if size == 0 or (size >= UNSIZED and head[:4] == b"RIFF" and there != size):
                return Kind("wav", "wav") if there else Kind("wav")
            plain = coding in (1, 3, 6, 7, 0xFFFE) and align > 0  # integer, float, A-law, mu-law: samples of one size
            over = 0 < size - there <= position  # some programs count their own header into the size of the sound
            return Kind("wav", promised=(there if over else size) // align if plain else None)
    return Kind("wav")


def _w64(file: BinaryIO) -> int | None:
    position, align = 40, 0
    while True:
        file.seek(position)
        header = file.read(24)
        if len(header) < 24:
            return None
        size = struct.unpack("<Q", header[16:])[0]
        if header[:4] == b"fmt ":
            align = struct.unpack("<HHIIH", file.read(14))[4]
        if header[:4] == b"data":
            return (size - 24) // align if align and size > 24 else None
        position += max(24, size + -size % 8)


def _aiff(file: BinaryIO) -> int | None:
    for name, position, _ in _chunks(file, 12, ">"):
        if name == b"COMM":
            file.seek(position + 2)
            return struct.unpack(">I", file.read(4))[0] or None
    return None


def _au(head: bytes) -> int | None:
    _, _, size, coding, _, channels = struct.unpack(">6I", head[:24])
    width = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}.get(coding)
    return None if size in (0, 0xFFFFFFFF) or width is None or not channels else size // (width * channels)


def _caf(file: BinaryIO) -> int | None:
    position, width = 8, 0
    while True:
        file.seek(position)
        header = file.read(12)
        if len(header) < 12:
            return None
        size = struct.unpack(">q", header[4:])[0]
        if header[:4] == b"desc":
            width = struct.unpack(">d4sIII", file.read(24))[3]  # bytes of a packet; 0: they vary
        if header[:4] == b"data":
            return (size - 4) // width if size > 4 and width else None
        position += 12 + max(size, 0)


def _ogg(file: BinaryIO) -> Kind:
    """Its streams one behind the other; without a last page it is cut."""
    starts, ended = [], True
    for flags, _, position in ogg_pages(file):
        if flags & 2 and ended:
            starts.append(position)
        ended = bool(flags & 4)
    return Kind("ogg", cut=not ended, links=tuple(zip(starts, [*starts[1:], file.seek(0, 2)], strict=True)))


def ogg_pages(file: BinaryIO, start: int = 0) -> Iterator[tuple[int, int, int]]:
    """(flags, last sample, position) of the pages that are whole; what stands between them is passed over."""
    end, position = file.seek(0, 2), start
    while position + 27 <= end:
        file.seek(position)
        header = file.read(27 + 255)
        if header[:4] != b"OggS":
            further = header.find(b"OggS", 1)
            position += further if further > 0 else len(header) - 3
            continue
        count = header[26]
        size = 27 + count + sum(header[27 : 27 + count])
        if position + size > end:
            return
        yield header[5], struct.unpack("<q", header[6:14])[0], position
        position += size


def _elementary(file: BinaryIO, head: bytes) -> Kind | None:
    """MPEG audio without a container: two frames, one where the other says that it ends."""
    if len(head) > 5 * 188 and set(head[: 5 * 188 : 188]) == {0x47}:
        return Kind("mpegts", "mpegts")
    start = 0
    while head[:3] == b"ID3" and len(head) > 10:
        start += 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        file.seek(start)
        head = file.read(HEAD)
    for position in range(min(len(head), 4096)):
        if head[position] != 0xFF:
            continue
        size = _mpeg_frame(head[position : position + 4])
        if size and (position + size >= len(head) or _mpeg_frame(head[position + size : position + size + 4])):
            claims = any(tag in head[position : position + 256] for tag in (b"Xing", b"Info"))
            return Kind("mp3", "mp3", claims=claims)
        size = _adts_frame(head[position : position + 7])
        if size and (position + size >= len(head) or _adts_frame(head[position + size : position + size + 7])):
            return Kind("aac", "aac")
    return None


RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
KILOBITS = {
    (3, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def _mpeg_frame(header: bytes) -> int:
    """Bytes of the MPEG audio frame that begins so; 0: none does."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = (header[1] >> 3) & 3, 4 - ((header[1] >> 1) & 3)
    bits, rate = header[2] >> 4, (header[2] >> 2) & 3
    if version == 1 or layer == 4 or not 0 < bits < 15 or rate == 3:
        return 0
    kilobits = KILOBITS[(3, layer) if version == 3 else (2, min(layer, 2))][bits - 1]
    padding = (header[2] >> 1) & 1
    if layer == 1:
        return (12 * 1000 * kilobits // RATES[version][rate] + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * 1000 * kilobits // RATES[version][rate] + padding


def _adts_frame(header: bytes) -> int:
    """Bytes of the AAC frame that begins so; 0: none does."""
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or (header[2] >> 2) & 15 > 12:
        return 0
    size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return size if size > 7 else 0
