"""The base class of a user's metric."""

from __future__ import annotations

from torch import Tensor

from tasnet_attn.config import Configurable


class Metric(Configurable):
    """Scores of a track in addition to BSSEval and SI-SNR; imported by `--import` and named in `--metrics`.

    Its scores are in the track's file, in scores.csv, in the summary and in the report, under the names that it
    returns.

    Examples:
        >>> class Level(Metric):
        ...     def __call__(self, mixture, references, estimates, sample_rate):
        ...         ratio = estimates.square().mean((1, 2)) / references.square().mean((1, 2))
        ...         return {"level": 10 * ratio.log10()}
    """

    abstract = True

    def __call__(self, mixture: Tensor, references: Tensor, estimates: Tensor, sample_rate: int) -> dict[str, Tensor]:
        """Score a track.

        Args:
            mixture: [C, T], float64.
            references: [S, C, T].
            estimates: [S, C, T], in the order of the references.
            sample_rate: Hz.

        Returns:
            {name: [S]}, larger is better; NaN where there is no score.
        """
        raise NotImplementedError
