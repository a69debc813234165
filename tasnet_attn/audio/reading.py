"""Reading audio by segment; every failure names the file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import soundfile
import torch
from torch import Tensor

from tasnet_attn.errors import UserError

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")


class AudioInfo(NamedTuple):
    """What a file holds: Hz, samples, channels."""

    sample_rate: int
    length: int
    channels: int


def audio_info(path: Path) -> AudioInfo:
    """Read a file's header.

    Raises:
        UserError: missing, not audio that libsndfile reads, or a wav file that ends before its header says.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        info = soundfile.info(path, verbose=True)
    except soundfile.SoundFileError as error:
        raise UserError(f"{path}: cannot be read as audio: {_reason(error)}") from error
    # libsndfile shortens a truncated wav file without a word, but for its log. (A stream's header says 2 or 4 GB.)
    if size := re.search(r"^data : (\d+) \(should be (\d+)\)", info.extra_info, re.MULTILINE):
        said, there = int(size[1]), int(size[2])
        if said - there > 4096 and said < 0x7FFF0000:  # some programs count their own header in
            raise UserError(f"{path}: holds {there} bytes of sound, but its header says {said}; the file is truncated")
    return AudioInfo(info.samplerate, info.frames, info.channels)


def read_audio(path: Path, start: int = 0, length: int | None = None) -> Tensor:
    """Read samples start .. start + length (None: to the end) by seeking, [C, length] float32.

    Raises:
        UserError: missing, not audio, shorter than asked for, or NaN samples.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        samples, _ = soundfile.read(path, -1 if length is None else length, start, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as audio: {_reason(error)}; is it truncated?") from error
    if length is not None and len(samples) < length:
        raise UserError(f"{path}: ends {length - len(samples)} samples before its header says; the file is truncated")
    audio = torch.from_numpy(samples.T)
    check_finite(audio, path, start)
    return audio


def check_finite(audio: Tensor, path: Path | str, start: int = 0) -> None:
    """Raise UserError if [C, T] holds NaN or infinity; `start` is the position of the first sample in the file."""
    if not audio.isfinite().all():
        position = int((~audio.isfinite()).any(dim=0).nonzero()[0])
        raise UserError(f"{path}: NaN or infinite value at sample {start + position}; repair or leave out this file")


def _reason(error: Exception) -> str:
    return str(error).rpartition(": ")[2].strip(" .")


def find_audio(inputs: list[Path]) -> dict[str, Path]:
    """Files to separate by the name of their output folder: a file's stem, below a given folder its relative path.

    Raises:
        UserError: a missing input, a folder without audio, or two inputs of one name.
    """
    found: dict[str, Path] = {}
    for given in inputs:
        if given.is_dir():
            files = sorted(path for path in given.rglob("*") if path.suffix.lower() in SUFFIXES)
            if not files:
                raise UserError(f"{given}: no audio files in this folder ({' '.join(SUFFIXES)})")
            named = {str(path.relative_to(given).with_suffix("")): path for path in files}
        else:
            named = {given.stem: given}  # a missing file is reported when its turn comes: it does not stop the rest
        for name, path in named.items():
            if name in found:
                raise UserError(f"{path} and {found[name]} would both be written to {name}; separate them one by one")
            found[name] = path
    return found
