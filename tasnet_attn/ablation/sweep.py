"""The sweep file: typed, and every cell parsed and built on the `meta` device, before anything runs."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasnet_attn import config
from tasnet_attn.ablation.cost import build_on_meta, macs_per_second
from tasnet_attn.ablation.identity import identity, kept, trained_elsewhere
from tasnet_attn.ablation.quantities import check, needs_v3
from tasnet_attn.ablation.settings import (
    Settings,
    as_list,
    check_settings,
    combinations,
    matches,
    read_settings,
)
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation import command as evaluation
from tasnet_attn.files import file_name
from tasnet_attn.training.command import parse

QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")


@dataclass(frozen=True)
class Cell:
    """A configuration of the sweep, without the seed.

    Attributes:
        name: as printed in tables.
        coordinates: {axis: value's name}; empty for a named cell.
        overrides: {key: value} on the base.
        config: the full configuration.
        key: its identity.
        separator: the separator's name, for example 2_trans_0.
        parameters: trainable parameters.
        macs: multiply-accumulates for a second of one channel; NaN if they cannot be counted in a user's own module.
        uncounted: why they cannot be counted.
    """

    name: str
    coordinates: dict[str, str]
    overrides: dict[str, Any]
    config: dict[str, Any]
    key: str
    separator: str
    parameters: int
    macs: float
    uncounted: str = ""


@dataclass(frozen=True)
class Run:
    """A cell with a seed.

    Attributes:
        cell: the cell.
        seed: the seed.
        folder: its results, and its training unless another sweep trained it.
        trained: the run folder.
        arguments: for `tasnet-attn train`.
    """

    cell: Cell
    seed: int
    folder: Path
    trained: Path
    arguments: list[str]

    @property
    def name(self) -> str:
        return f"{self.cell.name}, seed {self.seed}"


@dataclass(frozen=True)
class Sweep:
    """A sweep that has been checked."""

    path: Path
    settings: Settings
    cells: list[Cell]

    @property
    def baseline(self) -> Cell:
        return next(cell for cell in self.cells if cell.name == (self.settings.baseline or self.cells[0].name))

    def runs(self, out: Path) -> list[Run]:
        """Every cell and seed; seed by seed, so that an interrupted sweep has all cells."""
        named = {f"{cell.key}-s{seed}": (cell, seed) for seed in self.settings.seeds for cell in self.cells}
        own, others = kept(out / "runs", set(named)), trained_elsewhere(out, set(named))
        runs = []
        for name, (cell, seed) in named.items():
            folder = own.get(name, out / "runs" / f"{file_name(cell.separator)}-{name}")
            trained = folder if (folder / "config.yml").is_file() else others.get(name, folder)
            arguments = [*_arguments(self.settings, cell.overrides), f"--seed_everything={seed}"]
            runs.append(Run(cell, seed, folder, trained, [*arguments, "--out", str(folder), "--ckpt_path", "last"]))
        return runs

    def scoring(self, cell: Cell) -> dict[str, Any]:
        """How to score a cell's tracks: the `evaluation` section of its configuration, and what this sweep needs."""
        section = evaluation.complete(cell.config.get("evaluation") or {})
        return section | {"v3": section["v3"] or needs_v3(list(self.settings.quantities))}

    def chosen(self, patterns: Sequence[str]) -> list[Cell]:
        """The cells named by `--only`.

        Raises:
            UserError: there are none.
        """
        cells = [cell for cell in self.cells if matches(cell.name, patterns)]
        if not cells:
            names = "; ".join(cell.name for cell in self.cells)
            raise UserError(f"{self.path}: --only {' '.join(patterns)}: no such cell; choose from {names}")
        return cells


def read(path: Path) -> Sweep:
    """Read and check a sweep file.

    Raises:
        UserError: an unknown key, an empty axis, identical cells, a cell that does not parse or build, ...
    """
    settings = read_settings(path)
    places = list(combinations(path, settings))
    check_settings(path, settings, [name for name, _, _ in places])
    axes = {axis for _, coordinates, _ in places for axis in coordinates}
    for figure, panels in settings.figures.items():
        if unknown := set(panels.panels) - axes:
            raise UserError(f"{path}: figures.{figure}: there is no axis {min(unknown)!r}; choose from {sorted(axes)}")
    cells: dict[str, Cell] = {}
    for name, coordinates, overrides in places:
        cell = _cell(path, settings, name, coordinates, overrides)
        if cell.key in cells:
            raise UserError(
                f"{path}: cells {cells[cell.key].name!r} and {name!r} are the same configuration; remove one"
            )
        try:
            for quantity, where in settings.quantities.items():
                check(quantity, where, settings.evaluate, cell.config)
        except UserError as error:
            raise UserError(f"{path}: cell {name!r}: {error}") from error
        cells[cell.key] = cell
    return Sweep(path, settings, list(cells.values()))


def _arguments(settings: Settings, overrides: dict[str, Any]) -> list[str]:
    files = [*settings.base, *as_list(overrides.get("config", [])), *settings.over]
    keys = {key: value for key, value in overrides.items() if key != "config"}
    arguments = [part for file in files for part in ("--config", str(file))]
    return [*arguments, *QUIET, *(config.argument(key, value) for key, value in keys.items())]


def _cell(path: Path, settings: Settings, name: str, coordinates: dict[str, str], overrides: dict[str, Any]) -> Cell:
    for key in overrides:
        if key in ("out", "seed_everything", "ckpt_path") or key.startswith("checkpoint"):
            raise UserError(f"{path}: cell {name!r}: {key} cannot be set by a cell")
    try:
        with _no_seed_messages():
            parsed = parse(_arguments(settings, overrides))
        model = build_on_meta(parsed["model"])
    except UserError as error:
        raise UserError(f"{path}: cell {name!r}: {error}") from error
    separator = model.separator.name
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    try:
        macs, uncounted = macs_per_second(model), ""
    except (RuntimeError, TypeError, ValueError) as error:  # a user's module that needs the values of its tensors
        macs, uncounted = math.nan, f"{type(error).__name__}: {' '.join(str(error).split())}"
    return Cell(name, coordinates, overrides, parsed, identity(parsed), separator, parameters, macs, uncounted)


@contextmanager
def _no_seed_messages() -> Iterator[None]:
    """Lightning prints `Seed set to 0` whenever a configuration is parsed."""
    logger = logging.getLogger("lightning_fabric.utilities.seed")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def is_si_snr(full: dict[str, Any]) -> bool:
    """Whether a configuration's loss is negative SI-SNR, in dB."""
    loss = full["task"]["loss"]
    return loss is None or loss["class_path"].rpartition(".")[2] == "SISNR"
