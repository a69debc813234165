"""How a model leaves: its graph, one writer for each format, and the proof that what was written is the model."""

from tasnet_attn.exporting.command import check, export

__all__ = ["check", "export"]
