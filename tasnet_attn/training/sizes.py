"""Checks a model's size before memory is allocated."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from tasnet_attn.errors import UserError
from tasnet_attn.model import SourceSeparator
from tasnet_attn.storage.filling import NoDraws

MOST = 10_000  # parameter tensors


SHARED = ("n_filters", "kernel_size", "stride", "n_fft", "hop")  # of our encoders and decoders


def check_ends(config: dict[str, Any]) -> None:
    """Reject a decoder that does not fit its encoder.

    Raises:
        UserError: names the setting that differs.
    """
    ends = [config[end]["init_args"] for end in ("encoder", "decoder")]
    if any("." in config[end]["class_path"] for end in ("encoder", "decoder")):
        return  # a user's class, whose settings may mean something else
    encoder, decoder = ({**end, "stride": end.get("stride") or end.get("kernel_size")} for end in ends)
    for key in SHARED:
        if key in encoder and key in decoder and encoder[key] != decoder[key]:
            raise UserError(
                f"model.decoder.{key}: {decoder[key]} is not the encoder's {encoder[key]}; use the same value for both"
            )


def check_size(config: dict[str, Any]) -> None:
    """Reject a model whose weights and gradients are larger than this machine's memory.

    It is built without memory, on the meta device; a user's module that cannot be built there is not checked.

    Raises:
        UserError: with its size.
    """
    count = 0

    def more(module: Any, name: str, parameter: Any) -> None:
        nonlocal count
        count += 1
        if count > MOST:
            raise UserError(f"model: has more than {MOST:,} parameter tensors; use fewer layers")

    hook = register_module_parameter_registration_hook(more)
    try:
        with torch.device("meta"), NoDraws():
            model = SourceSeparator.from_config(config)
    except (RuntimeError, MemoryError, OverflowError) as error:
        if "overflow" not in str(error).lower():
            return
        raise UserError("model: is larger than any machine's memory; use smaller sizes") from error
    finally:
        hook.remove()
    tensors = [*model.parameters(), *model.parameters(), *model.buffers()]
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else needed
    if needed > memory:
        number = sum(parameter.numel() for parameter in model.parameters())
        raise UserError(
            f"model: {number:,} parameters need {needed / 2**30:,.0f} GiB for weights and gradients; this machine's "
            f"memory is {memory / 2**30:,.0f} GiB; use smaller sizes"
        )
