"""The system to evaluate: a run's best or last checkpoint, with which masks, or an oracle."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal

from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.oracles import Autoencoder, ModelOracle, Remix
from tasnet_attn.heads import Magnitude
from tasnet_attn.model import SourceSeparator, check_sources
from tasnet_attn.storage import load
from tasnet_attn.storage.checkpoints import read_checkpoint
from tasnet_attn.storage.finding import find
from tasnet_attn.storage.tensors import is_safetensors, read_safetensors

Masks = Literal["binary", "ratio", "wiener", "none"]


def choose(
    model: Path,
    checkpoint: Literal["best", "last"] = "best",
    mask: Masks | Sequence[Masks] | None = None,
    oracle: Literal["masks", "autoencoder", "remix"] | None = None,
    sources: Sequence[str] | None = None,
    separating: dict[str, Any] | None = None,
) -> tuple[dict[str, Any], list[str], int, Path]:
    """Load the systems to evaluate.

    Args:
        model: a run folder, a checkpoint or a model file.
        checkpoint: of a run folder: "best" (lowest validation loss) or "last" (last step).
        mask: the kind of masks to make from the magnitudes (`heads.Magnitude`), or several kinds, each evaluated
            separately; None: the model's own.
        oracle: instead of the model: "masks", from the true magnitudes, by its encoder and in its segments;
            "autoencoder", from its reconstruction of each clean source; "remix", the model's outputs, each added to the
            source that it fits best (MixIT).
        sources: names of the tracks' sources; None: the model's (an autoencoder has one, its tracks several).
        separating: segment, overlap and device, for "remix", which separates itself.

    Returns:
        {mask, "" for the model's own: system}, names of the tracks' sources, the model's sample rate in Hz, and its
        file.

    Raises:
        UserError: no such checkpoint, or a model that has no such masks or does not fit this oracle.
    """
    own = model / "checkpoints" / f"{checkpoint}.ckpt"
    if checkpoint == "last" and model.is_dir() and not own.is_file():
        raise UserError(f"{own}: no such file, but evaluation.checkpoint is 'last'; use --checkpoint best")
    file = find(model, checkpoint)
    loaded = load(file)
    kinds: list[str] = [mask] if isinstance(mask, str) else [*mask] if mask else [""]
    names = list(loaded.sources if sources is None else sources)
    try:
        check_sources(names)
        systems = {kind: _system(loaded, kind, oracle, separating or {}) for kind in kinds}
    except ValueError as error:
        raise UserError(f"{model}: {error}") from error
    return systems, names, loaded.sample_rate, file


def about(model: Any, file: Path | None, data: object, split: str) -> dict[str, str]:
    """Facts about an evaluation for the page: "data", and those of `trained`.

    Args:
        model: a system, as `choose` returns it.
        file: its file, as `storage.finding.find` returns it; None: unknown.
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
        facts = read_safetensors(file).facts.get("training") if is_safetensors(file) else read_checkpoint(file)
        step = facts.get("global_step") if isinstance(facts, dict) else None
        if type(step) is int:  # a header may say anything
            found["steps"] = f"{step:,}"
    return found


def _system(model: Any, kind: str, oracle: str | None, separating: dict[str, Any]) -> Any:
    head = getattr(model, "head", None)
    if oracle == "remix":
        return Remix(_system(model, kind, None, {}), **separating)
    if oracle is not None:
        own = head.kind if isinstance(head, Magnitude) and head.kind != "none" else "wiener"
        return {"masks": ModelOracle, "autoencoder": Autoencoder}[oracle](model, kind or own)  # type: ignore[arg-type]
    if not kind:
        return model
    if not isinstance(head, Magnitude):
        raise ValueError(f"--mask {kind}: its head is a {type(head).__name__}; only a Magnitude head has several masks")
    changed = copy(model)  # shares weights
    changed.head = Magnitude(kind, head.power)  # type: ignore[arg-type]
    return changed
