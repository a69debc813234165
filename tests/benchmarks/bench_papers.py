"""What the commands of docs/papers.md print: recipes on look-alikes, after 24 steps of a tiny network; small twins.

python tests/benchmarks/bench_papers.py [PATTERN ...] [--twins exp/twins] [--write]

A pattern is part of a command, like `mir1k/` or `table1`; none: all. `--twins` holds a folder for each twin that was
run (`tasnet-attn ablate recipes/ablations/small/NAME.yml --out exp/twins/NAME`). `--write` puts what is printed into
docs/papers.md, the twins' claims into docs/fidelity.md, systems.yml's table and figure into docs/ablations.md.
"""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "recipes")]

from lookalikes import write_everything  # noqa: E402
from test_recipes import RECIPES, options, run_sh  # noqa: E402
from warm_python import warm_python  # noqa: E402

STARTS = ("recipes/", "tasnet-attn ", "python ")
SWEEP = re.compile(r"tasnet-attn ablate recipes/ablations/(\w+)\.yml")
BLOCK = re.compile(r"<details><summary><code>(.*?)</code></summary>\n\n(.*?)\n\n</details>", re.S)
STEPS = "--trainer.max_steps=24"


def commands(page):
    """Those of the page's tables, in their order."""
    rows = [line for line in page.splitlines() if line.startswith("|")]
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row) if word.startswith(STARTS)]


def printed(command, folder, python, twins):
    """What a command prints last, as Markdown; in `folder`, which has the look-alikes."""
    if sweep := SWEEP.fullmatch(command):
        return twin(twins / sweep[1], sweep[1])
    program, *words = shlex.split(command)
    if program.endswith("run.sh"):
        recipe = Path(program).parent.relative_to("recipes").as_posix()
        small = [*options(RECIPES / recipe / "conf.yml"), STEPS, "--stop-stage", "2"]
        finished, _ = run_sh(recipe, folder, "--python", python, *small, *words)
        assert finished.returncode == 0, finished.stderr
        return fenced(finished.stdout.rpartition("== scores\n")[2])
    if "table1.py" in command:
        small = [x for x in options(RECIPES / "librimix/audioslots/conf.yml") if "slots=QueryTransformer" not in x]
        words = [str(ROOT / word) if word.startswith("recipes/") else word for word in words]
        return run([sys.executable, *words, *small, STEPS], folder)
    if program == "tasnet-attn":  # of a run that run.sh left here, with run_sh's tag
        words = [word.replace("_base", "_test") for word in words]
        return fenced(run([sys.executable, "-m", "tasnet_attn.cli", *words], folder))
    lines = run([sys.executable, *words], ROOT).splitlines()
    return fenced("\n".join(lines[-1:] if "pytest" in words else lines))


def run(words, folder):
    return subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def fenced(text):
    return f"```text\n{text.strip()}\n```"


def twin(folder, name):
    """The first table of a twin's table.md; its claims are in fidelity.md."""
    command = f"`tasnet-attn ablate recipes/ablations/small/{name}.yml`"
    if not (folder / "table.md").is_file():
        return f"{command} has not been run to its end."
    return f"{command}:\n\n{tables(folder / 'table.md')[''].strip()}"


def tables(file):
    """{heading: what stands below it} of a table.md or times.md; "" is the first."""
    parts = re.split(r"^## (.*)\n", file.read_text(encoding="utf-8").partition("\n")[2], flags=re.M)
    return dict(zip(["", *parts[1::2]], parts[::2], strict=True))


def claims(twins):
    """A row for each claim of each twin that was run to its end; which were not."""
    names = sorted(path.stem for path in (RECIPES / "ablations" / "small").glob("*.yml") if path.stem != "base")
    done = [name for name in names if (twins / name / "table.md").is_file()]
    lines = ["| sweep | claim | holds if | compared | found: mean [95 % interval] | |", "|---|---|---|---|---|---|"]
    for name in done:
        for file in (twins / name / "table.md", twins / name / "times.md"):
            below = tables(file).get("Claims", "")
            for row in [line for line in below.splitlines() if line.startswith("| ")][2:]:
                claim, holds, quantity, found, verdict = row.strip("| ").split(" | ")
                cells = (f"`{name}`", claim, holds, quantity, found.replace("; ", "<br>"), verdict)
                lines.append(f"| {' | '.join(cells)} |")
    if left := [f"`{name}`" for name in names if name not in done]:
        lines += ["", f"Not run to their end: {', '.join(left)}."]
    return "\n".join(lines)


def replaced(file, marker, text):
    """Put text between a page's `<!-- marker -->` and the `<!-- end -->` after it."""
    page = file.read_text(encoding="utf-8")
    before, opening, rest = page.partition(f"<!-- {marker} -->\n")
    assert opening, f"{file}: no marker {marker}"
    file.write_text(f"{before}{opening}{text}\n<!-- end -->{rest.partition('<!-- end -->')[2]}", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*")
    parser.add_argument("--twins", type=Path, default=ROOT / "exp" / "twins")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder, warm_python(Path(folder)) as python:
        write_everything(Path(folder))
        for command in commands((DOCS / "papers.md").read_text(encoding="utf-8")):
            if not given.patterns or any(pattern in command for pattern in given.patterns):
                found[command] = printed(command, Path(folder), python, given.twins)
                print(f"== {command}\n{found[command]}", flush=True)
    if given.write:
        write(found, given.twins)


def write(found, twins):
    """Into the pages; what was not run now stays."""
    page = (DOCS / "papers.md").read_text(encoding="utf-8")
    blocks = {**dict(BLOCK.findall(page)), **found}
    replaced(DOCS / "papers.md", "printed", "\n\n".join(
        f"<details><summary><code>{command}</code></summary>\n\n{blocks[command]}\n\n</details>"
        for command in commands(page)
        if command in blocks
    ))  # fmt: skip
    if twins.is_dir():
        replaced(DOCS / "fidelity.md", "claims", claims(twins))
    if (twins / "systems" / "table.md").is_file():
        replaced(DOCS / "ablations.md", "systems", tables(twins / "systems" / "table.md")[""].strip())
        shutil.copyfile(twins / "systems" / "curves.png", DOCS / "ablations-systems.png")


if __name__ == "__main__":
    main()
