"""`tasnet-attn separate`: separates files, folders and pipes with one model; a bad file does not stop the others."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

from tasnet_attn import terminal
from tasnet_attn.audio.names import Found, find_audio
from tasnet_attn.errors import UserError, one_line
from tasnet_attn.files import clear, touching
from tasnet_attn.inference.options import PIPE, Options, spare
from tasnet_attn.inference.record import Record, request


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
    """Separate every sound of the inputs and report the results.

    Args:
        inputs: files, folders, or "-" for standard input.
        model: see `load`.
        out: the folder; "-": one stem to standard output.
        options: see `Options`.
        skip_existing: skip files whose stems all exist, unless they are known to belong to another file.
        jobs: processes.
        shard: "K/N": the K-th of N equal parts of the inputs, for job arrays.
        ray: address of a Ray cluster to use instead, with a GPU per file if `options.device` is "cuda".

    Returns:
        The exit status: 0; 1: some of several inputs failed, as listed.

    Raises:
        UserError: a single input that fails, or a mistake that concerns all.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs} must be at least 1")
    if PIPE in inputs or out == PIPE:
        many = {"--ray": ray is not None, "--shard": shard is not None, "--jobs": jobs > 1}
        many["--skip-existing"] = skip_existing
        if option := next((name for name, given in many.items() if given), None):
            raise UserError(f"{option}: takes only files and folders, not a pipe")
        from tasnet_attn.inference.pipes import piped

        return piped(inputs, model, out, options)
    cluster = None
    if ray is not None:
        from tasnet_attn.inference.cluster import connect

        cluster = connect(ray, 1)
    record, asked = Record(out), request(model, options)
    found = find_audio(inputs, out, [out / str(name) for name in record.inputs])
    tracks = _sharded(found.sounds, shard)
    failed: list[UserError] = []
    if skip_existing and record.all_made(tracks, asked):
        _say(f"{len(tracks)} of {len(tracks)} files are already separated", failed)
        return _told(failed, found)
    from tasnet_attn.inference.running import attempts
    from tasnet_attn.storage import load

    network = load(model)
    planned = {track: options.files(network, out, track) for track in tracks}  # rejects mistakes that concern all
    if len({file for files in planned.values() for file in files}) < sum(map(len, planned.values())):
        raise UserError(f"--name {options.name!r}: several inputs would share a file; put {{track}} in it")
    if skip_existing:
        tracks = {track: path for track, path in tracks.items() if not record.made_of(path, planned[track])}
        if done := len(planned) - len(tracks):
            _say(f"{done} of {len(planned)} files are already separated", failed)
    spare(found.sounds.values(), [file for track in tracks for file in planned[track]])
    single = len(found.sounds) == 1 and not found.failed and shard is None and not os.path.isdir(inputs[0])
    results = attempts(network, model, out, tracks, options, jobs, cluster)
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
                record.add(result.input, result.files, track, asked)
            except UserError as lacking:  # the stems are complete
                failed.append(lacking)
            names = ", ".join(file.name for file in result.files)
            line = f"{tracks[track]} -> {out / track}: {names}{f' ({result.said})' if result.said else ''}"
            _say(one_line(line), failed)
    return _told(failed, found)


def _say(line: str, failed: list[UserError]) -> None:
    """Print a result. If nobody reads it any more, that has failed, once; the files are still written."""
    try:
        terminal.result(line)
    except OSError:
        unheard = terminal.lost()
        if unheard is None:
            raise
        failed.append(unheard)


def _told(failed: list[UserError], found: Found) -> int:
    """Report at the end what failed and which files are not sound; returns the exit status."""
    failed = [*found.failed, *failed]
    for error in failed:
        print(f"tasnet-attn: failed: {one_line(error)}", file=sys.stderr)
    if found.others:
        shown = ", ".join(str(path) for path in found.others[:5]) + (", ..." if len(found.others) > 5 else "")
        count = f"{len(found.others)} file{'s were' if len(found.others) > 1 else ' was'}"
        print(f"{count} not audio: {one_line(shown)}", file=sys.stderr)
    return int(bool(failed))


def _sharded(sounds: dict[str, Path], shard: str | None) -> dict[str, Path]:
    if shard is None:
        return sounds
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"--shard {shard!r}: expected K/N with K from 1 to N, like 3/64")
    return {name: sounds[name] for name in sorted(sounds)[int(number) - 1 :: int(count)]}


@contextmanager
def _cleared(out: Path, elsewhere: bool) -> Iterator[None]:
    """Remove unfinished files of processes that were ended."""
    try:
        yield
    finally:
        if elsewhere:
            with touching(out):
                clear(out, age=0)
