"""Separating tracks with one model: in this process, in several, or on a cluster."""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from tasnet_attn import terminal
from tasnet_attn.errors import UserError, one_line
from tasnet_attn.files import touching
from tasnet_attn.inference.ahead import worth_it
from tasnet_attn.inference.cluster import on_cluster
from tasnet_attn.inference.files import TOO_LITTLE, Separated, at_once, in_parts, lacks_memory
from tasnet_attn.inference.options import Options
from tasnet_attn.inference.segments import on_device, pick_device
from tasnet_attn.inference.workers import in_processes
from tasnet_attn.model import Separates

Result = Separated | UserError
Parts = Generator[None, None, Result]
Tasks = dict[str, tuple[Any, ...]]  # (file, folder, track, options)


def attempts(
    network: Separates, model: str, out: Path, tracks: Mapping[str, Path], options: Options, jobs: int, cluster: Any
) -> Generator[tuple[str, Result]]:
    """Each track with its result, in the order in which they finish.

    Args:
        network: the model, for tracks that are separated in this process.
        model: for other processes to load.
        out: the folder.
        tracks: files by their names below it.
        options: see `Options`.
        jobs: processes.
        cluster: a Ray cluster to use instead; None: this machine.
    """
    tasks: Tasks = {track: (path, out, track, options) for track, path in tracks.items()}
    if cluster is not None:
        return on_cluster(_attempt, tasks, model, cluster, options.device.startswith("cuda"))
    if jobs > 1:
        return in_processes(_attempt, tasks, model, jobs)
    device = pick_device(options.device)
    return _overlapped(tasks, on_device(network, device)) if worth_it(device) else _in_turn(tasks, network)


def _in_turn(tasks: Tasks, network: Any) -> Generator[tuple[str, Result]]:
    for track, arguments in tasks.items():
        yield track, _attempt(network, *arguments)


def _overlapped(tasks: Tasks, network: Any) -> Generator[tuple[str, Result]]:
    """Three tracks at a time: one is in the model, the next is checked, the previous one is encoded."""
    stopped, todo = Event(), iter(tasks.items())
    started: deque[Parts] = deque(maxlen=3)

    def check() -> None:
        if stopped.is_set():
            raise CancelledError

    def begun() -> tuple[str, Future[Result | None]] | None:
        for track, arguments in todo:
            started.append(_attempted(check, network, *arguments))
            return track, looking.submit(_step, started[-1])
        return None

    try:
        with ThreadPoolExecutor(1) as looking, ThreadPoolExecutor(1) as encoding:
            try:
                coming, ending = begun(), None
                while coming is not None:
                    (track, looked), parts = coming, started[-1]
                    result = looked.result()
                    coming = begun()
                    result = result or _step(parts)
                    if ending is not None:
                        yield ending[0], ending[1].result()
                    ending = track, encoding.submit(_end, parts, result)
                if ending is not None:
                    yield ending[0], ending[1].result()
            finally:
                stopped.set()
    finally:
        for parts in started:
            parts.close()  # removes its unfinished files


def _step(parts: Parts) -> Result | None:
    """Do the next part; returns the track's result after the last."""
    try:
        next(parts)
    except StopIteration as end:
        return end.value
    return None


def _end(parts: Parts, result: Result | None) -> Result:
    return result or at_once(parts)


def _attempt(network: Any, path: Path, out: Path, track: str, options: Options) -> Result:
    return at_once(_attempted(lambda: None, network, path, out, track, options))


def _attempted(check: Callable[[], None], network: Any, path: Path, out: Path, track: str, options: Options) -> Parts:
    """Like `in_parts`, but a mistake is a result."""
    began = time.perf_counter()
    try:
        with touching(path):
            return (yield from in_parts(network, path, out, track, options, _progress(path), check))
    except UserError as error:
        return error
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        return UserError(f"{path}: {TOO_LITTLE}", status=1)  # without its cause, whose frames hold the tensors
    finally:
        terminal.detail(f"{path}: {time.perf_counter() - began:.1f} s")


@contextmanager
def _progress(path: Path) -> Iterator[Callable[[float, float], None]]:
    """A bar over one file; subprocesses draw none."""
    if multiprocessing.parent_process() is not None:
        yield lambda done, length: None
        return
    with terminal.bar(100, "%", one_line(path.name)) as bar:
        yield lambda done, length: bar.update(int(100 * done / length) - bar.n)
