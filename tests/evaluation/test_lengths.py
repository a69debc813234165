"""Scores by the length of excerpts: each is separated by itself, all lengths have the same sound."""

import base64

import pandas as pd
import pytest
import torch
from conftest import SMALL, tasnet_model
from test_evaluate import RATE, Tones

from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.command import evaluate
from tasnet_attn.evaluation.lengths import FILE, by_length, shown
from tasnet_attn.evaluation.oracles import OracleMask
from tasnet_attn.metrics import si_snr
from tasnet_attn.reporting.command import report

NAMES = ("guitar", "backing")


def tones(count=3, **settings):
    return [Tones(f"track {i}", sources=NAMES, **settings) for i in range(count)]


@pytest.mark.parametrize("interchangeable", [False, True])
def test_it_is_the_mean_over_excerpts_that_are_separated_by_themselves(interchangeable, tmp_path):
    model, tracks = tasnet_model(interchangeable=interchangeable), [*tones(), *tones(1, length=RATE)]
    model.train()
    table = by_length(model, tracks, tmp_path, [2, 0.5], "cpu")
    assert model.training
    assert table["length"].tolist() == [0.5, 2] and table["excerpts"].tolist() == [12, 3]  # one track is too short
    gains = []
    for track in tracks[:3]:
        mixture, references = (x[..., : 2 * RATE] for x in track.read())
        for piece, alone in zip(mixture.split(RATE // 2, -1), references.split(RATE // 2, -1), strict=True):
            with torch.no_grad():
                estimates = model.eval()(piece[None])[0]
            orders = [estimates, estimates.flip(0)] if interchangeable else [estimates]
            gains.append(max((si_snr(alone, each) - si_snr(alone, piece)).mean().item() for each in orders))
    assert table["SI-SNRi"][0] == pytest.approx(sum(gains) / len(gains), abs=1e-3)
    assert (table["low"] <= table["SI-SNRi"]).all() and (table["SI-SNRi"] <= table["high"]).all()
    assert (table["seconds"] > 0).all() and "0.5 s" in shown(table)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / FILE), table)


def test_another_rate_and_silence(tmp_path):
    silent = Tones("silent", sources=NAMES)
    silent.read = lambda start=0, length=None: (torch.zeros(1, RATE), torch.zeros(2, 1, RATE))
    table = by_length(tasnet_model(sample_rate=4000), [*tones(1), silent], tmp_path, [0.5, 1], "cpu")
    assert table["SI-SNRi"].notna().all() and table["excerpts"].tolist() == [4, 2]


@pytest.mark.slow
def test_an_evaluation_writes_it_and_the_report_draws_it(tmp_path):
    for name in ("one", "two"):
        evaluate(tasnet_model(), tones(2), tmp_path / name, "fast", "cpu", by_length=[0.25, 1], name=name)
    page = report([tmp_path / "one", tmp_path / "two"], seconds=1.0)
    figure = (tmp_path / "one" / "by_length.png").read_bytes()
    assert base64.b64encode(figure).decode() in page.read_text()
    assert len(pd.read_csv(tmp_path / "two" / FILE)) == 2


@pytest.mark.parametrize(
    ("system", "lengths", "said"),
    [
        (SMALL["gated LTL"](), [1, 3], "no track is 3 s long"),
        (SMALL["gated LTL"](), [0], "must be finite and at least one sample"),
        (tasnet_model(segment=0.5), [1], "does not separate excerpts of any length"),
        (OracleMask("ratio"), [1], "does not separate excerpts of any length"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is_scored(system, lengths, said, tmp_path):
    with pytest.raises(UserError, match=f"^evaluation.by_length: .*{said}"):
        evaluate(system, tones(1), tmp_path, "fast", "cpu", by_length=lengths)
    assert not list(tmp_path.glob("*.json"))
