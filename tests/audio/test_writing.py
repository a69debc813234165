"""Writing: the same bytes every time, levels that a format cannot hold, formats read back by an outside reader."""

import time

import av
import numpy as np
import pytest
import soundfile
import torch

from tasnet_attn.audio import Sound, audio_info
from tasnet_attn.audio.writing import FORMATS, FULL, Encoding, Stems, write_signals
from tasnet_attn.errors import UserError
from tasnet_attn.files import workspace

RATE = 44_100
DEPTHS = [(name, bits) for name, form in FORMATS.items() for bits in form.subtypes]


def tones(gain=0.5, length=30_000, channels=2, rate=RATE):
    """Two stems [S, C, T] of sines with a little noise."""
    t = torch.arange(length) / rate
    sines = torch.stack([torch.sin(2 * torch.pi * f * t) for f in (220, 330, 550, 770)])[: 2 * channels]
    noise = 0.01 * torch.randn(sines.shape, generator=torch.Generator().manual_seed(0))
    return gain * (sines + noise).clamp(-1, 1).reshape(2, channels, length)


def write(folder, stems, format="wav", bits=None, clip="rescale", rate=RATE, block=7000):
    """Write stems in blocks; returns the files and what was said."""
    encoding = Encoding(format, bits, clip)
    files = [folder / f"{name}.{format}" for name in ("one", "two")]
    with workspace(folder) as work:
        opened = Stems(work, files, rate, stems.shape[1], encoding)
        try:
            for part in stems.split(block, dim=-1):
                opened.write(part)
            return files, opened.finish()
        finally:
            opened.close()


def read(file):
    return torch.cat(list(Sound(file).blocks()), dim=-1)


def test_the_same_samples_give_the_same_bytes(tmp_path):
    digests = []
    for number in range(2):
        time.sleep(1.1 * number)  # libsndfile's PEAK chunk and random numbers count in seconds
        files = [
            file
            for format, bits in DEPTHS
            for file in write(tmp_path / f"{number}{bits}", tones(), format, bits or None, block=7000 + number)[0]
        ]
        digests.append({(file.parent.name[1:], file.name): file.read_bytes() for file in files})
    assert len(digests[0]) == 2 * len(DEPTHS)
    assert [key for key, data in digests[0].items() if digests[1][key] != data] == []


TOLERANCE = {"32f": 0, "24": 2.0**-22, "16": 2.0**-14, "": 0.06}


@pytest.mark.parametrize(("format", "bits"), DEPTHS)
def test_what_is_written_is_read_back_at_its_length_place_and_level(tmp_path, format, bits):
    stems = tones()
    files, said = write(tmp_path, stems, format, bits or None)
    assert said == ""
    for file, stem in zip(files, stems, strict=True):
        info, samples = audio_info(file), read(file)
        assert info.sample_rate == (48_000 if format == "opus" else RATE) and info.channels == 2
        if format == "opus":  # written at 48 kHz
            assert abs(samples.shape[-1] - stem.shape[-1] * 48_000 / RATE) < 2
            stem = torch.nn.functional.interpolate(stem[None], samples.shape[-1], mode="linear")[0]
        if format == "m4a":  # an edit list counts in milliseconds
            assert abs(samples.shape[-1] - stem.shape[-1]) < 45
        length = min(samples.shape[-1], stem.shape[-1])
        assert format == "m4a" or length == stem.shape[-1]
        inner = slice(3000, length - 3000) if bits == "" else slice(0, length)
        torch.testing.assert_close(samples[:, inner], stem[:, inner], atol=TOLERANCE[bits], rtol=0)
        level = 20 * torch.log10(samples[:, inner].square().mean().sqrt() / stem[:, inner].square().mean().sqrt())
        assert abs(level) < 0.1


def test_dither_makes_the_error_noise_that_does_not_follow_the_signal(tmp_path):
    quiet = 0.4 * 2.0**-15 * tones(1.0, 60_000)  # below half a step of 16 bits: rounding alone would leave silence
    files, _ = write(tmp_path, quiet, "wav", "16")
    samples, _ = soundfile.read(files[0], dtype="float64")
    error = samples.T - quiet[0].double().numpy()
    step = 2.0**-15
    assert abs(error.mean()) < 0.02 * step
    assert error.std() == pytest.approx(0.5 * step, rel=0.03)  # triangular dither and rounding: step / 2
    assert abs(np.corrcoef(error[0], quiet[0, 0].numpy())[0, 1]) < 0.02


def test_all_stems_are_turned_down_by_one_factor(tmp_path):
    stems = torch.stack([tones(4.0)[0], tones(0.5)[1]])
    files, said = write(tmp_path, stems, "flac")
    assert said.startswith("turned down by 12.0 dB")
    factor = FULL / stems.abs().max()
    for file, stem in zip(files, stems, strict=True):
        torch.testing.assert_close(read(file), factor * stem, atol=2.0**-22, rtol=0)


@pytest.mark.parametrize(("format", "bits"), [(f, b) for f, b in DEPTHS if b != "32f"])
def test_clip(tmp_path, format, bits):
    loud = tones(4.0)
    with pytest.raises(UserError, match=r"12\.0 dB above full scale; use --clip"):
        write(tmp_path, loud, format, bits or None, "error")
    assert list(tmp_path.iterdir()) == []
    files, said = write(tmp_path, loud, format, bits or None, "clamp")
    assert said == "clipped, 12.0 dB above full scale"
    if bits:  # the others ring
        torch.testing.assert_close(read(files[0]), loud[0].clamp(-1, 1), atol=2.0**-14, rtol=0)


def test_float_holds_every_level(tmp_path):
    loud = tones(4.0)
    for clip in ("error", "rescale", "clamp"):
        files, said = write(tmp_path, loud, "wav", None, clip)
        assert said == "" and torch.equal(read(files[0]), loud[0])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("format", ["wav", "flac"])
def test_output_that_is_not_finite_is_an_error_and_no_file(tmp_path, bad, format):
    stems = tones()
    stems[1, 0, 29_000] = bad
    with pytest.raises(UserError, match="NaN or infinite"):
        write(tmp_path, stems, format)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", list(FORMATS))
@pytest.mark.parametrize("rate", [100, 8000, 37_123, 192_000, 768_000])
def test_every_format_takes_every_rate_mono(tmp_path, format, rate):
    stems = tones(channels=1, length=rate // 2, rate=rate)
    files, _ = write(tmp_path, stems, format, rate=rate, block=1 << 16)
    info = audio_info(files[0])
    assert info.sample_rate == Encoding(format).rate(rate)
    assert info.length / info.sample_rate == pytest.approx(0.5, abs=0.05 if format in ("mp3", "m4a") else 0.001)


@pytest.mark.slow
def test_forty_five_seconds_at_192_khz_as_ogg(tmp_path):
    files, _ = write(tmp_path, 0.1 * torch.randn(2, 1, 45 * 192_000), "ogg", rate=192_000, block=1 << 20)
    assert audio_info(files[0])[:2] == (192_000, 45 * 192_000)


TONES = torch.tensor([300.0, 400, 500, 60, 700, 800, 900, 1000])  # Hz; the fourth is the bass channel's


@pytest.mark.parametrize("format", [format for format, form in FORMATS.items() if form.channels > 2])
@pytest.mark.parametrize("channels", range(3, 9))
def test_channels_keep_the_order_of_a_wav_for_every_reader(tmp_path, format, channels):
    if channels > FORMATS[format].channels:
        return
    sines = 0.2 * torch.sin(2 * torch.pi * TONES[:channels, None] * torch.arange(48_000) / 48_000)
    (file, _), _ = write(tmp_path, torch.stack([sines, sines]), format, rate=48_000, block=10_000)
    to_float, parts = av.AudioResampler(format="flt"), []
    with av.open(file) as container:
        for frame in container.decode(audio=0):
            parts += [part.to_ndarray().reshape(-1, channels).T for part in to_float.resample(frame)]
    for samples in (np.concatenate(parts, axis=1), read(file).numpy()):
        spectrum = np.abs(np.fft.rfft(samples[:, :48_000], 48_000))
        assert list(spectrum.argmax(axis=1)) == TONES[:channels].tolist()
    assert audio_info(file) == (48_000, 48_000, channels)


@pytest.mark.parametrize("format", ["wav", "flac", "ogg"])
def test_more_channels_than_any_order_has(tmp_path, format):
    if FORMATS[format].channels < 12:
        return
    stems = tones(channels=1).expand(2, 12, -1) * torch.linspace(0.1, 1, 12)[:, None]
    files, _ = write(tmp_path, stems, format)
    torch.testing.assert_close(read(files[0]), stems[0], atol=0.06, rtol=0)


@pytest.mark.parametrize("rate", [65_537, 96_001])
def test_rates_that_flac_lacks_are_one_line_before_anything_is_written(tmp_path, rate):
    with pytest.raises(UserError, match=f"{rate} Hz; above 65535 Hz flac has only multiples of 10; use --format wav"):
        write(tmp_path, tones(rate=rate), "flac", rate=rate)
    assert list(tmp_path.iterdir()) == []
    for fine in (65_535, 96_010, 700_001):  # the last is written at the highest rate
        write(tmp_path, tones(length=100, rate=fine), "flac", rate=fine)


def test_channels_that_a_format_lacks_are_one_line(tmp_path):
    for format, form in FORMATS.items():
        if form.channels < 12:
            with pytest.raises(UserError, match=f"12 channels; {format} has at most {form.channels}"):
                write(tmp_path, torch.zeros(2, 12, 100), format)
    files, _ = write(tmp_path, torch.rand(2, 12, 100), "wav")
    assert audio_info(files[0]).channels == 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("aiff",), "'aiff' is not one of"),
        (("flac", "32f"), "flac has 24, 16"),
        (("wav", None, "x"), "clip 'x' is not"),
    ],
)
def test_what_cannot_be_written(arguments, said):
    with pytest.raises(UserError, match=said):
        Encoding(*arguments)


def test_whole_signals(tmp_path):
    signals = {"a b": tones()[0], "mixture": tones()[1]}
    blocks = torch.stack(list(signals.values())).split(1000, dim=-1)
    write_signals(tmp_path, list(signals), blocks, RATE, Encoding("wav"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a b.wav", "mixture.wav"]
    assert torch.equal(read(tmp_path / "mixture.wav"), signals["mixture"])
