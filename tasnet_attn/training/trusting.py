"""What a configuration may name in the part that Lightning's parser reads."""

from __future__ import annotations

from jsonargparse import set_parsing_settings
from pytorch_lightning import Callback
from pytorch_lightning.accelerators import Accelerator
from pytorch_lightning.cli import ReduceLROnPlateau
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins import CheckpointIO, ClusterEnvironment, LayerSync, Precision
from pytorch_lightning.profilers import Profiler
from pytorch_lightning.strategies import Strategy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tasnet_attn import config

PACKAGES = ("torch", "pytorch_lightning", "lightning_fabric", "tasnet_attn")
BASES = (Callback, Logger, Profiler, Strategy, Accelerator, Optimizer, LRScheduler, ReduceLROnPlateau,
         CheckpointIO, ClusterEnvironment, LayerSync, Precision)  # fmt: skip


def restrict() -> None:
    """Let that parser import nothing but what this process trusts.

    It takes any dotted name for a class or a function, and would import its module only because a file names it.
    Trusted are torch, Lightning and this package, the modules of `--import`, and classes of Lightning's and torch's
    kinds that are imported already. This holds for every parser of jsonargparse in this process.
    """
    classes = {f"{cls.__module__}.{cls.__qualname__}" for base in BASES for cls in config.known(base)}
    named = [path for path in classes if all(part.isidentifier() for part in path.split("."))]
    theirs = [path for path in named if path.partition(".")[0] not in ("jsonargparse", *PACKAGES)]
    set_parsing_settings(
        import_path_denylist=["*"], import_path_allowlist=[*PACKAGES, *config.IMPORTED, *sorted(theirs)]
    )
