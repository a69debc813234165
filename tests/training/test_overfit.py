"""A model that cannot memorise one excerpt has a bug."""

from functools import partial

import numpy as np
import pytest
import soxr
import torch
from conftest import SMALL, tasnet_model, train_until

from tasnet_attn.data import StemFolders
from tasnet_attn.filterbanks import GatedEncoder
from tasnet_attn.losses import SISNR
from tasnet_attn.metrics import si_snr
from tasnet_attn.separators import LTL


def excerpt(seconds):
    """Of a bundled song, mono at 8 kHz: mixture [1, 1, T], references [1, 2, 1, T]."""
    track = StemFolders(["guitar", "backing"], 44_100).tracks("train")[0]
    stems = track.read(5 * 44_100, int(seconds * 44_100))[1].mean(1)
    references = torch.from_numpy(np.ascontiguousarray(soxr.resample(stems.T.numpy(), 44_100, 8000).T))[None, :, None]
    return references.sum(1), references


def all_above(decibels, batch):
    return lambda model: si_snr(batch[1], model(batch[0])).min() > decibels


@pytest.mark.parametrize("name", ["gated LTL", "gated TasNet", "gammatone LTL"])
def test_a_tiny_model_learns_a_twentieth_of_a_second(name):
    """To 5 dB, where the mixture has -10 for the guitar."""
    batch, model = excerpt(0.05), SMALL[name]()
    train_until(model, SISNR(), batch, all_above(5, batch), steps=480, lr=1e-2)


@pytest.mark.slow
def test_ltl_learns_two_seconds_of_a_song():
    """Every source reaches 15 dB SI-SNR."""
    batch = excerpt(2)
    separator = partial(LTL, transformer_layers=1, hidden=64, ffn=128, input_norm=True)
    encoder = GatedEncoder(128, 16, init="filterbank")  # with `glorot` some seeds need thousands of steps
    model = tasnet_model(separator, encoder, n_filters=128)
    train_until(model, SISNR(cap=20), batch, all_above(15, batch), steps=1200, lr=3e-3)
