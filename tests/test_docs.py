"""Every page's blocks: commands that our parsers take, files that exist, names that can be imported.

Nothing is run here. tests/test_tutorial.py and tests/test_extend.py run their pages, tests/test_examples.py runs the
examples.
"""

import ast
import importlib
import re
import shlex
import textwrap

import pytest
from conftest import ROOT

from tasnet_attn import config
from tasnet_attn.cli import parsed
from tasnet_attn.errors import UserError
from tasnet_attn.options import ABOUT, parser, split, train_arguments

RUN = {"docs/tutorial.md", "docs/extend.md"}
PAGES = {
    name: file.read_text(encoding="utf-8")
    for pattern in ("*.md", "docs/**/*.md", "examples/*.md", "recipes/**/*.md")
    for file in sorted(ROOT.glob(pattern))
    if "node_modules" not in file.parts and (name := file.relative_to(ROOT).as_posix()) not in {*RUN, "CHANGELOG.md"}
}
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?:^(?: {4}.*)?\n)+", re.MULTILINE)
SYNOPSIS = re.compile(r"\w\|\w|\[[-A-Z]|\(-|\.\.\.")  # `--to onnx|asteroid [--half]`
RECIPE_OPTIONS = {"--stage": 1, "--stop-stage": 1, "--tag": 1, "--id": 1, "--import": 1, "--python": 1}


def fenced(page, *languages):
    return [textwrap.dedent(code) for _, language, code in FENCED.findall(PAGES[page]) if language in languages]


def lines(page):
    """The lines of shell blocks, fenced or indented."""
    indented = INDENTED.findall(FENCED.sub("", PAGES[page]))
    for block in [*fenced(page, "bash", "sh"), *map(textwrap.dedent, indented)]:
        yield from block.replace("\\\n", " ").splitlines()


def commands(line):
    """A line's simple commands, lists of words, without redirections and settings of variables."""
    lexer = shlex.shlex(line.strip(), posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # a line of output that has one quotation mark
        return
    command, skip = [], False
    for word in [*words, ";"]:
        if set(word) <= set("<>"):
            skip = True
        elif set(word) <= set("|&;()"):
            if command:
                yield command
            command, skip = [], False
        elif not skip and (command or not re.match(r"[A-Z_]+=|time$", word)):
            command.append(word)


def ours(page):
    """The arguments of the page's calls of `tasnet-attn` in blocks, without synopses."""
    for line in lines(page):
        if line.lstrip().startswith("tasnet-attn") and SYNOPSIS.search(line.partition(" #")[0]):
            continue
        for words in commands(line):
            name = "tasnet-attn" if words[0] == "tasnet-attn" else "tasnet_attn.cli"
            if name in words:
                yield words[words.index(name) + 1 :]


def mentioned(page):
    """Synopses, and calls within a sentence: they may lack what a command needs."""
    found = re.findall(r"`(tasnet-attn [a-z][^`]+)`", PAGES[page])
    return found + [line for line in lines(page) if re.match(r"\s*tasnet-attn ", line) and SYNOPSIS.search(line)]


def refused(arguments, capsys):
    """What the command's parser says against it; "": nothing."""
    try:
        parsed(split(arguments)[2])
    except (SystemExit, UserError) as error:
        return f"tasnet-attn {' '.join(arguments)}: {error}: {capsys.readouterr().err}"
    return ""


def test_there_are_pages(capsys):
    assert len(PAGES) > 25 and sum(len(list(ours(page))) for page in PAGES) > 30
    assert "--bogus" in refused(["separate", "x.wav", "-m", "y", "--bogus"], capsys)
    assert list(commands("A=1 x 'a b' | tasnet-attn separate - > y && z  # why")) == [
        ["x", "a b"],
        ["tasnet-attn", "separate", "-"],
        ["z"],
    ]


def test_tables_have_a_head():
    """Else a page shows the bars."""
    tables = re.findall(r"(?:^\|.*\n)+", "\n\n".join(FENCED.sub("", text) for text in PAGES.values()), re.MULTILINE)
    heads = [table.splitlines()[:2] for table in tables]
    assert len(heads) > 50 and [head for head in heads if not re.fullmatch(r"[|: -]+", head[-1])] == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_understood(page, capsys):
    """Models, songs and folders are the reader's; commands, options and their values are ours."""
    calls = [arguments for arguments in ours(page) if arguments[0] != "train"]
    assert [said for arguments in calls if (said := refused(arguments, capsys))] == []
    known = parser()._subparsers._group_actions[0].choices
    for line in mentioned(page):
        command = line.split()[1]
        assert command in ABOUT, line
        if command != "train":
            free = ("--data", "--model", "--key") if command in ("check-data", "evaluate") else ("--key",)
            for option in re.findall(r"(?<![\w-])--?[a-z][\w.-]*", line):
                assert option in known[command]._option_string_actions or option.startswith(free), f"{line}: {option}"


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if "train" in PAGES[page] or "run.sh" in PAGES[page]])
def test_trainings_are_understood(page):
    """Every key and value, on the named files; the demo's replace the reader's."""
    from tasnet_attn.training.command import parse
    from tasnet_attn.training.resuming import ways

    demo = ["recipes/demo/base.yml", "recipes/demo/ltl/conf.yml"]
    calls = [words[1:] for words in ours(page) if words[0] == "train"]
    for words in (words for line in lines(page) for words in commands(line)):
        script = next((word for word in words if word.endswith(("run.sh", "recipe.sh"))), None)
        if script and "$" not in script:
            folder = script.rpartition("/")[0]
            files = [f"{folder.rpartition('/')[0]}/base.yml", f"{folder}/conf.yml", f"{folder}/data.yml"]
            rest, given = [], iter(words[words.index(script) + 1 :])
            for word in given:
                if word in RECIPE_OPTIONS:
                    next(given)
                else:
                    rest.append(word)
            calls.append([f"--config={ROOT / file}" for file in files if (ROOT / file).is_file()] + rest)
    for arguments in calls:
        _, _, arguments = split(arguments)
        _, arguments = ways(train_arguments(arguments))
        stand_ins = iter(demo)
        for index, word in enumerate(arguments):
            if arguments[index - 1] == "--config":
                arguments[index] = str(ROOT / (word if (ROOT / word).is_file() else next(stand_ins)))
        assert parse(arguments)["model"]["sources"]


@pytest.mark.parametrize("page", PAGES)
def test_files_and_targets_exist(page):
    targets = re.findall(r"^([\w/]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in lines(page):
        for words in commands(line):
            if words[0] == "make":
                assert {word for word in words[1:] if "=" not in word} <= {*targets}, line
            for word in words:
                name = word.partition("=")[2] or word
                if re.match(r"(recipes|tests|docs|examples)/[\w./-]+$", name) and not name.startswith(
                    "docs/live/build"
                ):
                    assert (ROOT / name).exists() or (ROOT / page).parent.joinpath(name).exists(), line
    for name in re.findall(r"`((?:tasnet_attn|recipes|tests|docs|examples)/[\w./-]+\.\w+)`", PAGES[page]):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in PAGES[page]])
def test_python_blocks_name_what_exists(page):
    for code in fenced(page, "python"):
        names = {}
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.startswith("tasnet_attn"):
                        importlib.import_module(alias.name)
                        names[alias.asname or "tasnet_attn"] = importlib.import_module(
                            alias.name if alias.asname else "tasnet_attn"
                        )
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tasnet_attn"):
                module = importlib.import_module(node.module)
                names |= {alias.asname or alias.name: getattr(module, alias.name) for alias in node.names}
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
                assert hasattr(names[node.value.id], node.attr), f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("page", [page for page in PAGES if "```yaml" in PAGES[page]])
def test_yaml_blocks_are_yaml(page):
    for code in fenced(page, "yaml"):
        assert isinstance(config.parse_yaml(code), dict)


@pytest.mark.slow
def test_the_configuration_in_the_readme_is_complete(tmp_path):
    """Whoever copies it has only `root` to change."""
    from tasnet_attn.training.command import parse

    (tmp_path / "conf.yml").write_text(fenced("README.md", "yaml")[0])
    full = parse([f"--config={tmp_path / 'conf.yml'}"])
    assert full["model"]["separator"]["init_args"]["lstm_before"] == 2


def test_the_site_fetches_no_script():
    """The plugin `offline` would fetch what search needs from file:// unless a script of that name is given."""
    site = config.parse_yaml((ROOT / "mkdocs.yml").read_text())
    scripts = site["extra"]["polyfills"]
    assert any("iframe-worker" in script for script in scripts) and site["theme"]["font"] is False
    assert all((ROOT / "docs" / script).is_file() for script in scripts)


def test_the_site_rewrites_links_and_no_code():
    """A list in a block above a link is not that link's beginning."""
    link = re.search(r'^LINK = re.compile\(r"(.*)"\)', (ROOT / "docs/site.py").read_text(), re.MULTILINE)[1]
    found = [match[1] for text in PAGES.values() for match in re.finditer(link, text)]
    assert len(found) > 50 and [said for said in found if "\n\n" in said or said.count("[") > 2] == []
