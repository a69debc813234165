"""Separating audio of any length, rate and channel count, in bounded memory."""

from tasnet_attn.inference.segments import separate, separate_file

__all__ = ["separate", "separate_file"]
