"""Scores of separations."""

from tasnet_attn.metrics.si_snr import si_snr

__all__ = ["si_snr"]
