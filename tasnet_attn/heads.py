"""Heads: what a separator's raw output means, a mask or a magnitude, in the feature and in the carrier domain."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tasnet_attn.config import Configurable
from tasnet_attn.filterbanks import EPS, Encoded


class Head(Configurable):
    """Turns one stage [N, S, F, L] of a separator into what losses compare and into what the decoder gets.

    No `nn.Module`: a head has no parameters, and `nn.Module.apply` means something else.
    """

    def predict(self, stage: Tensor, encoded: Encoded) -> Tensor:
        """Feature domain, [N, S, F, L]."""
        raise NotImplementedError

    def apply(self, stage: Tensor, encoded: Encoded) -> Tensor:
        """Carrier domain, [N, S, F, L] or [N, S, 2, F, L]."""
        raise NotImplementedError


def masked(mask: Tensor, carrier: Tensor) -> Tensor:
    """mask [N, S, F, L] times carrier [N, F, L] or [N, 2, F, L], for every source."""
    return mask * carrier.unsqueeze(1) if carrier.dim() == 3 else mask.unsqueeze(2) * carrier.unsqueeze(1)


class Mask(Head):
    """The stage is a mask.

    Args:
        activation: "softmax" over the sources (masks sum to one), "sigmoid", "relu", or "linear" (unbounded).
    """

    def __init__(self, activation: Literal["softmax", "sigmoid", "relu", "linear"] = "softmax") -> None:
        if activation not in ("softmax", "sigmoid", "relu", "linear"):
            raise ValueError(f"activation {activation!r} is none of softmax, sigmoid, relu, linear")
        self.activation = activation

    def mask(self, stage: Tensor) -> Tensor:
        """[N, S, F, L] -> [N, S, F, L]."""
        match self.activation:
            case "softmax":
                return torch.softmax(stage, dim=1)
            case "sigmoid":
                return torch.sigmoid(stage)
            case "relu":
                return torch.relu(stage)
            case _:
                return stage

    def predict(self, stage: Tensor, encoded: Encoded) -> Tensor:
        return masked(self.mask(stage), encoded.features)

    def apply(self, stage: Tensor, encoded: Encoded) -> Tensor:
        return masked(self.mask(stage), encoded.carrier)


class Magnitude(Head):
    """The stage is a non-negative magnitude in the encoder's domain, |X|**power; masks for the mixture are made of them.

    Args:
        mask: "wiener", m_i**2 / sum_j m_j**2, or "binary", one where m_i is the largest.
        power: the encoder's exponent, undone before the mask is made.
    """

    def __init__(self, mask: Literal["wiener", "binary"] = "wiener", power: float = 1.0) -> None:
        if mask not in ("wiener", "binary"):
            raise ValueError(f"mask {mask!r} is neither 'wiener' nor 'binary'")
        self.kind, self.power = mask, power

    def predict(self, stage: Tensor, encoded: Encoded) -> Tensor:
        return stage

    def apply(self, stage: Tensor, encoded: Encoded) -> Tensor:
        if self.kind == "binary":
            mask = torch.zeros_like(stage).scatter(1, stage.argmax(dim=1, keepdim=True), 1.0)
        else:
            magnitude = stage.clamp_min(EPS)
            relative = magnitude / magnitude.amax(dim=1, keepdim=True)  # high powers of small numbers vanish: divide first
            squared = relative.pow(2 / self.power)
            mask = squared / squared.sum(dim=1, keepdim=True)
        return masked(mask, encoded.carrier)
