"""docs/papers.md: every command in it parses, and what it names exists."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import recipe_script
from lookalikes import write_librimix
from test_recipes import RECIPES, arguments, options

from tasnet_attn.options import parser
from tasnet_attn.training.command import parse

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
STARTS = ("recipes/", "tasnet-attn ", "python ")
COMMANDS = [
    line.strip()
    for line in [*re.findall(r"`([^`]+)`", PAGE), *re.findall(r"^    (\S.*)$", PAGE, re.M)]
    if line.strip().startswith(STARTS)
]


def test_every_recipe_and_sweep_of_a_paper_has_its_command():
    assert len(COMMANDS) > 20
    sweeps = {path.name for path in (RECIPES / "ablations").glob("*.yml")}
    ours = {"attention.yml", "n_transformer_layers.yml"}  # no table of the paper's
    assert {sweep for sweep in sweeps if f"ablations/{sweep}" in PAGE} == sweeps - ours


def test_what_every_command_prints_is_shown():
    """One folded block for each command of the tables, written by tests/benchmarks/bench_papers.py."""
    shown = re.findall(r"<summary><code>(.*)</code></summary>\n\n\S", PAGE)
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    asked = [word for row in rows for word in re.findall(r"`([^`]+)`", row) if word.startswith(STARTS)]
    assert asked and [command for command in asked if "/small/" not in command] == shown


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_parses(command):
    program, *words = shlex.split(command)
    if program == "tasnet-attn":
        options = parser().parse_args(words)
        if options.command == "ablate":
            assert (ROOT / options.sweep).is_file()
    elif program == "python":
        script = next(word for word in words if word.endswith(".py"))
        files = [script, *(words[i + 1] for i, word in enumerate(words) if word == "--config")]
        assert all((ROOT / file).is_file() for file in files)
    else:
        script = ROOT / program
        assert script.name == "run.sh" and script.is_file()
        if "--tag" in words:
            del words[words.index("--tag") : words.index("--tag") + 2]
        parse([*arguments(script.parent / "conf.yml"), *words])


@pytest.mark.slow
def test_audioslots_table_1_by_one_command(tmp_path, monkeypatch, capsys):
    """Every system with both masks; what is trained is not trained again."""
    root = write_librimix(tmp_path / "data", rate=16_000, lengths=[8000, 12_000])
    settings = [x for x in options(RECIPES / "librimix/audioslots/conf.yml") if "slots=QueryTransformer" not in x]
    command = ["--out", "table", "--seconds", "0.5", *settings, "--trainer.max_steps=2", f"--data.root={root}"]
    monkeypatch.chdir(tmp_path)
    table1 = recipe_script("librimix/local/table1.py")
    assert table1.main(command) == 0
    text = (tmp_path / "table" / "table.md").read_text()
    assert capsys.readouterr().out.endswith(text)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| 0.5 s")]
    assert [row[1] for row in rows] == list(table1.SYSTEMS)
    scores = {row[1]: [float(cell.partition(" ")[0]) for cell in row[2:]] for row in rows}
    for row in list(scores)[1:]:
        assert scores["oracle masks"][3] > scores[row][3]
    assert "0.18 +- 0.01 dB" in text and text.count("autoencoder minus AudioSlots, ") == 4
    runs = {file: file.stat().st_mtime_ns for file in (tmp_path / "table").rglob("finished")}
    assert len(runs) == 4 and table1.main(command) == 0
    assert runs == {file: file.stat().st_mtime_ns for file in runs}
    capsys.readouterr()
    assert table1.main([*command, "--task.optimizer.lr=0.5"]) == 2  # would be a table of the earlier training
    assert "with other settings than requested: task.optimizer.lr" in capsys.readouterr().err
