"""`stream`: what comes through a pipe, while it comes."""

import io
import os
import re
import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest
import soundfile
import torch
from conftest import tasnet_model

from tasnet_attn import UserError, load, save
from tasnet_attn.audio.pipes import Layout, blocks, coded, header, opened
from tasnet_attn.cli import main
from tasnet_attn.exporting.formats import write_step
from tasnet_attn.separators import LTL, TasNet
from tasnet_attn.streaming import stream
from tasnet_attn.streaming.live import Clock, Durations


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    network = partial(LTL, hidden=8, heads=2, ffn=8, transformer_layers=1, window=5)
    return str(save(tasnet_model(network), tmp_path_factory.mktemp("model") / "model.safetensors"))


@pytest.fixture
def whole(model):
    """The model on a whole mixture [C, T]: [S, C, T]."""

    def run(mixture):
        with torch.inference_mode():
            return load(model).eval()(mixture[None])[0].numpy()

    return run


class Trickle(io.RawIOBase):
    """A pipe that returns a few bytes at a time."""

    def __init__(self, data):
        self.data = io.BytesIO(data)

    def read(self, size=-1):
        return self.data.read(min(size, 7))


def test_raw_samples_come_out_as_the_whole_would(model, whole):
    mixture, out = 0.1 * torch.randn(2, 3001), io.BytesIO()
    stream(model, source="backing", block=7, source_pipe=Trickle(mixture.T.numpy().tobytes()), target_pipe=out)
    found = np.frombuffer(out.getvalue(), "<f4").reshape(-1, 2).T
    np.testing.assert_allclose(found, whole(mixture)[1], atol=1e-6)


@pytest.mark.parametrize("subtype", ["PCM_16", *(pytest.param(s, marks=pytest.mark.slow) for s in ("PCM_32", "FLOAT"))])
def test_a_wav_through_the_shell_gives_wavs_of_its_kind(model, whole, tmp_path, capfdbinary, subtype):
    mixture = 0.1 * torch.randn(1, 3000)
    soundfile.write(tmp_path / "song.wav", mixture.T.numpy(), 8000, subtype)
    code = "import sys; from tasnet_attn.cli import main; sys.exit(main(sys.argv[1:]))"
    with open(tmp_path / "song.wav", "rb") as song:
        command = [
            sys.executable,
            "-c",
            code,
            "stream",
            "-m",
            model,
            "-o",
            str(tmp_path / "out"),
            "--block",
            "20",
            "--engine",
            "eager",
        ]
        ended = subprocess.run(command, stdin=song, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert re.search(
        r"19 blocks of 20 ms: p50 .*, p99 .*, p99.9 .* ms \(.* of CPU\), \d+ late; latency 1.9 ms of the model",
        ended.stderr,
    )
    expected = whole(mixture)
    for index, name in enumerate(("guitar", "backing")):
        assert soundfile.info(tmp_path / f"out/{name}.wav").subtype == subtype
        found, rate = soundfile.read(tmp_path / f"out/{name}.wav", dtype="float32")
        assert rate == 8000
        np.testing.assert_allclose(found, expected[index, 0], atol=1e-6 if subtype == "FLOAT" else 1e-4)


def test_another_rate_is_resampled_and_keeps_its_length(model):
    mixture, out = 0.1 * torch.randn(1, 11_025), io.BytesIO()
    pipe = io.BytesIO(mixture.T.numpy().tobytes())
    stream(model, source="guitar", rate=11_025, channels=1, source_pipe=pipe, target_pipe=out)
    assert len(out.getvalue()) == 4 * 11_025


def test_a_fifo_for_each_source(model, tmp_path):
    heard = {}

    def listen(name):
        heard[name] = (tmp_path / f"{name}.raw").read_bytes()

    listeners = [threading.Thread(target=listen, args=[name]) for name in ("guitar", "backing")]
    for name in ("guitar", "backing"):
        os.mkfifo(tmp_path / f"{name}.raw")
    for listener in listeners:
        listener.start()
    stream(model, out=tmp_path, channels=1, coding="s16", source_pipe=io.BytesIO(bytes(2 * 500)))
    for listener in listeners:
        listener.join()
    assert {name: len(data) for name, data in heard.items()} == {"guitar": 1000, "backing": 1000}


@pytest.mark.parametrize("coding", ["f32", "s16", "s32"])
@pytest.mark.parametrize("wav", [False, True])
def test_samples_survive_a_pipe(coding, wav):
    layout, audio = Layout(8000, 3, coding, wav), torch.rand(3, 101) - 0.5
    data, cut = coded(audio, layout)
    pipe = Trickle(header(layout) + data)
    found, before, length = opened(pipe, Layout(8000, 3, coding))
    assert found == layout and cut == 0
    heard = torch.cat(list(blocks(pipe, found, 10, before, length)), dim=-1)
    torch.testing.assert_close(heard, audio, atol=2e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_blocks_shorter_than_a_header_lose_no_byte(channels):
    layout, audio = Layout(8000, channels), torch.rand(channels, 23)
    pipe = Trickle(coded(audio, layout)[0])
    found, before, _ = opened(pipe, layout)
    assert torch.equal(torch.cat(list(blocks(pipe, found, 1, before)), dim=-1), audio)


def test_integers_are_cut_to_full_scale_and_counted():
    data, cut = coded(torch.tensor([[0.5, 1.5, -2.0]]), Layout(8000, 1, "s16"))
    assert list(np.frombuffer(data, "<i2")) == [16384, 32767, -32768] and cut == 2


@pytest.mark.parametrize(
    ("settings", "data", "said"),
    [
        ({}, b"", "standard output takes one source; choose it with --source"),
        ({"source": "voice"}, b"", "no source 'voice'"),
        ({"source": "guitar", "block": 0}, b"", "--block 0"),
        ({"source": "guitar", "block": 1e308}, b"", r"--block 1e\+308 must be .* at most 60000"),
        ({"source": "guitar", "block": float("nan")}, b"", "--block nan"),
        ({"source": "guitar"}, b"", "standard input: has no samples"),
        ({"source": "guitar"}, b"abc", "standard input: has no samples"),
        ({"source": "guitar"}, header(Layout(8000, 1, wav=True)), "standard input: has no samples"),
        ({"source": "guitar", "channels": 0}, b"", "--channels 0"),
        ({"source": "guitar"}, b"RIFF\0\0\0\0WAVEfmt ", "an incomplete wav header"),
    ],
)
def test_mistakes_are_one_line(model, settings, data, said):
    out = io.BytesIO()
    with pytest.raises(UserError, match=said):
        stream(model, source_pipe=io.BytesIO(data), target_pipe=out, engine="eager", **settings)
    assert out.getvalue() == b""


def test_a_model_that_cannot_stream_says_why(tmp_path, capsys):
    model = save(tasnet_model(), tmp_path / "model.safetensors")
    assert main(["stream", "-m", str(model), "--source", "guitar"]) == 2
    assert "cannot stream: separator LTL has no window" in capsys.readouterr().err


def test_percentiles_of_a_clock():
    found = Durations()
    for seconds in np.random.default_rng(0).permutation(np.geomspace(1e-3, 1e-2, 1000)):
        found.add(seconds)
    assert found.percentile(0.5) == pytest.approx(1e-3 * 10**0.5, rel=0.03)
    assert found.percentile(0.99) == pytest.approx(9.8e-3, rel=0.03)


def test_a_clock_tells_work_from_waiting():
    clock = Clock(limit=0.001)
    with clock:
        time.sleep(0.05)
    assert clock.late == 1 and clock.wall.percentile(0.5) > 0.045 > clock.cpu.percentile(0.5)


@pytest.mark.slow
class Warm(TasNet):
    """Its state does not begin as zeros, which a step's file cannot state."""

    def initial_state(self, batch):
        return [(h + 1, c + 1) for h, c in super().initial_state(batch)]

    def forward(self, features):
        return self.step(features, self.initial_state(len(features)))[0]

    def step(self, features, state):
        return super().step(features, state)


@pytest.mark.slow
def test_a_step_that_is_not_the_model_is_not_used(tmp_path, capsys):
    pytest.importorskip("onnxscript")
    network = tasnet_model(partial(Warm, hidden=8, n_layers=1)).eval()
    file, mixture, out = save(network, tmp_path / "warm.safetensors"), 0.1 * torch.randn(1, 3001), io.BytesIO()
    pipe = io.BytesIO(mixture.numpy().tobytes())
    stream(str(file), source="guitar", channels=1, write_step=write_step, source_pipe=pipe, target_pipe=out)
    assert "gives other samples than the model" in capsys.readouterr().err
    with torch.inference_mode():
        np.testing.assert_allclose(np.frombuffer(out.getvalue(), "<f4"), network(mixture[None])[0, 0, 0], atol=1e-6)
    with pytest.raises(UserError, match="--engine onnx: the step"):
        stream(str(file), source="guitar", engine="onnx", write_step=write_step, source_pipe=io.BytesIO())


@pytest.mark.parametrize("engine", ["auto", "onnx"])
def test_onnx_runtime_gives_what_the_model_gives(model, whole, tmp_path, engine):
    """By the command, which writes the step itself, and from a step that the user wrote."""
    pytest.importorskip("onnxscript")
    mixture, file = 0.1 * torch.randn(2, 2001), tmp_path / "model.step.onnx"
    write_step(load(model).eval(), file)
    for given in (model, str(file)):
        out, pipe = io.BytesIO(), io.BytesIO(mixture.T.numpy().tobytes())
        stream(given, source="backing", engine=engine, write_step=write_step, source_pipe=pipe, target_pipe=out)
        found = np.frombuffer(out.getvalue(), "<f4").reshape(-1, 2).T
        expected = whole(mixture)[1]
        np.testing.assert_allclose(found, expected, atol=3e-5 * np.abs(expected).max())


def test_what_is_no_step_is_one_line(tmp_path):
    pytest.importorskip("onnxruntime")
    file = tmp_path / "model.step.onnx"
    with pytest.raises(UserError, match="No such file"):
        stream(str(file), source="guitar")
    with pytest.raises(UserError, match="--engine eager: .* is a step for ONNX Runtime"):
        stream(str(file), source="guitar", engine="eager")
    file.write_bytes(b"no graph")
    with pytest.raises(UserError, match="not a step written by `export --to onnx-step`") as caught:
        stream(str(file), source="guitar")
    assert "\n" not in str(caught.value)
