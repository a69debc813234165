"""Separating audio of any length, rate and channel count, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasnet_attn.lazily import attributes

if TYPE_CHECKING:
    from tasnet_attn.inference.files import separate_blocks, separate_file
    from tasnet_attn.inference.options import Options
    from tasnet_attn.inference.segments import separate

__all__ = ["Options", "separate", "separate_blocks", "separate_file"]

HOMES = {"Options": "options", "separate": "segments", "separate_blocks": "files", "separate_file": "files"}

__getattr__ = attributes(__name__, HOMES)
