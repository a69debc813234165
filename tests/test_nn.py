import math

import pytest
import torch

from tasnet_attn import nn
from tasnet_attn.nn import TransformerLayer, attend, sinusoids


def naive_attention(q, k, v, causal, window):
    """Equation 1 of Vaswani et al., one frame after the other."""
    out = torch.zeros_like(q)
    for i in range(q.shape[-2]):
        seen = [
            j for j in range(k.shape[-2]) if (j <= i if causal else True) and (window is None or abs(i - j) < window)
        ]
        scores = torch.stack([(q[..., i, :] * k[..., j, :]).sum(-1) / math.sqrt(q.shape[-1]) for j in seen], dim=-1)
        weights = torch.softmax(scores, dim=-1)
        out[..., i, :] = sum(weights[..., n, None] * v[..., j, :] for n, j in enumerate(seen))
    return out


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 1, 5, 300])
@pytest.mark.parametrize("length", [1, 37])
def test_attention_equals_a_loop(causal, window, length):
    q, k, v = torch.randn(3, 2, 2, length, 4)
    torch.testing.assert_close(
        attend(q, k, v, causal=causal, window=window), naive_attention(q, k, v, causal, window), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("causal", [True, False])
def test_windowed_attention_over_several_blocks_equals_a_masked_product(causal):
    length, window = 900, 31
    q, k, v = torch.randn(3, 1, 2, length, 4)
    age = torch.arange(length)[:, None] - torch.arange(length)
    allowed = (age < window) & (age >= 0 if causal else age > -window)
    scores = (q @ k.transpose(-1, -2) / 2).masked_fill(~allowed, -torch.inf)
    torch.testing.assert_close(
        attend(q, k, v, causal=causal, window=window), scores.softmax(-1) @ v, atol=1e-5, rtol=1e-5
    )


def test_windowed_attention_never_builds_a_large_mask():
    """The largest tensor grows with window * block, not with the length squared."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(tensor, torch.Tensor):
                    self.seen = max(self.seen, tensor.numel())
            return out

    sizes = []
    for length in (2000, 4000):
        q = torch.randn(1, 1, length, 2)
        with Largest() as largest:
            attend(q, q, q, causal=True, window=64)
        sizes.append(largest.seen)
    assert sizes[1] < 2.2 * sizes[0] and sizes[1] <= 4032 * (64 + 64)  # whole blocks of 64 queries, a window of keys


@pytest.mark.parametrize("window", [None, 20])
def test_heads_of_any_width_fill_up_to_what_fused_kernels_take(window, monkeypatch):
    x = torch.randn(3, 2, 2, 150, 5, requires_grad=True)
    plain = attend(*x, causal=True, window=window)
    (gradient,) = torch.autograd.grad(plain.square().sum(), x)
    monkeypatch.setitem(nn.WIDTHS, "cpu", 8)  # as on a GPU
    widths = []
    fused = nn.F.scaled_dot_product_attention
    monkeypatch.setattr(
        nn.F,
        "scaled_dot_product_attention",
        lambda q, *rest, **how: widths.append(q.shape[-1]) or fused(q, *rest, **how),
    )
    filled = attend(*x, causal=True, window=window)
    assert widths == [8]
    torch.testing.assert_close(filled, plain)
    torch.testing.assert_close(torch.autograd.grad(filled.square().sum(), x)[0], gradient)


@pytest.mark.parametrize("causal", [True, False])
def test_gradients_in_a_window_are_those_of_a_masked_product(causal):
    length, window = 333, 31  # the last block is short: what is cut off it must not make NaN
    x = torch.randn(3, 2, 2, length, 4, requires_grad=True)
    age = torch.arange(length)[:, None] - torch.arange(length)
    mask = (age < window) & (age >= 0 if causal else age > -window)
    expected = nn.F.scaled_dot_product_attention(*x, attn_mask=mask)
    found = attend(*x, causal=causal, window=window)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("causal", [True, False])
def test_transformer_layer_equals_plain_matrix_products(causal):
    layer, x = TransformerLayer(8, 2, 12, causal), torch.randn(1, 11, 8)
    weight_q, weight_k, weight_v = layer.project_in.weight.chunk(3)
    bias_q, bias_k, bias_v = layer.project_in.bias.chunk(3)
    heads = []
    for h in range(2):
        rows = slice(4 * h, 4 * h + 4)
        q = x @ weight_q[rows].T + bias_q[rows]
        k = x @ weight_k[rows].T + bias_k[rows]
        v = x @ weight_v[rows].T + bias_v[rows]
        scores = q @ k.transpose(1, 2) / 2
        if causal:
            scores = scores.masked_fill(torch.ones(11, 11).triu(1).bool(), -torch.inf)
        heads.append(scores.softmax(-1) @ v)
    attended = torch.cat(heads, dim=-1) @ layer.project_out.weight.T + layer.project_out.bias

    def norm(y):
        return (y - y.mean(-1, keepdim=True)) / (y.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()

    y = norm(x + attended)
    first, second = layer.ffn[0], layer.ffn[2]
    expected = norm(y + (y @ first.weight.T + first.bias).clamp_min(0) @ second.weight.T + second.bias)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_sinusoids_equal_the_formula_at_any_start():
    code = sinusoids(3, 4, 6)
    for row, position in enumerate(range(3, 7)):
        for i in range(3):
            angle = position / 10_000 ** (2 * i / 6)
            assert code[row, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert code[row, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)
    assert sinusoids(0, 2, 5).shape == (2, 5)
