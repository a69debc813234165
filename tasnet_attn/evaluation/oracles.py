"""What a system could reach, and what doing nothing reaches: called with the references, scored like a model.

Shapes: S sources, C channels, T samples.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor


class Mixture:
    """The baseline: the mixture itself is every estimate, as in SI-SNRi and NSDR."""

    sources: list[str]

    def __call__(self, mixture: Tensor, references: Tensor) -> Tensor:
        """Mixture [C, T], references [S, C, T] -> [S, C, T]."""
        return mixture.expand_as(references).clone()

    def __repr__(self) -> str:
        return "Mixture()"


class OracleMask:
    """The best that a mask of the short-time spectrum of the mixture can do, made from the references.

    Args:
        mask: "binary", one where a source is loudest; "ratio", |s_i| / sum |s_j|; "wiener", |s_i|**2 / sum |s_j|**2.
        n_fft: samples of the Hann window.
        hop: samples between frames.

    Source: the oracles of SiSEC 2018 (Stoeter, Liutkus & Ito 2018), section 3.
    """

    sources: list[str]

    def __init__(self, mask: Literal["binary", "ratio", "wiener"], n_fft: int = 2048, hop: int = 512) -> None:
        if mask not in ("binary", "ratio", "wiener"):
            raise ValueError(f"mask {mask!r} is none of binary, ratio, wiener")
        self.mask, self.n_fft, self.hop = mask, n_fft, hop

    def __call__(self, mixture: Tensor, references: Tensor) -> Tensor:
        """Mixture [C, T], references [S, C, T] -> [S, C, T]."""
        window = torch.hann_window(self.n_fft, dtype=mixture.dtype, device=mixture.device)
        options: dict[str, Any] = {"n_fft": self.n_fft, "hop_length": self.hop, "window": window}
        every = torch.cat([mixture[None], references]).flatten(0, 1)
        spectra = torch.stft(every, **options, pad_mode="constant", return_complex=True)
        spectra = spectra.unflatten(0, (-1, len(mixture)))  # [1 + S, C, F, L]
        size = spectra[1:].abs()
        if self.mask == "binary":
            weight = torch.zeros_like(size).scatter(0, size.argmax(0, keepdim=True), 1.0)
        else:
            weight = size if self.mask == "ratio" else size.square()
            weight = weight / weight.sum(0, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
        masked = (weight * spectra[0]).flatten(0, 1)
        return torch.istft(masked, **options, length=mixture.shape[-1]).view_as(references)

    def __repr__(self) -> str:
        return f"OracleMask({self.mask!r}, {self.n_fft}, {self.hop})"


BASELINES: dict[str, Mixture | OracleMask] = {
    "mixture": Mixture(),
    "oracle-binary": OracleMask("binary"),
    "oracle-ratio": OracleMask("ratio"),
    "oracle-wiener": OracleMask("wiener"),
}
