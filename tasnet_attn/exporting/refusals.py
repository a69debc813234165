"""Errors of exporters on a user's module: the message says what to change, and where in the user's file."""

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
GUARDS = "torch.fx.experimental.symbolic_shapes"  # reports sizes that torch.export fixes
ONNX_NOTES = "torch.onnx._internal.exporter._registration"  # reports that torchvision is not installed


@contextmanager
def explained(to: str, model: SourceSeparator) -> Iterator[None]:
    """Silence the exporters' deprecation warnings; turn their errors into one line."""
    places, loggers = _Places(), [logging.getLogger(name) for name in (GUARDS, ONNX_NOTES)]
    before = [(logger.level, logger.propagate, logger.handlers) for logger in loggers]
    for logger, handler in zip(loggers, (places, logging.NullHandler()), strict=True):
        _set(logger, logging.INFO, False, [handler])
    try:
        with warnings.catch_warnings(record=True) as said:
            yield
    except UserError:
        raise
    except Exception as error:  # any exception of an exporter concerns this model
        traced = [f"{note.filename}:{note.lineno}" for note in said if _is_users(note.filename)]
        found = [*_raised(error), *places.found, *traced]
        reason = f"the exporter failed: {first_line(error)}"
        if found and "data-dependent" in str(error):
            reason = f"its control flow depends on values: {found[0]}; use torch.where or another computation"
        elif found:
            reason = (
                f"computes sizes from the number of frames in Python: {found[0]}; use tensor operations for sizes, "
                f"or give the model a segment ({reason})"
            )
        raise UserError(f"{to}: not possible for {model.separator.name}: {reason}") from error
    finally:
        for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
            _set(logger, level, propagate, handlers)


def _set(logger: logging.Logger, level: int, propagate: bool, handlers: list[logging.Handler]) -> None:
    logger.setLevel(level)  # not by attribute: loggers remember what is enabled
    logger.propagate, logger.handlers = propagate, handlers


class _Places(logging.Handler):
    """Records where a user's code makes torch.export fix a size."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "[guard added]" in str(record.msg):
            self.found += _places(traceback.extract_stack())


def _raised(error: BaseException | None) -> list[str]:
    return _places(traceback.extract_tb(error.__traceback__)) + _raised(error.__cause__) if error else []


def _places(stack: traceback.StackSummary) -> list[str]:
    """The innermost line of the user's code that the model reaches."""
    inside = [i for i, frame in enumerate(stack) if frame.filename == str(Path(__file__).with_name("graph.py"))]
    users = [frame for frame in stack[inside[0] :] if _is_users(frame.filename)] if inside else []
    return [f"{users[-1].filename}:{users[-1].lineno}"] if users else []


def _is_users(file: str) -> bool:
    third_party = "site-packages" in file or "dist-packages" in file
    return not (file.startswith((OURS, TORCH, "<")) or file.startswith(STDLIB) and not third_party)
