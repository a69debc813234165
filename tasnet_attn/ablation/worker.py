"""A worker: trains and scores runs one after the other in a long-lived process.

`python -m tasnet_attn.ablation.worker` reads a task, JSON, from every line of its standard input and answers each with
a line. It ends as soon as its input does, even in the middle of a task, so it does not outlive its parent.
"""

from __future__ import annotations

import json
import math
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RESULT = "result.json"
LOG = "log.txt"


def perform(task: dict[str, Any]) -> dict[str, Any]:
    """Train or resume a run, score it, and write `result.json` to its folder.

    Args:
        task: "cwd", "imports" (the user's modules), "folder", "trained" (the run folder), "arguments" (of `train`),
            "key" (of the cell), "name" (in reports), "threads", "evaluate" ({split: arguments of `evaluate`}).

    Returns:
        {"seconds": duration}, and "error", one line, if it failed.
    """
    began = time.perf_counter()
    os.chdir(task["cwd"])
    folder = Path(task["folder"])
    answer: dict[str, Any] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _output_to(folder / LOG):
            try:
                _perform(task, folder)
            except BaseException as error:  # an error in one run must not stop the others
                traceback.print_exc()
                answer["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    except OSError as error:
        answer["error"] = str(error)
    return answer | {"seconds": time.perf_counter() - began}


def _perform(task: dict[str, Any], folder: Path) -> None:
    import torch

    from tasnet_attn.config import import_modules
    from tasnet_attn.evaluation.command import run
    from tasnet_attn.files import write_text
    from tasnet_attn.training.command import FINISHED, train

    torch.set_num_threads(task["threads"])
    import_modules(task["imports"])
    trained = Path(task["trained"])
    _check_folder(trained, task["key"])
    if not (trained / FINISHED).exists():
        train(task["arguments"])
    epochs = read_epochs(trained)
    if not any(math.isfinite(epoch["valid_loss"]) for epoch in epochs):
        raise ValueError("no epoch has a finite validation loss: too few steps, or the training diverged")
    for split, settings in task["evaluate"].items():
        run(str(trained), str(trained), str(folder / split), split=split, **{"name": task["name"], **settings})
    write_text(folder / RESULT, json.dumps({"epochs": epochs, "evaluation": task["evaluate"]}, indent=1))


def _check_folder(folder: Path, key: str) -> None:
    """Reject a run that was started here by hand with other settings."""
    from tasnet_attn.ablation.identity import identity
    from tasnet_attn.config import read_yaml

    if (folder / "config.yml").is_file() and identity(read_yaml(folder)) != key:
        raise ValueError(f"{folder} contains a run with another configuration; remove it to train again")


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """The validations of a run so far: {"epoch" (from 1), "step", "seconds" (NaN: not known), "valid_loss"}.

    Also "valid_si_snr" and "valid_si_snr:SOURCE", except in runs of version 0.1.0.
    """
    from tasnet_attn.training.folder import read_metrics

    epochs: list[dict[str, Any]] = []
    for row in read_metrics(folder / "metrics.csv"):
        if row.get("valid_loss"):
            epoch = {"epoch": int(row["epoch"]) + 1, "step": int(row["step"]) + 1, "seconds": math.nan}
            known = {key: float(value) for key, value in row.items() if key.startswith("valid_") and value}
            epochs.append(epoch | {key.replace("si_snr_", "si_snr:"): value for key, value in known.items()})
        elif row.get("epoch_seconds") and epochs and epochs[-1]["epoch"] == int(row["epoch"]) + 1:
            epochs[-1]["seconds"] = float(row["epoch_seconds"])
    return epochs


@contextmanager
def _output_to(file: Path) -> Iterator[None]:
    """Append the output of this process and its children to a file."""

    def redirect(descriptors: tuple[int, int]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, standard in zip(descriptors, (1, 2), strict=True):
            os.dup2(descriptor, standard)

    before = os.dup(1), os.dup(2)
    with file.open("ab", buffering=0) as log:
        log.write(b"---- ablate starts or resumes\n")
        redirect((log.fileno(), log.fileno()))
        try:
            yield
        finally:
            redirect(before)
            for descriptor in before:
                os.close(descriptor)


def main() -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keep a library's output on import out of the answers
    commands = os.fdopen(os.dup(0))  # not sys.stdin: a process that reads data closes its copy, and would wait for us
    tasks: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def listen() -> None:
        for line in commands:
            tasks.put(json.loads(line))
        os._exit(0)  # even during training: the parent is gone, or wants it to end

    threading.Thread(target=listen, daemon=True).start()
    import tasnet_attn.training.command  # noqa: F401  takes seconds: not only when the first task has come

    while True:
        answers.write(json.dumps(perform(tasks.get())) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
