"""Ogg files: their pages, the streams concatenated in them, and damage, which decoders pass over without a word.

Source: RFC 3533, section 6.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

TAIL = 1 << 18  # bytes at the end of a file that contain its last pages
FIRST, LAST = 2, 4  # flags of a stream's first and last page
ORDERS = {  # number of channels: which channel of a wav is each of an Ogg's (Vorbis I, section 4.3.9; RFC 7845, 5.1.1)
    3: (0, 2, 1),  # left, centre, right
    4: (0, 1, 2, 3),  # left, right, back left and right
    5: (0, 2, 1, 3, 4),
    6: (0, 2, 1, 4, 5, 3),  # the bass channel, a wav's fourth, comes last
    7: (0, 2, 1, 5, 6, 4, 3),
    8: (0, 2, 1, 6, 7, 4, 5, 3),
}
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Page(NamedTuple):
    """A page.

    Attributes:
        position: its place in the file, bytes.
        size: bytes.
        flags: `FIRST`, `LAST`, 1: begins within a packet.
        sample: number of samples up to its end; 0: a header; -1: no packet ends in it.
        stream: the number of its stream.
        number: its number in the stream.
        stated: its checksum as stated.
    """

    position: int
    size: int
    flags: int
    sample: int
    stream: int
    number: int
    stated: int


def pages(file: BinaryIO, start: int = 0) -> Iterator[Page]:
    """The complete pages; anything between them is skipped."""
    end, position = file.seek(0, 2), start
    while position + 27 <= end:
        file.seek(position)
        header = file.read(27 + 255)
        if header[:4] != b"OggS":
            further = header.find(b"OggS", 1)
            position += further if further > 0 else len(header) - 3
            continue
        flags, *numbers, count = struct.unpack("<BqIIIB", header[5:27])
        size = 27 + count + sum(header[27 : 27 + count])
        if position + size > end:
            return
        yield Page(position, size, flags, *numbers)
        position += size


def links(file: BinaryIO) -> tuple[tuple[tuple[int, int], ...], bool]:
    """(start, end) in bytes of the streams concatenated in a file, and whether the last one has an end."""
    starts, ended = [], True
    for page in pages(file):
        if page.flags & FIRST and ended:
            starts.append(page.position)
        ended = bool(page.flags & LAST)
    return tuple(zip(starts, [*starts[1:], file.seek(0, 2)], strict=True)), ended


def damage(file: BinaryIO) -> int | None:
    """Where the first broken or missing page is, bytes; None: nowhere.

    A recording of a radio stream begins with the headers and goes on at any page: that is no damage.
    """
    last: dict[int, Page] = {}
    for page in pages(file):
        before = None if page.flags & FIRST else last.get(page.stream)
        if before is not None and page.number != (before.number + 1) & 0xFFFFFFFF:
            end = before.position + before.size
            if before.sample != 0 or end != page.position:
                return end
        file.seek(page.position)
        if checksum(file.read(page.size)) != page.stated:
            return page.position
        last[page.stream] = page
    return None


def last_seek(path: Path) -> int:
    """The last sample of a file to which libsndfile seeks correctly; in its last pages it does not."""
    with path.open("rb") as file:
        start = max(0, file.seek(0, 2) - TAIL)
        samples = [page.sample for page in pages(file, start) if page.sample >= 0]
    return max(0, samples[-3]) if len(samples) > 2 else 0


def checksum(page: bytes) -> int:
    """The checksum of a page, whatever it states itself."""
    # the same polynomial as zlib's, but with the bits of each byte and of the result the other way round
    blank = page[:22] + bytes(4) + page[26:]
    return int(f"{zlib.crc32(blank.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF:032b}"[::-1], 2)
