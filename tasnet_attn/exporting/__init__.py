"""Exporting models: the graph, one writer for each format, and the comparison of file and model."""

from tasnet_attn.exporting.command import check, export

__all__ = ["check", "export"]
