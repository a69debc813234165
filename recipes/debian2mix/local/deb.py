"""Reads Debian packages without installing them: an ar archive with two tar archives."""

from __future__ import annotations

import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from tasnet_attn.archives import tar_files, unpacked, unpacked_by
from tasnet_attn.errors import UserError

MAGIC = b"!<arch>\n"
UNPACK: dict[str, Callable[[Any], IO[bytes]]] = {".xz": lzma.LZMAFile, ".gz": gzip.open, "": lambda stream: stream}
HEADER = 60  # bytes before each member: name 16, time 12, owner 6, group 6, mode 8, size 10, end 2


class Deb:
    """A .deb file.

    Args:
        path: the file.

    Raises:
        UserError: not a Debian package, truncated, or with a compression that is not supported; names the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts = self._parts(path.read_bytes())
        if not {"control", "data"} <= set(self.parts):
            raise UserError(f"{path}: not a Debian package; fetch it again with apt-get download")
        control = next(content for name, content in self._files("control") if name == "control").decode()
        fields = dict(line.split(": ", 1) for line in control.splitlines() if ": " in line and line[0] != " ")
        self.package, self.version = fields["Package"], fields["Version"]

    def _parts(self, content: bytes) -> dict[str, tuple[str, bytes]]:
        """{"control": (suffix, bytes), "data": ...} of the ar archive."""
        parts: dict[str, tuple[str, bytes]] = {}
        position = len(MAGIC) if content.startswith(MAGIC) else len(content)
        while position + HEADER <= len(content):
            header = content[position : position + HEADER]
            name, _, suffix = header[:16].decode("ascii", "replace").rstrip(" /").partition(".tar")
            size, position = int(header[48:58]), position + HEADER
            if position + size > len(content):
                raise UserError(f"{self.path}: shorter than its header states; fetch it again with apt-get download")
            parts[name] = suffix, content[position : position + size]
            position += size + size % 2
        return parts

    def _unpack(self, part: str) -> bytes:
        suffix, packed = self.parts[part]
        try:
            if suffix == ".zst" and part == "data":  # Python before 3.14 does not read zstd
                return unpacked_by(["dpkg-deb", "--fsys-tarfile", str(self.path)], self.path)
            with UNPACK[suffix](io.BytesIO(packed)) as stream:
                return unpacked(stream, self.path)
        except KeyError:
            raise UserError(f"{self.path}: packed as {part}.tar{suffix}, which is not supported") from None
        except (lzma.LZMAError, zlib.error, OSError, EOFError) as error:
            raise UserError(f"{self.path}: cannot be unpacked: {error}; fetch it again by apt-get download") from error

    def _files(self, part: str) -> Iterator[tuple[str, bytes]]:
        # unpacked as a whole: seeking in a compressed archive would unpack it repeatedly
        return tar_files(self._unpack(part), self.path)

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Its regular files in the order of their paths: (path without a leading slash, content)."""
        return self._files("data")
