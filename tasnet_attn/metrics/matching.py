"""Matching of estimates and sources."""

from __future__ import annotations

from torch import Tensor


def best_permutation(gains: Tensor) -> list[int]:
    """The one-to-one matching with the highest sum, by the Hungarian algorithm; ties are always resolved equally.

    Args:
        gains: [S, S], gain of source i (row) with estimate j (column); finite.

    Returns:
        For each source its estimate: `estimates[best_permutation(gains)]` is in the order of the sources.

    Raises:
        ValueError: not square, or not finite.

    Source: `scipy.optimize.linear_sum_assignment`.

    Examples:
        >>> import torch
        >>> best_permutation(torch.tensor([[1.0, 5.0], [4.0, 6.0]]))
        [1, 0]
    """
    from scipy.optimize import linear_sum_assignment

    if gains.dim() != 2 or gains.shape[0] != gains.shape[1] or not gains.isfinite().all():
        raise ValueError(f"gains must be a square of finite numbers; got {list(gains.shape)}")
    return linear_sum_assignment(gains.detach().double().cpu().numpy(), maximize=True)[1].tolist()
