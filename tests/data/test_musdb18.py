from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lookalikes import song, write_hq, write_musdb18, write_stem_file

from tasnet_attn.data import MUSDB18, from_config
from tasnet_attn.data.musdb18 import STREAMS, VALIDATION, Song
from tasnet_attn.errors import UserError

RATE = 8000
TWO, FOUR = ["vocals", "accompaniment"], ["vocals", "drums", "bass", "other"]


@pytest.mark.parametrize(("layout", "close"), [("hq", 1e-4), ("stems", 0.02)])
def test_both_layouts_hold_what_was_written(tmp_path, layout, close):
    """AAC is lossy, but a shift of one sample, or two streams exchanged, would exceed its error far."""
    (track,) = MUSDB18(FOUR, RATE, write_musdb18(tmp_path, layout, ["song"], "test")).tracks("test")
    assert track.name == "song" and track.length >= 9000
    truth = {stem: torch.from_numpy(samples.T).float() for stem, samples in song(9000).items()}
    mixture, references = track.read(2000, 5000)
    for signal, stem in ((mixture, "mixture"), *zip(references, FOUR, strict=True)):
        torch.testing.assert_close(signal, truth[stem][:, 2000:7000], atol=close, rtol=0)
    (two,) = MUSDB18(TWO, RATE, tmp_path).tracks("test")
    torch.testing.assert_close(two.read(2000, 5000)[1], torch.stack([references[0], references[1:].sum(0)]))
    torch.testing.assert_close(two.read_source(1, 2000, 5000), references[1:].sum(0))


@pytest.mark.parametrize("layout", ["hq", "stems"])
def test_a_segment_is_that_part_of_the_whole(tmp_path, layout):
    track = MUSDB18(TWO, RATE, write_musdb18(tmp_path, layout, ["a"], "test", 20_000)).tracks("test")[0]
    mixture, references = track.read()
    for start, length in ((0, 500), (1023, 2), (5000, 3000), (12_345, 4321), (track.length - 700, 700)):
        cut, cut_references = track.read(start, length)
        torch.testing.assert_close(cut, mixture[:, start : start + length], atol=1e-6, rtol=0)
        torch.testing.assert_close(cut_references, references[..., start : start + length], atol=1e-6, rtol=0)


def test_a_real_stem_file():
    """Every sample that a plain decoding of the stream gives, at its place; read in parts, the same."""
    from importlib.metadata import files

    import av

    found = [file for file in files("stempeg") if file.name.endswith(".stem.mp4")]
    path = Path(found[0].locate())
    track = Song(path, FOUR, 44_100)
    with av.open(str(path)) as container:
        vocals = np.concatenate([f.to_ndarray() for f in container.decode(container.streams.audio[4])], axis=1)
    assert track.length == vocals.shape[1]
    np.testing.assert_array_equal(track.read()[1][0], vocals)
    np.testing.assert_array_equal(track.read(100_001, 30_000)[1][0], vocals[:, 100_001:130_001])


NAMES = [*VALIDATION, *(f"song {i:02}" for i in range(26))]  # 40


def test_official_split(tmp_path):
    data = MUSDB18(TWO, RATE, write_musdb18(tmp_path, "hq", NAMES, length=800))
    assert [t.name for t in data.tracks("valid")] == sorted(VALIDATION) and len(set(VALIDATION)) == 14
    assert [t.name for t in data.tracks("train")] == NAMES[14:]


def test_the_validation_tracks_are_the_field_s():
    """The list of the data set's own package."""
    from importlib.metadata import files

    import yaml

    (listed,) = [file for file in files("musdb") if file.name == "mus.yaml"]
    assert sorted(VALIDATION) == sorted(yaml.safe_load(listed.read_text())["validation_tracks"])


def test_random_split_and_fraction(tmp_path):
    write_musdb18(tmp_path, "hq", NAMES, length=800)

    def names(split, **settings):
        return [t.name for t in MUSDB18(TWO, RATE, tmp_path, split="random", **settings).tracks(split)]

    train, valid = names("train"), names("valid")
    assert (len(train), len(valid)) == (32, 8) and sorted(train + valid) == sorted(NAMES)
    assert names("train", seed=7) == train and names("train", split_seed=7) != train
    few, few_valid = names("train", fraction=0.1), names("valid", fraction=0.1)
    assert (len(few), len(few_valid)) == (3, 1) and set(few) < set(train) and set(few_valid) < set(valid)


def damage(root, how):
    hq, stems = root / "train/a", root / "train/b.stem.mp4"
    write_hq(hq, length=9000)
    write_stem_file(stems, 9000, first=how == "cut sound", streams=STREAMS[:4] if how == "streams" else STREAMS)
    noise = np.zeros((9000, 3))
    if how == "channels":
        soundfile.write(hq / "bass.wav", noise, RATE)
    elif how == "rate":
        soundfile.write(hq / "bass.wav", noise[:, :2], 22_050)
    elif how == "shorter":
        soundfile.write(hq / "bass.wav", noise[:5000, :2], RATE)
    elif how == "missing":
        (hq / "bass.wav").unlink()
    elif how == "stem rate":
        write_stem_file(stems, 9000, rate=22_050)
    elif how.startswith("cut"):
        content = stems.read_bytes()
        stems.write_bytes(content[: len(content) * 3 // 4])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("channels", r"bass\.wav: has 3 channel"),
        ("rate", r"bass\.wav: sampled at 22050 Hz, but the model has 8000 Hz"),
        ("shorter", r"bass\.wav: has 5000 samples, but mixture\.wav has 9000"),
        ("missing", r"bass\.wav: no such file"),
        ("stem rate", r"b\.stem\.mp4: sampled at 22050 Hz"),
        ("streams", r"b\.stem\.mp4: has 4 audio streams, not 5"),
        ("cut", r"b\.stem\.mp4: cannot be read as a stem file.*truncated"),
        ("cut sound", r"b\.stem\.mp4: .*truncated"),
    ],
)
def test_a_damaged_set_names_the_file(tmp_path, how, said):
    damage(tmp_path, how)
    with pytest.raises(UserError, match=said) as caught:
        for track in MUSDB18(TWO, RATE, tmp_path).tracks("train"):
            track.read()
    assert "\n" not in str(caught.value)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="no source 'guitar'"):
        MUSDB18(["guitar"], RATE)
    with pytest.raises(UserError, match="train: no such folder; set data.init_args.root"):
        MUSDB18(TWO, RATE, tmp_path).tracks("train")
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="train: neither"):
        MUSDB18(TWO, RATE, tmp_path).tracks("train")
    write_musdb18(tmp_path, "hq", ["song"], length=800)
    with pytest.raises(UserError, match="none of the official validation tracks"):
        MUSDB18(TWO, RATE, tmp_path).tracks("valid")
    with pytest.raises(ValueError, match="fraction 0"):
        MUSDB18(TWO, RATE, fraction=0)


def test_a_mixture_is_the_sum_of_sources_that_share_no_stem():
    for sources in (TWO, ["vocals", "drums", "bass", "other"]):
        assert MUSDB18(sources, RATE).additive
    for sources in (["vocals"], ["vocals", "drums"], [*TWO, "drums"]):  # with the last, drums would count twice
        assert not MUSDB18(sources, RATE).additive


def test_the_class_is_known(tmp_path):
    file = tmp_path / "base.yml"
    file.write_text("data: {class_path: MUSDB18, init_args: {fraction: 0.1}}\n")
    assert from_config(file, TWO, 44_100).fraction == 0.1


@pytest.mark.parametrize("cached", [False, True])
def test_a_remix_of_one_source_has_the_other_stems_of_another_draw(tmp_path, cached):
    """A model of one source hears a whole song: the paper of Sams-Net trains one source a run, on remixes."""
    root = write_musdb18(tmp_path / "set", "hq", ["a", "b", "c"])
    settings = {"split": "random", "segment": 0.1, "remix": 1.0, "cache": tmp_path / "copies" if cached else None}
    segments = MUSDB18(["vocals"], RATE, root, **settings).segments("train")
    songs = {track.name: track for track in MUSDB18(FOUR, RATE, root, split="random").tracks("train")}
    apart = 0
    for index in range(8):
        mixture, references = segments[0, index]
        (voice, start), (rest, place) = segments.draw_remix(0, index)
        others = songs[rest.name].read(place, 800)[1][1:].sum(0)
        torch.testing.assert_close(references[0], songs[voice.name].read(start, 800)[1][0])
        torch.testing.assert_close(mixture, references[0] + others, atol=1e-6, rtol=0)
        apart += (voice.name, start) != (rest.name, place)
    assert apart >= 7


def test_an_epoch_may_be_a_pass_over_the_data(tmp_path):
    """At 10 % and at 100 % of the songs: as many segments as fit end to end, drawn again in each epoch."""
    root = write_musdb18(tmp_path, "hq", NAMES, length=9000)
    sizes = []
    for fraction in (0.1, 1.0):
        settings = {"split": "random", "fraction": fraction, "segment": 0.25, "segments_per_epoch": "data"}
        data = MUSDB18(TWO, RATE, root, **settings)
        sizes.append((len(data.tracks("train")), len(data.segments("train"))))
    assert sizes == [(3, 3 * 4), (32, 32 * 4)]
    segments = data.segments("train")
    assert segments.draw(0, 0) != segments.draw(1, 0)
