"""The cost of a model: multiply-accumulates, and its time on one thread."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from tasnet_attn import config
from tasnet_attn.data import SegmentedData
from tasnet_attn.errors import UserError
from tasnet_attn.losses import SISNR, Loss
from tasnet_attn.model import SourceSeparator, segment_samples

SPEED_SECONDS = 2  # of audio for measuring the real-time factor
PIECE = 0.25  # seconds of audio for timing a training step
LARGEST = 100_000_000  # largest number of parameters of a model to time


def build_on_meta(model: dict[str, Any]) -> SourceSeparator:
    """A model without weights, from its configuration; built with weights first if its constructor needs values.

    Raises:
        UserError: as `SourceSeparator.from_config`.
    """
    try:
        with torch.device("meta"):
            return SourceSeparator.from_config(model)
    except RuntimeError:
        return SourceSeparator.from_config(model).to("meta")


def macs_per_second(model: SourceSeparator, seconds: float = 1.0) -> float:
    """Multiply-accumulates of matrix products and convolutions for one second of one channel.

    Counted on the `meta` device, where attention consists of products (a CPU's fused kernels are not counted). Causal
    attention without a window counts as full attention, because its mask saves no product here. The transform of an
    STFT is not counted.

    Args:
        model: on the `meta` device; do not use it afterwards.
        seconds: length to separate in one piece; a model of fixed length uses its own.

    Raises:
        RuntimeError, TypeError, ValueError: a user's own module that needs the values of tensors.
    """
    length = segment_samples(model) or round(seconds * model.sample_rate)
    model.requires_grad_(False)  # the counter's hooks fail for weights that require a gradient under `no_grad`
    with FlopCounterMode(display=False) as products, _Recurrent() as recurrent:
        model(torch.zeros(1, 1, length, device="meta"))
    return (products.get_total_flops() / 2 + recurrent.macs) / length * model.sample_rate


class _Recurrent(TorchFunctionMode):
    """Counts recurrent layers by a formula, every weight once a frame; running them on `meta` would be slow."""

    macs = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.__name__ not in ("lstm", "gru", "rnn_tanh", "rnn_relu") or not isinstance(args[3], bool):  # or packed
            return func(*args, **(kwargs or {}))
        x, state, weights, both = *args[:3], args[7]
        self.macs += x[..., 0].numel() * sum(weight.numel() for weight in weights if weight.dim() == 2)
        states = state if func.__name__ == "lstm" else [state]
        return x.new_empty(*x.shape[:-1], states[0].shape[-1] * (1 + both)), *states


def real_time_factor(settings: dict[str, Any]) -> list[float]:
    """Seconds for one second of one channel on one CPU thread, measured three times.

    Args:
        settings: the model's; its weights do not matter.
    """
    model = SourceSeparator.from_config(settings).eval()
    length = segment_samples(model) or SPEED_SECONDS * model.sample_rate
    noise = torch.randn(1, 1, length, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = []
        with torch.inference_mode():
            for _ in range(4):
                began = time.perf_counter()
                model(noise)
                times.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return [seconds / length * model.sample_rate for seconds in times[1:]]  # the first call warms up


def step_seconds(full: dict[str, Any]) -> float:
    """Estimated seconds of a training step on one thread; NaN for a model too large to try.

    Time for forward and backward of a short piece of one channel, scaled by the multiply-accumulates of a whole batch.
    The optimiser, reading the data and validation come on top.

    Args:
        full: a run's configuration.
    """
    data = full["data"]["init_args"]
    model = SourceSeparator.from_config(full["model"])
    if sum(parameter.numel() for parameter in model.parameters()) > LARGEST:
        return math.nan
    loss = config.build(full["task"]["loss"], Loss | None, "task.loss") or SISNR()
    piece = model.segment or min(PIECE, data["segment"])
    noise = torch.randn(1, len(model.sources), 1, round(piece * model.sample_rate))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = []
        for _ in range(3):
            began = time.process_time()  # robust against other load
            loss(model.analyse(noise.sum(1)), noise, model).backward()
            times.append(time.process_time() - began)
    finally:
        torch.set_num_threads(threads)
    try:
        each = [macs_per_second(build_on_meta(full["model"]), part) * part for part in (data["segment"], piece)]
    except (RuntimeError, TypeError, ValueError):  # they cannot be counted
        each = [data["segment"], piece]
    return min(times) * data["batch_size"] * each[0] / each[1]


def steps_of_an_epoch(full: dict[str, Any]) -> int | None:
    """Number of steps; None: only the data can tell, which are missing here."""
    given = {"sources": full["model"]["sources"], "sample_rate": full["model"]["sample_rate"], "seed": 0}
    data = config.build(full["data"], SegmentedData, "data", **given)
    size = data.segments_per_epoch
    if size == "data":
        try:
            size = data.epoch_size(data.tracks("train"), round(data.segment * data.sample_rate))
        except UserError:
            return None
    return -(-size // data.batch_size)
