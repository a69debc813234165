"""Separating files: all stems of a song or none."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from tasnet_attn.audio.reading import Sound
from tasnet_attn.audio.writing import Stems
from tasnet_attn.errors import UserError
from tasnet_attn.files import workspace
from tasnet_attn.inference.options import Options, spare
from tasnet_attn.inference.record import identity
from tasnet_attn.inference.seams import verify_seams
from tasnet_attn.inference.segments import Stream
from tasnet_attn.model import Separates

Progress = Callable[[int, int], None]
UNSEEN: AbstractContextManager[Progress] = nullcontext(lambda done, length: None)
Done = TypeVar("Done")
TOO_LITTLE = "too little memory; try a smaller --segment, or fewer --jobs"
MEMORY = re.compile("out of memory|allocate memory|enough memory|ALLOC_FAILED")  # in torch's messages, of any device


@dataclass(frozen=True)
class Separated:
    """The result for a file: its stems, messages about them, and the identity of the file."""

    files: list[Path]
    said: str
    input: str


def separate_file(
    model: Separates, path: str | os.PathLike, out: str | os.PathLike, track_name: str | None = None, **settings: Any
) -> list[Path]:
    """Separate a file into `out/<track_name>/<source>.<format>`; the stems are written all together or not at all.

    Args:
        model: see `separate`.
        path: any sound file or video that `tasnet_attn.audio` reads.
        out: the folder, created if necessary.
        track_name: the folder's name below it; None: the file's stem.
        settings: see `Options`; `track` is the number of an audio track, as in `separate_blocks`.

    Returns:
        The files, in the order of the sources.

    Raises:
        UserError: see `separate`; a file that is not sound, damaged or cut; a level that the format cannot represent;
            a stem that would replace the file.
    """
    name = Path(path).stem if track_name is None else track_name
    return at_once(in_parts(model, Path(path), Path(out), name, Options(**settings))).files


def separate_blocks(model: Separates, path: str | os.PathLike, **settings: Any) -> Iterator[Tensor]:
    """The stems of a file in blocks [S, C, t], in total as long as the file; S is the number of chosen sources.

    Args:
        model: see `separate`.
        path: see `separate_file`.
        settings: the `Options` that concern reading and separating.
    """
    options = Options(**settings)
    sound, choice = Sound(Path(path), options.track, options.partial), options.choice(model)
    stream, length = Stream(model, sound.sample_rate, options.segment, options.overlap, options.device), _length(sound)
    estimated = stream.run(lambda: _again(sound, length), length)
    for estimates, mixture in _beside(estimated, stream.beside(_again(sound, length))):
        yield choice.of(estimates, mixture)


def _length(sound: Sound, check: Callable[[], None] = lambda: None) -> int:
    """Number of samples, by a pass without the model that finds the true length and damage before any work."""
    length = 0
    for block in sound.blocks():
        check()
        length += block.shape[-1]
    if length == 0:
        raise UserError(f"{sound.path}: has no samples")
    return length


def _again(sound: Sound, length: int) -> Iterator[Tensor]:
    """The blocks of another pass, which must find as many samples as the first."""
    done = 0
    for block in sound.blocks():
        done += block.shape[-1]
        if done > length:
            break
        yield block
    if done != length:
        found = f"more than {length}" if done > length else f"{done}"
        raise UserError(f"{sound.path}: changed while it was read: {found} samples, {length} before")


def in_parts(
    model: Separates,
    path: Path,
    out: Path,
    track: str,
    options: Options,
    progress: AbstractContextManager[Progress] = UNSEEN,
    check: Callable[[], None] = lambda: None,
) -> Generator[None, None, Separated]:
    """`separate_file` for the command, in three parts that may run in any thread; only the second needs the model.

    The first checks the file, the third encodes the stems.

    Args:
        model: see `separate_file`.
        path: the file.
        out: the folder.
        track: the track's name below it.
        options: see `Options`.
        progress: opened for the second part; called with the samples done and their total.
        check: called before every block of the first and the third part; may raise to stop.
    """
    files = options.files(model, out, track)
    spare([path], files)
    sound = Sound(path, options.track, options.partial)
    stream = Stream(model, sound.sample_rate, options.segment, options.overlap, options.device)
    options.encoding.check(path, sound.channels, sound.sample_rate)
    choice = options.choice(model)
    length, input = _length(sound, check), identity(path)
    yield
    with workspace(out) as work:
        stems = Stems(work, files, sound.sample_rate, sound.channels, options.encoding, check)
        try:
            done = 0
            with progress as tell:
                read = stream.beside(_again(sound, length))
                for estimates, mixture in _beside(stream.run(lambda: _again(sound, length), length), read):
                    chosen = choice.of(estimates, mixture)
                    stems.write(chosen)
                    done += chosen.shape[-1]
                    tell(done, length)
            settings = options.segment, options.overlap, options.device
            seams = verify_seams(model, sound, *settings) if options.verify_seams else ""
            yield
            replaced = sum(file.is_file() for file in files)
            level = stems.finish()
        finally:
            stems.close()
    lacks = "shorter than its header states" if sound.kind.cut else ""
    lacks = f"{sound.missing} samples shorter than its header states" if sound.missing else lacks
    several = f"track {options.track} of {sound.tracks}" if sound.tracks > 1 else ""
    same = "file of the same name was" if replaced == 1 else "files of the same names were"
    before = f"{replaced} {same} replaced" if replaced else ""
    return Separated(
        files, "; ".join(each for each in (several, lacks, level, stream.said, seams, before) if each), input
    )


def lacks_memory(error: BaseException) -> bool:
    """Whether an exception means that there was too little memory, of the machine or the device."""
    return isinstance(error, MemoryError) or isinstance(error, RuntimeError) and bool(MEMORY.search(str(error)))


def at_once(parts: Generator[None, None, Done]) -> Done:
    """All parts one after the other."""
    while True:
        try:
            next(parts)
        except StopIteration as end:
            return end.value


def _beside(estimates: Iterable[Tensor], mixture: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks [S, C, t] of estimates with the samples [C, t] of the mixture."""
    blocks, rest = iter(mixture), torch.empty(0, 0)
    for block in estimates:
        size = block.shape[-1]
        while rest.shape[-1] < size:
            following = next(blocks)
            rest = torch.cat([rest, following], dim=-1) if rest.numel() else following
        yield block, rest[..., :size]
        rest = rest[..., size:]
