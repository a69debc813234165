"""docs/papers.md: every command in it parses, and what it names exists."""

import re
import shlex
from pathlib import Path

import pytest
from test_recipes import RECIPES, arguments

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
