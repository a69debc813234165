"""Asteroid's mask networks as separators, with our encoders, data, losses, sweeps and exports.

Needs the `asteroid` extra and `--import tasnet_attn.separators.asteroid`: nothing else imports this file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from tasnet_attn import compat
from tasnet_attn.separators.base import Separator

__all__ = ["DPRNN", "DPTransformer", "LSTMMasker", "Masker", "SuDORMRF", "TDConvNet"]

masknn = compat.asteroid.masknn
# Asteroid has no annotations: a setting's default gives its type, except for these
KINDS = {"dropout": float, "hop_size": int | None, "rnn_type": Literal["RNN", "LSTM", "GRU"]}


class GlobLN(masknn.norms.GlobLN):  # type: ignore[name-defined]
    """Asteroid's "gLN", in operations that exporters support."""

    def forward(self, x: Tensor, eps: float = 1e-8) -> Tensor:
        dims = tuple(range(1, x.dim()))
        centred = x - x.mean(dims, keepdim=True)
        return self.apply_gain_and_bias(centred / (centred.square().mean(dims, keepdim=True) + eps).sqrt())


class Masker(Separator):
    """One of Asteroid's mask networks. Its settings and their defaults are the network's own.

    Exceptions: `in_chan`, `n_src` and `out_chan`, which follow from the encoder and the sources, and `mask_act`: the
    head determines the activation. None of them streams, so the model's `causal` is always false.

    Attributes:
        network: the class, `network(in_chan, n_src, *, mask_act, ...)`, [N, F, L] -> [N, S, F, L]. A subclass that
            names another network with this signature makes a separator of it.
        unused: settings that the network ignores.
    """

    abstract = True
    network: ClassVar[Callable[..., nn.Module]]
    masker: nn.Module
    unused: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "network" in cls.__dict__:
            cls.__init__ = _constructor(cls.network, cls.unused)  # type: ignore[method-assign]

    def forward(self, features: Tensor) -> list[Tensor]:
        return [self.masker(features)]


def _constructor(network: Callable[..., nn.Module], unused: tuple[str, ...]) -> Callable[..., None]:
    """A separator's constructor with the network's settings and their signature."""

    def __init__(self: Masker, n_features: int, n_sources: int, **settings: Any) -> None:
        super(Masker, self).__init__()
        self.masker = network(n_features, n_sources, mask_act="linear", **settings)
        for module in list(self.masker.modules()):
            for name, child in list(module.named_children()):
                if type(child) is masknn.norms.GlobLN:
                    setattr(module, name, GlobLN(child.channel_size))

    parameters = inspect.signature(network).parameters
    ours = list(inspect.signature(__init__).parameters.values())[:-1]
    for name, parameter in list(parameters.items())[2:]:
        if name not in ("out_chan", "mask_act", *unused):
            kind = KINDS.get(name, type(parameter.default))
            ours.append(parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=kind))
    __init__.__signature__ = inspect.Signature(ours)  # type: ignore[attr-defined]
    __init__.__annotations__ = {parameter.name: parameter.annotation for parameter in ours[1:]}
    return __init__


class TDConvNet(Masker):
    """Conv-TasNet's dilated convolutions. Source: Luo & Mesgarani 2019, arXiv 1809.07454."""

    least = {"skip_chan": 0}  # none

    network = masknn.TDConvNet


class DPRNN(Masker):
    """Recurrent layers within and across chunks of frames. Source: Luo et al. 2020, arXiv 1910.06379."""

    network = masknn.DPRNN


class DPTransformer(Masker):
    """Attention and recurrence within and across chunks of frames. Source: Chen et al. 2020, arXiv 2007.13975."""

    network = masknn.DPTransformer


class SuDORMRF(Masker):
    """Convolutions at successively halved rates. Source: Tzinis et al. 2020, arXiv 2007.06833."""

    network = masknn.SuDORMRF

    def forward(self, features: Tensor) -> list[Tensor]:
        return [self.masker(features)[:, :, : features.shape[1]]]  # for an odd number it makes one too many


class LSTMMasker(Masker):
    """TasNet's LSTM without skip connections. Source: Luo & Mesgarani 2018, arXiv 1711.00541."""

    network = masknn.LSTMMasker
    unused = ("rnn_type",)  # it is always an LSTM
