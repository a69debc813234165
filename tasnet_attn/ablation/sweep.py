"""The sweep file: typed, and every cell parsed and built on the `meta` device, before anything runs."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch

from tasnet_attn import config
from tasnet_attn.ablation.cost import macs_per_second
from tasnet_attn.ablation.statistics import QUANTITIES
from tasnet_attn.errors import UserError
from tasnet_attn.files import digest
from tasnet_attn.model import SourceSeparator
from tasnet_attn.training.command import parse

QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")


@dataclass
class Claim:
    """A statement that the sweep can check: cell `better` beats cells `than`, or `equal` is as good as cells `to`.

    Args:
        says: the statement, as it is printed.
        better: a cell.
        than: cells.
        equal: a cell.
        to: cells.
        within: how far apart equal cells may be.
        quantity: what is compared, a column of `cells.csv`; None: the sweep's metric.
    """

    says: str
    better: str | None = None
    than: list[str] = field(default_factory=list)
    equal: str | None = None
    to: list[str] = field(default_factory=list)
    within: float = 0.1
    quantity: str | None = None

    @property
    def cell(self) -> str | None:
        """The cell that the statement is about."""
        return self.better or self.equal

    @property
    def others(self) -> list[str]:
        """The cells that it is compared with."""
        return self.than or self.to


@dataclass
class Settings:
    """A sweep file's top level.

    Args:
        base: configuration files under every cell, relative to the sweep file.
        axes: a grid, {key: [values]}, or {label: {value's name: {key: value}}} where a value sets several keys.
        cells: named cells beside the grid, {name: {key: value}}; keys as `tasnet-attn train` takes them.
        seeds: every cell is trained once with each.
        metric: "valid_si_snr" (of the best epoch, dB), "valid_loss", or "SPLIT:METRIC", like "test:SI-SNRi": the mean
            over sources and tracks, of a split in `evaluate`.
        baseline: the cell that the others are compared with; None: the first.
        evaluate: splits whose whole tracks the best checkpoint of every cell separates.
        threads: of a cell's training. Sums in another order differ in the last bit: it is part of the sweep.
        claims: statements to check.
    """

    base: list[Path]
    axes: dict[str, list | dict] = field(default_factory=dict)
    cells: dict[str, dict] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0])
    metric: str = "valid_si_snr"
    baseline: str | None = None
    evaluate: list[Literal["train", "valid", "test"]] = field(default_factory=list)
    threads: int = 1
    claims: list[Claim] = field(default_factory=list)


@dataclass(frozen=True)
class Cell:
    """A configuration of the sweep, apart from the seed.

    Attributes:
        name: as tables print it.
        coordinates: {axis: value's name}; empty for a named cell.
        overrides: {key: value} on the base.
        config: the full configuration.
        key: its hash, without seed, folder and checkpoints.
        parameters: trainable ones.
        macs: multiply-accumulates for a second of one channel.
    """

    name: str
    coordinates: dict[str, str]
    overrides: dict[str, Any]
    config: dict[str, Any]
    key: str
    parameters: int
    macs: float


@dataclass(frozen=True)
class Run:
    """A cell with a seed: its folder, and the arguments of `tasnet-attn train` that it stands for."""

    cell: Cell
    seed: int
    folder: Path
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
        """Every cell and seed; seed by seed, so that a broken sweep has all cells."""
        runs = []
        for seed in self.settings.seeds:
            for cell in self.cells:
                folder = out / "runs" / f"{cell.key}-s{seed}"
                arguments = [*_arguments(self.path, self.settings, cell.overrides), f"--seed_everything={seed}"]
                runs.append(Run(cell, seed, folder, [*arguments, "--out", str(folder), "--ckpt_path", "last"]))
        return runs


def read(path: Path) -> Sweep:
    """Read and check a sweep file.

    Raises:
        UserError: an unknown key, an empty axis, cells that are the same, a cell that does not parse or build, ...
    """
    settings = _settings(path)
    cells: list[Cell] = []
    names: dict[str, str] = {}
    for name, coordinates, overrides in _combinations(path, settings):
        cell = _check(path, settings, name, coordinates, overrides)
        if cell.key in names:
            raise UserError(f"{path}: cells {names[cell.key]!r} and {name!r} are the same configuration; remove one")
        names[cell.key] = name
        cells.append(cell)
    _check_names(path, settings, [cell.name for cell in cells])
    _check_metric(path, settings, cells)
    return Sweep(path, settings, cells)


def identity(full: dict[str, Any]) -> str:
    """The hash of a run's full configuration, without its seed, its folder and how often it is saved."""
    left_out = ("out", "checkpoint", "ckpt_path", "seed_everything", "evaluation")
    return digest([json.dumps({k: v for k, v in full.items() if k not in left_out}, sort_keys=True)], 6)


def _settings(path: Path) -> Settings:
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a sweep file, like recipes/ablations/small/ffn_width.yml")
    try:
        return config.build(config.read_yaml(path), Settings, "sweep")
    except UserError as error:
        raise UserError(f"{path}: {str(error).removeprefix(f'{path}: ').replace('sweep.', '', 1)}") from error


def _combinations(path: Path, settings: Settings) -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """(name, coordinates, overrides) of the grid, then of the named cells."""
    axes: list[list[tuple[str, str, dict[str, Any]]]] = []
    for key, values in settings.axes.items():
        if not values:
            raise UserError(f"{path}: axis {key!r} is empty; give it values, or remove it")
        if isinstance(values, dict):
            for name, overrides in values.items():
                if not isinstance(overrides, dict):
                    raise UserError(f"{path}: axes: {key}: {name!r} must be a mapping of keys to values")
            axes.append([(key, str(name), overrides) for name, overrides in values.items()])
        else:
            label = key.rpartition(".")[2]
            axes.append([(label, _text(value), {key: value}) for value in values])
    if not axes and not settings.cells:
        raise UserError(f"{path}: no cells; give axes, cells or both")
    if axes:
        for point in product(*axes):
            coordinates = {label: value for label, value, _ in point}
            overrides = {key: value for _, _, part in point for key, value in part.items()}
            yield ", ".join(f"{label}={value}" for label, value in coordinates.items()), coordinates, overrides
    for name, overrides in settings.cells.items():
        yield name, {}, overrides


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _arguments(path: Path, settings: Settings, overrides: dict[str, Any]) -> list[str]:
    arguments = []
    for base in settings.base:
        arguments += ["--config", os.path.relpath(path.parent / base)]
    return [*arguments, *QUIET, *(f"--{key}={_text(value)}" for key, value in overrides.items())]


def _check(path: Path, settings: Settings, name: str, coordinates: dict[str, str], overrides: dict[str, Any]) -> Cell:
    for key in overrides:
        if key in ("out", "seed_everything", "ckpt_path", "config") or key.startswith("checkpoint"):
            raise UserError(f"{path}: cell {name!r}: {key} is not a cell's to set")
    try:
        with _no_seed_messages():
            parsed = parse(_arguments(path, settings, overrides))
        with torch.device("meta"):
            model = SourceSeparator.from_config(parsed["model"])
    except UserError as error:
        raise UserError(f"{path}: cell {name!r}: {error}") from error
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Cell(name, coordinates, overrides, parsed, identity(parsed), parameters, macs_per_second(model))


@contextmanager
def _no_seed_messages() -> Iterator[None]:
    """Lightning says `Seed set to 0` whenever a configuration is parsed."""
    logger = logging.getLogger("lightning_fabric.utilities.seed")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _check_names(path: Path, settings: Settings, names: list[str]) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path}: two cells are named {twice!r}; rename one")
    if not settings.seeds or len(set(settings.seeds)) < len(settings.seeds) or min(settings.seeds) < 0:
        raise UserError(f"{path}: seeds {settings.seeds} must be different numbers, at least one, none negative")
    if settings.threads < 1:
        raise UserError(f"{path}: threads {settings.threads} must be at least 1")
    mentioned: list[tuple[str, str | None]] = [("baseline", settings.baseline)] if settings.baseline is not None else []
    for i, claim in enumerate(settings.claims):
        if (claim.better is None) == (claim.equal is None) or bool(claim.than) == bool(claim.to) or not claim.others:
            raise UserError(f"{path}: claims[{i}]: give better and than, or equal and to")
        if (claim.better is None) != (not claim.than):
            raise UserError(f"{path}: claims[{i}]: than belongs to better, to belongs to equal")
        if claim.quantity is not None and claim.quantity not in QUANTITIES:
            known = ", ".join(QUANTITIES)
            raise UserError(f"{path}: claims[{i}].quantity: {claim.quantity!r} is none of {known}")
        mentioned += [(f"claims[{i}]", cell) for cell in (claim.cell, *claim.others)]
    for where, name in mentioned:
        if name not in names:
            raise UserError(f"{path}: {where}: no cell is named {name!r}; there are {'; '.join(names)}")


def _check_metric(path: Path, settings: Settings, cells: list[Cell]) -> None:
    metric = settings.metric
    split, _, score = metric.partition(":")
    if score:
        if split not in settings.evaluate:
            raise UserError(f"{path}: metric {metric!r} needs `evaluate: [{split}]`")
    elif metric not in ("valid_si_snr", "valid_loss"):
        raise UserError(f"{path}: metric {metric!r} is neither valid_si_snr, valid_loss nor like test:SI-SNRi")
    if metric == "valid_si_snr":
        for cell in cells:
            if not is_si_snr(cell.config):
                raise UserError(f"{path}: cell {cell.name!r}: its loss is not SI-SNR; take metric: valid_loss")


def is_si_snr(full: dict[str, Any]) -> bool:
    """Whether a configuration's loss is negative SI-SNR, in dB."""
    loss = full["task"]["loss"]
    return loss is None or loss["class_path"].rpartition(".")[2] == "SISNR"
