"""Models by name: those that ship with the package, and those in a folder of the user's own.

A model is three things: `<name>.safetensors`, whose header says what it is, its card `<name>.md`, and a line in
`SHA256SUMS`. Nothing else lists them.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from tasnet_attn.errors import UserError
from tasnet_attn.files import touching

FOLDER = Path(__file__).parent.parent / "shipped"
VARIABLE = "TASNET_ATTN_MODELS"  # names one more folder, before the package's
SUMS = "SHA256SUMS"


def folders() -> list[Path]:
    """Where named models lie; the first that has a name counts."""
    own = os.environ.get(VARIABLE)
    return [*([Path(own)] if own else []), FOLDER]


def shipped() -> dict[str, Path]:
    """Every named model's file, by name."""
    files = [file for folder in reversed(folders()) for file in sorted(folder.glob("*.safetensors"))]
    return dict(sorted({file.stem: file for file in files}.items()))


def verified(file: Path) -> Path:
    """A named model's file, after its checksum was compared with the one that it came with.

    Raises:
        UserError: it is damaged, or no checksum is kept.
    """
    with touching(file):
        sums = file.with_name(SUMS)
        lines = sums.read_text(encoding="utf-8").splitlines() if sums.is_file() else []
        kept = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        found = hashlib.sha256(file.read_bytes()).hexdigest()
    if kept.get(file.name) != found:
        what = "is not the model that it was" if file.name in kept else f"has no checksum in {sums}"
        raise UserError(f"{file}: {what}; install the package again, or make the model anew")
    return file


def write_sum(file: Path) -> None:
    """Keep a named model's checksum beside it."""
    sums = file.with_name(SUMS)
    lines = sums.read_text(encoding="utf-8").splitlines() if sums.is_file() else []
    lines = [line for line in lines if line.partition("  ")[2] != file.name]
    lines.append(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}")
    with touching(sums):
        sums.write_text("".join(f"{line}\n" for line in sorted(lines, key=lambda line: line[66:])), encoding="utf-8")


def score(facts: dict[str, Any]) -> str:
    """What a model's file says of its first test, on one line; "" if nobody has scored it."""
    tested = facts.get("tested") or [{}]
    found = tested[0].get("SI-SNRi")
    return f"{found['value']:.1f} dB SI-SNRi on {tested[0]['corpus']}" if found else ""
