"""Names: which of the input files are sound, and the names of the folders and files of their stems."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from tasnet_attn.audio.kinds import kind_of
from tasnet_attn.errors import UserError
from tasnet_attn.files import file_name


class Found(NamedTuple):
    """The contents of the inputs.

    Attributes:
        sounds: {name of the output folder, below `--out`: file}.
        others: files in folders that are not sound.
        failed: what could not be read: a folder without audio, or without permission.
    """

    sounds: dict[str, Path]
    others: list[Path]
    failed: list[UserError]


def find_audio(inputs: Sequence[Path], out: Path | None = None, made: Collection[Path] = ()) -> Found:
    """Files to separate, by the name of their output.

    A file's name is its stem, with its path below a given folder. If stems collide, it is the whole file name; if those
    collide, the folder's name is added, and then ~2. In folders, skips hidden files and folders, `__MACOSX`, `out` and
    `made`; a folder that links lead to is searched once.

    Args:
        inputs: files and folders.
        out: the output folder.
        made: files that earlier runs wrote, for example into `out` when it is also an input.

    Raises:
        UserError: no sound at all, or an input that is given twice.
    """
    named: list[tuple[PurePath, Path]] = []
    others: list[Path] = []
    failed: list[UserError] = []
    ours = {os.path.realpath(path) for path in made}
    for given in inputs:
        if not os.path.isdir(given):  # False too where permission is denied
            named.append((PurePath(given.name), given))  # a missing file is reported later, in order
            continue
        before = len(named) + len(failed)
        for path in _walk(given, out, failed):
            if ours and os.path.realpath(path) in ours:
                continue
            if _is_sound(path):
                named.append((path.relative_to(given), path))
            else:
                others.append(path)
        if len(named) + len(failed) == before:
            failed.append(UserError(f"{given}: no audio files in this folder"))
    if failed and not named:
        raise failed[0]
    absolute = Counter(os.path.abspath(path) for _, path in named)
    if twice := next((path for path, count in absolute.items() if count > 1), None):
        raise UserError(f"{twice}: given twice")
    return Found(_distinct(named), others, failed)


def _distinct(named: list[tuple[PurePath, Path]]) -> dict[str, Path]:
    paths = [path for _, path in named]
    tries = [[make(short, path) for short, path in named] for make in (_stem, _whole, _with_parent)]
    counts = Counter(name.casefold() for name in tries[0])
    # only colliding names get the whole file name
    tries[0] = [stem if counts[stem.casefold()] == 1 else whole for stem, whole in zip(*tries[:2], strict=True)]
    for names in tries:
        if len({name.casefold() for name in names}) == len(names):
            return dict(zip(names, paths, strict=True))
    return dict(zip(distinct(tries[0]), paths, strict=True))  # they differ only in case


def _stem(short: PurePath, path: Path) -> str:
    return _joined([*short.parts[:-1], _without_ending(short.name)])


def _whole(short: PurePath, path: Path) -> str:
    return _joined(short.parts)


def _with_parent(short: PurePath, path: Path) -> str:
    return _joined([path.absolute().parent.name, *short.parts])


def _joined(parts: Iterable[str]) -> str:
    return os.path.join(*(part if _plain(part) else file_name(part) for part in parts))


def _plain(name: str) -> bool:
    """A usable name: not hidden, short enough for a suffix, without control characters."""
    steers = any(ord(letter) < 32 or letter == "\x7f" for letter in name)
    return not name.startswith(".") and len(os.fsencode(name)) <= 240 and not steers


def _without_ending(name: str) -> str:
    stem = name.rpartition(".")[0]
    return stem if stem.strip(".") else name


def _walk(folder: Path, out: Path | None, failed: list[UserError]) -> Iterator[Path]:
    """The files below a folder that are not hidden, ordered by name, linked folders last; collects unreadable ones."""

    def refused(error: OSError) -> None:
        failed.append(UserError(f"{os.fsdecode(error.filename or folder)}: {error.strerror}", status=1))

    skip = None if out is None else os.path.realpath(out)
    seen = {str(above) for above in Path(os.path.realpath(folder)).parents}  # links may lead in circles
    tops = deque([str(folder)])
    while tops:
        for place, folders, names in os.walk(tops.popleft(), onerror=refused):  # passes over links to folders
            real = os.path.realpath(place)
            if real in seen or (real == skip and place != str(folder)):
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
            tops += (link for name in folders if os.path.islink(link := os.path.join(place, name)))
            for name in sorted(names):
                if not name.startswith("._") and not (name.startswith(".") and name.strip(".") and not _odd(name)):
                    yield Path(place, name)


def _odd(name: str) -> bool:
    """A name like `..wav` or `...wav`: it begins with dots but is not a hidden file."""
    return name.startswith("..")


def _is_sound(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size > 0 and kind_of(path) is not None
    except (OSError, ValueError, LookupError, ArithmeticError):
        return True  # its error is reported later, in order


def distinct(names: Sequence[str]) -> list[str]:
    """The names made unique regardless of case: repeated ones get ~2, ~3, ..."""
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        number, new = 1, name
        while new.casefold() in taken:
            number += 1
            new = f"{name}~{number}"
        taken.add(new.casefold())
        found.append(new)
    return found


def stem_files(folder: Path, track: str, sources: Sequence[str], ending: str, pattern: str) -> list[Path]:
    """The files of a track's stems, by a pattern like `{track}/{source}.{ext}`.

    Raises:
        UserError: the pattern leads outside the folder, has another field, or gives two sources one file.
    """
    try:
        stems = distinct([file_name(source) for source in sources])
        names = [pattern.format(track=track, source=stem, ext=ending) for stem in stems]
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"--name {pattern!r}: only {{track}}, {{source}} and {{ext}} are allowed") from error
    for name in names:
        if not PurePath(name).name or os.path.isabs(name) or ".." in PurePath(name).parts or "\0" in name:
            raise UserError(f"--name {pattern!r}: {name!r} lies outside the output folder")
    if len({name.casefold() for name in names}) < len(names):
        raise UserError(f"--name {pattern!r}: two sources would share a file; put {{source}} in it")
    return [folder / name for name in names]
