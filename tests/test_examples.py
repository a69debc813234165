"""The scripts and the notebook of examples/, as a user runs them; those without torch run in tests/exporting."""

import json
import runpy
import sys
from functools import partial
from types import ModuleType

import matplotlib
import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT, tasnet_model

import tasnet_attn
from tasnet_attn.separators import LTL

EXAMPLES = ROOT / "examples"
RATE = 44_100


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model like the demo's, and songs."""
    folder = tmp_path_factory.mktemp("examples")
    separator = partial(LTL, hidden=8, heads=2, ffn=12, transformer_layers=1, window=16)
    tasnet_attn.save(tasnet_model(separator, kernel_size=64, sample_rate=RATE), folder / "model.safetensors")
    (folder / "songs").mkdir()
    noise = 0.1 * np.random.default_rng(0).normal(size=(2, 20_000, 2))
    for name, samples in zip("ab", noise, strict=True):
        soundfile.write(folder / f"songs/{name}.wav", samples, RATE, "FLOAT")
    return folder


@pytest.fixture
def script(folder, monkeypatch, capsys):
    """Runs a script in the folder; returns exit status, standard output and standard error."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        monkeypatch.chdir(folder)
        status = 0
        try:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


def test_a_batch_goes_on_after_a_bad_file(script, folder):
    (folder / "songs/bad.wav").write_bytes(b"RIFF, but no sound")
    status, said, failed = script("batch.py", "model.safetensors", "songs", "stems")
    assert status == 1 and failed.startswith("failed: songs/bad.wav") and failed.count("\n") == 1
    assert said.splitlines()[1] == "b.wav -> stems/b/guitar.flac, stems/b/backing.flac"
    assert {soundfile.info(folder / f"stems/{name}/guitar.flac").frames for name in "ab"} == {20_000}


def test_the_stream_s_stems_are_the_model_s(script, folder):
    status, said, _ = script("stream.py", "model.safetensors", "songs/a.wav", "live")
    assert status == 0 and "waits for at most 1.4 ms" in said
    model = tasnet_attn.load(folder / "model.safetensors").eval()
    song, _ = soundfile.read(folder / "songs/a.wav", dtype="float32")
    with torch.inference_mode():
        expected = model(torch.from_numpy(song.T)[None])[0]
    for source, stem in zip(model.sources, expected, strict=True):
        found, _ = soundfile.read(folder / f"live/{source}.wav", dtype="float32")
        np.testing.assert_allclose(found.T, stem, atol=3e-5 * float(expected.abs().max()))


@pytest.mark.slow
def test_python_scores_a_song(script):
    status, said, _ = script("python_api.py", "model.safetensors")
    lines = said.splitlines()
    assert status == 0 and [line.split(":")[0] for line in lines] == ["guitar", "backing"]
    assert all("SI-SNRi" in line and "SDR" in line and "nan" not in line for line in lines)


def notebook():
    return json.loads((EXAMPLES / "separate_and_train.ipynb").read_text())


def test_the_notebook_is_stored_without_outputs():
    cells = [cell for cell in notebook()["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 4 and not any(cell["outputs"] or cell["execution_count"] for cell in cells)


@pytest.mark.slow
def test_the_notebook_trains_listens_and_plots(tmp_path, monkeypatch, capsys):
    """Every code cell, one after the other, with two steps of training, where Jupyter need not be installed."""
    heard, drawn = [], []
    display = ModuleType("IPython.display")
    display.Audio = lambda samples, rate: heard.append((samples, rate))
    display.display = lambda shown: None
    ipython = ModuleType("IPython")
    ipython.version_info, ipython.get_ipython = (9, 0), lambda: None  # matplotlib looks
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: drawn.append(plt.gcf().get_axes()))
    monkeypatch.chdir(tmp_path)
    cells = ["".join(cell["source"]) for cell in notebook()["cells"] if cell["cell_type"] == "code"]
    short = {
        "STEPS = 150 ": "STEPS = 2 ",
        '"--data.workers=0",': '"--data.workers=0", "--trainer.limit_val_batches=1",',
        "6 * track": "2 * track",
    }
    for setting, brief in short.items():
        assert sum(setting in cell for cell in cells) == 1, setting
        cells = [cell.replace(setting, brief) for cell in cells]
    names = {"__name__": "__main__"}
    for cell in cells:
        exec(compile(cell, "separate_and_train.ipynb", "exec"), names)
    plt.close("all")
    assert len(heard) == 3 and all(rate == RATE and np.isfinite(samples).all() for samples, rate in heard)
    assert [len(axes) for axes in drawn] == [1, 11]  # the curves; five signals twice and the colour scale
    assert capsys.readouterr().out.count("SI-SNRi") == 2
