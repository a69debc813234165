"""Tracks through one model: here, in processes, or on a cluster."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasnet_attn import terminal
from tasnet_attn.errors import UserError, one_line
from tasnet_attn.files import touching
from tasnet_attn.inference.cluster import on_cluster
from tasnet_attn.inference.files import Separated, separate_to
from tasnet_attn.inference.options import Options
from tasnet_attn.inference.workers import in_processes
from tasnet_attn.model import Separates


def attempts(
    network: Separates, model: str, out: Path, tracks: Mapping[str, Path], options: Options, jobs: int, cluster: Any
) -> Generator[tuple[str, Separated | UserError]]:
    """Each track with what became of it, in the order in which they end.

    Args:
        network: the model, for tracks that are separated in this process.
        model: what other processes load.
        out: the folder.
        tracks: files by their names below it.
        options: how.
        jobs: processes.
        cluster: a Ray cluster that does it instead; None: this machine.
    """
    tasks = {track: (path, out, track, options) for track, path in tracks.items()}
    if cluster is not None:
        return on_cluster(_attempt, tasks, model, cluster, options.device.startswith("cuda"))
    return in_processes(_attempt, tasks, model, jobs) if jobs > 1 else _here(tasks, network)


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
    with terminal.bar(100, "%", one_line(path.name)) as bar:
        yield lambda done, length: bar.update(int(100 * done / length) - bar.n)
