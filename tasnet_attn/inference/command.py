"""The command: every input is separated, a bad one does not stop the rest."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasnet_attn.audio import find_audio
from tasnet_attn.errors import UserError
from tasnet_attn.inference.segments import separate_file
from tasnet_attn.storage import load


def separate_files(inputs: Sequence[Path], model: str, out: Path, **settings: Any) -> int:
    """Separate files, and those of folders, into `out/<input's stem>/<source>.<format>`; says where each went.

    Args:
        inputs: audio files, or folders of them.
        model: what `load` takes.
        out: the folder to write.
        settings: of `separate_file`.

    Returns:
        The exit status: 1 if some of several inputs failed; these are listed on stderr, at the end.

    Raises:
        UserError: no input, no model, or the only input fails.
    """
    found = find_audio(inputs)
    separator = load(model)
    failed = []
    for name, path in found.items():
        try:
            files = separate_file(separator, path, out / name, **settings)
        except UserError as error:
            if len(found) == 1:
                raise
            failed.append(error)
        else:
            print(f"{path} -> {out / name}: {', '.join(file.name for file in files)}")
    for failure in failed:
        print(f"tasnet-attn: failed: {failure}", file=sys.stderr)
    return 1 if failed else 0
