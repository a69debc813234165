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

LARGEST = 2**28  # largest size of a file's states for one channel: no model needs more


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
        with touching(file):
            data = file.read_bytes()
        try:
            self.session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            about = json.loads(self.session.get_modelmeta().custom_metadata_map["tasnet_attn"])
            self.sources, self.sample_rate, step = about["sources"], about["sample_rate"], about["step"]
            self.stride, self.lead, self.trail = step["stride"], step["lead"], step["trail"]
            self.delay, self.latency, self.floor = step["delay"], step["latency"], step["floor"]
            self.gain = np.broadcast_to(np.float32(step["gain"]), len(self.sources))  # earlier files have a single one
            self.ended, self.states = step["rest"], step["states"]
            sizes = sum(math.prod(each["shape"]) for each in self.states)
        except _refusals() as error:
            raise UserError(f"{file}: not a step written by `export --to onnx-step` ({_first(error)})") from error
        if sizes > LARGEST:
            raise UserError(f"{file}: its states need {sizes} numbers; at most {LARGEST} are allowed")
        self.device, self.dtype = torch.device("cpu"), torch.float32

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
        estimates, *after = self.session.run(None, {"samples": block, **before})
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


def _write(ring: np.ndarray, new: np.ndarray, axis: int, before: int) -> None:
    """Frame f of a stream goes to slot f mod R; `new` begins with frame `before`."""
    slots, along = ring.shape[axis], (slice(None),) * axis
    count = min(slots, new.shape[axis])
    first = (before + new.shape[axis] - count) % slots
    straight = min(count, slots - first)  # then the ring starts again
    kept = new[(*along, slice(new.shape[axis] - count, None))]
    ring[(*along, slice(first, first + straight))] = kept[(*along, slice(straight))]
    ring[(*along, slice(count - straight))] = kept[(*along, slice(straight, None))]


def _refusals() -> tuple[type[Exception], ...]:
    """Exceptions for a file that is not a step; ONNX Runtime's have no common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    theirs = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return *theirs, ValueError, KeyError, TypeError


def _first(error: Any) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
