"""`tasnet-attn separate`: files, folders and pipes through one model, on one machine; a bad file stops nothing else."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from tasnet_attn import terminal
from tasnet_attn.audio.names import find_audio
from tasnet_attn.errors import UserError, printable
from tasnet_attn.files import clear, touching, workspace
from tasnet_attn.inference.cluster import connect, on_cluster
from tasnet_attn.inference.files import Options, Separated, separate_to
from tasnet_attn.inference.record import Record
from tasnet_attn.inference.workers import in_processes
from tasnet_attn.storage import load

PIPE = Path("-")


def separate_files(
    inputs: Sequence[Path],
    model: str,
    out: Path,
    options: Options,
    skip_existing: bool = False,
    jobs: int = 1,
    shard: str | None = None,
    ray: str | None = None,
) -> int:
    """Separate every sound of the inputs, and say what became of it.

    Args:
        inputs: files, folders, or "-" for standard input.
        model: what `load` takes.
        out: the folder; "-": one stem to standard output.
        options: how.
        skip_existing: pass over files whose stems are all there, and not known to be another file's.
        jobs: processes.
        shard: "K/N": the K-th of N equal parts of the inputs, for arrays of jobs.
        ray: address of a Ray cluster that does the work instead, a GPU for each file if `options.device` is "cuda".

    Returns:
        The exit status: 0; 1: some of several inputs failed, as listed.

    Raises:
        UserError: a single input that fails, or a mistake that concerns all.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs} must be at least 1")
    if PIPE in inputs or out == PIPE:
        if ray is not None:
            raise UserError("--ray: takes files and folders; a pipe's sound is separated here")
        return _piped(inputs, model, out, options)
    cluster = None if ray is None else connect(ray, 1)
    found = find_audio(inputs, out)
    tracks = _sharded(found.sounds, shard)
    network = load(model)
    planned = {track: options.files(network, out, track) for track in tracks}  # refuses what concerns all
    if len({file for files in planned.values() for file in files}) < sum(map(len, planned.values())):
        raise UserError(f"--name {options.name!r}: several inputs would share a file; put {{track}} in it")
    record = Record(out)
    if skip_existing:
        tracks = {track: path for track, path in tracks.items() if not record.made_of(path, planned[track])}
        if done := len(planned) - len(tracks):
            terminal.result(f"{done} of {len(planned)} files are separated already")
    failed = list(found.failed)
    single = len(found.sounds) == 1 and not failed and shard is None and not inputs[0].is_dir()
    tasks = {track: (path, out, track, options) for track, path in tracks.items()}
    if cluster is not None:
        results = on_cluster(_attempt, tasks, model, cluster, options.device.startswith("cuda"))
    else:
        results = in_processes(_attempt, tasks, model, jobs) if jobs > 1 else _here(tasks, network)
    drawn = terminal.bar(len(tracks), "files", "separate") if len(tracks) > 1 else nullcontext()
    with _cleared(out, elsewhere=jobs > 1 or cluster is not None), closing(results), drawn as bar:
        record.forget([file for track in tracks for file in planned[track]])
        for track, result in results:
            if bar is not None:
                bar.update()
            if isinstance(result, UserError):
                if single:
                    raise result
                failed.append(result)
                continue
            try:
                record.add(result.input, result.files)
            except UserError as lacking:  # the stems are whole
                failed.append(lacking)
            names = ", ".join(file.name for file in result.files)
            line = f"{tracks[track]} -> {out / track}: {names}{f' ({result.said})' if result.said else ''}"
            terminal.result(_line(line))
    for error in failed:
        print(f"tasnet-attn: failed: {_line(error)}", file=sys.stderr)
    if found.others:
        shown = ", ".join(str(path) for path in found.others[:5]) + (", ..." if len(found.others) > 5 else "")
        count = f"{len(found.others)} file{'s were' if len(found.others) > 1 else ' was'}"
        print(f"{count} not audio: {_line(shown)}", file=sys.stderr)
    return int(bool(failed))


def _line(text: object) -> str:
    """Text for a terminal, on one line: a file's name can hold anything."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _sharded(sounds: dict[str, Path], shard: str | None) -> dict[str, Path]:
    if shard is None:
        return sounds
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"--shard {shard!r}: expected K/N with K from 1 to N, like 3/64")
    return {name: sounds[name] for name in sorted(sounds)[int(number) - 1 :: int(count)]}


@contextmanager
def _cleared(out: Path, elsewhere: bool) -> Iterator[None]:
    """What processes that were ended had in work goes."""
    try:
        yield
    finally:
        if elsewhere:
            with touching(out):
                clear(out, age=0)


def _here(tasks: dict[str, tuple[Any, ...]], network: Any) -> Generator[tuple[str, Any]]:
    for track, arguments in tasks.items():
        yield track, _attempt(network, *arguments)


def _attempt(network: Any, path: Path, out: Path, track: str, options: Options) -> Separated | UserError:
    began = time.perf_counter()
    try:
        with touching(path), _progress(path) as progress:
            return separate_to(network, path, out, track, options, progress)
    except UserError as error:
        return error
    finally:
        terminal.detail(f"{path}: {time.perf_counter() - began:.1f} s")


@contextmanager
def _progress(path: Path) -> Iterator[Callable[[float, float], None]]:
    """A bar over one file; processes that work for another one draw none."""
    if multiprocessing.parent_process() is not None:
        yield lambda done, length: None
        return
    with terminal.bar(100, "%", _line(path.name)) as bar:
        yield lambda done, length: bar.update(int(100 * done / length) - bar.n)


# ---- pipes ----------------------------------------------------------------------------------------------------------


def _send(file: Path) -> None:
    """A file to standard output."""
    try:
        with touching(Path("standard output")), file.open("rb") as opened:
            shutil.copyfileobj(opened, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    except UserError:
        with suppress(OSError, ValueError):  # else Python tries the rest again when it ends, and complains
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _piped(inputs: Sequence[Path], model: str, out: Path, options: Options) -> int:
    """Standard input, kept aside until it ends, or one stem to standard output."""
    if len(inputs) != 1:
        raise UserError("-: takes the place of all other inputs")
    network = load(model)
    if out == PIPE and len(options.choice(network).names) != 1:
        raise UserError(f"--out -: takes one stem; choose it with --sources ({', '.join(network.sources)})")
    if inputs[0] != PIPE and not inputs[0].is_file():
        raise UserError(f"{inputs[0]}: --out - takes one file")
    import tempfile

    with tempfile.TemporaryDirectory() as folder, workspace(Path(folder) if out == PIPE else out) as work:
        path, track = inputs[0], inputs[0].stem
        if path == PIPE:
            path, track = work / "stdin", "stdin"
            with path.open("wb") as spool:
                shutil.copyfileobj(sys.stdin.buffer, spool)
        try:
            result = separate_to(network, path, work / "stems" if out == PIPE else out, track, options)
        except UserError as error:
            said = str(error).replace(str(work / "stdin"), "standard input")
            raise UserError(said.replace(str(work / "stems" / track), "standard output"), error.status) from error
        if out == PIPE:
            _send(result.files[0])
        else:
            terminal.result(printable(f"- -> {out}: {', '.join(file.name for file in result.files)}"))
        if result.said:
            print(printable(f"tasnet-attn: {result.said}"), file=sys.stderr)
    return 0
