"""Upper and lower bounds: oracles and the unprocessed mixture, called with the references and scored like a model.

Shapes: S sources, C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from tasnet_attn.filterbanks import Decoder, Encoded, STFTDecoder, STFTEncoder
from tasnet_attn.heads import Magnitude, paired
from tasnet_attn.inference import separate
from tasnet_attn.losses import remixed
from tasnet_attn.metrics.signals import Signals
from tasnet_attn.model import SourceSeparator, segment_samples

MaskKind = Literal["binary", "ratio", "wiener"]
BLOCK = 1 << 18  # samples at once


class Mixture:
    """The baseline: the mixture itself is every estimate, as in SI-SNRi and NSDR."""

    sources: list[str]

    def __call__(self, mixture: Tensor, references: Tensor) -> Tensor:
        """Mixture [C, T], references [S, C, T] -> [S, C, T]."""
        return mixture.expand(len(references), -1, -1).clone()

    def blocks(self, mixture: Signals, references: Signals) -> Iterator[Tensor]:
        """Like the call, in blocks."""
        return (self(piece, references.read(0, 1)) for piece in mixture.pieces())

    def __repr__(self) -> str:
        return "Mixture()"


class MaskOracle:
    """Separates a mixture with masks made from the references' spectrograms.

    Args:
        encoder: an STFT.
        decoder: its inverse.
        mask: "binary", "ratio" or "wiener", see `heads.Magnitude`.
        size: samples of chunks to process independently, the last one zero-padded; None: in one piece.

    Raises:
        ValueError: another encoder or mask.
    """

    sources: list[str]

    def __init__(self, encoder: STFTEncoder, decoder: Decoder, mask: MaskKind, size: int | None = None) -> None:
        if not isinstance(encoder, STFTEncoder):
            raise ValueError(f"masks need an STFT encoder; this model has a {type(encoder).__name__}")
        if mask not in ("binary", "ratio", "wiener"):
            raise ValueError(f"mask {mask!r} is not one of binary, ratio, wiener")
        self.encoder, self.decoder, self.mask, self.size = encoder, decoder, mask, size
        self.head = Magnitude(mask, encoder.power)

    @torch.inference_mode()
    def __call__(self, mixture: Tensor, references: Tensor) -> Tensor:
        """Mixture [C, T], references [S, C, T] -> estimates [S, C, T]."""
        length = mixture.shape[-1]
        size = self.size or length
        signals = torch.cat([mixture[None], references]).to(self.encoder.window)
        signals = pad(signals, (0, -length % size)).unflatten(-1, (-1, size))
        chunks = [self._chunk(chunk[0], chunk[1:]) for chunk in signals.unbind(-2)]
        return torch.cat(chunks, dim=-1)[..., :length].to(references)

    def _chunk(self, mixture: Tensor, references: Tensor) -> Tensor:
        encoded = self.encoder(mixture)
        own = self.encoder(references.flatten(0, 1), encoded.scale.repeat(len(references), 1, 1))
        stage = self.spectrograms(own).unflatten(0, (-1, len(mixture))).transpose(0, 1)  # [C, S, F, L]
        return self.decoder(self.head.apply(stage, encoded), mixture.shape[-1]).transpose(0, 1)

    def spectrograms(self, clean: Encoded) -> Tensor:
        """The magnitudes that masks are made from: [N, F, L] for N clean signals."""
        if self.encoder.parts == 1:
            return clean.features
        return torch.linalg.vector_norm(paired(clean.features, 1), dim=1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.mask!r}, {self.encoder._arguments}, {self.size})"


class OracleMask(MaskOracle):
    """The best possible result of a mask on the mixture's short-time spectrum.

    Args:
        mask: "binary", one where a source is loudest; "ratio", |s_i| / sum |s_j|; "wiener", |s_i|**2 / sum |s_j|**2.
        n_fft: samples of the Hann window.
        hop: samples between frames.

    Source: the oracles of SiSEC 2018 (Stoeter, Liutkus & Ito 2018), section 3.
    """

    def __init__(self, mask: MaskKind, n_fft: int = 2048, hop: int = 512) -> None:
        super().__init__(STFTEncoder(n_fft, hop), STFTDecoder(n_fft, hop), mask)

    @torch.inference_mode()
    def blocks(self, mixture: Signals, references: Signals) -> Iterator[Tensor]:
        """Like the call, in blocks: a sample depends only on the frames around it."""
        if type(self).__call__ is not MaskOracle.__call__:  # a subclass may need more
            yield self(mixture.read(), references.read())
            return
        hop = self.encoder.hop
        margin, step = hop * -(-self.encoder.n_fft // hop), hop * -(-BLOCK // hop)
        for start in range(0, mixture.length, step):
            first = max(0, start - margin)
            cuts = (signals.read(first, start + step + margin) for signals in (mixture, references))
            yield self(*cuts)[..., start - first : start - first + step]


class ModelOracle(MaskOracle):
    """The best possible result of a spectrogram model: masks by its own encoder and decoder, in its own segments.

    Args:
        model: its encoder is an STFT.
        mask: see `MaskOracle`.
    """

    def __init__(self, model: SourceSeparator, mask: MaskKind = "wiener") -> None:
        super().__init__(model.encoder, model.decoder, mask, segment_samples(model))  # type: ignore[arg-type]
        self.model, self.sample_rate = model, model.sample_rate


class Autoencoder(ModelOracle):
    """AudioSlots' autoencoder as an oracle: each clean source goes through one slot separately.

    Its gap to `ModelOracle` is the loss in slot and decoder; the separator's gap to it is the loss in finding slots.

    Args:
        model: trained on clean sources, with one source.
        mask: see `MaskOracle`.

    Source: Reddy et al. 2023, section 3.
    """

    def __init__(self, model: SourceSeparator, mask: MaskKind = "wiener") -> None:
        super().__init__(model, mask)
        if len(model.sources) != 1:
            raise ValueError(f"an autoencoder has one source; this model has {len(model.sources)}")
        model.eval()

    def spectrograms(self, clean: Encoded) -> Tensor:
        return self.model.separator(clean.features)[-1][:, 0]

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, {_weights(self.model)})"


class Remix:
    """A model's outputs added up to the references, in any numbers: each output goes to one reference, as in MixIT.

    An upper bound, because a listener does not know which outputs belong together. Every reference gets at least one.

    Args:
        model: typically with more outputs than references.
        segment: see `inference.separate`.
        overlap: likewise.
        device: likewise.

    Source: Wisdom et al. 2020, arXiv 2006.12701, section 3.
    """

    def __init__(
        self, model: SourceSeparator, segment: float | None = None, overlap: float | None = None, device: str = "auto"
    ) -> None:
        self.model, self.sample_rate = model, model.sample_rate
        self.segment, self.overlap, self.device = segment, overlap, device

    def __call__(self, mixture: Tensor, references: Tensor) -> Tensor:
        """Mixture [C, T], references [R, C, T] -> estimates [R, C, T]."""
        found = separate(self.model, mixture, self.sample_rate, self.segment, self.overlap, self.device)
        estimates = torch.stack(list(found.values()))
        return remixed(estimates[None], references[None].to(estimates), empty=False)[0]

    def __repr__(self) -> str:
        return f"Remix({self.model.config}, {_weights(self.model)}, {self.segment}, {self.overlap})"


def _weights(model: SourceSeparator) -> str:
    """Identifies a model's weights."""
    return f"weights {sum(weight.double().sum().item() for weight in model.state_dict().values())!r}"


BASELINES: dict[str, Mixture | MaskOracle] = {
    "mixture": Mixture(),
    "oracle-binary": OracleMask("binary"),
    "oracle-ratio": OracleMask("ratio"),
    "oracle-wiener": OracleMask("wiener"),
}
