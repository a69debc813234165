"""A Ray cluster instead of processes: its machines share the folders and have this package and the models."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Generator
from functools import lru_cache
from typing import Any

import torch

from tasnet_attn import terminal
from tasnet_attn.config import IMPORTED, import_modules
from tasnet_attn.errors import UserError, first_line
from tasnet_attn.storage import load

PATIENCE = 5.0  # seconds to wait for a cluster's answer
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)  # RFC 9113, 3.4: preface, empty settings
SETTINGS = 4  # the type of a server's first frame


def connect(address: str, threads: int) -> Any:
    """Ray, connected to a cluster.

    Args:
        address: HOST:PORT, ray://HOST:PORT, or "auto".
        threads: OpenMP threads in its processes.

    Raises:
        UserError: no cluster answers within seconds (Ray itself waits for a minute).
        ModuleNotFoundError: Ray is not installed.
    """
    where = os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address
    if where != "auto":
        _probe(address, where)
    import ray

    try:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        ray.init(address, runtime_env={"env_vars": environment(threads)}, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_answer(address, " ".join(str(error).split())) from error
    return ray


def environment(threads: int) -> dict[str, str]:
    """Settings of a worker: busy waiting of OpenMP's threads would slow down the others."""
    return {"OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "0"}


def _no_answer(address: str, reason: str) -> UserError:
    return UserError(f"--ray {address}: no cluster answers ({reason}); if it needs a token, set RAY_AUTH_MODE=token")


def _probe(address: str, where: str) -> None:
    """Send a greeting in the cluster's protocol, gRPC, and wait for an answer."""
    host, _, port = where.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"--ray {address}: expected HOST:PORT, ray://HOST:PORT or auto")
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(_answer(host.strip("[]"), int(port))), daemon=True)
    waiting.start()
    waiting.join(PATIENCE + 2)  # a name server may be slow
    if not answers or isinstance(answers[0], OSError):
        reason = answers[0].strerror or first_line(answers[0]) if answers else "no answer in time"
        raise _no_answer(address, reason)
    if not answers[0]:
        raise _no_answer(address, "the server there is not Ray")


def _answer(host: str, port: int) -> bool | OSError:
    """Whether a gRPC server answers."""
    try:
        with socket.create_connection((host, port), PATIENCE) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "1":
                return True
            connection.sendall(HELLO)
            frame = connection.recv(9, socket.MSG_WAITALL)
            return len(frame) == 9 and frame[3] == SETTINGS
    except OSError as error:
        return error


def on_cluster(
    attempt: Callable[..., Any], tasks: dict[str, tuple[Any, ...]], model: str, ray: Any, gpu: bool
) -> Generator[tuple[str, Any]]:
    """Like `workers.in_processes`, with as many tasks at a time as the cluster has CPUs or GPUs, and as many waiting.

    Args:
        attempt: a function of a module.
        tasks: {name: arguments}; the first argument is the file, named in errors about its process.
        model: see `load`; the cluster's machines load it too.
        ray: returned by `connect`; disconnects after the last task.
        gpu: each task takes one.
    """
    try:
        remote = ray.remote(num_cpus=1, num_gpus=int(gpu), max_retries=0)(_work)
        given = (attempt, model, tuple(IMPORTED), os.getcwd())
        todo, running = iter(tasks.items()), dict[Any, str]()
        while True:
            room = 2 * int(ray.cluster_resources().get("GPU" if gpu else "CPU", 0))
            if not room:
                raise UserError(f"--ray: the cluster has no {'GPU' if gpu else 'CPU'}")
            for name, arguments in todo:
                running[remote.remote(*given, arguments)] = name
                if len(running) >= room:
                    break
            if not running:
                return
            for reference in ray.wait([*running], timeout=60)[0]:
                name = running.pop(reference)
                try:
                    result = ray.get(reference)
                except ray.exceptions.RayError as error:
                    if isinstance(error, ray.exceptions.RayTaskError):
                        raise error.as_instanceof_cause() from error  # our bug, with its traceback
                    lack = f"its process on the cluster ended unexpectedly: {first_line(error)}"
                    result = UserError(f"{tasks[name][0]}: {lack}", status=1)
                yield name, result
    finally:
        ray.shutdown()


@lru_cache(maxsize=1)
def _held(model: str, modules: tuple[str, ...]) -> Any:
    """The model of this process of the cluster."""
    terminal.serve(None)
    torch.set_num_threads(1)
    import_modules(list(modules))
    return load(model)


def _work(
    attempt: Callable[..., Any], model: str, modules: tuple[str, ...], folder: str, arguments: tuple[Any, ...]
) -> Any:
    try:
        os.chdir(folder)
    except OSError as error:
        lack = f"the cluster's machines must share it: {folder}: {error.strerror}"
        return UserError(f"{arguments[0]}: {lack}", status=1)
    try:
        network = _held(model, modules)
    except UserError as error:
        return error
    return attempt(network, *arguments)
