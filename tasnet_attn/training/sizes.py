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


# settings of our encoders that our decoders or heads have too, and must be equal
SHARED = {
    "decoder": ("n_filters", "kernel_size", "stride", "n_fft", "hop", "window", "drop"),
    "head": ("power",),
}


def check_ends(config: dict[str, Any]) -> None:
    """Reject a decoder or a head that does not fit its encoder, and an encoder for another rate.

    Raises:
        UserError: names the setting that differs.
    """
    parts = {part: config[part] for part in ("encoder", *SHARED) if config.get(part)}
    if any("." in part["class_path"] for part in parts.values()):
        return  # a user's class, whose settings may mean something else
    settings = {name: dict(part["init_args"]) for name, part in parts.items()}
    for name in ("encoder", "decoder"):
        settings[name]["stride"] = settings[name].get("stride") or settings[name].get("kernel_size")
    encoder = settings["encoder"]
    if ("n_fft" in encoder) != ("n_fft" in settings["decoder"]):
        names = (parts[name]["class_path"] for name in ("decoder", "encoder"))
        raise UserError("model.decoder: {} does not fit the encoder {}; use those of one kind".format(*names))
    for part, keys in SHARED.items():
        for key in keys:
            ours = settings.get(part, {}).get(key, encoder.get(key))
            if key in encoder and ours != encoder[key]:
                raise UserError(
                    f"model.{part}.{key}: {ours} is not the encoder's {encoder[key]}; use the same value for both"
                )
    if (rate := encoder.get("sample_rate", config["sample_rate"])) != config["sample_rate"]:
        raise UserError(
            f"model.encoder.sample_rate: {rate} is not the model's {config['sample_rate']}; use the same value for both"
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
