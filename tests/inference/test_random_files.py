"""Files drawn at random through an identity model: every sample in its place and at its level, or one line and no file.

What is drawn is written by libsndfile or FFmpeg; what comes out is compared with what was drawn, not with our reader.
"""

import io
import shutil
from functools import partial

import numpy as np
import pytest
import soundfile
import torch
from conftest import audio_bytes, encoded_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.signal import correlate

from tasnet_attn import separate_file
from tasnet_attn.audio.resampling import resample
from tasnet_attn.data.stem_folders import SONGS
from tasnet_attn.errors import UserError
from tasnet_attn.filterbanks import STFTDecoder, STFTEncoder
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import TasNet

EXACT = ("WAV", "AIFF", "AU", "W64", "RF64", "CAF", "FLAC")
KINDS = [(c, s) for c in EXACT for s in ("PCM_16", "PCM_24")]
KINDS += [(c, s) for c in ("WAV", "AU", "RF64") for s in ("FLOAT", "DOUBLE")] + [("WAV", "PCM_U8"), ("AU", "ULAW")]
LOSSY = [("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("ipod", "aac"), ("mp4", "aac")]
ERROR = {"PCM_16": 1e-4, "PCM_24": 1e-5, "FLOAT": 2e-6, "DOUBLE": 2e-6, "PCM_U8": 9e-3, "ULAW": 4e-2}
SAMPLES = {
    "noise": lambda rng, shape: rng.uniform(-0.9, 0.9, shape),
    "silence": lambda rng, shape: np.zeros(shape),
    "quiet": lambda rng, shape: rng.uniform(-3e-3, 3e-3, shape),
    "full scale": lambda rng, shape: np.sign(rng.uniform(-1, 1, shape)) * 0.99,
    "one click": lambda rng, shape: np.eye(1, shape[0], int(rng.integers(shape[0]))).T * np.full(shape, 0.5),
    "tones": lambda rng, shape: 0.3 * np.sin(np.arange(shape[0])[:, None] * rng.uniform(0.02, 0.3, shape[1])),
}
RATES = [8000, 11_025, 22_050, 44_100, 48_000, 96_000, 37_123]
WHOLE = {
    "kind": st.sampled_from(KINDS + 2 * LOSSY),
    "rate": st.sampled_from(RATES),
    "channels": st.integers(1, 8),
    "length": st.integers(1, 6000),
    "values": st.sampled_from(list(SAMPLES)),
    "seed": st.integers(0, 2**16),
    "inside": st.sampled_from([None, None, 16_000, 44_100]),
}
DAMAGED = {
    "kind": st.sampled_from([(c, "PCM_16") for c in EXACT] + LOSSY),
    "seed": st.integers(0, 2**16),
    "damage": st.sampled_from(["cut", "flip", "zero", "junk in front", "junk behind", "twice"]),
    "place": st.floats(0, 1),
    "partially": st.booleans(),
}


@pytest.fixture(scope="module")
def model():
    """One source, softmax masks on an STFT: the stem is the mixture."""
    network = partial(TasNet, hidden=2, n_layers=1)
    return SourceSeparator(["song"], 8000, STFTEncoder(64, 32), network, STFTDecoder(64, 32))


def sweep(length, highest, channels):
    """A tone that rises to `highest` radians a sample, [T, C]: it is like itself nowhere but in its place."""
    time = np.arange(length)
    return np.repeat(0.5 * np.sin(highest * time**2 / (2 * length))[:, None], channels, axis=1).astype("float32")


def through(model, folder, data, rate, **options):
    """What `separate_file` makes of a file, [T, C]; it leaves nothing else behind."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "x").write_bytes(data)
    model.sample_rate = rate
    try:
        (file,) = separate_file(model, folder / "x", folder / "out", **options)
    except UserError as error:
        assert "\n" not in str(error) and str(folder / "x") in str(error)
        assert not [path for path in (folder / "out").rglob("*") if path.is_file()]
        raise
    assert [path.name for path in (folder / "out").rglob("*") if path.is_file()] == ["song.wav"]
    return soundfile.read(file, dtype="float32", always_2d=True)[0]


def whole(model, folder, kind, rate, channels, length, values, seed, inside):
    """A whole file comes out as long, in its place, at its level."""
    lossy = kind in LOSSY
    if lossy:  # what these take; long enough for a level
        rate, channels, length = min(max(rate, 16_000), 48_000), min(channels, 2), length + 20_000
        rate = rate if rate in (16_000, 22_050, 44_100, 48_000) else 44_100
        inside = None
    if inside:
        length += 4000
    rng = np.random.default_rng(seed)
    samples = SAMPLES[values](rng, (length, channels)).astype("float32")
    if (lossy or inside) and values != "silence":  # what codecs and lower rates keep
        samples = sweep(length, 0.3 * np.pi * min(1, (inside or rate) / rate), channels)
    data = audio_bytes(samples, *kind, rate)
    found = through(model, folder, data, inside or rate)
    if kind in (("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")):  # what codecs lose is not ours: as libsndfile decodes
        np.testing.assert_allclose(found, soundfile.read(io.BytesIO(data), always_2d=True)[0], atol=1e-5)
    if not lossy and not inside:
        assert found.shape == samples.shape
        np.testing.assert_allclose(found, samples, atol=ERROR[kind[1]])
        return
    assert found.shape[1] == channels and abs(len(found) - length) <= (50 if kind[0] in ("ipod", "mp4") else 0)
    middle = slice(1500, min(len(found), length) - 1500)  # not the resampler's and codecs' ends
    found, samples = found[middle, 0].astype(float), samples[middle, 0].astype(float)
    if not samples.any():
        assert np.abs(found).max() < 1e-3
        return
    level = 10 * np.log10(np.square(found).sum() / np.square(samples).sum())
    assert abs(level) < (0.5 if lossy else 0.1)
    matches = [found[3:-3] @ samples[3 + shift : len(samples) - 3 + shift] for shift in range(-3, 4)]
    assert np.argmax(matches) == 3


def damaged(model, folder, kind, seed, damage, place, partially):
    """A damaged file is separated as far as it decodes, or refused in one line."""
    rng = np.random.default_rng(seed)
    samples = rng.uniform(-0.9, 0.9, (4000, 2)).astype("float32")
    data = bytearray(audio_bytes(samples, *kind, 44_100))
    at = int(place * len(data))
    match damage:
        case "cut":
            data = data[:at]
        case "flip":
            data[min(at, len(data) - 1)] ^= int(rng.integers(1, 256))
        case "zero":
            data[at : at + 64] = bytes(len(data[at : at + 64]))
        case "junk in front":
            data = bytearray(rng.bytes(100)) + data
        case "junk behind":
            data += rng.bytes(300)
        case _:
            data = data + data
    try:
        found = through(model, folder, bytes(data), 44_100, partial=partially)
    except UserError:
        return
    assert np.isfinite(found).all() and len(found) > 0
    if kind in LOSSY:
        return
    if damage == "cut" and not partially:
        assert len(found) >= len(samples) - 30  # a header's worth may pass for a header counted in
    if damage == "cut" and found.shape[1] == 2:
        np.testing.assert_allclose(found[:4000], samples[: len(found)], atol=1e-4)


def drawing(count):
    return settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@drawing(12)
@given(**WHOLE)
def test_a_few_whole_files(model, tmp_path, **drawn):
    whole(model, tmp_path, **drawn)


@drawing(12)
@given(**DAMAGED)
def test_a_few_damaged_files(model, tmp_path, **drawn):
    damaged(model, tmp_path, **drawn)


@pytest.mark.slow
@drawing(300)
@given(**WHOLE)
def test_whole_files(model, tmp_path, **drawn):
    whole(model, tmp_path, **drawn)


@pytest.mark.slow
@drawing(150)
@given(**DAMAGED)
def test_damaged_files(model, tmp_path, **drawn):
    damaged(model, tmp_path, **drawn)


KINDS_OF_A_SONG = [("libmp3lame", "mp3"), ("aac", "ipod"), ("libopus", "ogg"), ("aac", "matroska"), ("aac", "mp4")]


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "container"), KINDS_OF_A_SONG)
def test_stems_of_a_song_in_other_kinds_are_the_wav_s(tmp_path, codec, container):
    """Within the codec's error, to the sample in time."""
    song = next(iter(sorted((SONGS / "test").iterdir())))
    samples = np.repeat(soundfile.read(song / "guitar.ogg", 66_150, 44_100, dtype="float32", always_2d=True)[0], 2, 1)
    samples = samples[:, :2]
    rate = 48_000 if codec == "libopus" else 44_100
    network = partial(TasNet, hidden=8, n_layers=1)
    model = SourceSeparator(["a", "b"], rate, STFTEncoder(512, 256), network, STFTDecoder(512, 256))
    plain = resample(torch.from_numpy(samples.T.copy()), 44_100, rate).T.numpy()
    stems = []
    datas = audio_bytes(plain, "WAV", "FLOAT", rate), encoded_bytes(samples, codec, container, rate)
    for name, data in zip(("wav", "x"), datas, strict=True):
        (tmp_path / name).write_bytes(data)
        files = separate_file(model, tmp_path / name, tmp_path / "out", track_name=name)
        stems.append([soundfile.read(file, dtype="float32", always_2d=True)[0][:, 0] for file in files])
    for expected, found in zip(*stems, strict=True):
        size = min(len(expected), len(found))
        assert abs(len(found) - len(expected)) <= {"matroska": 2048, "ogg": 960}.get(container, 50)
        matches = correlate(found[:size], expected[:size], "full", method="fft")
        assert int(matches.argmax()) == size - 1
        error = np.square(found[:size] - expected[:size]).sum()
        assert 10 * np.log10(np.square(expected[:size]).sum() / error) > 10
