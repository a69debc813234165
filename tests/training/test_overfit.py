"""A model that cannot learn one excerpt by heart has a bug."""

import numpy as np
import soxr
import torch
from conftest import tasnet_model

from tasnet_attn.data import StemFolders
from tasnet_attn.losses import SISNR
from tasnet_attn.metrics import si_snr
from tasnet_attn.separators import LTL


def test_ltl_learns_two_seconds_of_a_song():
    """Every source reaches 15 dB SI-SNR; a test-sized model, at 8 kHz, under a minute on one core."""
    track = StemFolders(["guitar", "backing"], 44_100).tracks("train")[0]
    stems = track.read(5 * 44_100, 2 * 44_100)[1].mean(1)
    references = torch.from_numpy(np.ascontiguousarray(soxr.resample(stems.T.numpy(), 44_100, 8000).T))[None, :, None]
    mixture = references.sum(1)

    def separator(n_features, n_sources):
        return LTL(n_features, n_sources, transformer_layers=1, hidden=64, ffn=128, input_norm=True)

    model, loss = tasnet_model(separator, n_filters=128), SISNR(cap=20)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(1, 701):
        value = loss(model.analyse(mixture), references, model)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5)
        optimizer.step()
        if step % 50 == 0:
            with torch.no_grad():
                reached = si_snr(references, model(mixture)).flatten()
            if reached.min() > 15:
                break
    assert reached.min() > 15, f"{reached.tolist()} dB after {step} steps"
