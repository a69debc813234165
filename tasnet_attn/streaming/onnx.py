"""Runs a step written by `export --to onnx-step` with ONNX Runtime."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tasnet_attn.errors import UserError
from tasnet_attn.extras import require
from tasnet_attn.files import touching
from tasnet_attn.model import check_sources

LARGEST = 2**28  # largest size of a file's states for one channel: no model needs more
LONGEST = 2**20  # samples of a stride, and of the other lengths
TYPES = ("float32", "float64", "int64", "int32", "bool")  # of states


class State(NamedTuple):
    """The graph's tensors by name, the number of frames so far, and the number of channels."""

    tensors: dict[str, np.ndarray]
    frames: int
    channels: int


class OnnxSteps:
    """Frames through an ONNX file; see `Steps`, and docs/streaming.md for the file's metadata.

    Args:
        file: the step.
        threads: of ONNX Runtime.

    Raises:
        ModuleNotFoundError: ONNX Runtime is not installed.
        UserError: the file is not a step.
    """

    def __init__(self, file: Path, threads: int = 1) -> None:
        require("onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        self.file = file
        with touching(file):
            data = file.read_bytes()
        try:
            self.session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            self._describe(json.loads(self.session.get_modelmeta().custom_metadata_map["tasnet_attn"]))
            self.device, self.dtype = torch.device("cpu"), torch.float32
            self._try()
        except _refusals() as error:
            raise UserError(f"{file}: not a step written by `export --to onnx-step` ({_first(error)})") from error

    def _describe(self, about: dict[str, Any]) -> None:
        """Take over the file's metadata, which a stranger may have written."""
        step, self.sources = about["step"], list[str](about["sources"])
        check_sources(self.sources)
        self.sample_rate = _number("sample_rate", about["sample_rate"], 1, 10**9)
        self.stride = _number("stride", step["stride"], 1, LONGEST)
        self.lead, self.trail = (_number(name, step[name], 0, LONGEST) for name in ("lead", "trail"))
        self.delay, self.latency = (_number(name, step[name], 0, LONGEST) for name in ("delay", "latency"))
        self.floor = np.float32(step["floor"])
        self.gain = np.broadcast_to(np.float32(step["gain"]), len(self.sources))  # earlier files have a single one
        self.states: list[dict[str, Any]] = [_state(each) for each in step["states"]]
        names = [each["name"] for each in self.states]
        inputs = sorted(each.name for each in self.session.get_inputs())
        if inputs != sorted(["samples", *names]):
            raise ValueError(f"its states {names} are not the inputs of its graph")
        self.ended: list[str] = list(step["rest"])
        if len(self.ended) not in (0, 2) or not {*self.ended, *(["encoder"] if self.lead else [])} <= {*names}:
            raise ValueError("it names states that it does not have")
        sizes = sum(math.prod(each["shape"]) for each in self.states)
        if sizes > LARGEST:
            raise ValueError(f"its states need {sizes} numbers; at most {LARGEST} are allowed")

    def _try(self) -> None:
        """One frame of silence: what the metadata states must fit the graph."""
        estimates, state = self.step(torch.zeros(1, self.lead + self.stride), self.initial_state(1))
        shapes = [list(state.tensors[each["name"]].shape) for each in self.states]
        if list(estimates.shape) != [1, len(self.sources), self.stride] or shapes != [x["shape"] for x in self.states]:
            raise ValueError("its metadata does not fit its graph")
        self.rest(state)

    def initial_state(self, channels: int) -> State:
        """Zeros."""
        tensors = {}
        for each in self.states:
            shape = [size * (channels if axis == each["channels"] else 1) for axis, size in enumerate(each["shape"])]
            tensors[each["name"]] = np.zeros(shape, each["type"])
        return State(tensors, 0, channels)

    def step(self, samples: Tensor, state: State) -> tuple[Tensor, State]:
        """See `Steps`; rings are written in place."""
        before, block = dict(state.tensors), samples.contiguous().numpy()
        if state.frames == 0 and self.lead:  # the first samples complete those before the first step
            held = before["encoder"]
            before["encoder"] = np.concatenate([held[:, self.lead :], block[:, : self.lead]], axis=1)
            block = block[:, self.lead :]
        try:
            estimates, *after = self.session.run(None, {"samples": block, **before})
        except _runtime_errors() as error:
            raise UserError(f"{self.file}: cannot process {block.shape[1]} samples: {_first(error)}") from error
        frames = block.shape[1] // self.stride
        for each, new in zip(self.states, after, strict=True):
            if each.get("ring") is None:
                before[each["name"]] = new
            else:
                _write(before[each["name"]], new, each["ring"], state.frames)
        return torch.from_numpy(estimates), State(before, state.frames + frames, state.channels)

    def rest(self, state: State) -> Tensor:
        """See `Steps`."""
        if not self.ended:
            return torch.zeros(state.channels, len(self.sources), 0)
        waveform, weights = (state.tensors[name] for name in self.ended)
        rest = (waveform / np.maximum(weights, self.floor)).reshape(state.channels, len(self.sources), -1)
        return torch.from_numpy((self.gain[:, None] * rest).astype(np.float32))


def _number(name: str, value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} {value!r} must be a whole number from {least} to {most}")
    return value


def _state(given: dict[str, Any]) -> dict[str, Any]:
    """The description of one state, if it can be one."""
    name, shape, kind = given["name"], given["shape"], given["type"]
    if not isinstance(name, str) or not isinstance(shape, list) or kind not in TYPES:
        raise ValueError(f"a state is {name!r}, {shape!r}, {kind!r}")
    sizes = [_number("a size of a state", size, 1, LARGEST) for size in shape]
    axes = {axis: given.get(axis) for axis in ("channels", "ring")}
    for axis, place in axes.items():
        if place is not None:
            _number(axis, place, 0, len(shape) - 1)
    return {"name": name, "shape": sizes, "type": kind, **axes}


def _write(ring: np.ndarray, new: np.ndarray, axis: int, before: int) -> None:
    """Frame f of a stream goes to slot f mod R; `new` begins with frame `before`."""
    slots, along = ring.shape[axis], (slice(None),) * axis
    count = min(slots, new.shape[axis])
    first = (before + new.shape[axis] - count) % slots
    straight = min(count, slots - first)  # then the ring starts again
    kept = new[(*along, slice(new.shape[axis] - count, None))]
    ring[(*along, slice(first, first + straight))] = kept[(*along, slice(straight))]
    ring[(*along, slice(count - straight))] = kept[(*along, slice(straight, None))]


def _runtime_errors() -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions, which have no common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))


def _refusals() -> tuple[type[Exception], ...]:
    """Exceptions for a file that is not a step."""
    return *_runtime_errors(), UserError, ValueError, LookupError, TypeError, AttributeError, RecursionError


def _first(error: Any) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
