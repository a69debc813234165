"""Save a trained system's row for docs/results.md; README.md has an example."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import rows  # noqa: E402

from tasnet_attn import config  # noqa: E402
from tasnet_attn.errors import UserError, reported  # noqa: E402


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `add.py` and `ship.py`."""
    parser.add_argument("run", metavar="MODEL", help="a run folder, a checkpoint or a model file")
    help = "a test set's name, and the folder of evaluate that scored it; may be given several times"
    parser.add_argument("--set", action="append", required=True, metavar="NAME=FOLDER", dest="sets", help=help)
    help = "for named sources: one to report; may be given several times (default: the mean of all)"
    parser.add_argument("--source", action="append", dest="of_sources", help=help)
    parser.add_argument("--cost", required=True, help="cost of the training, in words")
    parser.add_argument("--family", help="its name in the paper's claims: TasNet, 1_trans_0, 2_trans_0, ...")
    parser.add_argument("--budget", help="in words; claims compare systems of one budget")


def rows_of(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of `--set`.

    Raises:
        UserError: not NAME=FOLDER, or no scores there.
    """
    found = []
    for given in options.sets:
        name, equals, folder = given.rpartition("=")
        if not equals:
            raise UserError(f"--set {given}: must be NAME=FOLDER")
        found += [rows.row_of(Path(folder), name, source) for source in options.of_sources or [None]]
    return found


@reported("add")
def main(given: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python recipes/models/add.py", description=__doc__.split("\n")[0])
    arguments(parser)
    parser.add_argument("--system", required=True, help="its name in the tables")
    help = "a module whose classes the model names, like tasnet_attn.separators.asteroid; may be given several times"
    parser.add_argument("--import", action="append", default=[], metavar="MODULE", dest="modules", help=help)
    options = parser.parse_args(given)
    about = {key: getattr(options, key) for key in ("family", "budget") if getattr(options, key)}
    config.import_modules(options.modules)
    print(rows.save(options.system, options.run, rows_of(options), options.cost, **about))
    return 0


if __name__ == "__main__":
    sys.exit(main())
