"""Asteroid's mask networks as separators, on our encoders, data, losses, sweeps and exports.

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
# Asteroid annotates nothing: a setting's default tells its kind, but for these
KINDS = {"dropout": float, "hop_size": int | None, "rnn_type": Literal["RNN", "LSTM", "GRU"]}


class GlobLN(masknn.norms.GlobLN):  # type: ignore[name-defined]
    """Asteroid's "gLN", in operations that exporters follow."""

    def forward(self, x: Tensor, eps: float = 1e-8) -> Tensor:
        dims = tuple(range(1, x.dim()))
        centred = x - x.mean(dims, keepdim=True)
        return self.apply_gain_and_bias(centred / (centred.square().mean(dims, keepdim=True) + eps).sqrt())


class Masker(Separator):
    """One of Asteroid's mask networks. Its settings and their defaults are the network's own.

    Not among them: `in_chan`, `n_src` and `out_chan`, which the encoder and the sources decide, and `mask_act`: the
    head decides the activation. None of them streams, so `causal` of the model stays false, whatever they look at.

    Attributes:
        network: the class, `network(in_chan, n_src, *, mask_act, ...)`, [N, F, L] -> [N, S, F, L]. A subclass that
            names another one of that form makes a separator of it.
        unused: settings of the network that it does not look at.
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
    """A separator's constructor with the network's settings: what it takes, and what it says that it takes."""

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
    """Recurrent layers along chunks of frames and across them. Source: Luo et al. 2020, arXiv 1910.06379."""

    network = masknn.DPRNN


class DPTransformer(Masker):
    """Attention and recurrence along chunks of frames and across them. Source: Chen et al. 2020, arXiv 2007.13975."""

    network = masknn.DPTransformer


class SuDORMRF(Masker):
    """Convolutions at successively halved rates. Source: Tzinis et al. 2020, arXiv 2007.06833."""

    network = masknn.SuDORMRF

    def forward(self, features: Tensor) -> list[Tensor]:
        return [self.masker(features)[:, :, : features.shape[1]]]  # of an odd number it makes one too many


class LSTMMasker(Masker):
    """TasNet's LSTM without skip connections. Source: Luo & Mesgarani 2018, arXiv 1711.00541."""

    network = masknn.LSTMMasker
    unused = ("rnn_type",)  # it is an LSTM, whatever this says
