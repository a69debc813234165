"""Reading: every kind by its content, the whole of it, or one line that says why not."""

import io
import os
import struct

import av
import numpy as np
import pytest
import soundfile
import torch
from conftest import audio_bytes, encoded_bytes
from scipy.signal import correlate

from tasnet_attn.audio import Sound, audio_info, read_audio
from tasnet_attn.data.stem_folders import SONGS
from tasnet_attn.errors import UserError

RATE = 44100
LENGTH = 3 * RATE + 123
EXACT = ("WAV", "AIFF", "AU", "W64", "RF64", "CAF", "FLAC")


@pytest.fixture(scope="module")
def music():
    """Three seconds of a bundled song, [T, 2]."""
    song = next(iter(sorted((SONGS / "test").iterdir())))
    samples, _ = soundfile.read(song / "guitar.ogg", LENGTH, RATE, dtype="float32", always_2d=True)
    return np.repeat(samples, 2, axis=1)[:, :2].copy()


def sound(tmp_path, data, name="x", **settings):
    (tmp_path / name).write_bytes(data)
    opened = Sound(tmp_path / name, **settings)
    blocks = list(opened.blocks())
    return opened, torch.cat(blocks, dim=-1).T.numpy() if blocks else np.empty((0, opened.channels))


def lag(samples, reference):
    """By how many samples the first is late."""
    size = min(len(samples), len(reference))
    found = correlate(samples[:size, 0], reference[:size, 0], "full", method="fft")
    return int(found.argmax()) - (size - 1)


@pytest.mark.parametrize("container", EXACT)
def test_what_libsndfile_reads_is_read_to_the_bit_whatever_it_is_called(tmp_path, music, container):
    opened, samples = sound(tmp_path, audio_bytes(music, container), "song.txt")
    expected = np.round(music.astype(float) * 32767).clip(-32768, 32767) / 32768
    assert (opened.sample_rate, opened.channels, opened.hint) == (RATE, 2, LENGTH)
    np.testing.assert_allclose(samples, expected, atol=1.1 / 32768)


COMPRESSED = [  # codec, container, exact number of samples, error against the wav (SNR, dB)
    ("libmp3lame", "mp3", True, 15),
    ("aac", "ipod", True, 10),
    ("aac", "mp4", True, 10),
    ("wavpack", "wv", True, 25),
    ("flac", "flac", True, 60),
    ("aac", "matroska", False, 10),
]


@pytest.mark.parametrize(("codec", "container", "exact", "ratio"), COMPRESSED)
def test_compressed_files_line_up_with_the_wav_to_the_sample(tmp_path, music, codec, container, exact, ratio):
    _, samples = sound(tmp_path, encoded_bytes(music, codec, container))
    assert lag(samples, music) == 0
    slack = {"ipod": 45, "mp4": 45}.get(container, 0)  # an edit list counts in milliseconds
    assert abs(len(samples) - LENGTH) <= slack if exact else LENGTH <= len(samples) < LENGTH + 2048
    error = samples[:LENGTH] - music
    assert 10 * np.log10(np.square(music).sum() / np.square(error).sum()) > ratio


@pytest.mark.parametrize("container", ["ogg", "matroska", "webm"])
def test_opus_in_any_container_is_one_sound(tmp_path, music, container):
    _, samples = sound(tmp_path, encoded_bytes(music, "libopus", container, 48000))
    assert len(samples) == pytest.approx(LENGTH * 48000 / RATE, abs=960)
    _, plain = sound(tmp_path, encoded_bytes(music, "libopus", "ogg", 48000))
    np.testing.assert_allclose(samples[: len(plain)], plain[: len(samples)], atol=1e-4)


@pytest.mark.parametrize(("codec", "container"), [("wmav2", "asf"), ("ac3", "ac3"), ("aac", "adts"), ("mp2", "mpegts")])
def test_formats_without_a_length_give_what_decodes(tmp_path, music, codec, container):
    opened, samples = sound(tmp_path, encoded_bytes(music, codec, container))
    assert opened.promised is None and abs(len(samples) - LENGTH) < 4096
    assert abs(lag(samples, music)) < 4096


KINDS = [(codec, container) for codec, container, _, _ in COMPRESSED]
KINDS += [("wmav2", "asf"), ("ac3", "ac3"), ("aac", "adts"), ("mp2", "mpegts"), ("pcm_s16le", "avi"), ("mp3", "avi")]


@pytest.mark.parametrize(("codec", "container"), KINDS)
def test_a_data_set_is_told_the_length_that_decodes(tmp_path, music, codec, container):
    """Also where the header states none: an mp3 without a Xing frame, a FLAC that was written into a pipe."""
    options = {"write_xing": "0"} if container == "mp3" else {}
    data = encoded_bytes(music, "libmp3lame" if codec == "mp3" else codec, container, options=options)
    if container == "flac":
        data = data[:18] + bytes([*data[18:21], data[21] & 0xF0]) + bytes(4) + data[26:]
    _, samples = sound(tmp_path, data)
    assert audio_info(tmp_path / "x").length == len(samples) > LENGTH - 2048
    assert read_audio(tmp_path / "x", len(samples) - 10, 10).shape[-1] == 10


def test_an_audio_track_of_several(tmp_path, music):
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        streams = [out.add_stream("flac", rate=RATE, layout="mono") for _ in range(2)]
        for number, stream in enumerate(streams):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray((music[:4096, :1] * (number + 1) * 10000).astype(np.int16).T),
                format="s16",
                layout="mono",
            )
            frame.sample_rate, frame.pts = RATE, 0
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                out.mux(packet)
    first, one = sound(tmp_path, file.getvalue(), track=1)
    _, two = sound(tmp_path, file.getvalue(), track=2)
    assert first.tracks == 2 and one.shape == two.shape
    assert np.abs(two).sum() == pytest.approx(2 * np.abs(one).sum(), rel=0.05)
    with pytest.raises(UserError, match="no audio track 3; it has 2"):
        sound(tmp_path, file.getvalue(), track=3)


# ---- lengths that are wrong, missing or a stream's ------------------------------------------------------------------


@pytest.mark.parametrize("container", EXACT)
def test_a_file_cut_in_the_middle_is_an_error_and_partial_takes_what_is_there(tmp_path, music, container):
    data = audio_bytes(music, container)
    with pytest.raises(UserError, match="samples are missing|damaged or cut"):
        sound(tmp_path, data[: len(data) // 2])
    opened, samples = sound(tmp_path, data[: len(data) // 2], partial=True)
    _, whole = sound(tmp_path, data)
    assert 0.4 * LENGTH < len(samples) < 0.6 * LENGTH or container == "FLAC"
    assert opened.missing == LENGTH - len(samples)
    assert np.array_equal(samples, whole[: len(samples)])


CUT = [("libmp3lame", "mp3"), ("libopus", "ogg"), ("wavpack", "wv"), ("VORBIS", "OGG")]
CUT += [("aac", "matroska"), ("libopus", "webm"), ("wmav2", "asf"), ("pcm_s16le", "avi")]  # those state their bytes
CUT += [("MS_ADPCM", "WAV"), ("MS_ADPCM", "W64"), ("ALAC_16", "CAF")]


@pytest.mark.parametrize(("codec", "container"), CUT)
def test_compressed_files_cut_in_the_middle(tmp_path, music, codec, container):
    if container.isupper():
        data = audio_bytes(music, container, codec)
    else:
        data = encoded_bytes(music, codec, container, 48000 if codec == "libopus" else RATE)
    with pytest.raises(UserError, match="shorter than its header states.*--partial"):
        sound(tmp_path, data[: len(data) // 2])
    _, samples = sound(tmp_path, data[: len(data) // 2], partial=True)
    _, whole = sound(tmp_path, data)
    assert 0.3 * len(whole) < len(samples) < 0.7 * len(whole)
    last = 2000 if container in ("mp3", "ogg", "wv") else 5000  # what the decoder makes of the last, broken block
    np.testing.assert_allclose(samples[:-last], whole[: len(samples) - last], atol=1e-4)


def test_an_mp4_cut_behind_its_index(tmp_path, music):
    data = encoded_bytes(music, "aac", "mp4", options={"movflags": "+faststart"})
    with pytest.raises(UserError, match="shorter than its header states"):
        sound(tmp_path, data[: len(data) // 2])
    assert 0.2 * LENGTH < len(sound(tmp_path, data[: len(data) // 2], partial=True)[1]) < 0.8 * LENGTH


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_lasts_until_its_end(tmp_path, music, size):
    data = bytearray(audio_bytes(music, "WAV"))
    data[4:8] = data[40:44] = struct.pack("<I", size)
    _, samples = sound(tmp_path, bytes(data))
    assert np.array_equal(samples, sound(tmp_path, audio_bytes(music, "WAV"))[1])


def test_flac_from_a_pipe(tmp_path, music):
    data = bytearray(audio_bytes(music, "FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    opened, samples = sound(tmp_path, bytes(data))
    assert opened.promised is None and np.array_equal(samples, sound(tmp_path, audio_bytes(music, "FLAC"))[1])


def test_mp3_without_a_xing_frame_gives_exactly_what_decodes(tmp_path, music):
    data = encoded_bytes(music, "libmp3lame", "mp3", options={"write_xing": "0", "id3v2_version": "0"})
    _, samples = sound(tmp_path, data)
    assert len(samples) % 1152 == 0 and LENGTH <= len(samples) < LENGTH + 4 * 1152
    assert len(sound(tmp_path, data + data)[1]) == pytest.approx(2 * len(samples), abs=1152)


@pytest.mark.parametrize("between", [b"", b"TAG" + bytes(125)])
def test_mp3s_one_behind_the_other_are_as_long_as_both(tmp_path, music, between):
    data = encoded_bytes(music, "libmp3lame", "mp3")  # with a tag, a Xing frame and the encoder's delay
    _, one = sound(tmp_path, data)
    _, both = sound(tmp_path, data + between + data)
    np.testing.assert_allclose(both, np.concatenate([one, one]), atol=1e-6)
    with pytest.raises(UserError, match="shorter than its header states"):
        sound(tmp_path, (data + between + data)[: int(1.8 * len(data))])


@pytest.mark.parametrize("total", [500, None])
def test_flac_that_is_longer_than_its_header_says(tmp_path, music, total):
    data = bytearray(audio_bytes(music, "FLAC"))
    _, one = sound(tmp_path, bytes(data))
    if total is None:  # one file behind the other
        assert np.array_equal(sound(tmp_path, bytes(data + data))[1], np.concatenate([one, one]))
        return
    data[22:26] = struct.pack(">I", total)
    assert np.array_equal(sound(tmp_path, bytes(data))[1], one)


def test_ogg_files_one_behind_the_other(tmp_path, music):
    data = audio_bytes(music, "OGG", "VORBIS")
    _, samples = sound(tmp_path, data + data)
    _, one = sound(tmp_path, data)
    assert np.array_equal(samples, np.concatenate([one, one]))


def test_a_wav_that_is_cut_between_two_passes(tmp_path, music):
    file = tmp_path / "x.wav"
    file.write_bytes(audio_bytes(music, "WAV"))
    opened = Sound(file)
    list(opened.blocks())
    os.truncate(file, 20_000)
    with pytest.raises(UserError, match="samples are missing"):
        list(opened.blocks())


@pytest.mark.parametrize(
    "where", sorted(SONGS.glob("*/*/*.ogg"))[::3], ids=lambda path: f"{path.parent.name} {path.stem}"
)
def test_bundled_songs_read_the_same_from_any_position(where):
    whole = read_audio(where)
    length = whole.shape[-1]
    for start in (0, 1, length // 3, *range(length - 70_000, length - 10, 7_777), length - 10):
        assert torch.equal(read_audio(where, start, 10), whole[:, start : start + 10]), start


def test_excerpts_of_ogg_files_one_behind_the_other(tmp_path, music):
    data = audio_bytes(music, "OGG", "VORBIS")
    (tmp_path / "x").write_bytes(data + data)
    whole = read_audio(tmp_path / "x")
    assert audio_info(tmp_path / "x").length == whole.shape[-1] == 2 * LENGTH
    for start in (100, LENGTH - 100, LENGTH + 5000):
        assert torch.equal(read_audio(tmp_path / "x", start, 900), whole[:, start : start + 900])


@pytest.mark.parametrize("loud", [slice(0, RATE), slice(-RATE, None)])
def test_an_mp3_whose_recorder_was_killed_is_read_to_its_end(tmp_path, loud):
    """Its Xing frame states no number of frames, and its first frames' bit rate is not the others'."""
    samples = np.zeros((4 * RATE, 1), "float32")
    samples[loud] = np.random.default_rng(0).uniform(-0.5, 0.5, samples[loud].shape)
    file = io.BytesIO()
    how = {"bitrate_mode": "VARIABLE", "compression_level": 0.3}
    with soundfile.SoundFile(file, "w", RATE, 1, "MPEG_LAYER_III", format="MP3", **how) as out:
        out.write(samples)
    data = bytearray(file.getvalue())
    assert len(sound(tmp_path, bytes(data))[1]) == len(samples)
    place = data.index(b"Xing")
    data[place + 8 : place + 16] = bytes(8)  # frames and bytes
    opened, read = sound(tmp_path, bytes(data))
    assert opened.promised is None and len(samples) <= len(read) < len(samples) + 4 * 1152


# ---- damage in the middle -------------------------------------------------------------------------------------------


def pages(data):
    """(start, end) of the pages of an Ogg file."""
    found, start = [], 0
    while start < len(data):
        count = data[start + 26]
        end = start + 27 + count + sum(data[start + 27 : start + 27 + count])
        found.append((start, end))
        start = end
    return found


DAMAGE = {
    "lost page": lambda data, start, end: data[:start] + data[end:],
    "flipped byte": lambda data, start, end: data[: end - 9] + bytes([data[end - 9] ^ 255]) + data[end - 8 :],
    "lost magic": lambda data, start, end: data[:start] + b"XXXX" + data[start + 4 :],
    "zeros": lambda data, start, end: data[: start + 90] + bytes(end - start) + data[end + 90 :],
}
OGG = [("VORBIS", "OGG"), ("OPUS", "OGG"), ("libopus", "ogg"), ("flac", "ogg")]


@pytest.mark.parametrize(("codec", "container"), OGG)
def test_an_ogg_file_with_a_hole_is_an_error(tmp_path, music, codec, container):
    data = audio_bytes(music, container, codec, 48_000 if "opus" in codec.lower() else RATE)
    start, end = pages(data)[-2]
    for name, damaged in DAMAGE.items():
        with pytest.raises(UserError, match=f"x: is damaged: the page at byte {start} is broken or missing; --partial"):
            sound(tmp_path, damaged(data, start, end))
        assert 0 < len(sound(tmp_path, damaged(data, start, end), partial=True)[1]) <= LENGTH, name
    opened, samples = sound(tmp_path, DAMAGE["lost page"](data, start, end), partial=True)
    assert opened.missing == opened.hint - len(samples)


def test_an_ogg_file_that_was_recorded_from_the_middle_of_a_stream(tmp_path, music):
    data = audio_bytes(music, "OGG", "VORBIS")
    places = pages(data)
    headers = sum(struct.unpack("<q", data[start + 6 : start + 14])[0] == 0 for start, _ in places)
    joined = data[: places[headers][0]] + data[places[headers + 3][0] :]
    opened, samples = sound(tmp_path, joined)
    assert 0.3 * LENGTH < len(samples) == opened.hint < LENGTH
    _, whole = sound(tmp_path, data)
    np.testing.assert_allclose(samples[-RATE:], whole[-RATE:], atol=1e-6)


MATROSKA = [("libopus", "webm"), ("libopus", "matroska"), ("libmp3lame", "matroska"), ("ac3", "matroska")]


@pytest.mark.parametrize(("codec", "container"), MATROSKA)
def test_a_matroska_file_with_a_hole_is_an_error(tmp_path, music, codec, container):
    rate = 48_000 if codec == "libopus" else RATE
    data = encoded_bytes(music, codec, container, rate, options={"cluster_time_limit": "500"})
    opened, samples = sound(tmp_path, data)
    assert opened.missing == 0 and len(samples) == pytest.approx(LENGTH * rate / RATE, abs=2048)
    middle = len(data) // 2
    for damaged in (data[:middle] + data[middle + 3000 :], data[:middle] + bytes(9000) + data[middle + 9000 :]):
        with pytest.raises(UserError, match="samples are missing|damaged or cut"):
            sound(tmp_path, damaged)
        assert 0 < sound(tmp_path, damaged, partial=True)[0].missing < LENGTH


def test_a_matroska_file_that_states_no_length_is_read_as_it_is(tmp_path, music):
    data = encoded_bytes(music, "libmp3lame", "matroska", options={"live": "1"})
    opened, samples = sound(tmp_path, data)
    assert opened.promised is None and len(samples) == pytest.approx(LENGTH, abs=2048)


# ---- many channels: the order of a wav, whatever the file's ---------------------------------------------------------

TONES = np.array([300, 400, 500, 60, 700, 800, 900, 1000])  # Hz; the fourth is the bass channel's


def tones(channels, rate=48_000):
    return 0.2 * np.sin(2 * np.pi * TONES[:channels] * np.arange(rate)[:, None] / rate).astype("float32")


def heard(samples, rate=48_000):
    """The loudest frequency of each channel of [T, C], Hz."""
    return [int(np.abs(np.fft.rfft(channel[:rate], rate)).argmax()) for channel in samples.T]


@pytest.mark.parametrize(
    ("codec", "container"), [("libopus", "ogg"), ("flac", "ogg"), ("libopus", "webm"), ("aac", "ipod")]
)
def test_surround_sound_of_another_program(tmp_path, codec, container):
    opened, samples = sound(tmp_path, encoded_bytes(tones(6), codec, container, 48_000, source_rate=48_000))
    assert heard(samples) == list(TONES[:6])
    assert len(samples) == 48_000 and (opened.hint == 48_000 or container == "webm")


@pytest.mark.parametrize("channels", [8, 12])
def test_as_many_channels_as_there_are(tmp_path, channels):
    layout = {8: "7.1", 12: "12 channels"}[channels]
    samples, file = np.resize(tones(8).T, (channels, 48_000)).T, io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        stream = out.add_stream("pcm_s16le", rate=48_000, layout=layout)
        packed = np.ascontiguousarray((samples * 32768).astype(np.int16).reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        frame.sample_rate, frame.pts = 48_000, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    np.testing.assert_allclose(sound(tmp_path, file.getvalue())[1], samples, atol=2 / 32768)


# ---- what stands in front or behind ---------------------------------------------------------------------------------

ID3 = b"ID3\x03\0\0\0\0\0\x11TIT2\0\0\0\x07\0\0\0song 1"


@pytest.mark.parametrize(("codec", "container"), [("PCM_16", "FLAC"), ("tta", "tta")])
@pytest.mark.parametrize("tags", [1, 2])
def test_an_id3_tag_in_front(tmp_path, music, codec, container, tags):
    data = audio_bytes(music, container, codec)
    _, plain = sound(tmp_path, data)
    opened, samples = sound(tmp_path, tags * ID3 + data)
    assert len(samples) == LENGTH and np.array_equal(samples, plain)
    if container == "FLAC":
        with pytest.raises(UserError, match="samples are missing|damaged"):
            sound(tmp_path, (ID3 + data)[: len(data) // 2])


def test_a_big_endian_wav(tmp_path, music):
    file = io.BytesIO()
    soundfile.write(file, music, RATE, "PCM_16", "BIG", "WAV")
    data = file.getvalue()
    assert data[:4] == b"RIFX"
    assert np.array_equal(sound(tmp_path, data)[1], sound(tmp_path, audio_bytes(music, "WAV"))[1])
    with pytest.raises(UserError, match="samples are missing"):
        sound(tmp_path, data[: len(data) // 2])


@pytest.mark.parametrize("text", [b"INFOISFT\x0a\0\0\0software 1", b"INFOISFT\x09\0\0\0software"])
def test_a_wav_without_samples_before_a_chunk(tmp_path, text):
    data = audio_bytes(np.zeros((0, 1), "float32"), "WAV") + b"LIST" + struct.pack("<I", len(text)) + text
    assert len(sound(tmp_path, data)[1]) == 0 == audio_info(tmp_path / "x").length
    with pytest.raises(UserError, match="10 samples shorter"):
        read_audio(tmp_path / "x", 0, 10)


# ---- what is no sound -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"RIFF", "cannot be read as audio"),
        (b"#EXTM3U\nhttp://127.0.0.1/x.mp3\n", "unknown format"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "unknown format"),
        (bytes(range(256)) * 400, "unknown format"),
        ("Bitte lauter".encode("utf-16"), "unknown format"),
        ("Titel 1\nTitel 2".encode("utf-16"), "unknown format"),
        (b"\0\xff\xfb\x90\0 some binary notes", "unknown format"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400), "unknown format"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1" + bytes(400), "unknown format"),
        (b"\x1aE\xdf\xa3" + bytes(500), "matroska"),
        (b"OggS" + bytes(500), "cannot be read"),
        (b"fLaC" + bytes(500), "cannot be read|damaged"),
        (b"\0\0\0\x18ftypM4A " + bytes(300), "mp4"),
    ],
)
def test_what_is_no_sound_is_one_line(tmp_path, data, said):
    with pytest.raises(UserError, match=said) as caught:
        sound(tmp_path, data, "x.mp3")
    assert "\n" not in str(caught.value) and "x.mp3" in str(caught.value)


def test_what_is_no_file_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder.wav").mkdir()
    for name, said in (
        ("none.wav", "no such file"),
        ("pipe", "not a regular file"),
        ("folder.wav", "not a regular file"),
    ):
        with pytest.raises(UserError, match=said):
            Sound(tmp_path / name)


def test_decoders_keep_off_the_terminal(tmp_path, music, capfd):
    music = music[:40_000]
    files = [encoded_bytes(music, codec, container) for codec, container in (("libmp3lame", "mp3"), ("aac", "adts"))]
    files += [encoded_bytes(music, "aac", "mp4", options={"movflags": "+faststart"}), audio_bytes(music, "FLAC")]
    files += [audio_bytes(music, "OGG", "VORBIS"), audio_bytes(music, "CAF", "ALAC_16")]
    for data in files:
        for damaged in (data[: len(data) // 2], data[:20_000] + bytes(700) + data[20_700:]):
            sound(tmp_path, damaged, partial=True)
    assert capfd.readouterr() == ("", "")


def test_names_that_are_no_text_and_values_that_are_no_sound(tmp_path, music):
    odd = tmp_path / os.fsdecode(b"latin1-\xe9.wav")
    odd.write_bytes(audio_bytes(music, "WAV"))
    assert audio_info(odd).length == LENGTH
    bad = music.copy()
    bad[70_000, 1] = np.nan
    with pytest.raises(UserError, match="NaN or infinite value at sample 70000"):
        sound(tmp_path, audio_bytes(bad, "WAV", "FLOAT"))


def test_twelve_channels_at_an_odd_rate(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (777, 12)).astype("float32")
    opened, read = sound(tmp_path, audio_bytes(samples, "WAV", "FLOAT", 37_123))
    assert opened.sample_rate == 37_123 and np.array_equal(read, samples)
