"""`tasnet-attn train --help-all`: every setting, from the constructors themselves."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

from pytorch_lightning.cli import LightningArgumentParser

from tasnet_attn.config import Configurable, known, settings
from tasnet_attn.data import SegmentedData
from tasnet_attn.evaluation.command import OWN, evaluate
from tasnet_attn.filterbanks import Decoder, Encoder
from tasnet_attn.heads import Head
from tasnet_attn.losses import Loss
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import Separator

CLASSES = {  # places in a configuration
    "model.encoder": Encoder,
    "model.separator": Separator,
    "model.head": Head,
    "model.decoder": Decoder,
    "task.loss": Loss,
    "data": SegmentedData,
}
TITLES = {
    "task": "task: optimiser and schedule",
    "trainer": "trainer: Lightning's Trainer",
    "early_stopping": "early_stopping: when validation stops improving",
    "checkpoint": "checkpoint: last.ckpt, for resuming",
}


def listing(parser: LightningArgumentParser) -> str:
    """Our settings, class by class with defaults, then Lightning's part from its parser."""
    lines = ["Settings of train, for YAML files and for the command line (--KEY VALUE)", ""]
    lines.append(f"model: {_arguments(SourceSeparator)}")
    for place, base in CLASSES.items():
        lines += ["", f"{place}: class_path, and its init_args"]
        lines += [f"  {cls.__name__}: {_arguments(cls)}" for cls in sorted(known(base), key=lambda cls: cls.__name__)]
    lines += ["", f"evaluation: {_arguments(evaluate, OWN)}", ""]
    assert parser.groups is not None
    for name, title in TITLES.items():
        parser.groups[name].title = title
    parser.description, parser.usage = None, ""
    theirs = re.sub(r"<class '([\w.]+)'>", r"\1", parser.format_help())
    theirs = theirs[theirs.index("options:") : theirs.index("Linked arguments")]
    return "\n".join([*lines, theirs.replace("options:", "run:", 1).rstrip()])


def _arguments(function: object, skip: tuple[str, ...] = ()) -> str:
    """`hidden=500, heads, ...`."""
    given = (*skip, *getattr(function, "given", ()))
    found = {name: setting.default for name, setting in settings(function).items() if name not in given}
    return ", ".join(
        name if default is inspect.Parameter.empty else f"{name}={_short(default)}" for name, default in found.items()
    )


def _short(default: object) -> str:
    if isinstance(default, Configurable):
        return type(default).__name__
    if isinstance(default, Path):
        return str(default)
    return json.dumps(default) if default is None or isinstance(default, int | float | str | tuple) else "..."
