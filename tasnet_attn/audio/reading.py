"""The reader of sound files.

A file is identified by its content, not its suffix. Samples come in blocks, in memory that does not depend on the
length. Only decoded samples are returned: no stale buffers, no zeros for missing samples. Encoder delay and padding are
removed. The length in a header is a hint; a file that is shorter than its header states is an error unless `partial`
is set. Every problem is a one-line error that names the file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tasnet_attn.audio import ogg
from tasnet_attn.audio.kinds import Kind, kind_of
from tasnet_attn.errors import UserError

BLOCK = 1 << 16  # samples read at once
ALSO_FFMPEG = ("wav", "w64", "aiff", "au", "caf", "ogg")
SLACK = 2048  # samples: a codec's frame, the possible error of a container's length


class AudioInfo(NamedTuple):
    """A file's rate in Hz, samples according to its header, and channels."""

    sample_rate: int
    length: int
    channels: int


class Sound:
    """A sound file: its rate and channels, a hint of its length, and its samples in blocks.

    Args:
        path: a regular file.
        track: which of several audio tracks of a video or stem file, from 1.
        partial: accept a file that is shorter than its header states, or damaged further on.

    Attributes:
        sample_rate: Hz.
        channels: number of channels.
        tracks: audio tracks in the file.
        hint: samples, for a progress bar; None: unknown.
        missing: after a pass over `blocks` with `partial`: samples that the header states but the file lacks.

    Raises:
        UserError: missing, not a regular file, not audio, damaged, no such track.
    """

    def __init__(self, path: Path, track: int = 1, partial: bool = False) -> None:
        self.path, self.track, self.partial, self.missing, self.tracks = path, track, partial, 0, 1
        self.kind = _checked(path)
        if partial and self.kind.name == "flac":  # libsndfile loses the block in which a FLAC file is cut
            self.kind = self.kind._replace(demuxer="flac")
        self.hint: int | None = None
        self.promised = self.kind.promised
        if self.kind.demuxer is None:
            self._read_head()
        if self.kind.demuxer is not None:
            self._decode_head()
        if track > self.tracks or track < 1:
            raise UserError(f"{path}: has no audio track {track}; it has {self.tracks}")
        if not 1 <= self.sample_rate <= 10**7 or self.channels < 1:
            raise UserError(f"{path}: {self.sample_rate} Hz, {self.channels} channels: its header is damaged")

    def _read_head(self) -> None:
        """Rate, channels and length by libsndfile; gives what it cannot read, or not in order, to FFmpeg."""
        try:
            heads = [_head(self.path, link) for link in self._links()]
        except UserError:
            if self.kind.name not in ALSO_FFMPEG:
                raise
            self.kind = self.kind._replace(demuxer=self.kind.name)  # a coding that libsndfile lacks
            return
        self.sample_rate, _, self.channels = heads[0]
        self.hint = sum(head.length for head in heads) if self.promised is None else self.promised
        if self.kind.name == "ogg" and self.channels in ogg.ORDERS:
            self.kind = self.kind._replace(demuxer="ogg")

    def _decode_head(self) -> None:
        """Rate, channels, tracks and length by FFmpeg."""
        lengths: list[int | None] = []
        for link in self._links():
            with _container(self.path, self.kind, link) as container:
                stream = _stream(self.path, container, self.track)
                lengths.append(_duration(stream))
                if len(lengths) > 1:
                    continue
                if self.hint is not None:  # by libsndfile, exactly, perhaps at another rate
                    self.hint = round(self.hint * stream.rate / self.sample_rate)
                self.tracks = len(container.streams.audio)
                self.sample_rate, self.channels = stream.rate, stream.channels
                if self.kind.seconds is not None and len(container.streams) == 1:
                    late = float((stream.start_time or 0) * (stream.time_base or 0))
                    self.promised = round(max(0, self.kind.seconds - late) * self.sample_rate)
        if self.hint is None and None not in lengths:
            self.hint = sum(length or 0 for length in lengths)
        if self.kind.claims:
            self.promised = self.hint

    @property
    def info(self) -> AudioInfo:
        """Rate, hint of the length, channels."""
        return AudioInfo(self.sample_rate, self.hint or 0, self.channels)

    def blocks(self, check: bool = True) -> Iterator[Tensor]:
        """The samples from the start, float32 [C, t] each, t > 0; every call starts again.

        Args:
            check: NaN and infinity are an error.

        Raises:
            UserError: the file ends early or is damaged (without `partial`), or contains NaN.
        """
        if self.kind.name == "flac" and self.kind.demuxer is None and self._longer():
            self.kind, self.promised = self.kind._replace(demuxer="flac"), None
        if self.kind.name == "ogg" and not self.partial:
            with self.path.open("rb") as file:
                if (place := ogg.damage(file)) is not None:
                    where = f"the page at byte {place} is broken or missing"
                    raise UserError(f"{self.path}: is damaged: {where}; --partial accepts the rest")
        decoded = 0
        for block in self._sndfile_blocks() if self.kind.demuxer is None else self._ffmpeg_blocks():
            if check:
                check_finite(block, self.path, decoded)
            decoded += block.shape[-1]
            if block.shape[-1]:
                yield block
        slack = {"mov": SLACK, "matroska": self.sample_rate // 4}.get(self.kind.demuxer or "", 0)
        stated = self.hint if self.kind.name == "ogg" and self.partial else self.promised
        lack = (stated or 0) - decoded
        self.missing = lack if lack > slack else 0
        if (self.missing or self.kind.cut) and not self.partial:
            said = f"{self.missing} of {self.promised} samples are missing" if self.missing else "no end of the stream"
            raise UserError(f"{self.path}: shorter than its header states: {said}; --partial accepts it")

    def _longer(self) -> bool:
        """Whether a FLAC file has more frames than its header states, where libsndfile would stop."""
        import av

        with _container(self.path, self.kind._replace(demuxer="flac")) as container, suppress(av.FFmpegError):
            return sum(packet.duration or 0 for packet in container.demux(audio=0)) > (self.promised or 0)
        return False

    def _links(self) -> Sequence[tuple[int, int] | None]:
        """The streams concatenated in the file; None: it has only one."""
        return self.kind.links if len(self.kind.links) > 1 else [None]

    def _sndfile_blocks(self) -> Iterator[Tensor]:
        import soundfile

        for link in self._links() if self.promised != 0 else ():  # libsndfile takes what follows an empty sound for it
            with _sndfile(self.path, link) as file:
                if (file.samplerate, file.channels) != (self.sample_rate, self.channels):
                    raise self._changes()
                while True:
                    try:
                        samples = file.read(BLOCK, dtype="float32", always_2d=True)
                    except (soundfile.SoundFileError, RuntimeError) as error:
                        if not self.partial:
                            raise self._damaged(error) from error
                        return
                    if not len(samples):
                        break
                    yield torch.from_numpy(samples.T.copy())

    def _ffmpeg_blocks(self) -> Iterator[Tensor]:
        for link in self._links():
            with _container(self.path, self.kind, link) as container:
                stream = _stream(self.path, container, self.track)
                left = _duration(stream) if self.kind.claims else None
                for block in self._decoded(container, stream):
                    yield block if left is None else block[:, :left]  # padding after the sound
                    left = None if left is None else max(0, left - block.shape[-1])

    def _decoded(self, container: Any, stream: Any) -> Iterator[Tensor]:
        import av

        interleaved = self.channels >= 8  # PyAV counts the planes of such frames wrongly and reads beyond them
        to_float = av.AudioResampler(format="flt" if interleaved else "fltp")
        failed: Exception | None = None
        begun = False
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                frames: list[Any] = packet.decode()
            except av.FFmpegError as error:
                failed = error if begun else None  # a recording may begin within a packet
                if packet_lost(error):
                    break
                continue
            if failed is not None and frames and packet.size and not self.partial:
                raise self._damaged(failed) from failed
            begun = begun or bool(frames)
            for frame in frames:
                if frame.sample_rate != self.sample_rate or len(frame.layout.channels) != self.channels:
                    raise self._changes()
                for part in [frame] if frame.format.name == "fltp" and not interleaved else to_float.resample(frame):
                    samples = part.to_ndarray()
                    yield torch.from_numpy(samples.reshape(-1, self.channels).T.copy() if interleaved else samples)
        # in a format without a length, a damaged last packet is the end of the sound

    def _changes(self) -> UserError:
        return UserError(f"{self.path}: its rate or channels change in the middle; convert it first")

    def _damaged(self, error: Exception) -> UserError:
        return UserError(f"{self.path}: is damaged or cut: {_reason(error)}; --partial accepts what comes before")


def packet_lost(error: Exception) -> bool:
    """Whether FFmpeg cannot continue after an error: any error but a packet of invalid data."""
    import av

    return not isinstance(error, av.error.InvalidDataError)


def audio_info(path: Path) -> AudioInfo:
    """Read a file's header; decodes it, once in a process, if the header does not state its exact length.

    Raises:
        UserError: missing, not audio, or without samples according to its header or size.
    """
    sound = Sound(path)
    guessed = sound.promised is None and sound.kind.demuxer is not None and sound.kind.name != "ogg"
    if guessed or sound.kind.name == "matroska":
        state = path.stat()
        return sound.info._replace(length=_counted(path.absolute(), state.st_size, state.st_mtime_ns))
    if sound.promised is not None and sound.kind.demuxer is None:
        with _sndfile(path) as file:
            missing = sound.promised - file.frames
        if missing > 0:
            lack = f"{missing} of {sound.promised} samples are missing"
            raise UserError(f"{path}: shorter than its header states: {lack}; the file is truncated")
    return sound.info


@lru_cache(1 << 16)
def _counted(path: Path, size: int, changed: int) -> int:
    """The samples that decode; another size or time of change is another question."""
    return sum(block.shape[-1] for block in Sound(path).blocks(check=False))


def read_audio(path: Path, start: int = 0, length: int | None = None) -> Tensor:
    """Read samples start .. start + length (None: to the end), [C, length] float32.

    Files that libsndfile reads are read by seeking; others, and concatenated ones, are decoded from their start.

    Raises:
        UserError: missing, not audio, shorter than requested, or NaN samples.
    """
    sound = Sound(path)
    if length is None and start == 0:
        blocks = list(sound.blocks())
        return torch.cat(blocks, dim=-1) if blocks else torch.empty(sound.channels, 0)
    audio = _excerpt(sound, start, length)
    if length is not None and audio.shape[-1] < length:
        lack = length - audio.shape[-1]
        raise UserError(f"{path}: {lack} samples shorter than its header states; the file is truncated")
    check_finite(audio, path, start)
    return audio


def _excerpt(sound: Sound, start: int, length: int | None) -> Tensor:
    import soundfile

    if sound.kind.demuxer is None and len(sound.kind.links) < 2 and sound.promised != 0:
        try:
            with _sndfile(sound.path) as file:
                begin = min(start, ogg.last_seek(sound.path)) if sound.kind.name == "ogg" else start
                file.seek(min(begin, file.frames))
                samples = file.read(-1 if length is None else start - begin + length, dtype="float32", always_2d=True)
            return torch.from_numpy(samples.T[:, start - begin :])
        except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
            raise UserError(f"{sound.path}: cannot be read as audio: {_reason(error)}; is it truncated?") from error
    kept, position = [torch.empty(sound.channels, 0)], 0
    for block in sound.blocks():
        kept.append(block[:, max(0, start - position) : None if length is None else max(0, start + length - position)])
        position += block.shape[-1]
        if length is not None and position >= start + length:
            break
    return torch.cat(kept, dim=-1)


def check_finite(audio: Tensor, path: Path | str, start: int = 0) -> None:
    """Raise UserError if [C, T] contains NaN or infinity; `start` is the position of the first sample in the file."""
    if not audio.isfinite().all():
        position = int((~audio.isfinite()).any(dim=0).nonzero()[0])
        raise UserError(f"{path}: NaN or infinite value at sample {start + position}; repair or remove this file")


def _checked(path: Path) -> Kind:
    try:
        if not path.exists():
            raise UserError(f"{path}: no such file")
        if not path.is_file():
            raise UserError(f"{path}: not a regular file; give an audio file, or - to read standard input")
        if path.stat().st_size == 0:
            raise UserError(f"{path}: is empty")
        kind = kind_of(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", status=1) from error
    except (ValueError, LookupError, ArithmeticError) as error:  # a header that contradicts itself
        raise UserError(f"{path}: cannot be read as audio: the header is damaged ({type(error).__name__})") from error
    if kind is None:
        raise UserError(f"{path}: cannot be read as audio: unknown format")
    return kind


class _Part(io.RawIOBase):
    """Bytes start .. end of a file as a file: one of the streams concatenated in it."""

    def __init__(self, path: Path, start: int, end: int) -> None:
        self.file, self.start, self.end = path.open("rb"), start, end
        self.file.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (self.start, self.file.tell(), self.end)[whence]
        return self.file.seek(max(self.start, base + offset)) - self.start

    def tell(self) -> int:
        return self.file.tell() - self.start

    def readinto(self, buffer: Any) -> int:
        data = self.file.read(min(len(buffer), max(0, self.end - self.file.tell())))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.file.close()
        super().close()


def _sndfile(path: Path, link: tuple[int, int] | None = None) -> Any:
    import soundfile

    try:
        return soundfile.SoundFile(os.fsencode(path) if link is None else _Part(path, *link))
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as audio: {_reason(error)}") from error


def _head(path: Path, link: tuple[int, int] | None) -> AudioInfo:
    with _sndfile(path, link) as file:
        return AudioInfo(file.samplerate, file.frames, file.channels)


@contextmanager
def _container(path: Path, kind: Kind, link: tuple[int, int] | None = None) -> Iterator[Any]:
    import av

    av.logging.set_level(av.logging.PANIC)  # keep its messages off the terminal
    with path.open("rb") if link is None else _Part(path, *link) as file:
        try:
            container = av.open(file, format=kind.demuxer, metadata_errors="replace")
        except (av.FFmpegError, ValueError) as error:
            raise UserError(
                f"{path}: cannot be read as {kind.name}: {_reason(error)}; is it damaged or cut?"
            ) from error
        with container:
            yield container


def _stream(path: Path, container: Any, track: int) -> Any:
    streams = container.streams.audio
    if not streams:
        raise UserError(f"{path}: has no audio track")
    if not 1 <= track <= len(streams):
        raise UserError(f"{path}: has no audio track {track}; it has {len(streams)}")
    if streams[track - 1].codec_context is None:
        raise UserError(f"{path}: damaged: its header does not state the coding")
    return streams[track - 1]


def _duration(stream: Any) -> int | None:
    if stream.duration is None or stream.time_base is None:
        return None
    return round(stream.duration * stream.time_base * stream.rate)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error).rpartition(": ")[2] or type(error).__name__
    return " ".join(str(text).split()).strip(" .")
