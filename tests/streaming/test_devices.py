"""`stream` between sound devices, through a stand-in for sounddevice."""

import sys
import types
from functools import partial

import numpy as np
import pytest
import torch
from conftest import tasnet_model

from tasnet_attn import load, save
from tasnet_attn.cli import main
from tasnet_attn.separators import LTL


class PortAudioError(Exception):
    pass


class Cable:
    """A microphone that hears `heard` and speakers that keep what is played; Ctrl-C when all of it was heard."""

    latency = 0.01, 0.02

    def __init__(self, heard, played, opened):
        self.heard, self.played, self.opened = heard, played, opened

    def __call__(self, **settings):
        self.opened.append(settings)
        if settings["device"][0] == 7:
            raise PortAudioError("Error querying device 7")
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def read(self, size):
        if len(self.heard) < size:
            raise KeyboardInterrupt
        block, self.heard = self.heard[:size], self.heard[size:]
        return block, False

    def write(self, block):
        self.played.append(block.copy())
        return len(self.played) == 1  # the first block comes late


@pytest.fixture
def model(tmp_path):
    network = partial(LTL, hidden=8, heads=2, ffn=8, transformer_layers=1, window=5)
    return save(tasnet_model(network), tmp_path / "model.safetensors")


@pytest.fixture
def cable(monkeypatch):
    heard = 0.1 * np.random.default_rng(0).standard_normal((4000, 2), dtype=np.float32)
    found = Cable(heard, [], [])
    devices = "  0 Built-in, 2 in, 0 out\n> 1 Headphones, 0 in, 2 out"
    stand_in = types.ModuleType("sounddevice")
    stand_in.Stream, stand_in.PortAudioError, stand_in.query_devices = found, PortAudioError, lambda: devices
    stand_in.__spec__ = types.SimpleNamespace(name="sounddevice")
    monkeypatch.setitem(sys.modules, "sounddevice", stand_in)
    return found


def test_what_is_heard_is_separated_and_played_until_ctrl_c(model, cable, capsys):
    heard = cable.heard
    arguments = ["--source", "backing", "--block", "20", "--microphone", "--speakers", "Headphones"]
    assert main(["stream", "-m", str(model), "--engine", "eager", *arguments]) == 0
    (opened,) = cable.opened
    assert opened["device"] == (None, "Headphones") and opened["samplerate"] == 8000 and opened["blocksize"] == 160
    played = np.concatenate(cable.played).T
    with torch.inference_mode():
        whole = load(str(model)).eval()(torch.from_numpy(heard.T.copy())[None])[0, 1].numpy()
    assert 4000 - 16 < played.shape[1] <= 4000
    np.testing.assert_allclose(played, whole[:, : played.shape[1]], atol=1e-6)
    said = capsys.readouterr().err
    assert "1 blocks were too late for the devices" in said and "25 blocks of 20 ms" in said


def test_devices_are_listed_without_a_model(cable, capsys):
    assert main(["stream", "--list-devices"]) == 0
    assert "Headphones" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--microphone", "7"], "Error querying device 7; see --list-devices"),
        (["--speakers", "--out", "stems"], "--out is for pipes"),
    ],
)
def test_mistakes_are_one_line(model, cable, capsys, arguments, said):
    assert main(["stream", "-m", str(model), "--engine", "eager", "--source", "guitar", *arguments]) in (1, 2)
    assert said in capsys.readouterr().err


def test_without_the_extra_its_name_is_said(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert main(["stream", "--list-devices"]) == 2
    assert "needs sounddevice" in capsys.readouterr().err
