import math

import pytest
import torch

from tasnet_attn.separators import Hourglass, SkipAttentionHourglass
from tasnet_attn.separators.skip_attention import SkipAttention


@pytest.fixture
def layer():
    torch.manual_seed(0)
    layer = SkipAttention(6)
    for p in layer.parameters():
        torch.nn.init.normal_(p)
    return layer


def features(*zero_rows):
    """E and D, [2, 6, 5, 4]; rows (frequencies) of E in `zero_rows` are zero."""
    torch.manual_seed(1)
    skip, up = torch.randn(2, 2, 6, 5, 4)
    skip[:, :, list(zero_rows)] = 0
    return skip, up


def naive(layer, skip, up):
    """The equations of the paper, query by query, in double precision."""
    w_q, w_k, w_v = (m.weight.detach().double().T for m in (layer.query, layer.key, layer.value))
    gain, bias = layer.norm.weight.detach().double(), layer.norm.bias.detach().double()
    out = torch.zeros(skip.shape, dtype=torch.float64)
    for n in range(skip.shape[0]):
        for t in range(skip.shape[3]):
            e, d = skip[n, :, :, t].T.double(), up[n, :, :, t].T.double()  # [F, d]
            keys, values = torch.cat([d, e]) @ w_k, torch.cat([d, e]) @ w_v
            for f in range(len(e)):
                query, attended = e[f] @ w_q, torch.zeros(len(gain), dtype=torch.float64)
                weights = [math.exp(query @ k / math.sqrt(len(k))) if k.any() else 0.0 for k in keys]
                if query.any() and sum(weights):
                    for weight, value in zip(weights, values, strict=True):
                        attended += weight / sum(weights) * value
                x = attended + e[f]
                normed = (x - x.mean()) / (x.var(unbiased=False) + 1e-8).sqrt()
                out[n, :, f, t] = normed * gain + bias + d[f]
    return out


@pytest.mark.parametrize("zero_rows", [(), (1,), (0, 4), (0, 1, 2, 3, 4)])
def test_agrees_with_the_equations(layer, zero_rows):
    skip, up = features(*zero_rows)
    up[:, :, list(zero_rows)] = 0
    torch.testing.assert_close(layer(skip, up).double(), naive(layer, skip, up), rtol=1e-5, atol=1e-5)


def test_parameter_counts():
    with torch.device("meta"):
        network, plain = SkipAttentionHourglass(512, 2), Hourglass(512, 2)
    layers = [module for module in network.modules() if isinstance(module, SkipAttention)]
    counts = [sum(p.numel() for p in layer.parameters()) for layer in layers]
    assert counts == [197_120] * 16
    total = sum(p.numel() for p in network.parameters())
    assert total == sum(p.numel() for p in plain.parameters()) + 16 * 197_120


def test_without_values_only_the_norm_of_the_skip_and_the_upsampled_remain(layer):
    torch.nn.init.zeros_(layer.value.weight)
    skip, up = features()
    expected = layer.norm(skip.transpose(1, 3)).transpose(1, 3) + up
    torch.testing.assert_close(layer(skip, up), expected)


def test_frames_are_independent(layer):
    skip, up = features()
    before = layer(skip, up)
    skip[..., 2], up[..., 2] = torch.randn(2, 2, 6, 5)
    changed = (layer(skip, up) != before).flatten(0, 2).any(dim=0)
    assert changed.tolist() == [False, False, True, False]
    torch.testing.assert_close(layer(skip[..., 1:2], up[..., 1:2]), before[..., 1:2])


def test_zero_keys_are_excluded(layer):
    """Rows of D whose key is zero change nothing but what is added to them, however large their value."""
    skip, up = features()
    with torch.no_grad():
        layer.key.weight[:, 0] = 0  # what lies in channel 0 alone makes no key ...
        layer.value.weight[:, 0] = 50  # ... but a huge value
    up[:, :, 2] = 0
    without = layer(skip, up)
    up[:, 0, 2] = 1.0
    with_it = layer(skip, up)
    with_it[:, 0, 2] -= 1.0
    torch.testing.assert_close(with_it, without)


def test_zero_queries_attend_to_nothing(layer):
    skip, up = features(3)
    expected = layer.norm(skip[:, :, 3].transpose(1, 2)).transpose(1, 2) + up[:, :, 3]  # SA = 0
    torch.testing.assert_close(layer(skip, up)[:, :, 3], expected)


def test_silence_has_finite_gradients(layer):
    skip, up = torch.zeros(2, 1, 6, 5, 4).requires_grad_().unbind(0)
    out = layer(skip, up)
    torch.testing.assert_close(out, layer.norm.bias[None, :, None, None].expand_as(out))
    out.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


def test_rows_may_come_in_any_order(layer):
    """There is no positional code: frequencies that change places change places in the output."""
    skip, up = features()
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(layer(skip[:, :, order], up[:, :, order]), layer(skip, up)[:, :, order])


def test_attention_at_some_levels_only():
    """One layer a stack and level; at no level it is the plain hourglass."""
    sizes = {"n_stacks": 2, "n_poolings": 3, "channels": 4, "stem": [2]}
    plain = sum(p.numel() for p in Hourglass(16, 2, **sizes).parameters())
    one = sum(p.numel() for p in SkipAttention(4).parameters())
    for levels, layers in ((None, 3), ([0, 1, 2], 3), ([1], 1), ([], 0)):
        network = SkipAttentionHourglass(16, 2, levels=levels, **sizes)
        assert sum(p.numel() for p in network.parameters()) == plain + 2 * layers * one
        assert isinstance(network.stacks[1].hourglass.inner.merge, SkipAttention) == (levels != [])
    with pytest.raises(ValueError, match=r"levels \[3\] are not within 0 to 2"):
        SkipAttentionHourglass(16, 2, levels=[3], **sizes)
