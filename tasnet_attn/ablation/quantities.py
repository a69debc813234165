"""What a sweep compares, by name: counts, times, validation, and SPLIT:METRIC[:SOURCE] of whole tracks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch

from tasnet_attn import config
from tasnet_attn.data.track import Split
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.command import evaluate
from tasnet_attn.evaluation.scores import V3, offered

# column of cells.csv: (what figures and tables call it, whether more is better)
QUANTITIES = {
    "valid_si_snr": ("best validation SI-SNR (dB)", True),
    "valid_loss": ("best validation loss", False),
    "parameters": ("parameters", False),
    "macs_per_second": ("multiply-accumulates per second of audio", False),
    "epochs_to_best": ("epochs to convergence", False),
    "epoch_seconds": ("seconds of an epoch", False),
    "seconds_to_best": ("training time to convergence (s)", False),
    "real_time_factor": ("real-time factor on one thread", False),
}
EXACT = ("parameters", "macs_per_second")  # counted, not measured
TIMES = ("epoch_seconds", "seconds_to_best", "real_time_factor")  # what differs when the sweep is run again


def label(quantity: str) -> str:
    """How a quantity is written beside an axis."""
    split, *rest = quantity.split(":")
    of = f" of {rest[-1]}" if is_of_a_source(quantity) else ""
    if split in QUANTITIES:
        return QUANTITIES[split][0].replace(" (", f"{of} (")
    return f"{rest[0]}{of} on {split} (dB)"


def is_of_a_source(quantity: str) -> bool:
    """Whether it ends in a source's name; else it is the mean over the sources, or of none."""
    return quantity.count(":") == 1 + is_of_tracks(quantity)


def is_of_tracks(quantity: str) -> bool:
    """Whether it is a score of whole tracks."""
    return quantity.partition(":")[0] not in QUANTITIES


def more_is_better(quantity: str) -> bool:
    """Whether larger values are the better ones; so for every metric of tracks."""
    return QUANTITIES.get(quantity, ("", True))[1]


def in_decibels(quantity: str) -> bool:
    """Whether its differences are in dB, of which a percentage says nothing."""
    return quantity != "valid_loss" and more_is_better(quantity)


def needs_v3(quantities: Sequence[str]) -> bool:
    """Whether one of them is computed by BSSEval v3."""
    return any(f"{quantity}:".split(":")[1].startswith(V3) for quantity in quantities)


def check(name: str, where: str, splits: Sequence[str], full: dict[str, Any]) -> None:
    """Refuse a quantity that a cell will not have.

    Args:
        name: the quantity.
        where: it stands, for the message.
        splits: that are evaluated.
        full: the cell's configuration.

    Raises:
        UserError: one line.
    """
    first, *rest = name.split(":")
    if first in get_args(Split):
        if not 1 <= len(rest) <= 2:
            raise UserError(f"{where} {name!r} is not like {first}:SDR or {first}:SDR:{full['model']['sources'][0]}")
        if first not in splits:
            raise UserError(f"{where} {name!r} needs `evaluate: [{first}]`")
        if rest[0] not in (known := score_names(full.get("evaluation") or {})):
            raise UserError(f"{where} {name!r}: no score is called {rest[0]!r}; choose from {', '.join(known)}")
        rest = rest[1:]
    elif first not in QUANTITIES or len(rest) > (first == "valid_si_snr"):
        raise UserError(f"{where}: {name!r} is not one of {', '.join(QUANTITIES)}, or a score like test:SI-SNRi")
    if rest and rest[0] not in full["model"]["sources"]:
        raise UserError(
            f"{where} {name!r}: no source is called {rest[0]!r}; choose from {', '.join(full['model']['sources'])}"
        )


def score_names(section: dict[str, Any]) -> list[str]:
    """The scores that an evaluation gives; those of the user's own metrics by trying them on a second of noise.

    Args:
        section: the `evaluation` section of a configuration.
    """
    annotation = config.settings(evaluate)["metrics"].annotation
    own = config.build(section.get("metrics") or [], annotation, "evaluation.metrics")
    noise = torch.randn(3, 2, 1, 8000, generator=torch.Generator().manual_seed(0)).double()
    names = [*offered(True, section.get("beside") or ())]
    names += [name for metric in own for name in metric(noise[0, 0], noise[1], noise[2], 8000)]
    return names + [of_masks(name, mask) for mask in (section.get("mask") or [])[1:] for name in names]


def of_masks(metric: str, mask: str) -> str:
    """A score by other masks than the first that an evaluation takes."""
    return f"{metric}, {mask} masks"
