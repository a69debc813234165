"""What a spectrogram model could reach at best: called with the references, scored like a model.

The masks that its own encoder, head and decoder can express, made from the true sources or from their autoencoded
spectrograms. (`metrics.oracles` has the field's common oracles, which know no model.)

Shapes: S sources, C channels, T samples.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from tasnet_attn.filterbanks import Encoded, STFTEncoder
from tasnet_attn.heads import Magnitude
from tasnet_attn.model import SourceSeparator, segment_samples


class ModelOracle:
    """Separates a mixture by masks made from true spectrograms, in the model's own chunks.

    Args:
        model: its encoder is an STFT; only encoder, decoder and segment are used.
        mask: "binary", "ratio" or "wiener", see `heads.Magnitude`.

    Raises:
        ValueError: another encoder or mask.
    """

    def __init__(self, model: SourceSeparator, mask: str = "wiener") -> None:
        if not isinstance(model.encoder, STFTEncoder):
            raise ValueError(f"masks need an STFT encoder; this model has a {type(model.encoder).__name__}")
        if mask not in ("binary", "ratio", "wiener"):
            raise ValueError(f"mask {mask!r} is none of binary, ratio, wiener")
        self.model, self.mask = model, mask
        self.head = Magnitude(mask, model.encoder.power)  # type: ignore[arg-type]

    @torch.inference_mode()
    def __call__(self, mixture: Tensor, references: Tensor) -> Tensor:
        """Mixture [C, T], references [S, C, T] -> estimates [S, C, T]."""
        length = mixture.shape[-1]
        size = segment_samples(self.model) or length
        signals = torch.cat([mixture[None], references])
        signals = pad(signals, (0, -length % size)).unflatten(-1, (-1, size))  # the end is filled up with zeros
        chunks = [self._chunk(chunk[0], chunk[1:]) for chunk in signals.unbind(-2)]
        return torch.cat(chunks, dim=-1)[..., :length]

    def _chunk(self, mixture: Tensor, references: Tensor) -> Tensor:
        encoded = self.model.encoder(mixture)
        scale = encoded.scale.repeat(len(references), 1, 1)
        own = self.model.encoder(references.flatten(0, 1), scale)
        stage = self.spectrograms(own).unflatten(0, (-1, len(mixture))).transpose(0, 1)  # [C, S, F, L]
        return self.model.decoder(self.head.apply(stage, encoded), mixture.shape[-1]).transpose(0, 1)

    def spectrograms(self, clean: Encoded) -> Tensor:
        """What the masks are made of: [N, F, L] for N clean signals."""
        return clean.features

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.mask!r}, {self.model.encoder._arguments}, {self.model.segment})"


class Autoencoder(ModelOracle):
    """AudioSlots' autoencoder as an oracle: each clean source goes alone through one slot.

    What it loses against `ModelOracle`, slot and decoder lose; what the separator loses against it, slot finding does.

    Args:
        model: trained on clean sources, with one source.
        mask: see `ModelOracle`.

    Source: Reddy et al. 2023, section 3.
    """

    def __init__(self, model: SourceSeparator, mask: str = "wiener") -> None:
        super().__init__(model, mask)
        if len(model.sources) != 1:
            raise ValueError(f"an autoencoder has one source; this model has {len(model.sources)}")
        model.eval()

    def spectrograms(self, clean: Encoded) -> Tensor:
        return self.model.separator(clean.features)[-1][:, 0]

    def __repr__(self) -> str:
        weights = sum(weight.double().sum().item() for weight in self.model.state_dict().values())
        return f"{super().__repr__()[:-1]}, weights {weights!r})"
