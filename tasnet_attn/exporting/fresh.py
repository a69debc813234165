"""Runs exported files where nothing of them is in memory: `python -P fresh.py JOBS.json`.

Each job names a file, its format, an .npz of mixtures [N, T] and the .npz of estimates [N, S, T] to write. A graph file
is run by its own runtime, without this library's models.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
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
    """Block by block, of 1 to 5 strides, as a stream would come."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["tasnet_attn"])["step"]
    stride, lead = about["stride"], about["lead"]

    def run(mixture: np.ndarray) -> np.ndarray:
        channels, length = mixture.shape
        state = {}
        for each in about["states"]:
            sizes = [size * (channels if i == each["channels"] else 1) for i, size in enumerate(each["shape"])]
            state[each["name"]] = np.zeros(sizes, each["type"])
        frames = max(1, (length + about["trail"]) // stride)
        padded = np.zeros((channels, lead + frames * stride), np.float32)
        padded[:, : min(length, padded.shape[1])] = mixture[:, : padded.shape[1]]
        if lead:  # the first samples complete what lies before the first step
            held = state["encoder"]
            state["encoder"] = np.concatenate([held[:, : held.shape[1] - lead], padded[:, :lead]], axis=1)
        outputs, start, strides = [], lead, 1
        while start < padded.shape[1]:
            block = padded[:, start : start + strides * stride]
            estimates, *after = session.run(None, {"samples": block, **state})
            outputs.append(estimates)
            state = dict(zip(state, after, strict=True))
            start, strides = start + block.shape[1], strides % 5 + 1
        if about["rest"]:
            waveform, weights = (state[name] for name in about["rest"])
            rest = about["gain"] * waveform / np.maximum(weights, about["floor"])
            outputs.append(rest.reshape(channels, -1, waveform.shape[-1]))
        whole = np.concatenate(outputs, axis=-1)[..., about["delay"] :][..., :length]
        return np.pad(whole, [(0, 0), (0, 0), (0, length - whole.shape[-1])])

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
    from tasnet_attn.exporting.formats import FORMATS  # a format of the user's own

    run = FORMATS[to].run
    assert run is not None, f"{to}: the format has no `run`"
    return run


ONNX = {"onnx": _onnx, "onnx-step": _onnx_step, "onnx-step-int8": _onnx_step}
GRAPHS = ("torchscript", "torch-export", *ONNX)  # run without this library


def main(jobs: list[dict[str, Any]], threads: int, imports: list[str]) -> None:
    """Do the jobs, one after the other; the first file that cannot be run ends it with the traceback.

    `imports`: the user's modules; a graph needs none of them.
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
