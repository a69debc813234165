"""The model: encoder -> separator -> head -> decoder."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

import tasnet_attn.separators  # noqa: F401  so that configurations may name them
from tasnet_attn.config import Configurable, build, describe
from tasnet_attn.errors import UserError, at_least
from tasnet_attn.filterbanks import Decoder, Encoded, Encoder
from tasnet_attn.heads import Head, Mask
from tasnet_attn.separators.base import Separator

STEERING = ("Cc", "Cs", "Zl", "Zp")  # Unicode's control characters, lone surrogates, new lines


class Separation(NamedTuple):
    """The input of losses.

    Attributes:
        estimates: [B, S, C, T] waveforms.
        predictions: one [B * C, S, F, L] for each stage, in the feature domain.
        encoded: the mixture's.
    """

    estimates: Tensor
    predictions: list[Tensor]
    encoded: Encoded


def check_sources(names: Sequence[str]) -> None:
    """Raise ValueError if names of sources are not unique, or cannot name files and table rows.

    A name is text of 1 to 100 bytes, neither "." nor "..", without slashes and control characters.
    """
    for name in names:
        encoded = name.encode("utf-8", "surrogatepass") if isinstance(name, str) else b""
        steers = not isinstance(name, str) or any(unicodedata.category(c) in STEERING or c in "/\\" for c in name)
        if not encoded or len(encoded) > 100 or name in (".", "..") or steers:
            raise ValueError(f"a source cannot be named {repr(name)[:60]}: names are 1 to 100 bytes of plain text")
    if not names or len(set(names)) != len(names):
        raise ValueError(f"sources must be different names, at least one; got {names}")


class Separates(Protocol):
    """The interface that inference and evaluation need: `SourceSeparator`, or any other `nn.Module` with these.

    Attributes:
        sources: names, in the order of the outputs.
        sample_rate: Hz.
        interchangeable: the sources have no fixed order.
        segment: seconds, for models of fixed length; None: any length.
        stitch: how segments are joined, see `SourceSeparator`.
    """

    sources: list[str]
    sample_rate: int
    interchangeable: bool
    segment: float | None
    stitch: Literal["fade", "middle"]

    def clip_scale(self, blocks: Iterable[Tensor], length: int) -> Tensor | None:
        """See `SourceSeparator.clip_scale`; None for models without such a scale."""

    def __call__(self, mixture: Tensor, scale: Tensor | None = None) -> Tensor:
        """[B, C, T] -> [B, S, C, T]."""


class SourceSeparator(Configurable, nn.Module):
    """A complete separation model; every channel is processed independently.

    `tasnet_attn.storage` adds `save_pretrained` and `from_pretrained`.

    Args:
        sources: names, in the order of the outputs.
        sample_rate: Hz.
        encoder: waveform to features.
        separator: called with `n_features` and `n_sources`: the class itself, or a `functools.partial` of it.
        decoder: masked carriers to waveforms.
        head: the meaning of the separator's output; None: softmax masks.
        interchangeable: the sources have no fixed order (speakers): losses and scores look for the best permutation.
        segment: seconds, for models of fixed length; None: any length.
        stitch: how inference joins segments: "fade" cross-fades their waveforms; "middle" overlaps segments by half and
            keeps the middle frames of each (STFT models with named sources).
    """

    save_pretrained: ClassVar[Callable[..., Path]]
    from_pretrained: ClassVar[Callable[..., SourceSeparator]]

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
        at_least(1, sample_rate=sample_rate)
        if segment is not None and not 0 < segment < math.inf:
            raise ValueError(f"segment {segment} s must be longer than 0")
        if stitch not in ("fade", "middle"):
            raise ValueError(f"stitch {stitch!r} is neither 'fade' nor 'middle'")
        if stitch == "middle" and (segment is None or interchangeable or not encoder.framed):
            raise ValueError(
                "stitch 'middle' needs a segment, an STFT encoder and sources that are not interchangeable"
            )
        check_sources(sources)
        self.sources, self.sample_rate = list(sources), sample_rate
        self.interchangeable, self.segment = interchangeable, segment
        self.stitch: Literal["fade", "middle"] = stitch
        self.encoder = encoder
        self.head = head or Mask()
        if self.head.parts != encoder.parts:
            kinds = {1: "real", 2: "complex"}
            raise ValueError(
                f"the encoder's features are {kinds[encoder.parts]}, the head {type(self.head).__name__} is for "
                f"{kinds[self.head.parts]} ones: STFTEncoder's features and Mask's kind are both complex or neither"
            )
        self.separator = separator(encoder.n_features, self.head.n_outputs(len(sources)))
        self.decoder = decoder
        # SI-SNR does not determine the outputs' level or sign; training measures it (see `SeparationTask`)
        self.gain: Tensor
        self.register_buffer("gain", torch.ones(len(sources)))

    @property
    def causal(self) -> bool:
        """No output depends on input later than `latency` samples after it."""
        return self.separator.causal and self.encoder.latency is not None

    @property
    def latency(self) -> int | None:
        """Samples of input needed beyond an output sample; None if the model is not causal."""
        return self.encoder.latency if self.causal else None

    def clip_scale(self, blocks: Iterable[Tensor], length: int) -> Tensor | None:
        """The divisor of a clip of `length` samples in blocks [C, t], [C, 1, 1]; None: the model has none."""
        return self.encoder.clip_scale(blocks, length) if self.encoder.clip_scaled else None

    def forward(self, mixture: Tensor, scale: Tensor | None = None) -> Tensor:
        """[B, C, T] -> [B, S, C, T]; `scale` [B, C]: that of the clip from which the mixture is cut."""
        encoded = self._encode(mixture, scale)
        return self._decode(self.separator(encoded.features)[-1], encoded, mixture.shape)

    def analyse(self, mixture: Tensor, scale: Tensor | None = None) -> Separation:
        """`forward` with everything that losses compare; mixture [B, C, T]."""
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
        return self.gain[:, None, None] * estimates.unflatten(0, (batch, channels)).transpose(1, 2)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.update(self.of_today(state_dict, prefix))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def of_today(self, weights: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        """Weights from a file of any version: earlier ones had one gain for all sources."""
        gain = weights.get(f"{prefix}gain")
        if not isinstance(gain, Tensor) or gain.dim():
            return dict(weights)
        return {**weights, f"{prefix}gain": gain.expand(len(self.sources))}

    @property
    def config(self) -> dict[str, Any]:
        """The model's description: `from_config` builds an equal, untrained model from it."""
        described = describe(self)["init_args"] | {"separator": describe(self.separator)}  # the built one
        head = describe(self.head)  # may have changed since: evaluation chooses masks
        return described if described["head"] is None and head == describe(Mask()) else described | {"head": head}

    @classmethod
    def from_config(cls, config: dict[str, Any], classes: Iterable[type] = ()) -> SourceSeparator:
        """Build a model from its description.

        Args:
            config: as returned by `config`, or the `model` section of a YAML file.
            classes: your own encoders, separators, heads and decoders that it names.

        Raises:
            UserError: a class that is neither ours nor in `classes`, a misspelt key, an invalid value; names its path.
        """
        if "class_path" in config:
            raise UserError(
                "model: give the settings themselves (sources, sample_rate, encoder, ...), not a class_path"
            )
        return build({"class_path": cls.__name__, "init_args": config}, cls, "model", classes)


def segment_samples(model: Separates) -> int | None:
    """The fixed length in samples, or None."""
    return None if model.segment is None else math.floor(model.segment * model.sample_rate + 0.5)
