"""The writer of sound files: the stems of a song, all together or none.

Samples are kept in a temporary file as float until the last one is there and the level is known. If a format cannot
represent the level, all stems of a song are turned down by one factor, clipped, or rejected. The same samples give the
same bytes.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tasnet_attn.audio import ogg
from tasnet_attn.audio.reading import BLOCK
from tasnet_attn.audio.resampling import resampled
from tasnet_attn.errors import UserError, first_line
from tasnet_attn.files import workspace

FULL = 1 - 2**-12  # of full scale: the level that a song is turned down to, with room for rounding and dither
Bits = Literal["16", "24", "32f"]


@dataclass(frozen=True)
class Format:
    """A format: libsndfile's names (None: FFmpeg writes it), bit depths, channels and rates."""

    container: str | None
    subtypes: dict[str, str]
    channels: int = 1024
    rates: Sequence[int] = ()


MPEG_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
FORMATS = {
    "wav": Format("WAV", {"32f": "FLOAT", "24": "PCM_24", "16": "PCM_16"}),
    "flac": Format("FLAC", {"24": "PCM_24", "16": "PCM_16"}, channels=8, rates=range(1, 655_351)),
    "ogg": Format("OGG", {"": "VORBIS"}, channels=255, rates=range(1, 200_001)),  # beyond, the encoder crashes
    "opus": Format("OGG", {"": "OPUS"}, channels=8, rates=(8000, 12000, 16000, 24000, 48000)),
    "mp3": Format("MP3", {"": "MPEG_LAYER_III"}, channels=2, rates=MPEG_RATES),
    "m4a": Format(None, {"": "aac"}, channels=6, rates=(*MPEG_RATES, 64000, 88200, 96000)),
}


@dataclass(frozen=True)
class Encoding:
    """How to write stems.

    Args:
        format: a name in FORMATS.
        bits: "16", "24" or "32f" (wav); None: 32-bit float in wav, 24 in flac.
        clip: if the format cannot represent the level: "rescale" all stems of a song by one factor, "clamp", "error".

    Raises:
        UserError: a format or depth that does not exist.
    """

    format: str = "wav"
    bits: str | None = None
    clip: Literal["rescale", "clamp", "error"] = "rescale"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UserError(f"format {self.format!r} is not one of {', '.join(FORMATS)}")
        depths = FORMATS[self.format].subtypes
        if self.bits is not None and self.bits not in depths:
            known = ", ".join(depth for depth in depths if depth) or "none to choose"
            raise UserError(f"bits {self.bits!r}: {self.format} has {known}")
        if self.clip not in ("rescale", "clamp", "error"):
            raise UserError(f"clip {self.clip!r} is not one of rescale, clamp, error")

    @property
    def depth(self) -> str:
        """The bits of a sample; "" if the codec decides."""
        return self.bits or next(iter(FORMATS[self.format].subtypes))

    def rate(self, sample_rate: int) -> int:
        """The rate to write: the format's nearest higher rate, else its highest."""
        rates = FORMATS[self.format].rates
        if not rates or sample_rate in rates:
            return sample_rate
        return min((rate for rate in rates if rate >= sample_rate), default=max(rates))

    def check(self, path: Path, channels: int, sample_rate: int | None = None) -> None:
        """Raise UserError if the format does not allow this many channels, or this rate if it is known."""
        most = FORMATS[self.format].channels
        if channels > most:
            raise UserError(f"{path}: {channels} channels; {self.format} has at most {most}; use --format wav")
        rate = self.rate(sample_rate or 1)
        if self.format == "flac" and rate > 65_535 and rate % 10:
            raise UserError(f"{path}: {rate} Hz; above 65535 Hz flac has only multiples of 10; use --format wav")


class Stems:
    """Takes blocks [S, C, t] and writes `folder/<name>.<format>` for every name.

    Args:
        work: an empty folder on the same file system, for unfinished files.
        files: the files, one for each of S.
        sample_rate: Hz of the blocks.
        encoding: see `Encoding`.
        check: called before every block is encoded; may raise to stop.

    Raises:
        UserError: NaN or infinity in the stems, or a level that the format cannot represent (`clip` "error").
    """

    def __init__(
        self,
        work: Path,
        files: Sequence[Path],
        sample_rate: int,
        channels: int,
        encoding: Encoding,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        encoding.check(files[0], channels, sample_rate)
        self.check = check
        self.work, self.files, self.rate, self.channels, self.encoding = work, files, sample_rate, channels, encoding
        self.raw = [(work / f"{i}.f32").open("wb") for i in range(len(files))]
        self.peak, self.length = 0.0, 0

    def write(self, block: Tensor) -> None:
        """Add a block [S, C, t]."""
        peak = float(block.abs().amax()) if block.numel() else 0.0
        if not np.isfinite(peak):
            raise UserError(
                f"{self.files[0].parent}: the model's output contains NaN or infinite samples; is the input's level "
                "extreme, or did the training diverge?"
            )
        self.peak, self.length = max(self.peak, peak), self.length + block.shape[-1]
        for file, stem in zip(self.raw, block, strict=True):
            file.write(stem.T.contiguous().numpy().tobytes())

    def finish(self) -> str:
        """Encode, and move all files into place; returns a message about the level, or ""."""
        self.close()
        factor, said = 1.0, ""
        if self.encoding.depth != "32f" and self.peak > FULL:
            over = f"{20 * np.log10(self.peak):.1f} dB above full scale"
            if self.encoding.clip == "error" and self.peak > 1:
                raise UserError(f"{self.files[0].parent}: {over}; use --clip rescale or clamp, or --format wav")
            if self.encoding.clip == "rescale":
                factor = FULL / self.peak
                said = f"turned down by {-20 * np.log10(factor):.1f} dB" if self.peak > 1 else ""
            elif self.peak > 1:
                said = f"clipped, {over}"
        parts = [self.work / f"{i}.{self.encoding.format}" for i in range(len(self.files))]
        for file in self.files:
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.is_dir():
                raise UserError(f"{file}: is a folder; a stem would replace it", status=1)
        for i, part in enumerate(parts):
            self._encode(i, part, factor)
        for part, file in zip(parts, self.files, strict=True):
            with part.open("rb") as written:
                os.fsync(written.fileno())
            part.replace(file)
        return said

    def close(self) -> None:
        """Close what is open."""
        for file in self.raw:
            file.close()

    def _encode(self, number: int, part: Path, factor: float) -> None:
        with refusals(self.files[number]):
            self._write(number, part, factor)

    def _write(self, number: int, part: Path, factor: float) -> None:
        part.touch()  # if that fails, the system gives the reason, which libsndfile does not
        blocks = self._scaled(number, factor)
        rate = self.encoding.rate(self.rate)
        blocks = resampled(blocks, self.rate, rate)
        if FORMATS[self.encoding.format].container is None:
            _write_aac(part, blocks, rate, self.channels)
        else:
            _write_sndfile(part, blocks, rate, self.channels, self.encoding, self.length)

    def _scaled(self, number: int, factor: float) -> Iterator[Tensor]:
        """Blocks [C, t] of a stem in the format's sample type."""
        noise = np.random.default_rng(number)
        depth = self.encoding.depth
        with (self.work / f"{number}.f32").open("rb") as file:
            while data := file.read(BLOCK * self.channels * 4):
                self.check()
                block = torch.frombuffer(bytearray(data), dtype=torch.float32).view(-1, self.channels).T
                if depth != "32f":
                    block = (block * factor).clamp(-1, 1)
                if depth in ("16", "24"):  # triangular dither of one step: the error is noise, whatever the signal
                    step = 2.0 ** (1 - int(depth))
                    block = block + step * torch.from_numpy(noise.triangular(-1, 0, 1, block.shape)).float()
                    block = block.clamp(-1, 1 - step)
                yield block


@contextmanager
def refusals(file: Path) -> Iterator[None]:
    """Write errors of libsndfile and FFmpeg, mostly a full disk, become one line."""
    import soundfile

    try:
        yield
    except (soundfile.SoundFileError, AssertionError) as error:  # an incomplete write fails soundfile's assertion
        raise UserError(f"{file}: cannot be written ({first_line(error)}); is the disk full?", status=1) from error
    except OSError as error:  # FFmpeg's are OSErrors too
        raise UserError(f"{file}: cannot be written: {error.strerror or first_line(error)}", status=1) from error


def write_signals(
    folder: Path, names: Sequence[str], blocks: Iterable[Tensor], sample_rate: int, encoding: Encoding
) -> None:
    """Write signals to `folder/<name>.<format>`.

    Args:
        folder: must exist.
        names: of the files, one for each of S.
        blocks: [S, C, t].
        sample_rate: Hz.
        encoding: see `Encoding`; the level is that of all signals together.
    """
    files = [folder / f"{name}.{encoding.format}" for name in names]
    with workspace(folder) as work:
        stems = None
        try:
            for block in blocks:
                stems = stems or Stems(work, files, sample_rate, block.shape[1], encoding)
                stems.write(block.cpu())
            if stems is not None:
                stems.finish()
        finally:
            if stems is not None:
                stems.close()


def excerpt_bytes(signal: Tensor, sample_rate: int, format: str) -> tuple[bytes, int]:
    """A signal [C, T] within full scale as a small file for a page: its bytes and its rate.

    Args:
        signal: the samples.
        sample_rate: Hz.
        format: "flac": 16 bits without dither. "mp3": about 100 kbit/s in stereo, at 16 kHz or more because not every
            browser supports the lower rates of MPEG 2.5; with more than two channels FLAC is written instead.
    """
    import soundfile

    file = io.BytesIO()
    if format == "flac" or len(signal) > FORMATS["mp3"].channels:
        whole = (signal * 32768.0).round().clamp(-32768, 32767).to(torch.int16)  # soundfile's own scale is 32767
        soundfile.write(file, whole.T.contiguous().numpy(), sample_rate, "PCM_16", format="FLAC")
        return file.getvalue(), sample_rate
    rate = Encoding("mp3").rate(max(16000, sample_rate))
    blocks = resampled(iter([signal]), sample_rate, rate)
    subtype, how = FORMATS["mp3"].subtypes[""], {"bitrate_mode": "VARIABLE", "compression_level": 0.6}
    with soundfile.SoundFile(file, "w", rate, len(signal), subtype, format="MP3", **how) as out:
        for block in blocks:
            out.write(block.T.contiguous().numpy())
    return file.getvalue(), rate


def _write_sndfile(
    part: Path, blocks: Iterator[Tensor], rate: int, channels: int, encoding: Encoding, length: int
) -> None:
    import soundfile

    form = FORMATS[encoding.format]
    container = "RF64" if encoding.format == "wav" and length * channels * 4 > 4e9 else form.container
    subtype = form.subtypes[encoding.depth]
    order = ogg.ORDERS.get(channels) if form.container == "OGG" else None
    with soundfile.SoundFile(os.fsencode(part), "w", rate, channels, subtype, format=container) as file:
        for block in blocks:  # small ones: libsndfile's Vorbis encoder overflows its stack on large blocks
            samples = (block if order is None else block[list(order)]).T.contiguous().numpy()
            if encoding.depth in ("16", "24"):  # libsndfile's own scale is one step below full scale
                bits = int(encoding.depth)
                samples = (np.round(samples * 2.0 ** (bits - 1)).astype(np.int32) << (32 - bits)).astype(np.int32)
            file.write(samples)
    _timeless(part)


def _write_aac(part: Path, blocks: Iterator[Tensor], rate: int, channels: int) -> None:
    from fractions import Fraction

    import av

    layout = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1"}[channels]
    with av.open(
        os.fsdecode(part), "w", format="ipod", options={"movflags": "+faststart", "fflags": "+bitexact"}
    ) as out:
        stream = out.add_stream("aac", rate=rate, layout=layout)
        stream.bit_rate = 96_000 * channels
        fitting = av.AudioResampler(format="fltp", layout=layout, rate=rate, frame_size=1024)
        position = 0
        for block in (block for block in blocks if block.shape[-1]):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block.numpy()), format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, position, Fraction(1, rate)
            position += block.shape[-1]
            for packet in (packet for piece in fitting.resample(frame) for packet in stream.encode(piece)):
                out.mux(packet)
        for piece in [*fitting.resample(None), None]:
            for packet in stream.encode(piece):
                out.mux(packet)


def _timeless(file: Path) -> None:
    """Remove the time from a file that libsndfile wrote: in a float wav's PEAK chunk, in an Ogg stream's number."""
    with file.open("r+b") as opened:
        head = opened.read(512)
        if (peak := head.find(b"PEAK")) > 0 and head[:4] in (b"RIFF", b"RF64"):
            opened.seek(peak + 12)
            opened.write(bytes(4))
        elif head[:4] == b"OggS":
            for page in list(ogg.pages(opened)):
                opened.seek(page.position)
                data = bytearray(opened.read(page.size))
                data[14:18] = SERIAL
                data[22:26] = struct.pack("<I", ogg.checksum(bytes(data)))
                opened.seek(page.position)
                opened.write(data)


SERIAL = b"tasn"  # of an Ogg stream: any number works
