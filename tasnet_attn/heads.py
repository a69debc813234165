"""Heads: they interpret a separator's raw output as masks or magnitudes, in the feature and the carrier domain."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from tasnet_attn.config import Configurable
from tasnet_attn.filterbanks import EPS, Encoded


class Head(Configurable):
    """Turns one stage [N, S, F, L] of a separator into the losses' and the decoder's input.

    Not an `nn.Module`: a head has no parameters, and `nn.Module.apply` means something else.

    Attributes:
        parts: must equal the encoder's, see `Encoder`.
    """

    abstract = True
    parts = 1

    def n_outputs(self, n_sources: int) -> int:
        """The number of separator outputs for `n_sources` sources."""
        return n_sources

    def predict(self, stage: Tensor, encoded: Encoded) -> Tensor:
        """Feature domain, [N, S, F, L]."""
        raise NotImplementedError

    def apply(self, stage: Tensor, encoded: Encoded) -> Tensor:
        """Carrier domain, [N, S, F, L] or [N, S, 2, F, L]."""
        raise NotImplementedError


def masked(mask: Tensor, carrier: Tensor) -> Tensor:
    """Mask [N, S, F, L] times carrier [N, F, L] or [N, 2, F, L], for every source."""
    return mask * carrier.unsqueeze(1) if carrier.dim() == 3 else mask.unsqueeze(2) * carrier.unsqueeze(1)


def rotated(mask: Tensor, carrier: Tensor) -> Tensor:
    """Complex mask [N, S, 2, F, L] times carrier [N, 2, F, L], real and imaginary parts, for every source."""
    (a, b), (x, y) = mask.unbind(2), carrier.unsqueeze(1).unbind(2)
    return torch.stack([a * x - b * y, a * y + b * x], dim=2)


def paired(features: Tensor, dim: int) -> Tensor:
    """Features with two parts per bin, 2 F along `dim`, as [.., 2, F, ..]."""
    return features.unflatten(dim, (-1, 2)).transpose(dim, dim + 1)


class Mask(Head):
    """The stage is a mask.

    Args:
        activation: "softmax" over the sources (masks sum to one), "sigmoid", "relu", "linear" (unbounded), or
            "clipped": linear in the loss, with negative values set to zero in the output (Park et al. 2018). None:
            "softmax", or for complex masks "linear", the only choice.
        subtract: the separator makes all masks but the last, which is the remainder of the mixture (Stoller et al.
            2018); the mixture must be the sum of the sources.
        kind: "real", or "complex", which changes the phase too (Williamson et al. 2016): for an encoder with complex
            features; each pair of outputs is then the mask's real and imaginary part.
    """

    def __init__(
        self,
        activation: Literal["softmax", "sigmoid", "relu", "linear", "clipped"] | None = None,
        subtract: bool = False,
        kind: Literal["real", "complex"] = "real",
    ) -> None:
        if kind not in ("real", "complex"):
            raise ValueError(f"kind {kind!r} is neither 'real' nor 'complex'")
        chosen = _activation(activation, kind)
        if chosen not in ("softmax", "sigmoid", "relu", "linear", "clipped"):
            raise ValueError(f"activation {chosen!r} is not one of softmax, sigmoid, relu, linear, clipped")
        if kind == "complex" and chosen != "linear":
            raise ValueError(f"activation {chosen!r}: complex masks are linear")
        if subtract and chosen == "softmax":
            raise ValueError("softmax masks sum to one and leave no remainder; choose another activation")
        self.activation, self.subtract, self.parts = chosen, subtract, 1 + (kind == "complex")

    @classmethod
    def meant(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments | {"activation": _activation(arguments["activation"], arguments.get("kind", "real"))}

    def n_outputs(self, n_sources: int) -> int:
        if self.subtract and n_sources < 2:
            raise ValueError("subtract needs at least two sources")
        return n_sources - self.subtract

    def mask(self, stage: Tensor) -> Tensor:
        """Stage [N, S or S - 1, F, L] -> [N, S, F, L]; complex ones [N, S or S - 1, 2 F, L] -> [N, S, 2, F, L]."""
        if self.parts == 2:
            mask = paired(stage, 2)
            one = mask.new_tensor([1.0, 0.0])[:, None, None]
            return torch.cat([mask, one - mask.sum(dim=1, keepdim=True)], dim=1) if self.subtract else mask
        match self.activation:
            case "softmax":
                return torch.softmax(stage, dim=1)
            case "sigmoid":
                mask = torch.sigmoid(stage)
            case "relu":
                mask = torch.relu(stage)
            case _:
                mask = stage
        return torch.cat([mask, 1 - mask.sum(dim=1, keepdim=True)], dim=1) if self.subtract else mask

    def predict(self, stage: Tensor, encoded: Encoded) -> Tensor:
        mask = self.mask(stage)
        if self.parts == 2:
            return rotated(mask, paired(encoded.features, 1)).transpose(2, 3).flatten(2, 3)
        return masked(mask, encoded.features)

    def apply(self, stage: Tensor, encoded: Encoded) -> Tensor:
        mask = self.mask(stage)
        if self.parts == 2:
            return rotated(mask, encoded.carrier)
        return masked(mask.clamp_min(0) if self.activation == "clipped" else mask, encoded.carrier)


def _activation(activation: str | None, kind: str) -> str:
    """The activation; resolves None."""
    return activation or ("linear" if kind == "complex" else "softmax")


class Magnitude(Head):
    """The stage is a non-negative magnitude in the encoder's domain, |X|**power, from which masks are made.

    Args:
        mask: "wiener", m_i**2 / sum_j m_j**2; "ratio", m_i / sum_j m_j; "binary", one where m_i is the largest; or
            "none": m_i itself becomes the output's magnitude, negative values as zero, with the mixture's phase.
        power: the encoder's exponent, inverted before the mask is made.
    """

    def __init__(self, mask: Literal["wiener", "ratio", "binary", "none"] = "wiener", power: float = 1.0) -> None:
        if mask not in ("wiener", "ratio", "binary", "none"):
            raise ValueError(f"mask {mask!r} is not one of wiener, ratio, binary, none")
        if not power > 0:
            raise ValueError(f"power {power} must be above 0")
        self.kind, self.power = mask, power

    def predict(self, stage: Tensor, encoded: Encoded) -> Tensor:
        return stage

    def apply(self, stage: Tensor, encoded: Encoded) -> Tensor:
        return masked(self.mask(stage, encoded), encoded.carrier)

    def mask(self, stage: Tensor, encoded: Encoded) -> Tensor:
        """The mask for the mixture, [N, S, F, L]."""
        if self.kind == "none":
            wanted = stage.clamp_min(0).pow(1 / self.power) * encoded.scale.unsqueeze(1)
            carrier = encoded.carrier if encoded.carrier.dim() == 4 else encoded.carrier.unsqueeze(1)
            return wanted / torch.linalg.vector_norm(carrier, dim=1).clamp_min(EPS).unsqueeze(1)
        if self.kind == "binary":
            return torch.zeros_like(stage).scatter(1, stage.argmax(dim=1, keepdim=True), 1.0)
        magnitude = stage.clamp_min(EPS)
        relative = magnitude / magnitude.amax(dim=1, keepdim=True)  # high powers of small numbers vanish: divide first
        weight = relative.pow((2 if self.kind == "wiener" else 1) / self.power)
        return weight / weight.sum(dim=1, keepdim=True)
