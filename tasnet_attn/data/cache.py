"""Decoded copies of compressed tracks, read by memory mapping: reading a segment then needs no decoding."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from tasnet_attn.data.track import Track
from tasnet_attn.errors import UserError
from tasnet_attn.files import digest, file_name, unfinished, whole

GB = 1e9


class CachedTrack(Track):
    """A track whose decoded samples are in a file: mixture and references, [1 + S, C, T] float32, as read.

    The file's name identifies its origin (paths and sources; sizes and times of change), so that a changed track is
    decoded again, and its old copy is removed.

    Args:
        track: the track to decode.
        folder: for the copy.
    """

    def __init__(self, track: Track, folder: Path) -> None:
        self.track = track
        self.name, self.sources, self.sample_rate = track.name, track.sources, track.sample_rate
        self.length, self.channels, self.files = track.length, track.channels, track.files
        self.rest_remixed = track.rest_remixed
        made = [list(track.made_of(which)) for which in range(len(track.sources))]
        paths, states = [str(file.resolve()) for file in track.files], [file.stat() for file in track.files]
        self.what = digest([repr((type(track).__name__, track.sources, made, track.variant)), *paths])
        state = digest(repr((state.st_size, state.st_mtime_ns)) for state in states)
        self.copy = folder / f"{self.what}-{state}-{file_name(track.name)}.npy"
        self.bytes = 4 * (1 + len(track.sources)) * track.channels * track.length

    def read(self, start: int = 0, length: int | None = None) -> tuple[Tensor, Tensor]:
        signals = self._read(slice(None), start, self.length - start if length is None else length)
        return signals[0], signals[1:]

    def read_source(self, which: int, start: int, length: int) -> Tensor:
        return self._read(1 + which, start, length)

    def read_rest(self, start: int, length: int) -> Tensor:
        return self.track.read_rest(start, length)

    def speaker(self, which: int) -> str | None:
        return self.track.speaker(which)

    def _read(self, which: int | slice, start: int, length: int) -> Tensor:
        # mapped only for this read: pages that stay mapped count as this process's memory
        return torch.from_numpy(np.array(np.load(self.copy, mmap_mode="r")[which, :, start : start + length]))

    def fill(self) -> None:
        """Decode if there is no copy; it is written atomically, even if others decode at the same time.

        Raises:
            UserError: the track is damaged, or the copy cannot be written.
        """
        folder = self.copy.parent
        try:
            with FileLock(folder / ".lock"):  # one process at a time writes to the folder
                if self.copy.exists():
                    return
                for broken in unfinished(folder):  # its writer was killed
                    broken.unlink()
                mixture, references = self.track.read()
                try:
                    with whole(self.copy) as part, part.open("w+b") as file:  # w+b, or numpy hides errors
                        np.save(file, torch.cat([mixture[None], references]).numpy())
                except UserError as error:
                    raise UserError(f"{error}; {ROOM}") from error
                for outdated in folder.glob(f"{self.what}-*.npy"):
                    if outdated != self.copy:
                        outdated.unlink()
        except OSError as error:
            raise UserError(f"{self.copy}: {error.strerror}; {ROOM}") from error


ROOM = "make room there, or set data.init_args.cache to another folder or to null"


def with_copies(tracks: Sequence[Track], folder: Path, say: Callable[[str], None]) -> list[Track]:
    """The tracks, with all but wav files replaced by decoded copies in `folder`, which are made if missing.

    Args:
        tracks: of a split.
        folder: for the copies; it may be deleted between runs.
        say: called with a line on how much will be decoded.

    Raises:
        UserError: not enough room, or a damaged track; names it.
    """
    found = [t if all(file.suffix == ".wav" for file in t.files) else CachedTrack(t, folder) for t in tracks]
    todo = [track for track in found if isinstance(track, CachedTrack) and not track.copy.exists()]
    if not todo:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; {ROOM}") from error
    size, free = sum(track.bytes for track in todo), shutil.disk_usage(folder).free
    if size > free:
        raise UserError(f"{folder}: the decoded tracks need {size / GB:.1f} GB, {free / GB:.1f} GB are free; {ROOM}")
    say(f"{folder}: decoding {len(todo)} of {len(found)} tracks, {size / GB:.2f} GB ({free / GB:.1f} GB are free)")
    begin = time.monotonic()
    for track in todo:
        track.fill()
    say(f"{folder}: decoded in {time.monotonic() - begin:.0f} s")
    return found
