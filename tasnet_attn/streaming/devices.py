"""Sound devices, by PortAudio (sounddevice, the `live` extra)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tasnet_attn.errors import UserError
from tasnet_attn.extras import require
from tasnet_attn.terminal import say

Device = str | int | None  # a part of its name, its number, the system's own


def _sounddevice() -> Any:
    require("sounddevice")
    try:
        import sounddevice
    except OSError as error:  # the package is there, the library that it wraps is not
        raise UserError(f"PortAudio is not installed ({error}); on Debian: apt install libportaudio2") from error
    return sounddevice


def devices() -> str:
    """The devices by number and name, how many channels each has, and which are the system's own."""
    return str(_sounddevice().query_devices()) or "no sound devices"


def device(name: str) -> Device:
    """What a user calls a device: "default", a number, or a part of a name."""
    return None if name == "default" else int(name) if name.isdigit() else name


def through(
    process: Callable[[Tensor], Tensor], microphone: Device, speakers: Device, rate: int, channels: int, size: int
) -> int:
    """From a microphone to speakers until Ctrl-C.

    Args:
        process: a block [C, t] -> what is ready, [C, t'].
        microphone: the device that is heard.
        speakers: the device that plays.
        rate: Hz of both.
        channels: C of both.
        size: t, samples in a block.

    Returns:
        How often the speakers ran dry or the microphone's blocks were not taken in time.

    Raises:
        UserError: no such device, or it does not take the rate or the channels.
    """
    library, missed = _sounddevice(), 0
    try:
        with library.Stream(
            samplerate=rate, blocksize=size, device=(microphone, speakers), channels=channels, dtype="float32"
        ) as stream:
            say(f"listening; Ctrl-C ends it; {1000 * sum(stream.latency):.0f} ms of the devices' own latency")
            while True:
                heard, overflowed = stream.read(size)
                ready = process(torch.from_numpy(heard.T.copy()))
                missed += overflowed + stream.write(ready.T.clamp(-1, 1).contiguous().numpy())
    except KeyboardInterrupt:
        return missed
    except (library.PortAudioError, ValueError) as error:
        raise UserError(f"the sound devices: {error}; --list-devices lists what there is") from error
