"""Separation while the sound arrives."""

from tasnet_attn.streaming.command import stream
from tasnet_attn.streaming.separator import StreamingSeparator, cannot_stream

__all__ = ["StreamingSeparator", "cannot_stream", "stream"]
