"""The step as an ONNX file: block by block it computes what the model computes on the whole."""

import json
import re
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import LIVE, ROOT, SMALL, fetched, tasnet_model
from export_models import spectrogram_model

from tasnet_attn import load, save
from tasnet_attn.cli import main
from tasnet_attn.errors import UserError
from tasnet_attn.exporting import export
from tasnet_attn.exporting.formats import FORMATS
from tasnet_attn.exporting.parity import cases
from tasnet_attn.heads import Mask
from tasnet_attn.separators import LTL, Bands, DualPath, TasNet

WINDOWED = partial(LTL, hidden=8, heads=1, ffn=8, transformer_layers=2, window=9)
CODED = partial(WINDOWED, lstm_before=0, lstm_after=2, positional="sinusoidal")
ACROSS = partial(WINDOWED, norm="pre", ffn_layer="lstm")
BANDS = partial(DualPath, fold=partial(Bands, n_bands=3, standardise="frame"), width=8, n_blocks=2, across=ACROSS)
MODELS = {
    "LTL": lambda: tasnet_model(WINDOWED),
    "TasNet, overlapping": lambda: tasnet_model(partial(TasNet, hidden=8), kernel_size=20, stride=7),
    "STFT": lambda: spectrogram_model(CODED, Mask("sigmoid"), None, drop="nyquist", last_frame=False),
    "bands": lambda: spectrogram_model(BANDS, Mask(kind="complex"), None, power=0.3, features="complex"),
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in MODELS]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The report of a model's step, next to the model; each is exported once."""

    @cache
    def proof(name):
        model = MODELS[name]()
        model.gain.copy_(torch.tensor([-1.7, 0.6]))
        return export(str(save(model, tmp_path_factory.mktemp("step") / "model.safetensors")), "onnx-step")

    return proof


@pytest.mark.parametrize("name", SLOW)
def test_the_step_is_the_model(name, exported):
    """Music, noise and silence in a fresh process; the side-car says what the file says."""
    import onnx

    report = exported(name)
    assert report["passed"] and len(report["cases"]) == 6
    file = Path(report["path"])
    about = json.loads(file.with_suffix(".json").read_text())
    inside = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert json.loads(inside["tasnet_attn"]) == about
    assert about["step"]["latency"] == load(str(file.parent / "model.safetensors")).latency
    assert about["sources"] == ["guitar", "backing"] and about["sample_rate"] == 8000


@pytest.mark.slow
def test_int8_says_what_it_costs_and_is_refused_below_40_db(tmp_path, capsys, monkeypatch):
    model = tasnet_model(partial(WINDOWED, hidden=64, ffn=64), n_filters=64)
    file = save(model, tmp_path / "model.safetensors")
    exact = FORMATS["onnx-step-int8"]
    monkeypatch.setitem(FORMATS, "onnx-step-int8", exact._replace(lowest_snr=20.0))  # weights at random: 30 dB or so
    assert main(["export", str(file), "--to", "onnx-step", "--int8"]) == 0
    ratios = [float(found) for found in re.findall(r"([0-9.]+) dB\n", capsys.readouterr().out)]
    assert len(ratios) > 1 and 20 <= min(ratios) < 100
    assert (tmp_path / "model.step.int8.onnx").is_file()
    monkeypatch.setitem(FORMATS, "onnx-step-int8", exact._replace(lowest_snr=200.0))
    with pytest.raises(UserError, match="dB from the model's output .* 200 are required"):
        export(str(file), "onnx-step", tmp_path / "again.onnx", int8=True)
    assert not (tmp_path / "again.onnx").exists()


def test_what_cannot_stream_has_no_step(tmp_path):
    file = save(SMALL["gated LTL"](), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="onnx-step: this model cannot stream: separator LTL has no window"):
        export(str(file), "onnx-step")
    with pytest.raises(UserError, match="--int8 is for onnx-step"):
        export(str(file), "onnx", int8=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors"]


@pytest.mark.slow
def test_the_example_runs_without_torch(exported, tmp_path):
    """examples/stream_onnx.py where importing torch fails, on a song in blocks of 100 samples."""
    code = (ROOT / "examples/stream_onnx.py").read_text()
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    (tmp_path / "live.py").write_text(code)
    report = exported("TasNet, overlapping")
    mixture = 0.1 * np.random.default_rng(0).standard_normal((8001, 2), dtype=np.float32)
    soundfile.write(tmp_path / "song.wav", mixture, 8000, "FLOAT")
    command = [sys.executable, "live.py", report["path"], "song.wav", "100"]
    subprocess.run(command, check=True, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    stems_are_the_model_s(report, mixture.T, tmp_path)


@fetched
@pytest.mark.slow
@pytest.mark.parametrize("name", list(MODELS)[1:])
def test_node_runs_it(name, exported, tmp_path):
    """docs/live/separate.js on a bundled song, in blocks that no stride divides."""
    report = exported(name)
    model = load(str(Path(report["path"]).parent / "model.safetensors"))
    mixture = next(mixture for case, mixture in cases(model).items() if case.startswith("music, 2 channels"))
    soundfile.write(tmp_path / "song.wav", mixture.T, 8000, "FLOAT")
    command = ["node", str(LIVE / "separate.js"), report["path"], "song.wav", ".", "1013"]
    said = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True).stdout
    assert said.endswith("times real time\n")
    stems_are_the_model_s(report, mixture, tmp_path)


def stems_are_the_model_s(report, mixture, folder):
    """Files of [T, C] against the model on the whole mixture [C, T], to 3e-5 of the largest output."""
    with torch.inference_mode():
        model = load(str(Path(report["path"]).parent / "model.safetensors")).eval()
        expected = model(torch.from_numpy(mixture)[None])[0]
    for source, estimate in zip(("guitar", "backing"), expected, strict=True):
        found, rate = soundfile.read(folder / f"{source}.wav", dtype="float32")
        assert rate == 8000
        np.testing.assert_allclose(found.T, estimate, atol=3e-5 * float(expected.abs().max()))
