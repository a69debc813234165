"""Sound for the builders of corpora: reading files that are in memory, writing samples unchanged, LibriMix's layout.

A corpus is identified by its checksum, so nothing is dithered, resampled or turned down here.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasnet_attn.audio.writing import refusals
from tasnet_attn.errors import UserError
from tasnet_attn.files import touching, whole

BUSY = "another process is building in this folder; wait for it, or give another --out"


def decode(content: bytes, name: str, headless: str | None = None, dtype: str = "float32") -> tuple[NDArray[Any], int]:
    """The samples [T, C] of a file in memory, and their rate.

    Args:
        content: the file.
        name: for messages.
        headless: FFmpeg's name of a 16-bit coding without a header, "g722" or "gsm" (float32, mono).
        dtype: "float32" or "float64".

    Raises:
        UserError: damaged.
    """
    import av
    import soundfile

    try:
        if headless is None:
            return soundfile.read(io.BytesIO(content), dtype=dtype, always_2d=True)
        with av.open(io.BytesIO(content), "r", format=headless) as container:
            frames: list[Any] = list(container.decode(audio=0))
        samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
        return samples.astype(np.float32)[:, None] / 32768, frames[0].sample_rate
    except (av.FFmpegError, soundfile.SoundFileError) as error:
        raise UserError(f"{name}: cannot be decoded: {error}") from error


def read_pcm(file: Path) -> tuple[NDArray[Any], str]:
    """The samples of a 16-bit file, [T] or [T, C] int16, and its comment.

    Raises:
        UserError: missing, or damaged.
    """
    import soundfile

    try:
        with touching(file), file.open("rb") as content, soundfile.SoundFile(content) as opened:
            return opened.read(dtype="int16"), opened.comment
    except soundfile.SoundFileError as error:
        raise UserError(f"{file}: cannot be decoded: {error}") from error


def write_pcm(file: Path, samples: NDArray[Any], sample_rate: int, **tags: str) -> None:
    """Write [T] or [T, C] in 16 bits, rounded like libsndfile does; the name's suffix chooses the container.

    Args:
        file: .wav or .flac.
        samples: 16-bit integers, or floats within full scale.
        sample_rate: Hz.
        tags: title and comment to store in the file.

    Raises:
        UserError: cannot be written.
    """
    import soundfile

    channels = 1 if samples.ndim == 1 else samples.shape[1]
    form = file.suffix.removeprefix(".").upper()
    with (
        refusals(file),
        soundfile.SoundFile(os.fsencode(file), "w", sample_rate, channels, "PCM_16", format=form) as out,
    ):
        for tag, text in tags.items():
            setattr(out, tag, text)
        out.write(samples)


def write_mixture(root: Path, subset: str, name: str, sources: NDArray[np.int16], sample_rate: int) -> dict[str, Any]:
    """Write a clean mixture and its sources into LibriMix's folders; the mixture is their sum to the last bit.

    Args:
        root: the folder that contains wav8k.
        subset: such as "train".
        name: of the mixture, `mixture_ID`.
        sources: [S, T]; their sum fits into 16 bits.
        sample_rate: Hz.

    Returns:
        The mixture's row for `write_mixtures`.
    """
    parts = {"mixture_path": ("mix_clean", sources.sum(0, dtype=np.int16))}
    parts |= {f"source_{i}_path": (f"s{i}", source) for i, source in enumerate(sources, start=1)}
    row: dict[str, Any] = {"mixture_ID": name}
    for column, (part, samples) in parts.items():
        row[column] = f"wav{sample_rate // 1000}k/min/{subset}/{part}/{name}.wav"
        (root / row[column]).parent.mkdir(parents=True, exist_ok=True)
        write_pcm(root / row[column], samples, sample_rate)
    return row | {"length": sources.shape[1]}


def write_mixtures(root: Path, subset: str, rows: Sequence[Mapping[str, Any]], sample_rate: int) -> None:
    """Write a subset's metadata from the rows of `write_mixture`."""
    write_table(root / f"wav{sample_rate // 1000}k/min/metadata/mixture_{subset}_mix_clean.csv", rows)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV file atomically."""
    with whole(path) as part, part.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
