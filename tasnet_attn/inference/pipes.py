"""`tasnet-attn separate -`: standard input, stored in a file until it ends; one stem to standard output."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from tasnet_attn import terminal
from tasnet_attn.errors import UserError, printable
from tasnet_attn.files import standard, touching, workspace
from tasnet_attn.inference.files import TOO_LITTLE, at_once, in_parts, lacks_memory
from tasnet_attn.inference.options import PIPE, Options, spare
from tasnet_attn.storage import load

PIECE = 1 << 20  # bytes


def _send(file: Path) -> None:
    """A file to standard output."""
    target = standard(sys.stdout, "output")
    try:
        with touching(Path("standard output")), file.open("rb") as opened:
            shutil.copyfileobj(opened, target)
            target.flush()
    finally:
        terminal.lost()


def _received(source: BinaryIO) -> Iterator[bytes]:
    """Standard input, in pieces."""
    with touching(Path("standard input")):
        yield from iter(partial(source.read, PIECE), b"")


def piped(inputs: Sequence[Path], model: str, out: Path, options: Options) -> int:
    """Standard input, stored until it ends, or one stem to standard output."""
    if len(inputs) != 1:
        raise UserError("-: cannot be combined with other inputs")
    network = load(model)
    if out == PIPE and len(options.choice(network).names) != 1:
        raise UserError(f"--out -: takes one stem; choose it with --sources ({', '.join(network.sources)})")
    if inputs[0] != PIPE and not inputs[0].is_file():
        raise UserError(f"{inputs[0]}: --out - takes one file")
    with tempfile.TemporaryDirectory() as folder, workspace(Path(folder) if out == PIPE else out) as work:
        path, track = inputs[0], inputs[0].stem
        if path == PIPE:
            source = standard(sys.stdin, "input")
            with suppress(OSError):  # a stream without a descriptor is no file
                spare([source.fileno()], [] if out == PIPE else options.files(network, out, "stdin"))
            path, track = work / "stdin", "stdin"
            with path.open("wb") as spool:
                spool.writelines(_received(source))
        try:
            result = at_once(in_parts(network, path, work / "stems" if out == PIPE else out, track, options))
        except UserError as error:
            said = str(error).replace(str(work / "stdin"), "standard input")
            raise UserError(said.replace(str(work / "stems" / track), "standard output"), error.status) from error
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            raise UserError(f"{'standard input' if inputs[0] == PIPE else path}: {TOO_LITTLE}", status=1) from error
        if out == PIPE:
            _send(result.files[0])
        else:
            terminal.result(printable(f"- -> {out}: {', '.join(file.name for file in result.files)}"))
        if result.said:
            print(printable(f"tasnet-attn: {result.said}"), file=sys.stderr)
    return 0
