"""`tasnet-attn separate -`: standard input, stored in a file until it ends; one stem to standard output."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tasnet_attn import terminal
from tasnet_attn.errors import UserError, printable
from tasnet_attn.files import touching, workspace
from tasnet_attn.inference.files import TOO_LITTLE, at_once, in_parts, lacks_memory
from tasnet_attn.inference.options import PIPE, Options, spare
from tasnet_attn.storage import load


def _send(file: Path) -> None:
    """A file to standard output."""
    try:
        with touching(Path("standard output")), file.open("rb") as opened:
            shutil.copyfileobj(opened, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    except UserError:
        with suppress(OSError, ValueError):  # otherwise Python tries the rest again at its end and reports an error
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


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
            with suppress(OSError):  # a stream without a descriptor is no file
                spare([sys.stdin.fileno()], [] if out == PIPE else options.files(network, out, "stdin"))
            path, track = work / "stdin", "stdin"
            with path.open("wb") as spool:
                shutil.copyfileobj(sys.stdin.buffer, spool)
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
