"""The sweeps in the folders of recipes: every cell parses and builds; the budget's plan and table."""

import shutil
from pathlib import Path

import pytest
from conftest import recipe_script

from tasnet_attn import config
from tasnet_attn.ablation.sweep import read
from tasnet_attn.evaluation.results import COLUMNS
from tasnet_attn.files import write_text

RECIPES = Path(__file__).parents[2] / "recipes"
LENGTHS, BUDGET = RECIPES / "demo/lengths/sweep.yml", RECIPES / "debian2mix/equal_budget.yml"


@pytest.mark.slow
def test_they_are_sound():
    import tasnet_attn.separators.asteroid  # noqa: F401  two networks are Asteroid's

    assert len(read(LENGTHS).cells) == 9
    assert all(cell.config["evaluation"]["by_length"] for cell in read(LENGTHS).cells)
    budget = read(BUDGET)
    assert len(budget.cells) == 9 and budget.settings.seeds == [0, 1]
    voices = [read(RECIPES / f"voices2mix/{name}.yml") for name in ("trial", "longer", "curves")]
    assert [len(sweep.cells) for sweep in voices] == [12, 3, 11]
    steps = [{cell.config["trainer"]["max_steps"] for cell in sweep.cells} for sweep in voices]
    assert steps == [{1500}, {6000, 12000, 24000}, {3000}]
    chosen = [cell.config["data"]["init_args"]["validation"] for sweep in (budget, *voices) for cell in sweep.cells]
    assert set(chosen) == {"dev-speakers"}


@pytest.mark.slow
def test_the_budget_s_plan_and_table(tmp_path, monkeypatch, capsys):
    budget = recipe_script("debian2mix/local/budget.py")

    class Steps:
        def __init__(self, full):
            self.data, self.seconds = full["data"]["init_args"], []
            self.each = 0.5 if "LTL" in str(full["model"]) else 0.25

        def take(self):
            self.seconds.append(self.each if len(self.seconds) > 1 else 9.0)

    monkeypatch.setattr(budget, "Steps", Steps)
    scored = []
    monkeypatch.setattr(budget.evaluation, "run", lambda *paths: scored.append(paths[1:]))
    (tmp_path / "sweep.yml").write_text(
        f"base: [{RECIPES}/debian2mix/base.yml]\nseeds: [0, 1]\ncells:\n"
        f"  LTL: {{config: {RECIPES}/debian2mix/ltl/conf.yml}}\n"
        f"  TasNet: {{config: {RECIPES}/debian2mix/tasnet/conf.yml}}\n"
    )
    plan = tmp_path / "plan.yml"
    assert budget.main(["plan", str(tmp_path / "sweep.yml"), "60", str(plan)]) == 0
    sweep = read(plan)
    assert [cell.config["trainer"]["max_steps"] for cell in sweep.cells] == [120, 240]
    assert sweep.cells[0].config["data"]["init_args"]["segments_per_epoch"] == 4 * 20
    for run in sweep.runs(tmp_path / "out"):
        gained = {"LTL": [1.0, 2.0, 3.0, 4.0], "TasNet": [3.0, 4.0, 5.5, 6.5]}[run.cell.name]
        for folder, shift in (("test", 0.0), ("speakers", 0.1 * run.seed)):
            rows = [",".join(COLUMNS)]
            for track, value in enumerate(gained):
                known = {"track": f"m{track}", "source": "speaker1", "metric": "SI-SNRi", "mean": value + shift}
                known |= {"score": value + shift, "windows": 1, "unscored": 0, "seconds": 4.0}
                rows += [",".join(str((known | {"metric": m})[c]) for c in COLUMNS) for m in ("SDR", "SI-SNRi")]
            write_text(run.folder / folder / "scores.csv", "\n".join(rows) + "\n")
    asked = ["table", str(plan), str(tmp_path / "out"), "speakers.yml"]
    (*_, last) = sweep.runs(tmp_path / "out")
    shutil.move(last.folder, tmp_path / "later")  # a run that is not yet over
    assert budget.main(asked) == 0 and len(scored) == 3 and {data for data, _ in scored} == {"speakers.yml"}
    assert "| 240 | 1 |" in capsys.readouterr().out
    shutil.move(tmp_path / "later", last.folder)
    assert budget.main(asked) == 0 and len(scored) == 7 and scored[-1][1] == str(last.folder / "speakers")
    said = capsys.readouterr().out
    assert "| 2.50 (" in said and "+2.25 (+2.00 to +2.50) |" in said and "| 4.80 (" in said and "; 4.75, 4.85 |" in said
    assert config.read_yaml(plan)["sweep"] == "sweep.yml"
