"""The table of docs/recipes.md: parameters and activations of every recipe, and the batch that fits a GPU.

Run: python tests/benchmarks/bench_recipes.py
Nothing is computed: on the `meta` device tensors have shapes alone. Activations are what autograd keeps for one
training segment (all its channels), weights and shared storage counted once. A recurrent layer, whose fused kernel
keeps what its gradients need out of sight, counts four gates, cell and output a unit and frame. Attention counts as
fused: scores are not kept. Weights take 16 bytes each (value, gradient, two moments of Adam). Workspace, the spectra of
the loss and the allocator's losses are not counted: a tenth of the memory is left for them.
"""

import re
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode

from tasnet_attn import config
from tasnet_attn.model import SourceSeparator, segment_samples
from tasnet_attn.training.command import parse

RECIPES = Path(__file__).parents[2] / "recipes"
GPUS = (8, 24, 80)  # GB
VARIANTS = {  # options of a recipe that change its memory
    "musdb18/samsnet": [
        "--model.sources=[vocals]",
        "--model.sources=[vocals] --data.init_args.channels=mean",
        "--model.sources=[vocals] --model.separator.gradient_checkpointing=true",
        "--model.sources=[vocals] --model.separator.gradient_checkpointing=true --data.init_args.channels=mean",
    ],
}


class Fused(TorchFunctionMode):
    """Recurrent layers and attention as their fused kernels keep things; counts the recurrent layers' bytes."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.nn.functional.scaled_dot_product_attention:
            q, k, v = args[:3]
            return Attended.apply(q, k, v)
        if func.__name__ in ("lstm", "gru") and isinstance(args[3], bool):
            x, state, weights, both, layers = *args[:3], args[7], args[4]
            states = state if func.__name__ == "lstm" else [state]
            width = states[0].shape[-1] * (1 + both)
            self.bytes += 4 * 6 * layers * width * x[..., 0].numel()
            return Recurrent.apply(x, weights[0], width), *states
        return func(*args, **(kwargs or {}))


class Attended(torch.autograd.Function):
    """Keeps queries, keys, values and its output, as fused attention does."""

    @staticmethod
    def forward(ctx, q, k, v):
        output = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, output)
        return output


class Recurrent(torch.autograd.Function):
    """Keeps its input."""

    @staticmethod
    def forward(ctx, x, weight, width):
        ctx.save_for_backward(x)
        return x.new_empty(*x.shape[:-1], width)


def activations(model, seconds, channels):
    """Bytes that autograd keeps for one segment."""
    kept, own = {}, {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that no other takes its place
        return tensor

    length = segment_samples(model) or int(seconds * model.sample_rate)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), Fused() as fused:
        separation = model.analyse(torch.empty(1, channels, length, device="meta"))
    del separation
    total = fused.bytes + sum(storage.nbytes() for storage in kept.values())
    if getattr(model.separator, "checkpointed", False):
        for module in model.separator.modules():
            module.gradient_checkpointing = False
        model.separator.checkpointed = False
        total += activations(model, seconds, channels) // model.separator.n_modules  # one module is computed again
    return total


def row(recipe, option=""):
    """A line of the table."""
    conf = RECIPES / recipe / "conf.yml"
    config.import_modules(re.findall(r"--import[ =](\S+)", (conf.parent / "run.sh").read_text()))
    files = [file for file in (conf.parents[1] / "base.yml", conf, conf.parent / "data.yml") if file.is_file()]
    options = re.findall(r"(--\S+=(?:\[.*?\]|\S+))", option)
    full = parse([*(f"--config={file}" for file in files), *options])
    with torch.device("meta"):
        model = SourceSeparator.from_config(full["model"]).train()
    settings = full["model"]["separator"]["init_args"]
    model.separator.checkpointed = settings.get("gradient_checkpointing", False)
    model.separator.n_modules = settings.get("n_modules", 1) * max(1, len(model.sources))
    data = full["data"]["init_args"]
    stereo = full["data"]["class_path"] in ("MUSDB18", "StemFolders") and data.get("channels", "all") == "all"
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    kept = activations(model, data["segment"], 1 + stereo)
    fits = [max(0, int((0.9e9 * gpu - 16 * parameters) // kept)) for gpu in GPUS]
    name = f"`{recipe}`" + (f" `{option}`" if option else "")
    cells = [name, f"{parameters:,}", f"{kept / 2**30:.2f}", data["batch_size"], *(fit or "-" for fit in fits)]
    return f"| {' | '.join(map(str, cells))} |"


def main():
    heads = ["recipe", "trained parameters", "GiB a segment", "its batch", *(f"fits {gpu} GB" for gpu in GPUS)]
    print(f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", sep="\n")
    for conf in sorted(RECIPES.rglob("conf.yml")):
        recipe = conf.parent.relative_to(RECIPES).as_posix()
        for option in ("", *VARIANTS.get(recipe, ())):
            print(row(recipe, option), flush=True)


if __name__ == "__main__":
    main()
