"""Make a model that ships: half precision, a header with its facts, a card, a checksum, a row of docs/results.md.

The file is verified against the run. README.md has an example.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import rows  # noqa: E402
from add import arguments, rows_of  # noqa: E402
from results import page  # noqa: E402

from tasnet_attn.errors import UserError, reported  # noqa: E402
from tasnet_attn.exporting.command import export, shown  # noqa: E402
from tasnet_attn.files import touching, write_text  # noqa: E402
from tasnet_attn.storage import load  # noqa: E402
from tasnet_attn.storage.hub import card  # noqa: E402
from tasnet_attn.storage.shipped import FOLDER, write_sum  # noqa: E402
from tasnet_attn.storage.tensors import read_facts  # noqa: E402

LARGEST = 16e6  # largest size of a shipped model, bytes


def ship(options: argparse.Namespace) -> Path:
    """Write the model, its card, its checksum and its row.

    Raises:
        UserError: no scores, no credits, too large a file, or outputs that differ from the run's.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", options.name):
        raise UserError(f"{options.name}: a name has small letters, digits and hyphens, like speech-8k")
    found = rows_of(options)
    credits = []
    for file in options.credits:
        with touching(file):
            credits.append(file.read_text(encoding="utf-8").strip())
    about: dict[str, Any] = {
        "tested": [rows.figures(row) for row in found],
        "credits": "\n\n".join(re.sub(r"^#+ ", "### ", text, flags=re.M) for text in credits),
        "cost": options.cost,
        "fails": options.fails,
    }
    file = options.out / f"{options.name}.safetensors"
    print(shown(export(options.run, out=file, half=True, licence=options.licence, about=about)))
    file.with_name(f"{file.name}.parity.json").unlink()
    if file.stat().st_size > LARGEST:
        file.unlink()
        raise UserError(f"{file}: removed: larger than {LARGEST / 1e6:g} MB in half precision")
    write_text(file.with_suffix(".md"), card(load(file), read_facts(file), use=options.name))
    if options.clip:
        with touching(options.clip):
            shutil.copyfile(options.clip, file.with_suffix(".ogg"))
    write_sum(file)
    rows.save(options.name, str(file), found, options.cost, ships=True)
    return file


@reported("ship")
def main(given: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python recipes/models/ship.py", description=__doc__.split("\n")[0])
    arguments(parser)
    parser.add_argument("name", metavar="NAME", help="its name for users, like speech-8k")
    parser.add_argument("--licence", required=True, help="of the weights")
    help = "sources and licences of the data: a corpus's CREDITS.md; may be given several times"
    parser.add_argument("--credits", action="append", type=Path, required=True, metavar="FILE", help=help)
    help = "where it fails, a sentence for the card; may be given several times"
    parser.add_argument("--fails", action="append", required=True, metavar="TEXT", help=help)
    help = "an .ogg of some seconds for the demo; credit it in a file of --credits"
    parser.add_argument("--clip", type=Path, metavar="FILE", help=help)
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help="default: the package's folder")
    options = parser.parse_args(given)
    file = ship(options)
    if options.out == FOLDER:
        write_text(FOLDER.parents[1] / "docs/results.md", page(rows.read()))
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, and its card; tasnet-attn models {options.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
