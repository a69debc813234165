"""Matching of sources: the best of all permutations, whatever their number."""

import itertools

import pytest
import torch

from tasnet_attn.metrics.matching import best_permutation


@pytest.mark.parametrize("sources", [1, 2, 3, 5])
def test_no_permutation_gains_more(sources):
    for _ in range(10):
        gains = torch.randn(sources, sources)
        best = best_permutation(gains)
        sums = [sum(gains[i, j] for i, j in enumerate(p)) for p in itertools.permutations(range(sources))]
        torch.testing.assert_close(sum(gains[i, j] for i, j in enumerate(best)), max(sums))


def test_a_shuffled_square_is_put_in_order():
    order = torch.randperm(9)
    assert order[best_permutation(torch.eye(9)[:, order])].tolist() == list(range(9))


def test_equal_gains_keep_the_order():
    assert best_permutation(torch.zeros(4, 4)) == [0, 1, 2, 3]


@pytest.mark.parametrize("gains", [torch.zeros(2, 3), torch.full((2, 2), torch.nan), torch.zeros(2)])
def test_what_is_no_square_of_numbers_is_refused(gains):
    with pytest.raises(ValueError, match="square"):
        best_permutation(gains)
