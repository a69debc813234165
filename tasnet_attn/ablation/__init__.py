"""`tasnet-attn ablate`: the sweep file, the runner and its workers, statistics, tables, figures."""

from typing import Any

__all__ = ["ablate"]


def __getattr__(name: str) -> Any:
    """`ablate`, imported when it is asked for: a worker, `ablation.worker`, needs no tables and no figures."""
    if name == "ablate":
        from tasnet_attn.ablation.command import ablate

        return ablate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
