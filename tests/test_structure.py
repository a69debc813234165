"""Imports run downward, inside functions and under TYPE_CHECKING too; a core that is readable in an afternoon."""

import ast
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "tasnet_attn"
LEVELS = [  # a room may import from earlier levels and from itself
    {"errors", "version", "compat", "extras", "lazily"},
    {"files", "archives", "config", "terminal"},
    {"options"},
    {"audio", "nn"},
    {"filterbanks", "metrics"},
    {"heads"},
    {"separators"},
    {"model"},
    {"losses", "storage", "data"},
    {"streaming"},
    {"inference"},
    {"evaluation"},
    {"training"},
    {"reporting", "exporting", "checking", "ablation"},
    {"demo"},
    {"cli"},
]
LEVEL = {name: i for i, names in enumerate(LEVELS) for name in names}
FILES = [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py"]


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module(path):
    return ".".join(("tasnet_attn", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module(path): path for path in FILES}


@cache
def imported(path):
    """Dotted names that a file imports, wherever in it the import stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (inner & MODULES.keys()) or {node.module}
    return names


def test_every_room_has_a_level():
    assert {room(path) for path in FILES} == LEVEL.keys()


def test_imports_run_downward():
    for path in FILES:
        for name in imported(path):
            if name.startswith("tasnet_attn."):
                above = LEVEL[name.split(".")[1]]
                here = LEVEL[room(path)]
                same = name.split(".")[1] == room(path)
                assert above < here or same, f"{module(path)} imports {name}, which is not below it"
            assert name != "tasnet_attn" or room(path) == "exporting", f"{module(path)} imports the package's front"


def test_sound_files_are_opened_by_the_audio_room_alone():
    for path in FILES:
        opened = {name.split(".")[0] for name in imported(path)} & {"soundfile", "av", "soxr"}
        assert not opened or room(path) == "audio", f"{module(path)} imports {', '.join(opened)}"


def test_recipes_open_sound_by_that_room_too():
    scripts = list((PACKAGE.parent / "recipes").rglob("*.py"))
    assert len(scripts) >= 13
    for path in scripts:
        opened = {name.split(".")[0] for name in imported(path)} & {"soundfile", "av", "soxr"}
        assert not opened, f"{path} imports {', '.join(opened)}"


def test_no_circles_within_a_room():
    graph = {m: {n for n in imported(path) if n in MODULES and n != m} for m, path in MODULES.items()}
    done, open_ = set(), []

    def visit(name):
        assert name not in open_, f"circle: {' -> '.join([*open_[open_.index(name) :], name])}"
        if name not in done:
            open_.append(name)
            for below in sorted(graph[name]):
                visit(below)
            done.add(open_.pop())

    for name in graph:
        visit(name)


def test_data_and_models_do_not_know_each_other():
    models = {"filterbanks", "nn", "heads", "separators", "model"}
    for path in FILES:
        rooms = {name.split(".")[1] for name in imported(path) if name.startswith("tasnet_attn.")}
        assert not (room(path) in models and "data" in rooms), path
        assert not (room(path) == "data" and rooms & models), path


def test_lightning_stays_in_training_and_data():
    for path in FILES:
        foreign = {name.split(".")[0] for name in imported(path)}
        assert "pytorch_lightning" not in foreign or room(path) in {"training", "data"}, path
