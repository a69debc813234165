"""Several processes with the model: if one dies, only the file that it was processing fails."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from tasnet_attn import terminal
from tasnet_attn.config import IMPORTED, import_modules
from tasnet_attn.errors import UserError
from tasnet_attn.storage import load

_network: Any = None  # in a worker process


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _begin(model: str, modules: list[str], threads: int) -> None:
    global _network
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent ends this one
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=[parent], daemon=True).start()  # no orphans
    terminal.serve(None)
    torch.set_num_threads(threads)
    import_modules(modules)
    _network = load(model)


def _work(attempt: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return attempt(_network, *arguments)


def in_processes(
    attempt: Callable[..., Any], tasks: dict[str, tuple[Any, ...]], model: str, jobs: int
) -> Generator[tuple[str, Any]]:
    """What `attempt(network, *arguments)` returns for each task, `jobs` at a time, in the order of completion.

    Args:
        attempt: a function of a module.
        tasks: {name: arguments}; the first argument is the file, named in errors about its process.
        model: see `load`.
        jobs: processes.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)
    # spawn: a forked process would hang in the parent's OpenMP threads
    spawn, given = multiprocessing.get_context("spawn"), (model, list(IMPORTED), threads)
    todo = iter(tasks.items())
    running: dict[Future[Any], tuple[str, ProcessPoolExecutor]] = {}

    def go_on(pool: ProcessPoolExecutor | None) -> None:
        """Give the next task to a free process, or to a new one."""
        for name, arguments in todo:
            pool = pool or ProcessPoolExecutor(1, spawn, _begin, given)
            running[pool.submit(_work, attempt, arguments)] = name, pool
            return

    try:
        for _ in range(min(jobs, len(tasks))):
            go_on(None)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name, pool = running.pop(future)
                try:
                    result = future.result()
                    go_on(pool)
                except BrokenProcessPool:
                    lack = "its process ended unexpectedly, perhaps for lack of memory; fewer --jobs"
                    result = UserError(f"{tasks[name][0]}: {lack}", status=1)
                    go_on(None)
                yield name, result
    finally:
        for _, pool in running.values():
            pool.shutdown(wait=False, cancel_futures=True)
        ended = multiprocessing.active_children()
        for process in ended:
            process.terminate()
        for process in ended:
            process.join()
