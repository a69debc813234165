"""Costs: multiply-accumulates against true counts, times on one thread."""

from functools import partial

import pytest
import torch
from conftest import tasnet_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tasnet_attn.ablation.cost import build_on_meta, macs_per_second, real_time_factor
from tasnet_attn.filterbanks import STFTDecoder, STFTEncoder
from tasnet_attn.heads import Magnitude
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import LTL, AudioSlots, QueryTransformer, ResNet, Separator, TasNet


def on_meta(make):
    with torch.device("meta"):
        return make()


@pytest.mark.parametrize(
    "separator",
    [
        partial(
            LTL, hidden=8, heads=2, lstm_before=0, transformer_layers=1, window=9, bidirectional=True, lstm_after=2
        ),
        partial(TasNet, hidden=8, n_layers=3, bidirectional=True),
    ],
)
def test_macs_are_those_that_are_counted_one_by_one(separator):
    """On `meta` an LSTM too falls apart into products, which the counter sees; ours counts it by a formula."""
    make = partial(tasnet_model, separator, segment=0.02)
    model = on_meta(make)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 1, 160, device="meta"))
    assert macs_per_second(on_meta(make)) == counter.get_total_flops() / 2 * 50


def test_macs_of_tasnet_by_hand():
    """Encoder 2 F K, layers 4 h (in + h), masks h S F, decoder S F K, for each of 500 frames."""
    f, k, h, s = 24, 16, 8, 2
    expected = 500 * (2 * f * k + 4 * h * (f + h) + 4 * h * (h + h) + h * s * f + s * f * k)
    assert macs_per_second(on_meta(lambda: tasnet_model(partial(TasNet, hidden=h, n_layers=2)))) == expected


def test_a_model_of_fixed_length_counts_for_a_second():
    encoder, decoder = (partial(bank, n_fft=128, hop=64, drop="nyquist") for bank in (STFTEncoder, STFTDecoder))

    def make(segment):
        separator = partial(TasNet, hidden=8, n_layers=1)
        return SourceSeparator(["a", "b"], 8000, encoder(), separator, decoder(), segment=segment)

    one, half = (macs_per_second(on_meta(partial(make, segment))) for segment in (1.024, 0.512))
    assert one == pytest.approx(half, rel=0.1) and one > 1e5


def test_the_real_time_factor_is_of_one_thread():
    threads = torch.get_num_threads()
    times = real_time_factor(tasnet_model().config)
    assert len(times) == 3 and all(0 < seconds < 5 for seconds in times)
    assert torch.get_num_threads() == threads


class Recurrent(Separator):
    """A GRU, whose constructor looks at a value, which no tensor on `meta` has."""

    def __init__(self, n_features: int, n_sources: int) -> None:
        super().__init__()
        self.n_sources = n_sources
        self.gru = nn.GRU(n_features, int(torch.tensor(6).item()), num_layers=2, bidirectional=True)
        self.to_masks = nn.Linear(12, n_sources * n_features)

    def forward(self, features):
        masks = self.to_masks(self.gru(features.permute(2, 0, 1))[0])
        return [masks.permute(1, 2, 0).unflatten(1, (self.n_sources, -1))]


def test_a_user_s_separator_is_counted_too():
    """Layers 3 h (in + h) a direction, inputs F and then 2 h; the rest as TasNet's."""
    f, k, h, s = 24, 16, 6, 2
    layers = 2 * 3 * h * (f + h) + 2 * 3 * h * (2 * h + h)
    expected = 500 * (2 * f * k + layers + 2 * h * s * f + s * f * k)
    assert macs_per_second(build_on_meta(tasnet_model(Recurrent).config)) == expected


def test_audioslots_is_counted():
    """Its queries are expanded weights."""
    encoder = STFTEncoder(n_fft=64, hop=32, drop="nyquist", power=0.3)
    separator = partial(
        AudioSlots, encoder=ResNet(4, [1, 1, 1, 1], 2), slots=QueryTransformer(8, 1, 2), decoder_hidden=8
    )
    model = SourceSeparator(
        ["a", "b"], 8000, encoder, separator, STFTDecoder(n_fft=64, hop=32, drop="nyquist"), Magnitude(power=0.3),
        segment=0.128,
    )  # fmt: skip
    assert macs_per_second(build_on_meta(model.config)) > 1e5
