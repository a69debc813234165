"""Scores of separations."""

from tasnet_attn.metrics.bss_eval import bss_eval, bss_eval_sources
from tasnet_attn.metrics.si_snr import si_snr

__all__ = ["bss_eval", "bss_eval_sources", "si_snr"]
