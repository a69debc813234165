"""Correlations, convolutions and the solver against their naive counterparts."""

import numpy as np
import pytest
import torch
from torch.nn.functional import conv1d, pad

from tasnet_attn.metrics.energies import Filters, direct, resynthesised
from tasnet_attn.metrics.projection import BLOCK, CHUNK, TAPS, Projection, convolve, correlate
from tasnet_attn.metrics.signals import Signals
from tasnet_attn.metrics.toeplitz import cholesky
from tasnet_attn.metrics.windows import Windows


@pytest.mark.parametrize("length", [1, 400, BLOCK, BLOCK + 1, CHUNK + 3 * BLOCK - 7])
def test_correlations_equal_the_sum_of_products(length):
    x, y = torch.randn(2, length, dtype=torch.float64), torch.randn(3, length, dtype=torch.float64)
    lags = correlate(torch.cat([x, y]), 2)[:, 2:]
    assert lags.shape == (2, 3, TAPS)
    for lag in (0, 1, 100, 511):
        naive = x[:, : max(0, length - lag)] @ y[:, lag:].T
        torch.testing.assert_close(lags[..., lag], naive, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("length", [1, 300, BLOCK, 2 * BLOCK + 5, CHUNK, CHUNK + 100])
def test_pieces_put_together_are_the_convolution(length):
    signals, filters = torch.randn(3, length, dtype=torch.float64), torch.randn(4, 3, TAPS, dtype=torch.float64)
    starts, pieces = zip(*convolve(signals, filters), strict=True)
    whole = torch.cat(pieces, dim=-1)
    assert whole.shape == (4, length + TAPS - 1)
    assert list(starts) == [0, *np.cumsum([piece.shape[-1] for piece in pieces])[:-1]]
    expected = conv1d(pad(signals, (TAPS - 1, TAPS - 1))[None], filters.flip(-1))[0]
    torch.testing.assert_close(whole, expected, rtol=1e-10, atol=1e-9)


def projected(references, estimates):
    """The projection and its filters, of signals [S, C, T]."""
    x, y = references.flatten(0, 1), estimates.flatten(0, 1)
    lags = correlate(torch.cat([x, y]), len(x))
    projection = Projection(lags[:, : len(x)], len(references))
    return projection, projection.filters(lags[:, len(x) :])


def delayed(signals):
    """All delays of [K, T] as columns: [T + 511, K * L]."""
    padded = pad(signals, (TAPS - 1, TAPS - 1))
    return padded.unfold(-1, TAPS, 1).flip(-1).permute(1, 0, 2).flatten(1)


def test_filters_are_the_least_squares_solution():
    references = torch.randn(2, 1, 3000, dtype=torch.float64)
    estimates = torch.randn(2, 1, 3000, dtype=torch.float64)
    together, alone = projected(references, estimates)[1]
    target = pad(estimates[1], (0, TAPS - 1)).T
    expected = torch.linalg.lstsq(delayed(references[:, 0]), target).solution.view(2, TAPS)
    torch.testing.assert_close(together[1, 0], expected, rtol=0, atol=1e-12)
    expected = torch.linalg.lstsq(delayed(references[1]), target).solution.view(TAPS)
    torch.testing.assert_close(alone[1, 0, 1], expected, rtol=0, atol=1e-12)
    assert not alone[1, 0, 0].any()


@pytest.mark.parametrize("copy", ["same", "scaled", "delayed"])
def test_dependent_references_get_the_filters_of_minimum_norm(copy):
    source, estimate = torch.randn(2, 3000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    source[-1] = 0.0  # so that nothing is lost by the delay
    other = {"same": source, "scaled": -0.1 * source, "delayed": pad(source[:-1], (1, 0))}[copy]
    projection, (together, _) = projected(torch.stack([source, other])[:, None], estimate.expand(2, 1, -1))
    assert projection.together.shift > 0
    columns = delayed(torch.stack([source, other / other.norm() * source.norm()]))  # the rule: at equal energy
    values, vectors = torch.linalg.eigh(columns.T @ columns)
    keep = values > 1e-6 * values[-1]
    right = vectors[:, keep].T @ columns.T @ pad(estimate, (0, TAPS - 1))
    expected = (vectors[:, keep] @ (right / values[keep])).view(2, TAPS)
    expected[1] *= source.norm() / other.norm()
    torch.testing.assert_close(together[0, 0], expected, rtol=0, atol=1e-4 * expected.abs().max().item())


def test_silent_channels_have_no_filter_and_quiet_sources_count():
    references = torch.randn(2, 2, 4000, dtype=torch.float64)
    references[0, 1] = 0.0
    references[1] *= 1e-5
    projection, (together, _) = projected(references, references)
    assert projection.live.tolist() == [True, False, True, True] and projection.together.shift == 0
    torch.testing.assert_close(together[1, 0, 2, 0].item(), 1.0, rtol=0, atol=1e-6)  # itself, through channel 0
    assert not together[:, :, 1].any()


@pytest.mark.parametrize("channels", [1, 3, 40])
def test_the_factor_of_a_block_toeplitz_matrix_is_its_cholesky_factor(channels):
    taps, signals = 24, torch.randn(channels, 4000, dtype=torch.float64)
    lags = correlate(signals, channels)[..., :taps]
    matrix = torch.zeros(taps, channels, taps, channels, dtype=torch.float64)
    for a in range(taps):
        for b in range(taps):
            matrix[a, :, b] = lags[..., a - b] if a >= b else lags[..., b - a].T
    factor = cholesky(lags)
    expected = torch.linalg.cholesky(matrix.flatten(2).flatten(0, 1), upper=True)
    torch.testing.assert_close(factor.triu(), expected, rtol=0, atol=1e-9)
    lags[..., 0] -= 2 * expected.square().sum(0).max() * torch.eye(channels)  # no longer positive definite
    assert cholesky(lags) is None


@pytest.mark.parametrize("hop", [5000, 3000, 7000])
def test_energies_from_correlations_are_those_of_the_signals(hop):
    references = torch.randn(2, 2, 16_500, dtype=torch.float64)
    estimates = references + 0.3 * references.flip(0) + 0.1 * torch.randn_like(references)
    signals = Signals.of(references), Signals.of(estimates)
    windows = Windows(*signals, 5000, hop)
    whole = torch.cat([references, estimates]).flatten(0, 1)
    torch.testing.assert_close(windows.total, correlate(whole, 4), rtol=0, atol=1e-9)
    filters = Filters(*projected(references, estimates)[1])
    for x, y, lags in windows:
        found, lost = filters.energies(lags, direct(x, y))
        expected = resynthesised(x, y, filters.together, filters.alone)
        for name, value in expected._asdict().items():
            assert ((getattr(found, name) - value).abs() <= 1e-11 * value).all(), name
            assert (getattr(lost, name) < 1e-10 * value).all(), name
