"""Executors of runs: worker processes on this machine, or a Ray cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tasnet_attn.errors import UserError
from tasnet_attn.inference.cluster import connect, environment

Task = dict[str, Any]


class WorkerDied(Exception):
    """A worker process ended during a run."""


class LocalPool:
    """Worker processes on this machine, one thread serving each; dead ones are replaced. Tasks: `worker.perform`.

    Args:
        jobs: number of workers.
        threads: threads of each.
    """

    def __init__(self, jobs: int, threads: int) -> None:
        self.environment = os.environ | environment(threads)
        self.lock = threading.Lock()
        self.closed = False
        self.workers: dict[int, subprocess.Popen[str]] = {}  # by the threads that serve them
        self.executor = ThreadPoolExecutor(jobs)

    def submit(self, task: Task) -> Future[dict[str, Any]]:
        """The future result; an exception in it means that the worker died."""
        return self.executor.submit(self._perform, task)

    def close(self) -> None:
        """End every worker at once."""
        with self.lock:
            self.closed = True
            for worker in self.workers.values():
                worker.kill()
        self.executor.shutdown(cancel_futures=True)
        for worker in self.workers.values():
            worker.wait()

    def _worker(self) -> subprocess.Popen[str]:
        """This thread's worker."""
        with self.lock:
            worker = self.workers.get(threading.get_ident())
            if self.closed:
                raise WorkerDied("stopped")
            if worker is None or worker.poll() is not None:
                worker = subprocess.Popen(  # -P: no file of the working folder replaces a library
                    [sys.executable, "-P", "-W", "ignore", "-m", "tasnet_attn.ablation.worker"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.environment,
                    start_new_session=True,  # Ctrl-C is handled by the runner
                )  # fmt: skip
                self.workers[threading.get_ident()] = worker
            return worker

    def _perform(self, task: Task) -> dict[str, Any]:
        worker = self._worker()
        assert worker.stdin is not None and worker.stdout is not None
        try:
            worker.stdin.write(json.dumps(task) + "\n")
            worker.stdin.flush()
            answer = worker.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise WorkerDied(_ending(worker.wait()))
        return json.loads(answer)


def _ending(status: int) -> str:
    if status >= 0:
        return f"the worker ended with status {status}"
    name = signal.Signals(-status).name
    hint = ", perhaps for lack of memory" if name == "SIGKILL" else ""
    return f"the worker was ended by {name}{hint}"


class RayPool:
    """Tasks of an existing Ray cluster, whose machines share the folder and have this package.

    Args:
        address: of the cluster, or "auto".
        threads: CPUs that a task takes.
        gpus: GPUs that a task takes; fractions share one.
    """

    def __init__(self, address: str, threads: int, gpus: float) -> None:
        from tasnet_attn.ablation.worker import perform

        ray = connect(address, threads)
        self.ray = ray
        total = ray.cluster_resources()
        if total.get("CPU", 0) < threads or total.get("GPU", 0) < gpus:
            ray.shutdown()
            has = f"{total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs"
            raise UserError(f"--ray {address}: a cell needs {threads} CPUs and {gpus:g} GPUs, the cluster has {has}")
        self.remote = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(perform)

    def submit(self, task: Task) -> Future[dict[str, Any]]:
        """See `LocalPool.submit`."""
        return self.remote.remote(task).future()

    def close(self) -> None:
        """Disconnect from the cluster, which ends our work there."""
        self.ray.shutdown()
