"""`tasnet-attn evaluate`: separate tracks, score them, keep everything in files."""

from tasnet_attn.evaluation.command import evaluate

__all__ = ["evaluate"]
