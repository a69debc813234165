"""`.stem.mp4` files, MUSDB18's: five AAC streams, decoded from any sample on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasnet_attn.audio.reading import AudioInfo, check_finite
from tasnet_attn.errors import UserError

STREAMS = ("mixture", "drums", "bass", "other", "vocals")  # in this order
PREROLL = 4096  # samples decoded before a cut: an AAC frame (1024) overlaps the one before it


def stem_file_info(path: Path) -> AudioInfo:
    """Read a `.stem.mp4` file's header; if streams differ in length, the shortest counts.

    Raises:
        UserError: missing, not readable, or not five AAC streams of one rate.
    """
    import av

    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with av.open(str(path)) as container:
            streams: Sequence[Any] = container.streams.audio
            if len(streams) != len(STREAMS):
                raise UserError(f"{path}: has {len(streams)} audio streams, not {len(STREAMS)} ({', '.join(STREAMS)})")
            kinds = {(stream.codec_context.name, stream.rate, stream.channels) for stream in streams}
            if len(kinds) > 1 or streams[0].codec_context.name != "aac":
                raise UserError(f"{path}: its streams are not all AAC of one rate and channel count: {sorted(kinds)}")
            if any(stream.duration is None or stream.time_base is None for stream in streams):
                raise UserError(f"{path}: does not state the length of its streams; the file is damaged")
            rate = streams[0].rate
            length = min(round(stream.duration * stream.time_base * rate) for stream in streams)
            return AudioInfo(rate, length, streams[0].channels)
    except av.FFmpegError as error:
        raise UserError(f"{path}: cannot be read as a stem file: {error.strerror}; is it truncated?") from error


def read_stem_file(path: Path, which: Sequence[int], start: int, length: int) -> list[Tensor]:
    """Decode the streams `which` of a `.stem.mp4` file from sample `start` on, each [C, length], by seeking.

    Raises:
        UserError: damaged, or shorter than its header states.
    """
    import av

    try:
        with av.open(str(path)) as container:
            streams: list[Any] = [container.streams.audio[index] for index in which]
            channels, rate = streams[0].channels, streams[0].rate
            audio = {stream.index: torch.zeros(channels, length) for stream in streams}
            reached = dict.fromkeys(audio, start)
            if start > PREROLL:
                container.seek(int((start - PREROLL) / rate / streams[0].time_base), stream=streams[0])
            for packet in container.demux(streams):
                index = packet.stream.index
                if reached[index] >= start + length:
                    if min(reached.values()) >= start + length:
                        break
                    continue
                frames: list[Any] = packet.decode()  # PyAV's types allow for video and subtitles
                for frame in frames:
                    first = round(frame.pts * frame.time_base * rate)
                    last = min(first + frame.samples, start + length)
                    if last > start:
                        samples = torch.from_numpy(frame.to_ndarray())
                        begin = max(first, start)
                        audio[index][:, begin - start : last - start] = samples[:, begin - first : last - first]
                        reached[index] = max(reached[index], last)
    except av.FFmpegError as error:
        raise UserError(f"{path}: cannot be decoded: {error.strerror}; is it truncated?") from error
    if missing := start + length - min(reached.values()):
        raise UserError(f"{path}: {missing} samples shorter than its header states; the file is truncated")
    for signal in audio.values():
        check_finite(signal, path, start)
    return list(audio.values())
