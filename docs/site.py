"""What `mkdocs build` cannot know: the home page is README.md, and the reference is the package's own docstrings."""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tasnet_attn"
# brackets within a link's text come in pairs: a list in a block above does not begin it
LINK = re.compile(r"(!?\[(?:[^][]|\[[^][]*\])*\])\(([^)\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Every room of the package stands below Reference."""
    rooms = [{Path(page).stem: page} for page in _reference() if not page.endswith("index.md")]
    for entry in config.nav or []:
        if "Reference" in entry:
            entry["Reference"] = [entry["Reference"], *rooms]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that have their home elsewhere in the repository."""
    pages = {"index.md": (ROOT / "README.md").read_text(), "changelog.md": (ROOT / "CHANGELOG.md").read_text()}
    pages = {name: LINK.sub(_below_docs, text) for name, text in pages.items()}
    for name, text in {**pages, **_reference()}.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A link out of docs/, to a recipe or a test, becomes the file's name: the site does not carry it."""
    place = posixpath.dirname(page.file.src_uri)

    def outside(match: re.Match[str]) -> str:
        target = match[2].partition("#")[0]
        path = posixpath.normpath(posixpath.join("docs", place, target))
        if ":" in match[2] or not target or path.startswith("docs/"):
            return match[0]
        if not (ROOT / path).exists():
            raise PluginError(f"{page.file.src_uri}: {match[2]} does not exist")
        said = match[1].lstrip("!")[1:-1]
        return said if path in said else f"{said} (`{path}`)"

    return LINK.sub(outside, markdown)


def _below_docs(match: re.Match[str]) -> str:
    """A link of a page at the top, as it reads from docs/."""
    target = match[2]
    if ":" in target or target.startswith("#"):
        return match[0]
    return f"{match[1]}({target.removeprefix('docs/') if target.startswith('docs/') else f'../{target}'})"


def _reference() -> dict[str, str]:
    """A page for each room, its public modules one below the other, and a list of the rooms."""
    rooms: dict[str, list[Path]] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).parts
        if not any(part.startswith("_") and part != "__init__.py" for part in parts) and _public(file):
            rooms.setdefault(parts[0].removesuffix(".py"), []).append(file)
    pages = {
        f"reference/{room}.md": f"# {room}\n\n{_of_room(room)}\n\n" + "\n".join(map(_section, files))
        for room, files in rooms.items()
    }
    rows = "\n".join(f"| [{room}]({room}.md) | {_of_room(room)} |" for room in rooms)
    front = (
        "# Reference\n\nWritten by the docstrings. What `import tasnet_attn` offers: `load`, `save`, `separate`, "
        "`separate_file`, `separate_blocks`, `SourceSeparator`, `StreamingSeparator`, `UserError`; everything else has "
        f"its room.\n\n| room | what it is for |\n|---|---|\n{rows}\n"
    )
    return {"reference/index.md": front, **pages}


def _section(file: Path) -> str:
    """A module: its docstring and what is public in it."""
    options = "    options: {show_root_heading: false, show_root_toc_entry: false}"
    return f"## {_dotted(file)}\n\n::: {_dotted(file)}\n{options}\n"


def _dotted(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _public(file: Path) -> bool:
    """Whether a module defines something that its users may call."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) and not node.name.startswith("_") for node in ast.parse(file.read_text()).body)


def _of_room(room: str) -> str:
    folder = PACKAGE / room
    return _purpose(folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py"))


def _purpose(file: Path) -> str:
    return (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n\n")[0].replace("\n", " ")
