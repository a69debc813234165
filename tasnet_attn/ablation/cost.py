"""What a model costs: multiply-accumulates, and the time that it takes on one thread."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tasnet_attn.model import SourceSeparator, segment_samples

SPEED_SECONDS = 2  # of audio that the real-time factor is measured on


def macs_per_second(model: SourceSeparator) -> float:
    """Multiply-accumulates of matrix products and convolutions for one second of one channel.

    Counted on the `meta` device, where attention consists of products (the fused kernels of a CPU are not counted); an
    LSTM takes 4 * hidden * (inputs + hidden) for each frame, layer and direction. Causal attention without a window
    counts as full attention: its mask saves no product here. The transform of an STFT is not counted.

    Args:
        model: on the `meta` device; it is of no use afterwards.
    """
    length = segment_samples(model) or model.sample_rate
    of_lstms: list[int] = []
    for module in model.modules():
        if isinstance(module, nn.LSTM):  # on `meta` its frames would be counted one by one, which takes seconds
            module.forward = partial(_count, module, of_lstms)  # type: ignore[method-assign,assignment]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 1, length, device="meta"))
    return (counter.get_total_flops() / 2 + sum(of_lstms)) / length * model.sample_rate


def _count(lstm: nn.LSTM, counts: list[int], x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    """In place of an LSTM's `forward`, x [N, L, D]: the shape of its output, and how many products it takes."""
    directions = 1 + lstm.bidirectional
    for layer in range(lstm.num_layers):
        inputs = lstm.hidden_size * directions if layer else lstm.input_size
        counts.append(x.shape[0] * x.shape[1] * directions * 4 * lstm.hidden_size * (inputs + lstm.hidden_size))
    return x.new_empty(*x.shape[:-1], lstm.hidden_size * directions), state


def real_time_factor(config: dict[str, Any]) -> list[float]:
    """Seconds that a second of one channel takes on one CPU thread, measured three times.

    Args:
        config: the model's; its weights do not matter.
    """
    model = SourceSeparator.from_config(config).eval()
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
    return [seconds / length * model.sample_rate for seconds in times[1:]]  # the first one warms up
