"""`tasnet-attn ablate`: the sweep file, the runner and its workers, statistics, tables, figures."""

from tasnet_attn.lazily import attributes

__all__ = ["ablate"]

__getattr__ = attributes(__name__, {"ablate": "command"})  # `ablation.worker` needs neither tables nor figures
