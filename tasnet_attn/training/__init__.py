"""`tasnet-attn train`: one model, one task, one data set."""

from tasnet_attn.training.command import parse, train
from tasnet_attn.training.task import SeparationTask

__all__ = ["SeparationTask", "parse", "train"]
