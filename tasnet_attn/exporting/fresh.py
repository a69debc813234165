"""Runs exported files in a new process: `python -P fresh.py JOBS.json`.

Each job names a file, its format, an .npz of mixtures [N, T] and the .npz of estimates [N, S, T] to write. A graph file
runs in its own runtime, without this library's models.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]


def _torch(call: Callable) -> Run:
    import torch

    def run(mixture: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return call(torch.from_numpy(mixture)).numpy()

    return run


def _onnx(file: str, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda mixture: session.run(None, {"mixture": mixture})[0]


def _onnx_step(file: str, threads: int) -> Run:
    """Like `stream`, in blocks of 1 to 5 strides plus some samples."""
    import torch

    from tasnet_attn.streaming import OnnxSteps, StreamingSeparator

    steps = OnnxSteps(Path(file), threads)

    def run(mixture: np.ndarray) -> np.ndarray:
        stream = StreamingSeparator(steps, len(mixture))
        waiting, outputs, strides = torch.from_numpy(mixture), [], 1
        while waiting.shape[-1]:
            size = strides * steps.stride + 1
            outputs.append(stream.feed(waiting[:, :size]))
            waiting, strides = waiting[:, size:], strides % 5 + 1
        outputs.append(stream.flush())
        return torch.cat(outputs, dim=-1).transpose(0, 1).numpy()

    return run


def _torchscript(file: str) -> Run:
    import warnings

    import torch

    warnings.filterwarnings("ignore", ".*torch.jit.*", DeprecationWarning)
    return _torch(torch.jit.load(file, map_location="cpu"))


def _torch_export(file: str) -> Run:
    import torch

    return _torch(torch.export.load(file).module())


def _asteroid(file: str) -> Run:
    from tasnet_attn.compat import asteroid
    from tasnet_attn.storage.asteroid import register

    register()
    return _torch(asteroid.models.BaseModel.from_pretrained(file).eval())


def _safetensors(file: str) -> Run:
    import tasnet_attn

    model = tasnet_attn.load(file)
    return _torch(lambda mixture: model(mixture.unsqueeze(1)).squeeze(2))


RUNNERS: dict[str, Callable[[str], Run]] = {
    "safetensors": _safetensors,
    "safetensors-half": _safetensors,
    "asteroid": _asteroid,
    "torchscript": _torchscript,
    "torch-export": _torch_export,
}


def _runner(to: str) -> Callable[[str], Run]:
    if to in RUNNERS:
        return RUNNERS[to]
    from tasnet_attn.exporting.formats import FORMATS  # a user's format

    run = FORMATS[to].run
    assert run is not None, f"{to}: the format has no `run`"
    return run


ONNX = {"onnx": _onnx, "onnx-step": _onnx_step, "onnx-step-int8": _onnx_step}
GRAPHS = ("torchscript", "torch-export", *ONNX)  # run without this library


def main(jobs: list[dict[str, Any]], threads: int, imports: list[str]) -> None:
    """Do the jobs one after the other; the first file that cannot be run ends it with the traceback.

    `imports`: the user's modules; graph files do not need them.
    """
    if any(job["format"] not in ONNX for job in jobs):
        import torch

        torch.set_num_threads(threads)
    if any(job["format"] not in GRAPHS for job in jobs):
        from tasnet_attn.config import import_modules

        import_modules(imports)
    for job in jobs:
        to, file = job["format"], job["file"]
        run = ONNX[to](file, threads) if to in ONNX else _runner(to)(file)
        with np.load(job["inputs"]) as mixtures:
            np.savez(job["outputs"], **{name: run(mixtures[name]) for name in mixtures.files})  # type: ignore[arg-type]


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as opened:
        todo = json.load(opened)
    main(todo["jobs"], todo["threads"], todo["imports"])
