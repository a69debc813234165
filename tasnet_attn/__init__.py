"""Time-domain TasNet with attention separators, and spectrogram systems, for audio source separation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasnet_attn.inference import separate
    from tasnet_attn.model import SourceSeparator, load, save

__all__ = ["SourceSeparator", "load", "save", "separate"]


def __getattr__(name: str) -> Any:
    """Import on first use: `import tasnet_attn` alone costs nothing, and `--help` answers at once."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("tasnet_attn.inference" if name == "separate" else "tasnet_attn.model"), name)
