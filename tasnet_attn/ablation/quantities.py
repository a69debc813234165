"""The quantities that a sweep compares: counts, times, validation, and SPLIT:METRIC[:SOURCE] of whole tracks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch

from tasnet_attn import config
from tasnet_attn.data.track import Split
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.command import evaluate
from tasnet_attn.evaluation.scores import V3, offered

# column of cells.csv: (its name in figures and tables, whether more is better)
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
TIMES = ("epoch_seconds", "seconds_to_best", "real_time_factor")  # differs between repetitions of the sweep


def label(quantity: str) -> str:
    """A quantity's label for an axis."""
    split, *rest = quantity.split(":")
    of = f" of {rest[-1]}" if is_of_a_source(quantity) else ""
    if split in QUANTITIES:
        return QUANTITIES[split][0].replace(" (", f"{of} (")
    return f"{rest[0]}{of} on {split} (dB)"


def is_of_a_source(quantity: str) -> bool:
    """Whether it is of one source; else it is the mean over the sources, or not of sources."""
    return quantity.count(":") == 1 + is_of_tracks(quantity)


def is_of_tracks(quantity: str) -> bool:
    """Whether it is a score of whole tracks."""
    return quantity.partition(":")[0] not in QUANTITIES


def more_is_better(quantity: str) -> bool:
    """Whether larger values are better, as for every metric of tracks."""
    return QUANTITIES.get(quantity, ("", True))[1]


def in_decibels(quantity: str) -> bool:
    """Whether its differences are in dB, for which percentages make no sense."""
    return quantity != "valid_loss" and more_is_better(quantity)


def needs_v3(quantities: Sequence[str]) -> bool:
    """Whether any of them needs BSSEval v3."""
    return any(f"{quantity}:".split(":")[1].startswith(V3) for quantity in quantities)


def check(name: str, where: str, splits: Sequence[str], full: dict[str, Any]) -> None:
    """Reject a quantity that a cell will not have.

    Args:
        name: the quantity.
        where: its place in the sweep file, for the message.
        splits: the splits to evaluate.
        full: the cell's configuration.

    Raises:
        UserError: the quantity does not exist or is not computed.
    """
    first, *rest = name.split(":")
    if first in get_args(Split):
        if not 1 <= len(rest) <= 2:
            raise UserError(f"{where} {name!r} must look like {first}:SDR or {first}:SDR:{full['model']['sources'][0]}")
        if first not in splits:
            raise UserError(f"{where} {name!r} needs `evaluate: [{first}]`")
        if rest[0] not in (known := score_names(full.get("evaluation") or {})):
            raise UserError(f"{where} {name!r}: there is no score {rest[0]!r}; choose from {', '.join(known)}")
        rest = rest[1:]
    elif first not in QUANTITIES or len(rest) > (first == "valid_si_snr"):
        raise UserError(f"{where}: {name!r} is not one of {', '.join(QUANTITIES)}, or a score like test:SI-SNRi")
    if rest and rest[0] not in full["model"]["sources"]:
        raise UserError(
            f"{where} {name!r}: there is no source {rest[0]!r}; choose from {', '.join(full['model']['sources'])}"
        )


def score_names(section: dict[str, Any]) -> list[str]:
    """The scores of an evaluation; those of the user's own metrics are found by trying them on a second of noise.

    Args:
        section: the `evaluation` section of a configuration.
    """
    annotation = config.settings(evaluate)["metrics"].annotation
    own = config.build(section.get("metrics") or [], annotation, "evaluation.metrics")
    noise = torch.randn(3, 2, 1, 8000, generator=torch.Generator().manual_seed(0)).double()
    names = [*offered(True, section.get("beside") or ())]
    names += [name for metric in own for name in metric(noise[0, 0], noise[1], noise[2], 8000)]
    masks = section.get("mask") or []
    further = masks[1:] if isinstance(masks, list) else []  # else one kind, by its name
    return names + [of_masks(name, mask) for mask in further for name in names]


def of_masks(metric: str, mask: str) -> str:
    """The name of a score with masks other than the evaluation's first kind."""
    return f"{metric}, {mask} masks"
