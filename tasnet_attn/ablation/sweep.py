"""The sweep file: typed, and every cell parsed and built on the `meta` device, before anything runs."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

from tasnet_attn import config
from tasnet_attn.ablation.cost import build_on_meta, macs_per_second
from tasnet_attn.ablation.statistics import QUANTITIES
from tasnet_attn.data import SegmentedData
from tasnet_attn.errors import UserError
from tasnet_attn.files import digest, file_name
from tasnet_attn.losses import Loss
from tasnet_attn.model import SourceSeparator
from tasnet_attn.training.command import parse

QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
# what says nothing about a run's results
ASIDE = ("out", "checkpoint", "ckpt_path", "seed_everything", "evaluation")
ASIDE_IN_TRAINER = ("enable_progress_bar", "enable_model_summary", "log_every_n_steps", "logger", "default_root_dir")


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

    def __post_init__(self) -> None:
        self.better, self.equal = _plain(self.better), _plain(self.equal)
        self.than, self.to = ([_plain(name) or "" for name in names] for names in (self.than, self.to))

    @property
    def cell(self) -> str:
        """The cell that the statement is about."""
        return self.better or self.equal or ""

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

    def __post_init__(self) -> None:
        self.baseline = _plain(self.baseline)


def _plain(cell: str | None) -> str | None:
    """A cell's name as version 0.1.0 wrote it, separator=TasNet, as it is now: TasNet."""
    return cell and re.sub(r"(^|, )separator=", r"\1", cell)


@dataclass(frozen=True)
class Cell:
    """A configuration of the sweep, apart from the seed.

    Attributes:
        name: as tables print it.
        coordinates: {axis: value's name}; empty for a named cell.
        overrides: {key: value} on the base.
        config: the full configuration.
        key: its identity.
        separator: the separator's name, like 2_trans_0.
        parameters: trainable ones.
        macs: multiply-accumulates for a second of one channel; NaN if a user's own module does not let them be counted.
        uncounted: why not.
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
        named = {f"{cell.key}-s{seed}": (cell, seed) for seed in self.settings.seeds for cell in self.cells}
        kept = _kept(out / "runs", set(named))
        runs = []
        for name, (cell, seed) in named.items():
            folder = kept.get(name, out / "runs" / f"{file_name(cell.separator)}-{name}")
            arguments = [*_arguments(self.path, self.settings, cell.overrides), f"--seed_everything={seed}"]
            runs.append(Run(cell, seed, folder, [*arguments, "--out", str(folder), "--ckpt_path", "last"]))
        return runs


def read(path: Path) -> Sweep:
    """Read and check a sweep file.

    Raises:
        UserError: an unknown key, an empty axis, cells that are the same, a cell that does not parse or build, ...
    """
    settings = _settings(path)
    combinations = list(_combinations(path, settings))
    _check(path, settings, [name for name, _, _ in combinations])
    cells: dict[str, Cell] = {}
    for name, coordinates, overrides in combinations:
        cell = _cell(path, settings, name, coordinates, overrides)
        if cell.key in cells:
            raise UserError(
                f"{path}: cells {cells[cell.key].name!r} and {name!r} are the same configuration; remove one"
            )
        if settings.metric == "valid_si_snr" and not is_si_snr(cell.config):
            raise UserError(f"{path}: cell {name!r}: its loss is not SI-SNR; take metric: valid_loss")
        cells[cell.key] = cell
    return Sweep(path, settings, list(cells.values()))


def identity(full: dict[str, Any]) -> str:
    """The hash of what decides a run's results, its seed apart.

    However it is written: classes by bare name or full path, of earlier versions too, defaults written out or not.

    Args:
        full: a run's configuration, as `parse` returns it or as its `config.yml` holds it.

    Raises:
        UserError: it is none, or names a class that is not known here.
    """
    rest = {key: value for key, value in config.moved(full).items() if key not in ASIDE}
    model = config.complete_arguments(config.with_former(rest.pop("model", {})), SourceSeparator, "model")
    given = {"sources": model["sources"], "sample_rate": model["sample_rate"], "seed": full.get("seed_everything")}
    data = config.complete(rest.pop("data", None), SegmentedData, "data", **given)
    loss = config.complete(rest.get("task", {}).get("loss"), Loss | None, "task.loss")
    trainer = {key: value for key, value in rest.pop("trainer", {}).items() if key not in ASIDE_IN_TRAINER}
    parts = _without_nulls([model, data, loss, trainer, rest | {"task": rest.get("task", {}) | {"loss": None}}])
    return digest([json.dumps(parts, sort_keys=True)], 6)


def _without_nulls(value: Any) -> Any:
    """A setting that is null is one that nobody has set: a new version has new ones."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _kept(runs: Path, wanted: set[str]) -> dict[str, Path]:
    """Which folders hold the wanted runs, KEY-sSEED: by their names, or, of earlier versions, by their config.yml."""
    kept: dict[str, Path] = {}
    others = []
    for folder in sorted(runs.glob("*")):
        name = "-".join(folder.name.split("-")[-2:])
        if name in wanted:
            kept[name] = folder
        else:
            others.append(folder)
    for folder in others if len(kept) < len(wanted) else ():
        try:
            full = config.read_yaml(folder)
            kept.setdefault(f"{identity(full)}-s{full.get('seed_everything')}", folder)
        except UserError:
            continue  # no run yet, or one of classes that this sweep does not know
    return kept


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
            axes.append([(label, _shown(value), {key: value}) for value in values])
    if not axes and not settings.cells:
        raise UserError(f"{path}: no cells; give axes, cells or both")
    if axes:
        for point in product(*axes):
            coordinates = {label: value for label, value, _ in point}
            overrides = {key: value for _, _, part in point for key, value in part.items()}
            yield ", ".join(_coordinate(*each) for each in coordinates.items()), coordinates, overrides
    for name, overrides in settings.cells.items():
        yield name, {}, overrides


def _coordinate(label: str, value: str) -> str:
    return value if label == "separator" else f"{label}={value}"  # 2_trans_0 says what it is


def _shown(value: Any) -> str:
    """A value in a cell's name; a component as its class's name, then its settings."""
    if isinstance(value, dict) and isinstance(value.get("class_path"), str):
        settings = value.get("init_args") or {}
        return ", ".join([value["class_path"].rpartition(".")[2], *(f"{k}={_shown(v)}" for k, v in settings.items())])
    return _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _arguments(path: Path, settings: Settings, overrides: dict[str, Any]) -> list[str]:
    arguments = []
    for base in settings.base:
        arguments += ["--config", os.path.relpath(path.parent / base)]
    return [*arguments, *QUIET, *(f"--{key}={_text(value)}" for key, value in overrides.items())]


def _cell(path: Path, settings: Settings, name: str, coordinates: dict[str, str], overrides: dict[str, Any]) -> Cell:
    for key in overrides:
        if key in ("out", "seed_everything", "ckpt_path", "config") or key.startswith("checkpoint"):
            raise UserError(f"{path}: cell {name!r}: {key} is not a cell's to set")
    try:
        with _no_seed_messages():
            parsed = parse(_arguments(path, settings, overrides))
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
    """Lightning says `Seed set to 0` whenever a configuration is parsed."""
    logger = logging.getLogger("lightning_fabric.utilities.seed")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _check(path: Path, settings: Settings, names: list[str]) -> None:
    """Find what is wrong with a sweep apart from its cells' configurations."""

    def wrong(what: str) -> UserError:
        return UserError(f"{path}: {what}")

    for name, count in Counter(names).items():
        if count > 1:
            raise wrong(f"two cells are named {name!r}; rename one")
    if not settings.seeds or len(set(settings.seeds)) < len(settings.seeds) or min(settings.seeds) < 0:
        raise wrong(f"seeds {settings.seeds} must be different numbers, at least one, none negative")
    if settings.threads < 1:
        raise wrong(f"threads {settings.threads} must be at least 1")
    split, _, score = settings.metric.partition(":")
    if score and split not in settings.evaluate:
        raise wrong(f"metric {settings.metric!r} needs `evaluate: [{split}]`")
    if not score and split not in ("valid_si_snr", "valid_loss"):
        raise wrong(f"metric {split!r} is neither valid_si_snr, valid_loss nor like test:SI-SNRi")
    mentioned = [("baseline", settings.baseline)] if settings.baseline is not None else []
    for i, claim in enumerate(settings.claims):
        if (claim.better is None) == (claim.equal is None) or bool(claim.than) == bool(claim.to):
            raise wrong(f"claims[{i}]: give better and than, or equal and to")
        if (claim.better is None) != (not claim.than):
            raise wrong(f"claims[{i}]: than belongs to better, to belongs to equal")
        if claim.quantity is not None and claim.quantity not in QUANTITIES:
            raise wrong(f"claims[{i}].quantity: {claim.quantity!r} is none of {', '.join(QUANTITIES)}")
        mentioned += [(f"claims[{i}]", cell) for cell in (claim.cell, *claim.others)]
    for where, cell in mentioned:
        if cell not in names:
            raise wrong(f"{where}: no cell is named {cell!r}; there are {'; '.join(names)}")


def is_si_snr(full: dict[str, Any]) -> bool:
    """Whether a configuration's loss is negative SI-SNR, in dB."""
    loss = full["task"]["loss"]
    return loss is None or loss["class_path"].rpartition(".")[2] == "SISNR"
