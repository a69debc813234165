"""`tasnet-attn report`: one page from saved scores, with audio players."""

from tasnet_attn.reporting.command import report

__all__ = ["report"]
