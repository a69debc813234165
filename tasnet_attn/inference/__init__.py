"""Separating audio of any length, rate and channel count, in bounded memory."""

from tasnet_attn.inference.files import Options, separate_blocks, separate_file
from tasnet_attn.inference.segments import separate

__all__ = ["Options", "separate", "separate_blocks", "separate_file"]
