"""Time-domain TasNet with attention separators, and spectrogram systems, for audio source separation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasnet_attn.version import __version__

if TYPE_CHECKING:
    from tasnet_attn.inference import separate
    from tasnet_attn.model import SourceSeparator
    from tasnet_attn.storage import load, save

__all__ = ["SourceSeparator", "__version__", "load", "save", "separate"]

HOMES = {"SourceSeparator": "storage.models", "load": "storage", "save": "storage", "separate": "inference"}


def __getattr__(name: str) -> Any:
    """Import on first use: `import tasnet_attn` alone costs nothing, and `--help` answers at once."""
    from importlib import import_module
    from importlib.util import find_spec

    if name in HOMES:
        return getattr(import_module(f"tasnet_attn.{HOMES[name]}"), name)
    if not name.startswith("_") and find_spec(f"tasnet_attn.{name}"):
        return import_module(f"tasnet_attn.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names and the submodules."""
    from pkgutil import iter_modules

    return sorted({*__all__, *(module.name for module in iter_modules(__path__))})
