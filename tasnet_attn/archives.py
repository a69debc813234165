"""Unpacking archives within limits: an archive that unpacks to far more than its size is an error."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from tasnet_attn.errors import UserError

RATIO = 100  # largest unpacked size relative to the archive; packages of sound and text have 1 to 10
LAST = 300  # bytes of a program's last words that are shown


def unpacked(stream: IO[bytes], path: Path) -> bytes:
    """All bytes of a stream that unpacks a file.

    Args:
        stream: for example `gzip.open(path)`.
        path: the file.

    Raises:
        UserError: more bytes than `RATIO` times the file's size.
    """
    most = RATIO * path.stat().st_size + 2**20  # a small archive is mostly padding
    content = stream.read(most + 1)
    if len(content) > most:
        raise UserError(f"{path}: unpacks to more than {RATIO} times its size; fetch it again")
    return content


def unpacked_by(command: Sequence[str], path: Path) -> bytes:
    """All output of a program that unpacks a file, for example `dpkg-deb --fsys-tarfile path`.

    Raises:
        UserError: the program is not available or fails; see also `unpacked`.
    """
    try:
        with (
            tempfile.TemporaryFile() as said,  # not a pipe, which stops the program once it is full
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said) as process,
        ):
            assert process.stdout is not None
            try:
                content = unpacked(process.stdout, path)
            except UserError:
                process.kill()
                raise
            failed = process.wait() != 0
            said.seek(max(0, said.seek(0, os.SEEK_END) - LAST))
            reason = " ".join(said.read().decode(errors="replace").split())
    except OSError as error:
        raise UserError(f"{path}: cannot be unpacked: {command[0]}: {error.strerror}") from error
    if failed:
        raise UserError(f"{path}: cannot be unpacked: {reason}; fetch it again")
    return content


def tar_files(content: bytes, path: Path) -> Iterator[tuple[str, bytes]]:
    """The regular files of a tar archive with their paths, in order: (path without a leading ./, content).

    Args:
        content: the archive, uncompressed.
        path: the file that it comes from.

    Raises:
        UserError: damaged, or the files are together larger than the archive (sparse files can be).
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            members = [member for member in archive.getmembers() if member.isfile()]
            if sum(member.size for member in members) > len(content):
                raise UserError(f"{path}: contains files larger than itself; fetch it again")
            for member in sorted(members, key=lambda member: member.name):
                if opened := archive.extractfile(member):
                    yield member.name.removeprefix("./"), opened.read()
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{path}: cannot be unpacked: {error}; fetch it again") from error
