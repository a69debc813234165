"""Models by name: those that ship with the package, and those in a folder of the user's.

A model is three things: `<name>.safetensors`, whose header describes it, its card `<name>.md`, and a line in
`SHA256SUMS`. There is no other list.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from tasnet_attn.errors import UserError
from tasnet_attn.files import touching

FOLDER = Path(__file__).parent.parent / "shipped"
VARIABLE = "TASNET_ATTN_MODELS"  # one more folder, before the package's
SUMS = "SHA256SUMS"


def folders() -> list[Path]:
    """The folders of named models; the first one with a name counts."""
    own = os.environ.get(VARIABLE)
    return [*([Path(own)] if own else []), FOLDER]


def shipped() -> dict[str, Path]:
    """Every named model's file, by name."""
    files = [file for folder in reversed(folders()) for file in sorted(folder.glob("*.safetensors"))]
    return dict(sorted({file.stem: file for file in files}.items()))


def verified(file: Path) -> Path:
    """A named model's file, after its checksum has been verified.

    Raises:
        UserError: it is damaged, or has no checksum.
    """
    with touching(file):
        sums = file.with_name(SUMS)
        lines = _lines(sums)
        kept = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        found = hashlib.sha256(file.read_bytes()).hexdigest()
    if kept.get(file.name) != found:
        what = "does not match its checksum" if file.name in kept else f"has no checksum in {sums}"
        raise UserError(f"{file}: {what}; install the package again, or make the model again")
    return file


def write_sum(file: Path) -> None:
    """Store a named model's checksum next to it."""
    sums = file.with_name(SUMS)
    with touching(sums):
        lines = [line for line in _lines(sums) if line.partition("  ")[2] != file.name]
        lines.append(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}")
        text = "".join(f"{line}\n" for line in sorted(lines, key=lambda line: line[66:]))
        sums.write_text(text, encoding="utf-8", errors="surrogateescape")


def _lines(sums: Path) -> list[str]:
    """Of a file of checksums; the names of other files in it may be in any encoding."""
    return sums.read_text(encoding="utf-8", errors="surrogateescape").splitlines() if sums.is_file() else []


def score(facts: dict[str, Any]) -> str:
    """The result of a model's first test, on one line; "" if it has not been scored. `facts`: see `read_facts`."""
    tested = facts.get("tested") or [{}]
    found = tested[0].get("SI-SNRi")
    return f"{found['value']:.1f} dB SI-SNRi on {tested[0]['corpus']}" if found else ""
