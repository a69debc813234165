"""Where an exporter cannot follow a user's module: the line says what to change, and where in the user's file."""

from __future__ import annotations

import logging
import sysconfig
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from tasnet_attn.errors import UserError, first_line
from tasnet_attn.model import SourceSeparator

OURS, TORCH, STDLIB = (
    str(path) for path in (Path(__file__).parents[1], Path(torch.__file__).parent, sysconfig.get_path("stdlib"))
)
GUARDS = "torch.fx.experimental.symbolic_shapes"  # says what torch.export takes a size to be
ONNX_NOTES = "torch.onnx._internal.exporter._registration"  # that torchvision is not installed


@contextmanager
def explained(to: str, model: SourceSeparator) -> Iterator[None]:
    """The exporters' notes of their own deprecations unsaid; their refusals as one line."""
    guards, notes = _Places(), logging.getLogger(ONNX_NOTES)
    logger, levels = logging.getLogger(GUARDS), (logging.getLogger(GUARDS).level, notes.level)
    propagates = logger.propagate
    logger.addHandler(guards)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    notes.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(record=True) as said:
            yield
    except UserError:
        raise
    except Exception as error:  # whatever an exporter raises is its answer to this model
        traced = [f"{note.filename}:{note.lineno}" for note in said if _is_users(note.filename)]
        places = [*_raised(error), *guards.places, *traced]
        reason = f"the exporter says: {first_line(error)}"
        if places and "data-dependent" in str(error):
            reason = f"its course depends on values: {places[0]}; take torch.where, or compute it in another way"
        elif places:
            reason = (
                f"computes sizes from the number of frames in Python: {places[0]}; leave sizes to tensor operations, "
                f"or give the model a segment ({reason})"
            )
        raise UserError(f"{to}: not possible for {model.separator.name}: {reason}") from error
    finally:
        logger.removeHandler(guards)
        logger.propagate = propagates
        logger.setLevel(levels[0])
        notes.setLevel(levels[1])


class _Places(logging.Handler):
    """Keeps where a user's code makes torch.export take a size as given."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "[guard added]" in str(record.msg):
            self.places += _places(traceback.extract_stack())


def _raised(error: BaseException | None) -> list[str]:
    return _places(traceback.extract_tb(error.__traceback__)) + _raised(error.__cause__) if error else []


def _places(stack: traceback.StackSummary) -> list[str]:
    """The innermost line of a user's that the model reaches."""
    inside = [i for i, frame in enumerate(stack) if frame.filename == str(Path(__file__).with_name("graph.py"))]
    users = [frame for frame in stack[inside[0] :] if _is_users(frame.filename)] if inside else []
    return [f"{users[-1].filename}:{users[-1].lineno}"] if users else []


def _is_users(file: str) -> bool:
    third_party = "site-packages" in file or "dist-packages" in file
    return not (file.startswith((OURS, TORCH, "<")) or file.startswith(STDLIB) and not third_party)
