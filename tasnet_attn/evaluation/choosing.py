"""Which system of a run is evaluated: its best or last checkpoint, with which masks, or what it could reach at best."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal

from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.oracles import Autoencoder, ModelOracle, Remix
from tasnet_attn.heads import Magnitude
from tasnet_attn.model import SourceSeparator
from tasnet_attn.storage import load
from tasnet_attn.storage.checkpoints import read_checkpoint
from tasnet_attn.storage.finding import find
from tasnet_attn.storage.tensors import read_safetensors

Masks = Literal["binary", "ratio", "wiener", "none"]


def choose(
    model: Path,
    checkpoint: Literal["best", "last"] = "best",
    mask: Masks | Sequence[Masks] | None = None,
    oracle: Literal["masks", "autoencoder", "remix"] | None = None,
    sources: Sequence[str] | None = None,
) -> tuple[dict[str, Any], list[str], int]:
    """Load the systems to evaluate.

    Args:
        model: a run folder, a checkpoint or a model file.
        checkpoint: of a run folder: that of the lowest validation loss, or that of the last step.
        mask: what masks are made of the magnitudes (`heads.Magnitude`), or several kinds, each evaluated by itself;
            None: the model's own.
        oracle: in the model's place: "masks", of the true magnitudes, by its encoder and in its segments;
            "autoencoder", of what its one slot keeps of each clean source; "remix", of its outputs, each given to the
            source that it fits best (MixIT).
        sources: names of the tracks' sources; None: the model's (an autoencoder has one, its tracks several).

    Returns:
        {mask, "" for the model's own: system}, names of the tracks' sources, and the model's sample rate in Hz.

    Raises:
        UserError: no such checkpoint, or a model that has no such masks or is none for this oracle.
    """
    file = model / "checkpoints" / f"{checkpoint}.ckpt"
    if checkpoint == "last" and model.is_dir() and not file.is_file():
        raise UserError(f"{file}: no such file, but evaluation.checkpoint is 'last'; --checkpoint best takes another")
    loaded = load(find(model, checkpoint))
    kinds: list[str] = [mask] if isinstance(mask, str) else [*mask] if mask else [""]
    names = list(loaded.sources if sources is None else sources)
    try:
        systems = {kind: _system(loaded, kind, oracle) for kind in kinds}
    except ValueError as error:
        raise UserError(f"{model}: {error}") from error
    return systems, names, loaded.sample_rate


def about(model: Any, file: Path | None, data: object, split: str) -> dict[str, str]:
    """What a page says of an evaluation: "data", and what `trained` says.

    Args:
        model: a system, as `choose` returns it.
        file: where it was read from, as `storage.finding.find` returns it; None: it is not known.
        data: the data set.
        split: its part.
    """
    return {"data": f"{type(data).__name__}, {split}", **trained(model, file)}


def trained(model: Any, file: Path | None) -> dict[str, str]:
    """What a page says of a model: "model", and "steps" of its training, as far as its file tells.

    Args:
        model: a system, as `choose` returns it.
        file: where it was read from; None: it is not known.
    """
    found = {}
    network = getattr(model, "model", model)
    if isinstance(network, SourceSeparator):
        number = sum(parameter.numel() for parameter in network.parameters())
        found["model"] = f"{network.separator.name}, {number:,} parameters"
    if file is not None:
        facts = (
            read_safetensors(file).facts.get("training", {}) if file.suffix == ".safetensors" else read_checkpoint(file)
        )
        if "global_step" in facts:
            found["steps"] = f"{facts['global_step']:,}"
    return found


def _system(model: Any, kind: str, oracle: str | None) -> Any:
    head = getattr(model, "head", None)
    if oracle == "remix":
        return Remix(_system(model, kind, None))
    if oracle is not None:
        own = head.kind if isinstance(head, Magnitude) and head.kind != "none" else "wiener"
        return {"masks": ModelOracle, "autoencoder": Autoencoder}[oracle](model, kind or own)  # type: ignore[arg-type]
    if not kind:
        return model
    if not isinstance(head, Magnitude):
        raise ValueError(f"--mask {kind}: its head is a {type(head).__name__}; only a Magnitude head chooses its masks")
    changed = copy(model)  # weights are shared
    changed.head = Magnitude(kind, head.power)  # type: ignore[arg-type]
    return changed
