"""Time-domain TasNet with attention separators, and spectrogram systems, for audio source separation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasnet_attn.lazily import attributes
from tasnet_attn.version import __version__

if TYPE_CHECKING:
    from tasnet_attn.errors import UserError
    from tasnet_attn.inference import separate, separate_blocks, separate_file
    from tasnet_attn.model import SourceSeparator
    from tasnet_attn.storage import load, save
    from tasnet_attn.streaming import StreamingSeparator

__all__ = [
    "SourceSeparator",
    "StreamingSeparator",
    "UserError",
    "__version__",
    "load",
    "save",
    "separate",
    "separate_blocks",
    "separate_file",
]

HOMES = {  # SourceSeparator is in the module that adds save_pretrained and from_pretrained to it
    "SourceSeparator": "storage.models",
    "StreamingSeparator": "streaming",
    "UserError": "errors",
    "load": "storage",
    "save": "storage",
    "separate": "inference",
    "separate_blocks": "inference",
    "separate_file": "inference",
}

__getattr__ = attributes(__name__, HOMES)  # `import tasnet_attn` loads nothing, so that `--help` is fast


def __dir__() -> list[str]:
    """The public names and the submodules."""
    from pkgutil import iter_modules

    return sorted({*__all__, *(module.name for module in iter_modules(__path__))})
