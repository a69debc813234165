"""Train the cells of a sweep and score each on debian2mix's dev and on its dev-speakers: a table with intervals.

    python recipes/voices2mix/trial.py recipes/voices2mix/trial.yml [--out DIR] [--jobs N] [--only CELL ...]

Stop it at any time and run the same command to resume. The table has only trained cells.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

import rows  # noqa: E402
from results import about  # noqa: E402

from tasnet_attn.ablation import ablate, sweep  # noqa: E402
from tasnet_attn.errors import reported  # noqa: E402
from tasnet_attn.evaluation.command import run as evaluate  # noqa: E402
from tasnet_attn.files import write_text  # noqa: E402

SETS = {"known voices": "dev", "strangers": "dev-speakers"}


def scored(run: sweep.Run, data: Path, root: Path) -> dict[str, dict]:
    """The rows of a trained cell on both sets; existing scores are kept."""
    found = {}
    for name, subset in SETS.items():
        out = run.trained / subset
        evaluate(
            str(run.trained),
            str(data),
            str(out),
            overrides=[f"--data.init_args.root={root}", f"--data.init_args.testing={subset}"],
        )
        found[name] = rows.row_of(out, name)
    return found


def table(found: dict[str, dict[str, dict]]) -> str:
    """Cells by their score on unseen speakers, each compared with the first one of the sweep."""
    first = next(iter(found.values()))
    lines = [f"| cell | {' | '.join(f'{name}, SI-SNRi, dB' for name in SETS)} | strangers, minus the first cell, dB |"]
    lines.append("|---" * (len(SETS) + 2) + "|")
    ordered = sorted(found.items(), key=lambda item: -rows.interval(item[1]["strangers"]["SI-SNRi"])["value"])
    for cell, its in ordered:
        cells = [about(rows.interval(its[name]["SI-SNRi"])) for name in SETS]
        difference = rows.paired(its["strangers"], first["strangers"]) if its is not first else None
        lines.append(f"| {cell} | {' | '.join(cells)} | {about(difference) if difference else ''} |")
    sizes = ", ".join(f"{len(first[name]['SI-SNRi'])} mixtures of {name} ({subset})" for name, subset in SETS.items())
    return "\n".join([*lines, "", f"Means over {sizes}, with 95 % intervals (bootstrap over mixtures)."])


@reported("trial")
def main(given: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="trial.py", description=__doc__.split("\n")[0])
    parser.add_argument("sweep", type=Path, help="trial.yml, longer.yml or curves.yml")
    parser.add_argument("--out", type=Path, help="the folder; default: exp/voices2mix_<the sweep's name>")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time")
    parser.add_argument("--only", nargs="+", default=(), metavar="CELL", help="train only these: names or patterns")
    parser.add_argument("--root", type=Path, default=Path("data/debian2mix"), help="the corpus of both sets")
    options = parser.parse_args(given)
    out = options.out or Path("exp") / f"voices2mix_{options.sweep.stem}"
    status = ablate(options.sweep, out, options.jobs, only=options.only)
    runs = [run for run in sweep.read(options.sweep).runs(out) if (run.folder / "result.json").is_file()]
    found = {run.name: scored(run, Path(__file__).parent / "base.yml", options.root) for run in runs}
    if found:
        print(table(found))
        write_text(out / "strangers.md", table(found) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
