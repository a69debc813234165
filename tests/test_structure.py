"""Imports run downward, as docs/architecture.md draws it."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "tasnet_attn"
LEVELS = [  # a module may import, at its top, from earlier levels and from its own
    {"errors", "version", "compat", "config", "audio"},
    {"filterbanks", "nn", "heads", "metrics", "figures", "files"},
    {"separators"},
    {"model"},
    {"losses", "oracle", "data", "stitching"},
    {"inference", "task", "results", "schedules"},
    {"train", "evaluate", "report", "listening", "export", "exporting", "check_data", "corpora"},
    {"ablation", "ablate", "demo"},
    {"cli"},
]


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """(room of the package or foreign package, inside a function or TYPE_CHECKING) for every import of a file."""
    tree = ast.parse(path.read_text())
    at_top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "tasnet_attn":
                names = [f"tasnet_attn.{alias.name}" for alias in node.names]
        for name in names:
            yield name.split("."), id(node) in at_top


FILES = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE]


def test_every_module_has_a_level():
    assert {room(path) for path in FILES} == set().union(*LEVELS)


def test_imports_run_downward():
    level = {name: i for i, names in enumerate(LEVELS) for name in names}
    for path in FILES:
        for name, at_top in imported(path):
            if name[0] == "tasnet_attn" and len(name) > 1 and at_top:
                assert level[name[1]] <= level[room(path)], f"{path.name} imports {'.'.join(name)}"


def test_data_and_models_do_not_know_each_other():
    models = {"filterbanks", "nn", "heads", "separators", "model"}
    for path in FILES:
        rooms = {name[1] for name, _ in imported(path) if name[0] == "tasnet_attn" and len(name) > 1}
        assert not (room(path) in models and "data" in rooms), path
        assert not (room(path) == "data" and rooms & models), path


def test_lightning_stays_in_training_and_data():
    for path in FILES:
        foreign = {name[0] for name, _ in imported(path)}
        assert "pytorch_lightning" not in foreign or room(path) in {"task", "train", "data"}, path


def test_nothing_imports_the_commands():
    for path in FILES:
        assert not any(name[:2] == ["tasnet_attn", "cli"] for name, _ in imported(path)), path


def test_no_file_is_long():
    assert [path.name for path in FILES if len(path.read_text().splitlines()) > 420] == []
