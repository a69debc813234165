"""docs/fidelity.md: every row has a kind, and the files and tests that it names exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.partition("## The claims")[0].splitlines()
    if line.startswith("| ") and not line.startswith("| item")
]
KINDS = ("exact", "ours", "open", "not testable here", "not reproduced")


def functions_of(file):
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_row_has_a_kind_and_what_it_names_exists():
    assert len(ROWS) > 90
    for row in ROWS:
        assert len(row) in (3, 4) and row[1].startswith(KINDS), row
        files, tests = (re.findall(r"`([^`]+)`", cell) for cell in (*row[2:], "", "")[:2])
        assert (files and (tests or row[3] == "*stated*")) or row[1].startswith("not testable here: `recipes/"), row
        for file in files:
            assert (ROOT / "tasnet_attn" / file).exists() or (ROOT / file).exists(), file
        for test in tests:
            file, _, name = test.partition("::")
            assert (ROOT / "tests" / file).is_file(), test
            assert not name or name in functions_of(ROOT / "tests" / file), test


def test_claims_have_one_home():
    """Other pages link to it."""
    assert "| **undecided** |" in PAGE
    for page in ("ablations.md", "benchmarks.md", "papers.md"):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        assert "fidelity.md" in text and "**undecided**" not in text, page
