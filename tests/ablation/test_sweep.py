"""Sweep files: what they mean, what is wrong with them, and which run is whose."""

import re
import shutil
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny import ONE, write_sweep

from tasnet_attn.ablation import plan
from tasnet_attn.ablation.command import _speeds
from tasnet_attn.ablation.figures import coordinates
from tasnet_attn.ablation.identity import identity
from tasnet_attn.ablation.sweep import read
from tasnet_attn.cli import main
from tasnet_attn.errors import UserError
from tasnet_attn.training.command import parse

RECIPES = Path(__file__).parents[2] / "recipes" / "ablations"
VERSION_0_1_0 = Path(__file__).parents[1] / "golden" / "version_0.1.0" / "run"
SWEEPS = sorted(path for path in [*RECIPES.glob("*.yml"), *RECIPES.glob("small/*.yml")] if path.name != "base.yml")
shipped = cache(read)  # some seconds each: the costs of every cell are counted


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps")
    write_sweep(folder, axes={"model.separator": ["0_trans_0", "1_trans_0"], "model.separator.ffn": [8]}, claims=None)
    return folder


def test_a_separator_s_name_is_a_value_of_an_axis_and_what_the_cell_is_called(folder):
    """It keeps the other settings of the base's LTL, and is the same cell as its numbers of layers."""
    sweep = read(folder / "sweep.yml")
    assert [cell.name for cell in sweep.cells] == ["0_trans_0, ffn=8", "1_trans_0, ffn=8", "TasNet"]
    assert sweep.cells[1].coordinates == {"separator": "1_trans_0", "ffn": "8"}
    assert sweep.cells[1].config["model"]["separator"]["init_args"]["dropout"] == 0.1
    folders = {run.folder.name for run in sweep.runs(folder / "out")}
    assert {re.sub("-[0-9a-f]+-", "-", name) for name in folders} == {
        f"{name}-s{seed}" for name in ("0_trans_0", "1_trans_0", "TasNet") for seed in (0, 1)
    }
    layers = write_sweep(
        folder, "layers.yml", axes={"model.separator.lstm_before": [0, 1]}, cells=None, baseline=None, claims=None
    )
    assert {cell.key for cell in read(layers).cells} == {cell.key for cell in sweep.cells if cell.coordinates}


def test_a_component_as_a_value_is_called_by_its_class_and_settings(folder):
    values = [{"class_path": "1_trans_0", "init_args": {"bidirectional": True}}, "TasNet"]
    file = write_sweep(
        folder, "components.yml", axes={"model.separator": values}, cells=None, baseline="TasNet", claims=None
    )
    assert [cell.name for cell in read(file).cells] == ["1_trans_0, bidirectional=true", "TasNet"]
    axes = {"model.separator": ["LTL", "TasNet"]}
    old = write_sweep(folder, "old.yml", axes=axes, cells=None, baseline="separator=TasNet", claims=None)
    assert read(old).baseline.name == "TasNet"  # as version 0.1.0 named it


def test_separators_by_their_notation_make_a_grid_of_layers():
    cells = [SimpleNamespace(name=name, coordinates={"separator": name}) for name in ("0_trans_0", "1_trans_0")]
    table = coordinates([*cells, SimpleNamespace(name="beside the grid", coordinates={})])
    assert table.loc["1_trans_0"].to_dict() == {"lstm_before": "1", "lstm_after": "0"} and len(table) == 2
    other = SimpleNamespace(name="TasNet", coordinates={"separator": "TasNet"})
    assert list(coordinates([*cells, other]).columns) == ["separator"]


def test_named_axis_values_set_several_keys(folder):
    sizes = {"small": {"model.separator.hidden": 8, "model.separator.ffn": 4}, "large": {"model.separator.hidden": 16}}
    axes = {"size": sizes, "model.separator.lstm_after": [0]}
    found = read(write_sweep(folder, "named.yml", axes=axes, baseline=None, claims=None))
    assert [cell.name for cell in found.cells] == ["size=small, lstm_after=0", "size=large, lstm_after=0", "TasNet"]
    assert found.cells[0].coordinates == {"size": "small", "lstm_after": "0"}
    assert found.cells[0].config["model"]["separator"]["init_args"]["ffn"] == 4
    assert found.baseline.name == "size=small, lstm_after=0"


def test_a_sweep_on_top_of_another(folder):
    """Its axes and cells key by key; claims about cells that are left out go; files stand where they are named from."""
    (folder / "small").mkdir(exist_ok=True)
    (folder / "wide.yml").write_text("model: {separator: {init_args: {hidden: 16}}}")
    claims = [{"says": name, "better": f"{name}, ffn=8", "than": ["wide"]} for name in ("0_trans_0", "1_trans_0")]
    cells = {"wide": {"config": "wide.yml"}, "TasNet": {"model.separator": "TasNet"}}
    write_sweep(
        folder, "below.yml", axes={"model.separator": ["0_trans_0", "1_trans_0"], "model.separator.ffn": [8]},
        cells=cells, claims=claims,
    )  # fmt: skip
    text = "sweep: ../below.yml\nbase: [../base.yml]\naxes: {model.separator: [1_trans_0]}\ncells: {TasNet: null}\n"
    (folder / "small" / "above.yml").write_text(f"{text}baseline: wide")
    sweep = read(folder / "small" / "above.yml")
    assert [cell.name for cell in sweep.cells] == ["1_trans_0, ffn=8", "wide"]
    assert sweep.cells[1].config["model"]["separator"]["init_args"]["hidden"] == 16
    assert [claim.says for claim in sweep.settings.claims] == ["1_trans_0"] and sweep.settings.seeds == [0, 1]


def test_null_is_a_value_in_the_lower_of_two_sweeps(folder):
    """Only the upper one removes keys by it."""
    text = "base: [base.yml]\ncells: {TasNet: {model.separator: TasNet, data.cache: null, data.gain: 3}}\n"
    (folder / "with_null.yml").write_text(f"{text}baseline: null")
    (folder / "upper.yml").write_text("sweep: with_null.yml\ncells: {TasNet: {data.gain: null, data.remix: 1}}")
    (cell,) = read(folder / "upper.yml").cells
    assert cell.overrides == {"model.separator": "TasNet", "data.cache": None, "data.remix": 1}


def test_identity_is_what_decides_a_run_s_results_however_it_is_written(folder):
    base = ["--config", str(folder / "base.yml")]
    key = identity(parse(base))
    for same in (
        ["--out=elsewhere", "--seed_everything=5", "--checkpoint.every_n_train_steps=9"],
        ["--model.separator=tasnet_attn.separators.ltl.LTL", "--task.optimizer=torch.optim.Adam"],
        ["--model.separator=1_trans_0", "--model.interchangeable=false", "--task.optimizer.init_args.eps=1e-8"],
        ["--evaluation.window=2", "--trainer.enable_progress_bar=false", "--data.workers=2"],
        ["--model.separator.attention=causal", "--model.encoder.stride=16", "--model.head=Mask", "--task.loss=SISNR"],
        ["--trainer.inference_mode=true", "--early_stopping.verbose=false"],
    ):
        assert identity(parse([*base, *same])) == key, same
    for other in ("--trainer.max_epochs=4", "--model.separator.hidden=16", "--data.gain=3", "--task.optimizer.lr=1e-4"):
        assert identity(parse([*base, other])) != key


def test_a_run_of_the_previous_version_is_recognised_by_its_configuration(tmp_path):
    """Its folder has another name, and its config.yml has class paths and defaults of its time."""
    sweep = tmp_path / "sweep.yml"
    sweep.write_text(f"base: [{VERSION_0_1_0}/config.yml]\ncells: {{a: {{}}, b: {{trainer.max_epochs: 99}}}}")
    shutil.copytree(VERSION_0_1_0, tmp_path / "runs" / "8fe58ac64f0b-s0")
    (tmp_path / "runs" / "empty-s0").mkdir()
    (tmp_path / "runs" / "notes.txt").touch()
    a, b = read(sweep).runs(tmp_path)
    assert a.folder == tmp_path / "runs" / "8fe58ac64f0b-s0" and not b.folder.exists()


def test_a_cell_says_add_import_for_a_class_that_is_not_known(folder, tmp_path, capsys):
    file = write_sweep(
        folder, "strange.yml", **ONE | {"cells": {"a": {"model.separator": "strange_nets.Net"}}, "baseline": "a"}
    )
    assert main(["ablate", str(file), "--out", str(tmp_path / "out")]) == 2
    assert "add --import strange_nets" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sede": [1]}, "sede: Settings has no such setting; did you mean 'seeds'?"),
        ({"claims": [{"sais": "x"}]}, "claims[0].sais: Claim has no such setting"),
        (
            {"axes": {"model.separator.hiden": [1]}},
            "cell 'hiden=1': model.separator.hiden: LTL has no such setting; did you",
        ),
        ({"axes": {"model.separator.hidden": ["many"]}}, "cell 'hidden=many': "),
        ({"axes": {"model.separator.heads": [3]}}, "heads 3 must divide"),
        ({"axes": {"model.separator.hidden": []}}, "axis 'model.separator.hidden' is empty"),
        ({"axes": {"width": {"small": 8}}}, "axes: width: 'small' must be a mapping"),
        ({"axes": None, "cells": None}, "no cells; give axes, cells or both"),
        (
            {"cells": {"same": {"model.separator.lstm_before": 0}}, "baseline": None},
            "0' and 'same' are the same configuration",
        ),
        ({"cells": {"a": {"out": "elsewhere"}}, "baseline": "a"}, "cell 'a': out cannot be set by a cell"),
        ({"baseline": "TosNet"}, "baseline: there is no cell 'TosNet'; choose from lstm_before=0, lstm_after=0; "),
        ({"seeds": [1, 1]}, "seeds [1, 1] must be different numbers"),
        ({"seeds": "few"}, "seeds"),
        ({"threads": 0}, "threads 0 must be at least 1"),
        ({"metric": "accuracy"}, "metric: 'accuracy' is not one of valid_si_snr"),
        ({"metric": "valid:SDR"}, "metric 'valid:SDR' needs `evaluate: [valid]`"),
        ({"base": ["nowhere.yml"]}, "nowhere.yml"),
        ({"claims": [{"says": "x", "better": "TasNet"}]}, "claims[0]: give better and than, or equal and to"),
        ({"claims": [{"says": "x", "better": "TasNet", "to": ["TasNet"]}]}, "claims[0]: than belongs to better"),
        ({"claims": [{"says": "x", "better": "TasNet", "than": ["TosNet"]}]}, "there is no cell 'TosNet'"),
        (
            {"claims": [{"says": "x", "equal": "TasNet", "to": ["TasNet"], "quantity": "beauty"}]},
            "'beauty' is not one of valid_si_snr",
        ),
        ({"metric": "epochs_to_best"}, "metric 'epochs_to_best' must be"),
        ({"metric": "test:SDRi", "evaluate": ["test"]}, "'test:SDRi': there is no score 'SDRi'; choose from SDR, ISR"),
        ({"scores": ["PESQ"], "evaluate": ["test"]}, "scores: 'test:PESQ': there is no score 'PESQ'"),
        ({"metric": "valid_si_snr:drums"}, "there is no source 'drums'; choose from guitar, backing"),
        ({"metric": "test:SDR:drums", "evaluate": ["test"]}, "there is no source 'drums'"),
        (
            {"claims": [{"says": "x", "equal": "TasNet", "to": ["TasNet"], "plus": "-11"}]},
            "must be a number or a percentage",
        ),
        (
            {"claims": [{"says": "x", "equal": "TasNet", "to": ["TasNet"], "plus": "3 %", "within": "1 %"}]},
            "percentages of decibels make no sense",
        ),
        ({"figures": {"one": {"panels": ["depth"]}}}, "figures.one: there is no axis 'depth'"),
        ({"figures": {"time": {"panels": []}}}, "figures.time: every sweep has a figure of this name; rename it"),
        ({"figures": {"Curves": {"panels": []}}}, "figures.Curves: every sweep has a figure of this name"),
        ({"figures": {"one": {"only": ["2_*"]}}}, "figures.one: only ['2_*']: no such cell; choose from lstm_before=0"),
        ({"sweep": 5}, "sweep: 5 must be another sweep's file"),
        ({"cells": {7: {}}, "baseline": None}, "cells: the key 7 is not text; quote it"),
        ({"cells": {"a": {7: 1}}, "baseline": None}, "cells.a: the key 7 is not text; quote it"),
        ({"axes": {7: [1]}}, "axes: the key 7 is not text; quote it"),
        ({"axes": {"width": {"small": {7: 1}}}}, "axes: width: 'small' must be a mapping"),
        (
            {"claims": [{"says": "x", "better": "TasNet", "than": ["TasNet"], "plus": 0.5}]},
            "claims[0]: plus belongs to equal",
        ),
        (
            {"claims": [{"says": "x", "equal": "TasNet", "to": ["TasNet"], "within": -0.1}]},
            "within -0.1 is a tolerance; it cannot be negative",
        ),
    ],
)
def test_a_bad_sweep_file_is_one_clear_line(folder, tmp_path, changes, said, capsys):
    axes = {"axes": {"model.separator.lstm_before": [0], "model.separator.lstm_after": [0]}}
    claims = {"claims": None}
    file = write_sweep(folder, "bad.yml", **axes | claims | changes)
    assert main(["ablate", str(file), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and "bad.yml" in error
    assert not (tmp_path / "out").exists()


def test_every_sweep_has_a_small_twin():
    names = [path.name for path in SWEEPS if path.parent == RECIPES]
    assert len(names) == 12 and names == [path.name for path in SWEEPS if path.parent.name == "small"]


@pytest.mark.slow
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: "/".join(path.parts[-2:]))
def test_a_sweep_of_the_recipes_is_sound(path):
    """Every cell parses, and is built where it takes no memory."""
    import tasnet_attn.separators.asteroid  # noqa: F401  systems.yml has two of its networks

    sweep = shipped(path)
    assert len(sweep.cells) >= 4 and sweep.settings.claims
    assert all(cell.parameters > 2_000 and cell.macs > 1e7 for cell in sweep.cells)
    assert len(sweep.settings.seeds) >= 2


@pytest.mark.slow
def test_the_published_counts_are_in_the_sweeps():
    """No cell of 4.1 and 4.4 has a LayerNorm at the input, but the pairs that say so."""
    counts = {cell.name: cell.parameters for cell in shipped(RECIPES / "ltl_configuration.yml").cells}
    ltl = counts["1_trans_0, attention=full"]
    assert counts["TasNet"] == 8_847_000 and ltl == counts["1_trans_0, attention=causal"] == 7_878_024
    assert round(100 * (ltl / counts["TasNet"] - 1), 2) == -10.95
    assert counts["TasNet, input norm"] == 8_848_000 and counts["1_trans_0, input norm"] == 7_879_024
    counts = {cell.name: cell.parameters for cell in shipped(RECIPES / "bidirectional.yml").cells}
    assert counts["system=3_trans_0, fraction=1.0"] == 33_569_096
    assert counts["system=TasNet, fraction=0.1"] == 23_363_000 and counts["TasNet, input norm"] == 23_364_000
    counts = {cell.name: cell.parameters for cell in shipped(RECIPES / "hourglass.yml").cells}
    assert counts["n_stacks=4, width=growing"] == 34_689_752 and counts["n_stacks=4, width=constant"] == 42_752_792
    counts = {cell.name: cell.parameters for cell in shipped(RECIPES / "skip_attention.yml").cells}
    assert counts["plain skips"] == 34_176_776 and counts["attention"] == 37_330_696
    layers = {counts[f"attention at level {level}"] - counts["plain skips"] for level in range(4)}
    assert layers == {4 * 197_120}


def test_the_example_of_the_documentation(tmp_path):
    """At most ten lines; seven cells."""
    root = RECIPES.parents[1]
    block = (root / "docs" / "ablations.md").read_text().split("```yaml\n")[1].split("```")[0]
    (tmp_path / "width.yml").write_text(block.replace("recipes/", f"{root}/recipes/"))
    assert block.count("\n") <= 10 and len(read(tmp_path / "width.yml").cells) == 7


def test_text_stays_text_in_a_cell(folder):
    root = "stems #2"
    cells = {"other data": {"data.root": root}, "a year": {"data.root": "2024"}}
    sweep = read(write_sweep(folder, "text.yml", axes=None, cells=cells, baseline=None, claims=None))
    assert [cell.config["data"]["init_args"]["root"] for cell in sweep.cells] == [root, "2024"]


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"max_epochs": -1, "max_time": "00:00:00:02"}, "about ? per run (timed: 1 s per epoch; only max_time is set)"),
        ({"max_epochs": -1}, "about ? per run (timed: 1 s per epoch; no limit is set)"),
        ({"max_epochs": 3}, "about 3 s per run (timed: 1 s per epoch)"),
        ({"max_epochs": -1, "max_steps": 20}, "about 2 s per run (timed: 0.1 s per step)"),
    ],
)
def test_a_run_without_a_number_of_epochs_has_no_negative_cost(folder, limits, said, monkeypatch, capsys):
    monkeypatch.setattr(plan, "step_seconds", lambda full: 0.1)
    monkeypatch.setattr(plan, "steps_of_an_epoch", lambda full: 10)
    trainer = {"max_steps": -1, "max_epochs": None, **limits}
    cells = {"one": {f"trainer.{key}": value for key, value in trainer.items()}}
    file = write_sweep(folder, "limits_sweep.yml", axes=None, cells=cells, baseline=None, claims=None)
    sweep = read(file)
    plan.plan(sweep, sweep.runs(folder / "out"), sweep.cells)
    printed = capsys.readouterr().out
    assert said in printed and "-" not in printed.splitlines()[1]


def test_damaged_speeds_are_one_line(folder, tmp_path):
    (tmp_path / "speed.json").write_text('{"a":')
    with pytest.raises(UserError, match=r"speed\.json: damaged \(.*\); remove it: the speeds are then measured again"):
        _speeds(read(folder / "sweep.yml"), tmp_path, set())
