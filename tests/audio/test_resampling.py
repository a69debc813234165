"""Resampling in blocks: as long as it should be, and never much at once."""

import torch

from tasnet_attn.audio.resampling import MOST, Resampler, resample, resampled


def noise(length):
    return torch.rand(2, length, generator=torch.Generator().manual_seed(0))


def test_a_low_rate_gives_many_short_blocks_instead_of_a_long_one(monkeypatch):
    fed, feed = [], Resampler.feed
    monkeypatch.setattr(
        Resampler, "feed", lambda *given, **last: fed.append(given[1].shape[-1]) or feed(*given, **last)
    )
    samples = noise(400)
    made = list(resampled([samples], 10, 48_000))
    assert max(fed) * 4800 <= MOST and max(block.shape[-1] for block in made) <= MOST
    whole = resample(samples, 10, 48_000)
    torch.testing.assert_close(torch.cat(made, dim=-1), whole, atol=1e-4, rtol=0)


def test_blocks_of_any_size_give_the_same_samples():
    samples = noise(30_000)
    made = [torch.cat(list(resampled(samples.split(size, dim=-1), 11_025, 8000)), dim=-1) for size in (700, 30_000)]
    torch.testing.assert_close(*made)


def test_an_equal_rate_changes_nothing():
    blocks = list(noise(3000).split(1000, dim=-1))
    assert all(one is other for one, other in zip(resampled(blocks, 8000, 8000), blocks, strict=True))
