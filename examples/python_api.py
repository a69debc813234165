"""Separate a song with known sources in Python, and score the result.

python examples/python_api.py MODEL

MODEL has the sources guitar and backing, like the demo's (demo/run). The song is the bundled one of the test split.
"""

import sys

import torch

import tasnet_attn
from tasnet_attn.data import StemFolders
from tasnet_attn.metrics import bss_eval, si_snr

model = tasnet_attn.load(sys.argv[1])
track = StemFolders(model.sources, model.sample_rate).tracks("test")[0]  # without `root`: the bundled songs
mixture, references = track.read(0, 4 * track.sample_rate)  # its first 4 s: [C, T], [S, C, T]
stems = tasnet_attn.separate(model, mixture, track.sample_rate)  # {source: [C, T]}

estimates = torch.stack(list(stems.values()))
gained = (si_snr(references, estimates) - si_snr(references, mixture)).mean(-1)  # over the channels
sdr = bss_eval(references, estimates, track.sample_rate)["SDR"].nanmedian(-1).values  # over windows of a second
for source, more, decibels in zip(model.sources, gained, sdr, strict=True):
    print(f"{source}: SI-SNRi {more:.2f} dB, SDR {decibels:.2f} dB")
