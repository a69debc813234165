"""Options for separating files; does not import torch until it is needed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tasnet_attn.audio.names import stem_files
from tasnet_attn.errors import UserError

if TYPE_CHECKING:
    from tasnet_attn.audio.writing import Encoding
    from tasnet_attn.inference.segments import Choice
    from tasnet_attn.model import Separates

PIPE = Path("-")


@dataclass(frozen=True)
class Options:
    """How files are separated.

    Args:
        format: "wav", "flac", "ogg", "opus", "mp3" or "m4a".
        bits: "16", "24" or "32f"; None: 32-bit float in wav, 24 bits in flac.
        clip: what to do if the format cannot represent the level, see `audio.writing.Encoding`.
        sources: the sources to write, in this order; None: all.
        remainder: the name of one more stem, the mixture minus the stems that are written; None: none.
        mixture_consistent: the difference between mixture and stems is added to them in equal parts.
        segment: see `separate`.
        overlap: see `separate`.
        device: see `separate`.
        track: the audio track to read from a file with several, from 1.
        partial: accept a file that is shorter than its header states.
        verify_seams: also compare stretches with one whole pass over them, and print how well they agree.
        name: pattern of the file names below the output folder.
    """

    format: str = "wav"
    bits: str | None = None
    clip: Literal["rescale", "clamp", "error"] = "rescale"
    sources: Sequence[str] | None = None
    remainder: str | None = None
    mixture_consistent: bool = False
    segment: float | None = None
    overlap: float | None = None
    device: str = "auto"
    track: int = 1
    partial: bool = False
    verify_seams: bool = False
    name: str = "{track}/{source}.{ext}"

    def __post_init__(self) -> None:
        if not isinstance(self.track, int):
            raise UserError(f"track {self.track!r} must be a number: which audio track of a file, from 1")

    @property
    def encoding(self) -> Encoding:
        """The encoding of the stems."""
        from tasnet_attn.audio.writing import Encoding

        return Encoding(self.format, self.bits, self.clip)

    def choice(self, model: Separates) -> Choice:
        """The stems to write."""
        from tasnet_attn.inference.segments import Choice

        return Choice(model, self.sources, self.remainder, self.mixture_consistent)

    def files(self, model: Separates, out: Path, track: str) -> list[Path]:
        """The files of a track's stems."""
        return stem_files(out, track, self.choice(model).names, self.format, self.name)


def spare(inputs: Iterable[Path | int], files: Iterable[Path]) -> None:
    """Check that no file to write is an input, by whatever path.

    Args:
        inputs: paths or file descriptors; missing files are reported elsewhere.
        files: to write.

    Raises:
        UserError: names the first that is.
    """
    read = {place for _, place in _places(inputs)}
    for file, place in _places(files):
        if place in read:
            raise UserError(f"{file}: is an input and would be replaced; give another --out or --name")


def _places(paths: Iterable[Path | int]) -> Iterator[tuple[Path | int, tuple[int, int]]]:
    """The paths that exist, with device and inode."""
    for path in paths:
        with suppress(OSError):
            found = os.stat(path)
            yield path, (found.st_dev, found.st_ino)
