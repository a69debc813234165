"""Where runs are performed: in worker processes here, or on a Ray cluster. Both are executors of tasks."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from tasnet_attn.errors import UserError

Task = dict[str, Any]


class Pool(Protocol):
    """Performs tasks, see `worker.perform`."""

    def submit(self, task: Task) -> Future[dict[str, Any]]:
        """The answer to come; an exception in it means that the worker died."""

    def close(self) -> None:
        """End every worker at once."""


class WorkerDied(Exception):
    """A worker process ended in the middle of a run."""


class LocalPool:
    """Worker processes on this machine; one that dies is replaced.

    Args:
        jobs: how many.
        threads: of each.
    """

    def __init__(self, jobs: int, threads: int) -> None:
        # busy waiting of OpenMP's threads would take time from the other workers
        self.environment = os.environ | {"OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "0"}
        self.closed = False
        self.lock = threading.Lock()
        self.idle: list[subprocess.Popen[str]] = []
        self.busy: list[subprocess.Popen[str]] = []
        self.executor = ThreadPoolExecutor(jobs)
        for _ in range(jobs):  # they import while the tasks are prepared
            self.idle.append(self._start())

    def submit(self, task: Task) -> Future[dict[str, Any]]:
        return self.executor.submit(self._perform, task)

    def close(self) -> None:
        with self.lock:
            self.closed = True
            for worker in self.idle + self.busy:
                worker.kill()
        self.executor.shutdown(cancel_futures=True)
        for worker in self.idle + self.busy:
            worker.wait()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tasnet_attn.ablation.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.environment,
            start_new_session=True,  # Ctrl-C is the runner's to handle
        )  # fmt: skip

    def _perform(self, task: Task) -> dict[str, Any]:
        with self.lock:
            if self.closed:
                raise WorkerDied("stopped")
            self.idle = [worker for worker in self.idle if worker.poll() is None]
            worker = self.idle.pop() if self.idle else self._start()
            self.busy.append(worker)
        assert worker.stdin is not None and worker.stdout is not None
        try:
            worker.stdin.write(json.dumps(task) + "\n")
            worker.stdin.flush()
            answer = worker.stdout.readline()
        except BrokenPipeError:
            answer = ""
        with self.lock:
            self.busy.remove(worker)
            if answer and not self.closed:
                self.idle.append(worker)
        if not answer:
            raise WorkerDied(_ending(worker.wait()))
        return json.loads(answer)


def _ending(status: int) -> str:
    if status >= 0:
        return f"the worker ended with status {status}"
    hint = ", perhaps for want of memory" if -status == signal.SIGKILL else ""
    return f"the worker was ended by {signal.Signals(-status).name}{hint}"


class RayPool:
    """Tasks of an existing Ray cluster, whose machines share the folder and have this package.

    Args:
        address: of the cluster, or "auto".
        threads: CPUs that a task takes.
        gpus: GPUs that a task takes; fractions share one.
    """

    def __init__(self, address: str, threads: int, gpus: float) -> None:
        import ray

        from tasnet_attn.ablation.worker import perform

        environment = {"OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "0"}
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, runtime_env={"env_vars": environment})
        except (ConnectionError, ValueError, RuntimeError) as error:
            hint = "if it asks for a token, set RAY_AUTH_MODE=token"
            raise UserError(f"--ray {address}: no cluster answers ({' '.join(str(error).split())}); {hint}") from error
        self.ray = ray
        total = ray.cluster_resources()
        if total.get("CPU", 0) < threads or total.get("GPU", 0) < gpus:
            ray.shutdown()
            has = f"{total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs"
            raise UserError(f"--ray {address}: a cell needs {threads} CPUs and {gpus:g} GPUs, the cluster has {has}")
        self.remote = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(perform)

    def submit(self, task: Task) -> Future[dict[str, Any]]:
        return self.remote.remote(task).future()

    def close(self) -> None:
        self.ray.shutdown()
