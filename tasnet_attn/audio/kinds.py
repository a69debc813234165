"""The kind of a sound file, found from its content and never its suffix; and the length that its header states.

Only the decoders named here ever see a file: a playlist called x.mp3 opens nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tasnet_attn.audio import ogg

HEAD = 1 << 16  # bytes to look at; an ID3 tag (a picture) is skipped
UNSIZED = 0x7FFF0000  # sizes from here on, and 0, mean a stream whose size was never filled in


class Kind(NamedTuple):
    """How to read a file.

    Attributes:
        name: its kind, for messages.
        demuxer: FFmpeg's name of the container; None: libsndfile reads it.
        promised: samples according to its header; None: not stated, or known only after decoding.
        claims: the container states its own length; padding after that is cut off.
        cut: the file visibly ends mid-stream.
        links: (start, end) in bytes of the streams concatenated in an Ogg or mp3 file.
        seconds: of the longest track, roughly, according to a Matroska header; None: not stated.
    """

    name: str
    demuxer: str | None = None
    promised: int | None = None
    claims: bool = False
    cut: bool = False
    links: tuple[tuple[int, int], ...] = ()
    seconds: float | None = None


def kind_of(path: Path) -> Kind | None:
    """The kind of a regular file; None: not sound that can be read.

    Raises:
        ValueError, LookupError, ArithmeticError: a contradictory or incomplete header.
    """
    try:
        return _kind_of(path)
    except struct.error as error:
        raise ValueError(f"an incomplete header: {error}") from error


def _kind_of(path: Path) -> Kind | None:
    with path.open("rb") as file:
        start = _behind_id3(file, 0)
        file.seek(start)
        head = file.read(HEAD)
        if start:
            return _bare(file, head, start)
        if head[:4] in (b"RIFF", b"RF64", b"RIFX") and head[8:12] == b"WAVE":
            return _wave(file, head[:4])
        if head[:4] == b"riff" and head[24:28] == b"wave":
            return _w64(file)
        if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
            return _aiff(file)
        if head[:4] == b".snd":
            return _au(file, head)
        if head[:4] == b"OggS":
            links, ended = ogg.links(file)
            return Kind("ogg", cut=not ended, links=links)
        if head[:4] == b"caff":
            return _caf(file)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return Kind("avi", "avi", cut=_end(head) > file.seek(0, 2))
        if head[4:8] == b"ftyp" and head[8:12] in PICTURES:
            return None
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
            return Kind("mp4", "mov", claims=True)
        return _bare(file, head, 0)


def _bare(file: BinaryIO, head: bytes, start: int) -> Kind | None:
    """What may have an ID3 tag in front, which ends at `start`."""
    if head[:4] == b"fLaC":
        total = int.from_bytes(head[21:26], "big") & 0xFFFFFFFFF
        return Kind("flac", None if total and not start else "flac", promised=total or None)
    for magic, name, demuxer, claims in MAGIC:
        if head.startswith(magic):
            cut, seconds = _end(head) > file.seek(0, 2) - start, _seconds(head) if name == "matroska" else None
            return Kind(name, demuxer, claims=claims, cut=cut, seconds=seconds)
    return _elementary(file, head, start)


def _end(head: bytes) -> int:
    """The end in bytes that a container states; 0: it states none, for example because it was streamed."""
    if head[:4] == b"RIFF":  # AVI
        (size,) = struct.unpack("<I", head[4:8])
        return 0 if size >= UNSIZED else size + 8
    if head[:4] == b"\x1a\x45\xdf\xa3":  # Matroska: its header, then a segment, each with its size
        header, body = _ebml_size(head, 4)
        segment = body + header
        if head[segment : segment + 4] != b"\x18\x53\x80\x67":
            return 0
        size, start = _ebml_size(head, segment + 4)
        return start + size if size >= 0 else 0
    if head[:4] == b"\x30\x26\xb2\x75":  # ASF: its file properties
        found = head.find(b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65")
        return struct.unpack("<Q", head[found + 40 : found + 48])[0] if found > 0 else 0
    return 0


def _ebml_size(data: bytes, position: int) -> tuple[int, int]:
    """A Matroska size (-1: unknown) and its end."""
    length = 9 - data[position].bit_length()
    bits = int.from_bytes(data[position : position + length], "big") & ((1 << 7 * length) - 1)
    return -1 if bits == (1 << 7 * length) - 1 else bits, position + length


def _seconds(head: bytes) -> float | None:
    """The length that a Matroska header states."""
    info = head.find(b"\x15\x49\xa9\x66")
    if info < 0:
        return None
    size, start = _ebml_size(head, info + 4)
    body = head[start : start + max(0, size)]
    ticks, scale = body.find(b"\x44\x89"), body.find(b"\x2a\xd7\xb1")
    if ticks < 0 or body[ticks + 2] not in (0x84, 0x88):  # a float or a double
        return None
    (length,) = struct.unpack_from(">f" if body[ticks + 2] == 0x84 else ">d", body, ticks + 3)
    width = body[scale + 3] & 15 if scale >= 0 else 0
    nanoseconds = int.from_bytes(body[scale + 4 : scale + 4 + width], "big") if width else 1_000_000
    return length * nanoseconds / 1e9 if 0 < length < 1e15 else None


PICTURES = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis", b"crx ")
MAGIC = (  # first bytes, name, FFmpeg's demuxer, whether its length is reliable
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


PLAIN = (1, 3, 6, 7, 0xFFFE)  # integer, float, A-law, mu-law: samples of fixed size


def _wave(file: BinaryIO, magic: bytes) -> Kind:
    align, coding, wide = 0, 0, None
    order = ">" if magic == b"RIFX" else "<"
    for name, position, size in _chunks(file, 12, order):
        file.seek(position)
        if name == b"ds64":
            wide = struct.unpack("<Q", file.read(16)[8:])[0]
        elif name == b"fmt ":
            coding, _, _, _, align = struct.unpack(order + "HHIIH", file.read(14))
        elif name == b"data":
            there = file.seek(0, 2) - position
            size = wide if wide is not None and size == 0xFFFFFFFF else size
            if size == 0 and there and _only_chunks(file, position, order):
                return Kind("wav", promised=0)
            if size == 0 or (size >= UNSIZED and magic != b"RF64" and there != size):
                return Kind("wav", "wav") if there else Kind("wav")
            plain = coding in PLAIN and align > 0
            over = 0 < size - there <= position  # some programs count their own header into the size of the sound
            return Kind("wav", promised=(there if over else size) // align) if plain else Kind("wav", cut=size > there)
    return Kind("wav")


def _only_chunks(file: BinaryIO, start: int, order: str) -> bool:
    """Whether nothing but chunks, with plain names, lie between here and the end of the file."""
    end = start
    for name, position, size in _chunks(file, start, order):
        if not all(32 <= letter < 127 for letter in name):
            return False
        end = position + size
    return end <= file.seek(0, 2) <= end + 1  # an odd size is followed by a zero


def _w64(file: BinaryIO) -> Kind:
    position, coding, align = 40, 0, 0
    while True:
        file.seek(position)
        header = file.read(24)
        if len(header) < 24:
            return Kind("w64")
        size = struct.unpack("<Q", header[16:])[0]
        if header[:4] == b"fmt ":
            coding, _, _, _, align = struct.unpack("<HHIIH", file.read(14))
        if header[:4] == b"data":
            plain = coding in PLAIN and align > 0
            return _sized("w64", file, size - 24, align if plain else 0)
        position += max(24, size + -size % 8)


def _aiff(file: BinaryIO) -> Kind:
    promised, cut = None, False
    for name, position, size in _chunks(file, 12, ">"):
        if name == b"COMM":
            file.seek(position + 2)
            promised = struct.unpack(">I", file.read(4))[0] or None  # some codings have packets instead of samples
        elif name == b"SSND":
            cut = size > file.seek(0, 2) - position
    return Kind("aiff", promised=promised, cut=cut and promised is not None)


def _au(file: BinaryIO, head: bytes) -> Kind:
    _, start, size, coding, _, channels = struct.unpack(">6I", head[:24])
    width = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}.get(coding, 0)
    file.seek(start)
    return Kind("au") if size in (0, 0xFFFFFFFF) else _sized("au", file, size, width * channels)


def _caf(file: BinaryIO) -> Kind:
    position, width = 8, 0
    while True:
        file.seek(position)
        header = file.read(12)
        if len(header) < 12:
            return Kind("caf")
        size = struct.unpack(">q", header[4:])[0]
        if header[:4] == b"desc":
            width = struct.unpack(">d4sIII", file.read(24))[3]  # bytes of a packet; 0: they vary
        if header[:4] == b"data":
            file.seek(4, 1)
            return _sized("caf", file, size - 4, width) if size > 4 else Kind("caf")
        position += 12 + max(size, 0)


def _sized(name: str, file: BinaryIO, size: int, width: int) -> Kind:
    """Sound from here on of this many bytes, `width` bytes per sample; 0: variable, only the bytes are stated."""
    if width:
        return Kind(name, promised=max(0, size) // width or None)
    position = file.tell()
    return Kind(name, cut=size > file.seek(0, 2) - position)


def _elementary(file: BinaryIO, head: bytes, start: int) -> Kind | None:
    """MPEG audio without a container: two consecutive frames that fit together, or a single one as the whole file."""
    if len(head) > 5 * 188 and set(head[: 5 * 188 : 188]) == {0x47}:
        return Kind("mpegts", "mpegts")
    for position in range(min(len(head), 4096)):
        if head[position] != 0xFF:
            continue
        size = mpeg_frame(head[position : position + 4])
        if size and (position + size == len(head) or mpeg_frame(head[position + size : position + size + 4])):
            links, claims = _mp3_links(file, start + position)
            return Kind("mp3", "mp3", claims=claims, links=links)
        size = _adts_frame(head[position : position + 7])
        if size and (position + size == len(head) or _adts_frame(head[position + size : position + size + 7])):
            return Kind("aac", "aac")
    return None


def _mp3_links(file: BinaryIO, position: int) -> tuple[tuple[tuple[int, int], ...], bool]:
    """The streams of an mp3 file from here on, and whether Xing frames state all their lengths."""
    end, links, claims = file.seek(0, 2), [], True
    start: int | None = 0
    while start is not None:
        position = _behind_id3(file, start) if start else position
        file.seek(position)
        frame = file.read(256)
        tag = max(frame.find(b"Xing"), frame.find(b"Info"))
        flags, frames, size = struct.unpack(">III", frame[tag + 4 : tag + 16]) if 0 < tag <= 240 else (0, 0, 0)
        claims = claims and flags & 1 > 0 and frames > 0  # without, FFmpeg guesses a length from the bit rate
        following = position + size if flags & 3 == 3 and size else end
        file.seek(following)
        if file.read(3) == b"TAG":  # ID3, version 1
            following += 128
        file.seek(_behind_id3(file, following))
        more = mpeg_frame(file.read(4)) > 0
        links.append((start, following if more else end))
        start = following if more else None
    return tuple(links), claims


def _behind_id3(file: BinaryIO, position: int) -> int:
    """The end of the ID3 tags that begin here; `position` if there are none."""
    while True:
        file.seek(position)
        head = file.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            return position
        position += 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
KILOBITS = {
    (3, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def mpeg_frame(header: bytes) -> int:
    """Size in bytes of the MPEG audio frame with this header; 0: not one."""
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
    """Size in bytes of the AAC frame with this header; 0: not one."""
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or (header[2] >> 2) & 15 > 12:
        return 0
    size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return size if size > 7 else 0
