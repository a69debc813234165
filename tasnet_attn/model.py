"""The model: encoder -> separator -> head -> decoder, and its files."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from tasnet_attn import filterbanks, heads, separators
from tasnet_attn.config import Configurable, build, describe
from tasnet_attn.errors import UserError
from tasnet_attn.filterbanks import Decoder, Encoded, Encoder, STFTEncoder
from tasnet_attn.heads import Head, Mask
from tasnet_attn.separators import Separator


class Separation(NamedTuple):
    """What losses need.

    Attributes:
        estimates: [B, S, C, T] waveforms.
        predictions: one [B * C, S, F, L] for each stage, in the feature domain.
        encoded: the mixture's.
    """

    estimates: Tensor
    predictions: list[Tensor]
    encoded: Encoded


class SourceSeparator(Configurable, nn.Module):
    """A complete separation model; every channel goes through it on its own.

    Args:
        sources: names, in the order of the outputs.
        sample_rate: Hz.
        encoder: waveform to features.
        separator: called with `n_features` and `n_sources`: the class itself, or a `functools.partial` of it.
        decoder: masked carriers to waveforms.
        head: what the separator's output means; None: softmax masks.
        interchangeable: the sources have no fixed order (speakers): losses and scores look for the best permutation.
        segment: seconds, for models of fixed length; None: any length.
        stitch: how inference joins segments: "fade" cross-fades their waveforms, "middle" takes segments that overlap
            by half and keeps the middle frames of each (STFT models with named sources).
    """

    def __init__(
        self,
        sources: list[str],
        sample_rate: int,
        encoder: Encoder,
        separator: Callable[[int, int], Separator],
        decoder: Decoder,
        head: Head | None = None,
        interchangeable: bool = False,
        segment: float | None = None,
        stitch: Literal["fade", "middle"] = "fade",
    ) -> None:
        super().__init__()
        if stitch not in ("fade", "middle"):
            raise ValueError(f"stitch {stitch!r} is neither 'fade' nor 'middle'")
        if stitch == "middle" and (segment is None or interchangeable or not isinstance(encoder, STFTEncoder)):
            raise ValueError(
                "stitch 'middle' needs a segment, an STFT encoder and sources that are not interchangeable"
            )
        if not sources or len(set(sources)) != len(sources):
            raise ValueError(f"sources must be different names, at least one; got {sources}")
        self.sources, self.sample_rate = list(sources), sample_rate
        self.interchangeable, self.segment, self.stitch = interchangeable, segment, stitch
        self.encoder = encoder
        self.head = head or Mask()
        self.separator = separator(encoder.n_features, self.head.n_outputs(len(sources)))
        self.decoder = decoder
        # SI-SNR leaves the outputs' level, and even their sign, open: training measures it (see `SeparationTask`)
        self.gain: Tensor
        self.register_buffer("gain", torch.ones(()))

    @property
    def causal(self) -> bool:
        """No output depends on input later than `latency` samples after it."""
        return self.separator.causal and self.encoder.latency is not None

    @property
    def latency(self) -> int | None:
        """Samples of input needed beyond an output sample; None if the model is not causal."""
        return self.encoder.latency if self.causal else None

    def forward(self, mixture: Tensor, scale: Tensor | None = None) -> Tensor:
        """[B, C, T] -> [B, S, C, T]; `scale` [B, C]: that of the clip which the mixture is cut out of."""
        encoded = self._encode(mixture, scale)
        return self._decode(self.separator(encoded.features)[-1], encoded, mixture.shape)

    def analyse(self, mixture: Tensor, scale: Tensor | None = None) -> Separation:
        """`forward` with all that losses compare; mixture [B, C, T]."""
        encoded = self._encode(mixture, scale)
        stages = self.separator(encoded.features)
        predictions = [self.head.predict(stage, encoded) for stage in stages]
        return Separation(self._decode(stages[-1], encoded, mixture.shape), predictions, encoded)

    def _encode(self, mixture: Tensor, scale: Tensor | None) -> Encoded:
        if scale is None or not self.encoder.clip_scaled:
            return self.encoder(mixture.flatten(0, 1))
        return self.encoder(mixture.flatten(0, 1), scale.flatten()[:, None, None])

    def _decode(self, stage: Tensor, encoded: Encoded, shape: torch.Size) -> Tensor:
        batch, channels, length = shape
        estimates = self.decoder(self.head.apply(stage, encoded), length)  # [N, S, T]
        return self.gain * estimates.unflatten(0, (batch, channels)).transpose(1, 2)

    @property
    def config(self) -> dict[str, Any]:
        """The model's description: `from_config` builds an equal, untrained model from it."""
        return describe(self)["init_args"] | {"separator": describe(self.separator)}  # as built, not what built it

    @classmethod
    def from_config(cls, config: dict[str, Any], classes: Iterable[type] = ()) -> SourceSeparator:
        """Build a model from its description.

        Args:
            config: as `config` returns it, or the `model` section of a YAML file.
            classes: your own encoders, separators, heads and decoders that it names.

        Raises:
            UserError: a class that is neither ours nor in `classes`, a misspelt key, a refused value; names its path.
        """
        if "class_path" in config:
            raise UserError(
                "model: give the settings themselves (sources, sample_rate, encoder, ...), not a class_path"
            )
        table = [cls, *classes, *_own_classes()]
        return build({"class_path": cls.__qualname__, "init_args": config}, table)


@functools.cache
def _own_classes() -> tuple[type, ...]:
    """The closed table: every component that this library's own modules define."""
    return tuple(
        value
        for module in (filterbanks, heads, separators)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Configurable)
    )


# ---- files ----------------------------------------------------------------------------------------------------------

HEADER = "tasnet_attn"
VERSIONS = ("tasnet-attn", "torch", "asteroid-filterbanks")


def save(model: SourceSeparator, path: str | os.PathLike, facts: dict[str, Any] | None = None) -> Path:
    """Write a model to one safetensors file; it appears whole or not at all.

    Args:
        model: the model.
        path: the file.
        facts: what else to keep in the header: training data, scores, licence.

    Returns:
        The path.
    """
    from safetensors.torch import save_file

    path = Path(path)
    header = {
        **(facts or {}),
        "config": model.config,
        "sources": model.sources,
        "sample_rate": model.sample_rate,
        "versions": {name: version(name) for name in VERSIONS},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, part, metadata={"format": "pt", HEADER: json.dumps(header)})
    part.replace(path)
    return path


def load(path: str | os.PathLike, classes: Iterable[type] = ()) -> SourceSeparator:
    """Load a model for use: in evaluation mode, on the CPU. Nothing is unpickled and no code of the file runs.

    Args:
        path: a model file, a Lightning checkpoint, or a run folder (its best checkpoint).
        classes: your own classes that the file names.

    Raises:
        UserError: no such file, not a model of ours, or weights that do not fit.
    """
    file = _find(Path(path))
    config, weights = _read_checkpoint(file) if file.suffix == ".ckpt" else _read_safetensors(file)
    try:
        model = SourceSeparator.from_config(config, classes)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(f"{file}: the weights do not fit the model that the file describes: {first}") from error
    bad = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if bad:
        raise UserError(
            f"{file}: weights hold NaN or infinity ({bad[0]}); the training diverged or the file is damaged"
        )
    return model.eval()


def _find(path: Path) -> Path:
    if path.is_dir():
        for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt"):
            if (path / name).is_file():
                return path / name
        raise UserError(
            f"{path}: no checkpoints/best.ckpt or last.ckpt in this folder; is it a run of `tasnet-attn train`?"
        )
    if not path.is_file():
        raise UserError(f"{path}: no such model; give a run folder, a .ckpt or a .safetensors file")
    return path


def _read_safetensors(file: Path) -> tuple[dict, dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            header = (opened.metadata() or {}).get(HEADER)
            weights = {name: opened.get_tensor(name) for name in opened.keys()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: not a model file (safetensors): {error}") from error
    if header is None:
        raise UserError(f"{file}: a safetensors file, but not one of this library: it has no {HEADER!r} header")
    try:
        return json.loads(header)["config"], weights
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: its {HEADER!r} header is damaged: {error!r}") from error


def _read_checkpoint(file: Path) -> tuple[dict, dict[str, Tensor]]:
    import pickle

    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{file}: not a checkpoint that can be read safely: {reason}") from error
    if not isinstance(checkpoint, dict) or "model_config" not in checkpoint:
        raise UserError(f"{file}: a checkpoint, but not of `tasnet-attn train`: it does not describe its model")
    prefix = "model."
    weights = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    return checkpoint["model_config"], weights


def segment_samples(model: SourceSeparator) -> int | None:
    """The fixed length in samples, or None."""
    return None if model.segment is None else math.floor(model.segment * model.sample_rate + 0.5)
