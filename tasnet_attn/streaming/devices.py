"""Sound devices, through PortAudio (sounddevice, the `live` extra)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tasnet_attn.errors import UserError
from tasnet_attn.extras import require
from tasnet_attn.terminal import say

Device = str | int | None  # a part of its name, its number, or the system's default


def _sounddevice() -> Any:
    require("sounddevice")
    try:
        import sounddevice
    except OSError as error:  # the package exists, but the library that it wraps does not
        raise UserError(f"PortAudio is not installed ({error}); on Debian: apt install libportaudio2") from error
    return sounddevice


def devices() -> str:
    """The devices by number and name, their channels, and the system's defaults."""
    return str(_sounddevice().query_devices()) or "no sound devices"


def device(name: str) -> Device:
    """A device from the user: "default", a number, or a part of a name."""
    return None if name == "default" else int(name) if name.isdigit() else name


def through(
    process: Callable[[Tensor], Tensor], microphone: Device, speakers: Device, rate: int, channels: int, size: int
) -> int:
    """From a microphone to speakers until Ctrl-C.

    Args:
        process: a block [C, t] -> the samples that are ready, [C, t'].
        microphone: the input device.
        speakers: the output device.
        rate: Hz of both.
        channels: C of both.
        size: t, samples in a block.

    Returns:
        How often the speakers ran out of samples or the microphone's blocks were not read in time.

    Raises:
        UserError: no such device, or it does not support the rate or the channels.
    """
    library, missed = _sounddevice(), 0
    try:
        with library.Stream(
            samplerate=rate, blocksize=size, device=(microphone, speakers), channels=channels, dtype="float32"
        ) as stream:
            say(f"listening; Ctrl-C ends it; {1000 * sum(stream.latency):.0f} ms of device latency")
            while True:
                heard, overflowed = stream.read(size)
                ready = process(torch.from_numpy(heard.T.copy()))
                missed += overflowed + stream.write(ready.T.clamp(-1, 1).contiguous().numpy())
    except KeyboardInterrupt:
        return missed
    except (library.PortAudioError, ValueError) as error:
        raise UserError(f"the sound devices: {error}; see --list-devices") from error
