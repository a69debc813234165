"""Pipes: where the sound in them ends, and what is no sound."""

import io
import struct

import numpy as np
import pytest
import torch
from conftest import audio_bytes

from tasnet_attn.audio.pipes import Layout, blocks, coded, opened
from tasnet_attn.errors import UserError

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 2)).astype("float32")


RAW = Layout(8000, 2)


def heard(data, raw=RAW, size=300):
    """The samples [T, C] that come out of a pipe."""
    pipe = io.BytesIO(data)
    layout, before, length = opened(pipe, raw)
    found = list(blocks(pipe, layout, size, before, length))
    return layout, torch.cat(found, dim=-1).T.numpy() if found else np.empty((0, layout.channels))


@pytest.mark.parametrize("behind", [b"", b"LIST" + struct.pack("<I", 4000) + bytes(range(250)) * 16])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
@pytest.mark.parametrize("size", [1, 300, 4000, 5000])
def test_a_wav_ends_where_its_header_says(behind, subtype, size):
    layout, samples = heard(audio_bytes(NOISE, "WAV", subtype, 8000) + behind, size=size)
    assert layout == Layout(8000, 2, {"PCM_16": "s16", "FLOAT": "f32"}[subtype], wav=True)
    assert samples.shape == NOISE.shape
    np.testing.assert_allclose(samples, NOISE, atol=1.1 / 32768)


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_a_wav_of_unknown_length_lasts_until_the_end(size):
    data = bytearray(audio_bytes(NOISE, "WAV", rate=8000))
    data[4:8] = data[40:44] = struct.pack("<I", size)
    assert len(heard(bytes(data))[1]) == len(NOISE)


@pytest.mark.parametrize("part", [1, 44, 2000, 15_999])
def test_a_wav_that_ends_early_gives_what_is_there(part):
    data = audio_bytes(NOISE, "WAV", rate=8000)
    assert len(heard(data[: 44 + part])[1]) == part // 4


@pytest.mark.parametrize(
    "kind",
    ["FLAC", "OGG", "AIFF", "W64", "RF64", "CAF", "AU", "mp3", "bare mp3", "ipod", "matroska", "asf", "wv", "tta"],
)
@pytest.mark.parametrize("coding", ["f32", "s16"])
def test_a_file_of_another_kind_is_one_line(kind, coding):
    codecs = {"OGG": "VORBIS", "mp3": "libmp3lame", "ipod": "aac", "matroska": "aac", "asf": "wmav2", "wv": "wavpack"}
    samples = np.tile(NOISE, (3, 1))
    data = audio_bytes(samples, kind.split()[-1], codecs.get(kind.split()[-1], "tta" if kind == "tta" else "PCM_16"))
    if kind == "bare mp3":
        data = data[data.index(b"\xff\xfb") :]
    with pytest.raises(UserError, match="standard input: is a sound file, not raw samples or a wav; convert it first"):
        heard(data, Layout(8000, 2, coding))


def test_samples_that_begin_like_an_mp3_are_samples():
    samples = np.frombuffer(b"\xff\xfb\x90\x64", "<i2").astype("float32")[None] / 32768
    samples = np.concatenate([samples, NOISE])
    data, _ = coded(torch.from_numpy(samples.T), Layout(8000, 2, "s16"))
    assert data[:4] == b"\xff\xfb\x90\x64"
    np.testing.assert_allclose(heard(data, Layout(8000, 2, "s16"))[1], samples, atol=1 / 32768)
    assert len(heard(data[:8], Layout(8000, 2, "s16"))[1]) == 2


def test_a_rate_beyond_any_header_is_one_line():
    data = bytearray(audio_bytes(NOISE, "WAV", rate=8000))
    data[24:28] = b"\xff\xff\xff\xff"
    with pytest.raises(UserError, match="4294967295 Hz, 2 channels: its header is damaged"):
        heard(bytes(data))
