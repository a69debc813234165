"""A long track is scored in the memory that a short one takes; pieces score like the whole."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from tasnet_attn.data.stem_folders import StemTrack
from tasnet_attn.evaluation.oracles import BASELINES
from tasnet_attn.evaluation.scores import best_order, score
from tasnet_attn.evaluation.spool import Spool
from tasnet_attn.metrics.si_snr import si_snr, si_snr_by_pieces
from tasnet_attn.metrics.signals import PIECE, Signals

SCRIPT = """
import sys
from pathlib import Path
import torch
from tasnet_attn.data.stem_folders import StemTrack
from tasnet_attn.evaluation import evaluate
from tasnet_attn.evaluation.oracles import BASELINES

class Copy(torch.nn.Module):
    sources, sample_rate, interchangeable, segment, stitch = ["one", "two"], 8000, True, None, "fade"
    def clip_scale(self, blocks, length):
        return None
    def forward(self, mixture, scale=None):
        return torch.stack([0.7 * mixture, 0.3 * mixture.roll(1, -1)], 1)

def peak():
    return next(int(x.split()[1]) for x in open("/proc/self/status") if x.startswith("VmHWM")) / 1024

for name in ("short", "short", "long"):  # the first fills what libraries keep
    Path("/proc/self/clear_refs").write_text("5")
    folder = Path(sys.argv[1])
    evaluate(Copy(), [StemTrack(folder / name, Copy.sources, 8000)], folder / f"out {name}", audio="flac")
    print(peak())
"""


@pytest.mark.slow
def test_a_long_track_takes_the_memory_of_a_short_one(tmp_path):
    for name, minutes in (("short", 1), ("long", 6)):
        (tmp_path / name).mkdir()
        for seed, source in enumerate(("one", "two")):
            noise = np.random.default_rng(seed).uniform(-0.3, 0.3, minutes * 60 * 8000)
            soundfile.write(tmp_path / name / f"{source}.wav", noise, 8000)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    peaks = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.split()
    signals = 5 * 6 * 60 * 8000 * 8 / 1e6  # MB, in float64: 115
    assert float(peaks[2]) - float(peaks[1]) < 0.7 * signals


def test_pieces_score_like_the_whole(tmp_path):
    generator = torch.Generator().manual_seed(0)
    references = torch.randn(2, 1, PIECE + 20_777, generator=generator)
    estimates = references.flip(0) + 0.3 * torch.randn(references.shape, generator=generator)
    mixture = references.sum(0)
    spools = [Spool(tmp_path / str(number)) for number in range(3)]
    for spool, signal in zip(spools, (mixture, references, estimates), strict=True):
        for block in signal.split(50_000, dim=-1):
            spool.write(block)
        assert torch.equal(spool.signals().read(), signal)
        assert torch.equal(spool.signals().cut(7000, 80_000).read(5, 66_000), signal[..., 7005:73_000])
    ours = score(*(spool.signals() for spool in spools), 60_000, 20_000)
    theirs = score(mixture, references, estimates, 60_000, 20_000)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    exact = si_snr(references.double(), estimates.double(), floor=0.0)
    by_pieces = si_snr_by_pieces(Signals.of(references), Signals.of(estimates), floor=0.0)
    torch.testing.assert_close(by_pieces, exact, rtol=0, atol=1e-9)
    assert best_order(spools[2].signals(), spools[1].signals()) == [1, 0]


@pytest.mark.parametrize("name", list(BASELINES))
def test_baselines_in_blocks_are_those_of_the_whole(name, monkeypatch):
    monkeypatch.setattr("tasnet_attn.evaluation.oracles.BLOCK", 9000)
    references = torch.randn(2, 2, 30_011)
    whole = BASELINES[name](references.sum(0), references)
    blocks = BASELINES[name].blocks(*map(Signals.of, (references.sum(0), references)))
    torch.testing.assert_close(torch.cat(list(blocks), dim=-1), whole, rtol=0, atol=1e-5)


def test_a_track_in_blocks_is_the_track(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 5000, 2)).astype("float32")
    for name, samples in zip(("one", "two"), noise, strict=True):
        soundfile.write(tmp_path / f"{name}.wav", samples, 8000, "FLOAT")
    monkeypatch.setattr("tasnet_attn.data.track.BLOCK", 1300)
    track = StemTrack(tmp_path, ["one", "two"], 8000)
    mixtures, references = zip(*track.blocks(), strict=True)
    assert [block.shape[-1] for block in mixtures] == [1300, 1300, 1300, 1100]
    assert torch.equal(torch.cat(references, -1), track.read()[1])
    assert torch.equal(torch.cat(mixtures, -1), track.read()[0])
