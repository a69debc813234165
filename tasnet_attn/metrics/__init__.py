"""Scores of separations."""

from tasnet_attn.metrics.base import Metric
from tasnet_attn.metrics.bss_eval import bss_eval, bss_eval_sources
from tasnet_attn.metrics.matching import best_permutation
from tasnet_attn.metrics.si_snr import si_snr

__all__ = ["Metric", "best_permutation", "bss_eval", "bss_eval_sources", "si_snr"]
