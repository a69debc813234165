"""Every sound file is opened, decoded, resampled, written and named here, nowhere else."""

from tasnet_attn.audio.names import find_audio
from tasnet_attn.audio.reading import AudioInfo, Sound, audio_info, check_finite, read_audio

__all__ = ["AudioInfo", "Sound", "audio_info", "check_finite", "find_audio", "read_audio"]
