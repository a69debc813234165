"""`tasnet-attn evaluate`: separate tracks, score them, store the results in files."""

from tasnet_attn.evaluation.command import evaluate

__all__ = ["evaluate"]
