"""The only package that opens, decodes, resamples, writes and names sound files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasnet_attn.lazily import attributes

if TYPE_CHECKING:
    from tasnet_attn.audio.names import find_audio
    from tasnet_attn.audio.reading import AudioInfo, Sound, audio_info, check_finite, read_audio

__all__ = ["AudioInfo", "Sound", "audio_info", "check_finite", "find_audio", "read_audio"]

HOMES = dict.fromkeys(("AudioInfo", "Sound", "audio_info", "check_finite", "read_audio"), "reading")

__getattr__ = attributes(__name__, {**HOMES, "find_audio": "names"})
