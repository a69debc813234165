"""The sweep file: its settings, typed, layered on another sweep's and checked without building cells."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any, Literal

from tasnet_attn import config
from tasnet_attn.ablation.quantities import in_decibels, more_is_better
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.summary import Convention
from tasnet_attn.files import file_name

FIGURES = ("curves", "parameters", "time", "grid")  # which every sweep has
PERCENT = re.compile(r"([-+]?\d+(?:\.\d+)?) ?%")


@dataclass
class Claim:
    """A statement that the sweep tests: cell `better` beats cells `than`, or `equal` is as good as cells `to`.

    Args:
        says: the statement, as printed.
        better: a cell.
        than: cells.
        equal: a cell.
        to: cells, or published figures.
        plus: how much more `equal` has, for example 0.25, or "-11 %".
        within: tolerance; for a percentage, for example "1 %".
        quantity: the quantity to compare, a column of `cells.csv`; None: the sweep's metric.
    """

    says: str
    better: str | None = None
    than: list[str] = field(default_factory=list)
    equal: str | None = None
    to: list[str | float] = field(default_factory=list)
    plus: float | str = 0.0
    within: float | str = 0.1
    quantity: str | None = None

    def __post_init__(self) -> None:
        self.better, self.equal = _plain(self.better), _plain(self.equal)
        self.than = [_plain(name) or "" for name in self.than]
        self.to = [_plain(name) or "" if isinstance(name, str) else name for name in self.to]
        for value in (self.plus, self.within):
            if isinstance(value, str) and not PERCENT.fullmatch(value):
                raise ValueError(f"{value!r} must be a number or a percentage like '-11 %'")
        if self.bounds[0] > self.bounds[1]:
            raise ValueError(f"within {self.within} is a tolerance; it cannot be negative")
        if isinstance(self.plus, str) and not isinstance(self.within, str):
            raise ValueError(f"plus {self.plus} needs `within` as a percentage too, like 1 %")

    @property
    def cell(self) -> str:
        """The cell that the statement is about."""
        return self.better or self.equal or ""

    @property
    def others(self) -> Sequence[str | float]:
        """What it is compared with."""
        return self.than or self.to

    @property
    def cells(self) -> list[str]:
        """All cells that it mentions."""
        return [self.cell, *(other for other in self.others if isinstance(other, str))]

    @property
    def relative(self) -> bool:
        """Whether it is about percentages."""
        return isinstance(self.within, str)

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and largest difference with which `equal` holds."""
        plus, within = (
            float(PERCENT.fullmatch(x)[1]) if isinstance(x, str) else x  # type: ignore[index]
            for x in (self.plus, self.within)
        )
        return plus - within, plus + within

    @property
    def condition(self) -> str:
        """The condition under which it holds, in words."""
        if self.better:
            return "better"
        unit = " %" if self.relative else ""
        low, high = self.bounds
        return f"{(low + high) / 2:+g} ± {(high - low) / 2:g}{unit}"


@dataclass
class Panels:
    """A figure of validation curves, with a panel for every combination of values of some axes.

    Args:
        panels: axes, as named in coordinates.
        only: patterns of the cells to show; cells that lie on no axis are in every panel.
    """

    panels: list[str] = field(default_factory=list)
    only: list[str] = field(default_factory=lambda: ["*"])


@dataclass
class Settings:
    """A sweep file's top level. `sweep: FILE` starts from another sweep's and changes it key by key.

    Args:
        base: configuration files under every cell, relative to the sweep file.
        axes: a grid, {key: [values]}, or {label: {value's name: {key: value}}} if a value sets several keys.
        cells: named cells in addition to the grid, {name: {key: value}}; keys as for `tasnet-attn train`, and `config`,
            files on top of the base.
        seeds: every cell is trained once with each.
        metric: "valid_si_snr" (of the best epoch, dB), "valid_loss", or "SPLIT:METRIC", for example "test:SI-SNRi": the
            mean over sources and tracks of a split in `evaluate`; "SPLIT:METRIC:SOURCE": of one source.
        scores: scores of the splits in `evaluate` to show, for each source and their mean.
        average: over a run's tracks (first word) and windows (last word), see `evaluation.summary`.
        baseline: the cell that the others are compared with; None: the first.
        over: configuration files over every cell's `config`, under its keys, for what all cells share.
        evaluate: splits whose whole tracks every cell separates, with the checkpoint of its `evaluation` section.
        threads: for training a cell. Sums in another order differ in the last bits, so it is part of the sweep.
        claims: statements to test.
        figures: further figures, by name; not curves, parameters, time or grid, which are drawn anyway.
    """

    base: list[Path]
    over: list[Path] = field(default_factory=list)
    axes: dict[str, list | dict] = field(default_factory=dict)
    cells: dict[str, dict[str, Any]] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0])
    metric: str = "valid_si_snr"
    scores: list[str] = field(default_factory=lambda: ["SI-SNRi", "SDR"])
    average: Convention = "mean of medians"
    baseline: str | None = None
    evaluate: list[Literal["train", "valid", "test"]] = field(default_factory=list)
    threads: int = 1
    claims: list[Claim] = field(default_factory=list)
    figures: dict[str, Panels] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.baseline = _plain(self.baseline)

    @property
    def quantities(self) -> dict[str, str]:
        """The quantities requested in addition to those of every run: {quantity: where it is requested}."""
        asked = {f"{split}:{score}": "scores:" for split in self.evaluate for score in self.scores}
        asked |= {claim.quantity: f"claims[{i}].quantity" for i, claim in enumerate(self.claims) if claim.quantity}
        return asked | {self.metric: "metric"}


def _plain(cell: str | None) -> str | None:
    """A cell's name in version 0.1.0, separator=TasNet, as the present name: TasNet."""
    return cell and re.sub(r"(^|, )separator=", r"\1", cell)


def matches(cell: str, patterns: Sequence[str]) -> bool:
    """Whether a cell has one of these names, or matches one of these shell patterns (*, ?, [...])."""
    return any(cell == pattern or fnmatchcase(cell, pattern) for pattern in patterns)


def read_settings(path: Path) -> Settings:
    """Read a sweep file, layered on its `sweep` file; paths in it are made relative to the working folder.

    Raises:
        UserError: no such file, an unknown key, or a wrong value.
    """
    try:
        content = _layered(path)
        inherited = content.pop("inherited claims", False)
        settings = config.build(content, Settings, "sweep")
    except UserError as error:
        raise UserError(f"{path}: {str(error).removeprefix(f'{path}: ').replace('sweep.', '', 1)}") from error
    if inherited:  # without claims about cells that this sweep drops, or about figures published for other data
        names = {name for name, _, _ in combinations(path, settings)}
        settings.claims = [claim for claim in settings.claims if names.issuperset([claim.cell, *claim.others])]
    return settings


def _layered(path: Path) -> dict[str, Any]:
    """A sweep file on top of its `sweep` file; mappings key by key, where null removes a key."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a sweep file, like recipes/ablations/small/ffn_width.yml")
    content = config.read_yaml(path)
    for where in ("base", "over", "axes", "cells"):
        if where in content:
            content[where] = _anchored(content[where], path.parent, where in ("base", "over"))
    if (below := content.pop("sweep", None)) is None:
        return content
    if not isinstance(below, str) or (path.parent / below).resolve() == path.resolve():
        raise UserError(f"sweep: {below!r} must be another sweep's file")
    lower = _layered(path.parent / below)
    return _on_top(lower, content) | {"inherited claims": "claims" not in content}


def _on_top(below: Any, above: Any) -> Any:
    """Mappings key by key; a null above removes a key, one below is a value."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    joined = below | {key: _on_top(below[key], value) if key in below else value for key, value in above.items()}
    removed = {key for key, value in above.items() if value is None and key in below}
    return {key: value for key, value in joined.items() if key not in removed}


def _anchored(value: Any, folder: Path, files: bool) -> Any:
    """The same with the paths of `config` keys, or all paths, relative to the working folder."""
    if isinstance(value, dict):
        return {key: _anchored(item, folder, files or key == "config") for key, item in value.items()}
    if isinstance(value, list):
        return [_anchored(item, folder, files) for item in value]
    return os.path.relpath(folder / value) if files and isinstance(value, str) else value


def combinations(path: Path, settings: Settings) -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """(name, coordinates, overrides) of the grid, then of the named cells."""
    axes: list[list[tuple[str, str, dict[str, Any]]]] = []
    for key, values in settings.axes.items():
        if not values:
            raise UserError(f"{path}: axis {key!r} is empty; give it values, or remove it")
        if isinstance(values, dict):
            for name, overrides in values.items():
                if not isinstance(overrides, dict) or not all(isinstance(setting, str) for setting in overrides):
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
            if files := [file for _, _, part in point for file in as_list(part.get("config", []))]:
                overrides["config"] = files
            yield name_of(coordinates), coordinates, overrides
    for name, overrides in settings.cells.items():
        yield name, {}, overrides


def as_list(value: Any) -> list[Any]:
    """A list of one or several values."""
    return value if isinstance(value, list) else [value]


def name_of(coordinates: dict[str, str]) -> str:
    """A cell's name: each axis with its value; 2_trans_0 needs no axis."""
    return ", ".join(value if axis == "separator" else f"{axis}={value}" for axis, value in coordinates.items())


def _shown(value: Any) -> str:
    """A value in a cell's name; a component as its class's name, then its settings."""
    if isinstance(value, dict) and isinstance(value.get("class_path"), str):
        settings = value.get("init_args") or {}
        return ", ".join([value["class_path"].rpartition(".")[2], *(f"{k}={_shown(v)}" for k, v in settings.items())])
    return value if isinstance(value, str) else json.dumps(value)


def check_settings(path: Path, settings: Settings, names: list[str]) -> None:
    """Check everything in a sweep except its cells' configurations."""

    def wrong(what: str) -> UserError:
        return UserError(f"{path}: {what}")

    for name, count in Counter(names).items():
        if count > 1:
            raise wrong(f"two cells are named {name!r}; rename one")
    if not settings.seeds or len(set(settings.seeds)) < len(settings.seeds) or min(settings.seeds) < 0:
        raise wrong(f"seeds {settings.seeds} must be different numbers, at least one, none negative")
    if settings.threads < 1:
        raise wrong(f"threads {settings.threads} must be at least 1")
    if not more_is_better(settings.metric) and settings.metric != "valid_loss":
        raise wrong(f"metric {settings.metric!r} must be valid_si_snr, valid_loss or a score like test:SI-SNRi")
    for name, panels in settings.figures.items():
        if file_name(name).casefold() in FIGURES:
            raise wrong(f"figures.{name}: every sweep has a figure of this name; rename it")
        if not any(matches(cell, panels.only) for cell in names):
            raise wrong(f"figures.{name}: only {panels.only}: no such cell; choose from {'; '.join(names)}")
    mentioned = [("baseline", settings.baseline)] if settings.baseline is not None else []
    for i, claim in enumerate(settings.claims):
        if (claim.better is None) == (claim.equal is None) or bool(claim.than) == bool(claim.to):
            raise wrong(f"claims[{i}]: give better and than, or equal and to")
        if (claim.better is None) != (not claim.than):
            raise wrong(f"claims[{i}]: than belongs to better, to belongs to equal")
        if claim.better is not None and claim.plus != 0:
            raise wrong(f"claims[{i}]: plus belongs to equal; `better` asks for no size")
        if claim.relative and in_decibels(claim.quantity or settings.metric):
            raise wrong(f"claims[{i}]: percentages of decibels make no sense; give `plus` and `within` in dB")
        mentioned += [(f"claims[{i}]", cell) for cell in claim.cells]
    for where, cell in mentioned:
        if cell not in names:
            raise wrong(f"{where}: there is no cell {cell!r}; choose from {'; '.join(names)}")
