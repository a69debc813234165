"""Records the inputs of stems, so that another song with the same name is not skipped."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasnet_attn.files import digest, touching
from tasnet_attn.inference.options import Options

RECORD = ".separated"  # a line per song: {"input": identity, "files": [...], "track": its name, "request": which stems}
SAMPLES, SAMPLE = 16, 4096  # number of pieces of a file, and their bytes


def identity(path: Path) -> str:
    """The identity of a file in any place: its size, and pieces of its content."""
    with touching(path), path.open("rb") as file:
        size = file.seek(0, 2)
        places = [i * max(0, size - SAMPLE) // (SAMPLES - 1) for i in range(SAMPLES)]
        return digest([str(size), *(file.read(SAMPLE) for place in places if file.seek(place) >= 0)])


def request(model: str, options: Options) -> str | None:
    """What determines a track's stems, without loading the model; None: no such file or folder."""
    place, names = Path(model), ("config.yml", "config.json", "model.safetensors")
    with touching(place):
        described = [place / name for name in names] if place.is_dir() else [place]
        found = [identity(file) for file in described if file.is_file()]
    if not found:
        return None
    asked = [options.sources and list(options.sources), options.remainder, options.format, options.name]
    return digest([*found, json.dumps(asked)])


class Record:
    """The record of an output folder; parallel runs append to it line by line.

    Args:
        out: the folder.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.inputs = out, dict[str, str]()
        self.stems = dict[tuple[str, str], list[str]]()
        file = out / RECORD
        with touching(file):
            text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        for line in text.splitlines():
            try:
                found = json.loads(line)
                self.inputs.update(dict.fromkeys(found["files"], found["input"]))
                self.stems[found["track"], found["request"]] = list(map(str, found["files"]))
            except (ValueError, LookupError, TypeError):  # a run was killed while it wrote
                continue

    def made_of(self, path: Path, files: Sequence[Path]) -> bool:
        """Whether all files exist and none is known to belong to another input."""
        if not all(file.is_file() for file in files):
            return False
        known = {self.inputs[name] for name in self._names(files) if name in self.inputs}
        return not known or known == {identity(path)}

    def all_made(self, sounds: Mapping[str, Path], request: str | None) -> bool:
        """Whether every track has its stems from an equal request; this needs no model."""
        if request is None or not sounds or not all(self.stems.get((track, request)) for track in sounds):
            return False
        return all(
            self.made_of(path, [self.out / name for name in self.stems[track, request]])
            for track, path in sounds.items()
        )

    def forget(self, files: Sequence[Path]) -> None:
        """Forget the recorded inputs of these files, which are about to be replaced."""
        if names := [name for name in self._names(files) if self.inputs.get(name)]:
            self._append(input="", files=names)

    def add(self, input: str, files: Sequence[Path], track: str, request: str | None) -> None:
        """Record the files as made from the input of this identity, for this track and request."""
        self._append(input=input, files=self._names(files), track=track, request=request)

    def _append(self, **line: object) -> None:
        with touching(self.out / RECORD), (self.out / RECORD).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _names(self, files: Sequence[Path]) -> list[str]:
        return [os.path.relpath(file, self.out) for file in files]
