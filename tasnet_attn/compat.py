"""Two import guards: asteroid and museval import packages that we do not use and that may fail to import."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def _replaced(name: str, module: ModuleType | None) -> Iterator[None]:
    """Let `import name` find `module` (None: not found) inside the block, and undo it."""
    missing = object()
    before: Any = sys.modules.get(name, missing)
    sys.modules[name] = module  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is missing:
            del sys.modules[name]
        else:
            sys.modules[name] = before


def __getattr__(name: str) -> Any:
    """`asteroid` or `museval`, imported on first use."""
    if name == "museval":
        # museval -> musdb -> stempeg raises without ffmpeg and ffprobe; scoring needs neither of them
        with _replaced("musdb", ModuleType("musdb")):
            import museval
        return museval
    if name == "asteroid":
        # asteroid.losses -> torch_stoi -> torchaudio, which links CUDA; asteroid works without its STOI loss
        with _replaced("torch_stoi", None):
            import asteroid.losses
        return asteroid
    raise AttributeError(name)
