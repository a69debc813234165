import json

import numpy as np
import pytest
import soundfile
import torch
from lookalikes import write_librimix

from tasnet_attn.data import LibriMix, from_config
from tasnet_attn.errors import UserError

FIRST, SECOND = "0-1-0000_1-1-0000", "10-1-0000_11-1-0000"  # of two speakers
ALL = [(2, 8000, "min", False), (2, 16_000, "max", True), (3, 8000, "max", False), (3, 16_000, "min", True)]


def librimix(root, speakers=2, rate=8000, **settings):
    return LibriMix([f"speaker{i}" for i in range(speakers)], rate, root, **{"segment": 0.1} | settings)


@pytest.mark.parametrize(("speakers", "rate", "mode", "noisy"), ALL)
def test_every_kind_is_found_where_it_was_moved_to(tmp_path, speakers, rate, mode, noisy):
    root = write_librimix(tmp_path, speakers, rate, mode, noisy)
    data = librimix(root, speakers, rate, mode=mode, noisy=noisy)
    for split, subset in (("train", "train-360"), ("valid", "dev"), ("test", "test")):
        track = data.tracks(split)[1]
        mixture, references = track.read(500, 700)
        assert mixture.shape == (1, 700) and references.shape == (speakers, 1, 700)
        folder = root / f"wav{rate // 1000}k" / mode / subset
        whole = soundfile.read(folder / f"s{speakers}" / f"{track.name}.wav", dtype="float32")[0]
        np.testing.assert_array_equal(references[-1, 0], whole[500:1200])
        rest = mixture - references.sum(0)
        assert (rest.abs().max() > 0.01) == noisy
        torch.testing.assert_close(rest, track.read_rest(500, 700).expand(1, 700), atol=2e-4, rtol=0)  # 16 bit


@pytest.mark.parametrize("length", ["inf", "-inf", "nan", "long", ""])
def test_a_length_that_is_no_number_names_the_line(tmp_path, length):
    root = write_librimix(tmp_path)
    table = root / "wav8k/min/metadata/mixture_train-360_mix_clean.csv"
    first, *rest = table.read_text().splitlines()
    table.write_text("\n".join([first, *(line.rpartition(",")[0] + f",{length}" for line in rest)]) + "\n")
    with pytest.raises(UserError, match=rf"mix_clean\.csv: line 2: length is not a number: '{length}'; create"):
        librimix(root).tracks("train")


def test_dynamic_mixing_keeps_the_noise(tmp_path):
    segments = librimix(write_librimix(tmp_path, noisy=True), noisy=True, remix=1.0).segments("train")
    mixture, references = segments[2, 3]
    (track, start), (other, place) = segments.draw_remix(2, 3)
    assert torch.equal(references[1], other.read(place, 800)[1][1])
    torch.testing.assert_close(mixture, references.sum(0) + track.read_rest(start, 800))


def test_nobody_speaks_twice_in_a_remix(tmp_path):
    """Three speakers A, B, C in mixtures of two: A_B, B_C, C_A; the draw is the same in every process."""
    root = write_librimix(tmp_path, lengths=(3000, 3500, 4000))
    table = root / "wav8k/min/metadata/mixture_train-360_mix_clean.csv"
    lines = table.read_text().splitlines()
    for number, (one, other) in enumerate(("AB", "BC", "CA"), start=1):
        lines[number] = f"{one}-7-000{number}_{other}-7-000{number}," + lines[number].partition(",")[2]
    table.write_text("\n".join(lines) + "\n")
    segments = librimix(root, remix=1.0).segments("train")
    pairs = []
    for index in range(60):
        drawn = segments.draw_remix(1, index)
        assert drawn == segments.draw_remix(1, index)
        pairs.append([track.speaker(which) for which, (track, _) in enumerate(drawn)])
        mixture, references = segments[1, index]
        parts = [track.read_source(which, start, 800) for which, (track, start) in enumerate(drawn)]
        assert torch.equal(references, torch.stack(parts)) and torch.equal(mixture, references.sum(0))
    assert all(one != other for one, other in pairs)
    assert len({"".join(pair) for pair in pairs}) == 6  # every pair, also those that no mixture has


def test_remixes_of_one_pair_or_of_nameless_speakers_are_refused(tmp_path):
    root = write_librimix(tmp_path, lengths=(3000,))
    table = root / "wav8k/min/metadata/mixture_train-360_mix_clean.csv"
    head, row = table.read_text().splitlines()
    for name, said in (
        ("5-1-0_5-1-1", "no other speaker or recording in 100 draws"),
        ("song", "does not name 2 utterances"),
    ):
        table.write_text(f"{head}\n{name},{row.partition(',')[2]}\n")
        segments = librimix(root, remix=1.0).segments("train")
        with pytest.raises(UserError, match=f"{said}.*set data.init_args.remix to 0"):
            segments[0, 0]


@pytest.mark.parametrize("speakers", [2, 3])
def test_one_source_takes_every_utterance_by_itself(tmp_path, speakers):
    root = write_librimix(tmp_path, speakers)
    data = LibriMix(["speech"], 8000, root, segment=0.1, remix=1.0)
    tracks = data.tracks("test")
    assert len(tracks) == 2 * speakers == len({track.name for track in tracks})
    mixture, references = tracks[1].read(100, 500)
    whole = soundfile.read(root / f"wav8k/min/test/s2/{tracks[1].name[:-3]}.wav", dtype="float32")[0]
    np.testing.assert_array_equal(mixture[0], whole[100:600])
    assert torch.equal(references, mixture[None])
    mixture, references = data.segments("train")[0, 0]
    assert torch.equal(references[0], mixture) and mixture.abs().max() > 0.01
    with pytest.raises(ValueError, match="clean speech"):
        LibriMix(["speech"], 8000, root, noisy=True)


def test_another_test_set(tmp_path):
    root = write_librimix(tmp_path)
    metadata = root / "wav8k/min/metadata"
    rows = (metadata / "mixture_dev_mix_clean.csv").read_text().splitlines(keepends=True)
    (metadata / "mixture_strangers_mix_clean.csv").write_text("".join(rows[:2]))
    assert [len(librimix(root, testing=name).tracks("test")) for name in ("test", "strangers")] == [2, 1]


def damage(root, how):
    folder = root / "wav8k/min"
    file, table = folder / f"train-360/s1/{FIRST}.wav", folder / "metadata/mixture_train-360_mix_clean.csv"
    noise = np.random.default_rng(1).uniform(-0.1, 0.1, (3000, 3))
    if how == "moved":
        (folder / "train-360").rename(folder / "elsewhere")
    elif how == "empty":
        table.write_text(table.read_text().splitlines()[0] + "\n")
    elif how == "no table":
        table.unlink()
    elif how == "column":
        table.write_text(table.read_text().replace("length", "size"))
    elif how == "number":
        table.write_text(table.read_text().replace(",4000", ",many"))
    elif how == "no samples":
        table.write_text(table.read_text().replace(",4000", ",0"))
    elif how == "path":
        table.write_text(table.read_text().replace(f"/old/home/Libri/wav8k/min/train-360/s1/{SECOND}.wav", "1.wav"))
    elif how == "rate":
        soundfile.write(file, noise[:, 0], 22_050)
    elif how == "channels":
        soundfile.write(file, noise, 8000)
    elif how == "truncated":
        soundfile.write(file, noise[:2000, 0], 8000)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("moved", f"train-360/mix_clean/{FIRST}.wav: no such file; put it there, or set data.init_args.root"),
        ("empty", "mixture_train-360_mix_clean.csv: has no mixtures"),
        ("no table", "mixture_train-360_mix_clean.csv: no such file"),
        ("column", "mix_clean.csv: has no column 'length'"),
        ("number", "mix_clean.csv: line 3: length is not a number: 'many'"),
        ("no samples", "mix_clean.csv: line 3: length 0 must be at least 1 sample"),
        ("path", "mix_clean.csv: line 3: source_1_path is not a path"),
        ("rate", f"s1/{FIRST}.wav: sampled at 22050 Hz"),
        ("channels", f"s1/{FIRST}.wav: has 3 channel"),
        ("truncated", f"s1/{FIRST}.wav: has 2000 samples, the metadata say 3000"),
    ],
)
def test_a_damaged_set_names_the_file(tmp_path, how, said):
    damage(write_librimix(tmp_path), how)
    with pytest.raises(UserError, match=said) as caught:
        librimix(tmp_path).tracks("train")
    assert "\n" not in str(caught.value)


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path):
    """With a byte order mark, quotes and CRLF."""
    table = write_librimix(tmp_path) / "wav8k/min/metadata/mixture_train-360_mix_clean.csv"
    before = [track.name for track in librimix(tmp_path).tracks("train")]
    rows = [",".join(f'"{cell}"' for cell in row.split(",")) for row in table.read_text().splitlines()]
    table.write_bytes("\r\n".join(rows).encode("utf-8-sig"))
    assert [track.name for track in librimix(tmp_path).tracks("train")] == before


def test_a_later_file_is_looked_at_when_it_is_read(tmp_path):
    track = librimix(write_librimix(tmp_path)).tracks("train")[1]
    soundfile.write(track.files[2], np.zeros(4000), 22_050)
    with pytest.raises(UserError, match=f"s2/{SECOND}.wav: sampled at 22050 Hz"):
        track.read(0, 100)


def test_the_number_of_speakers_is_the_models(tmp_path):
    with pytest.raises(UserError, match="mixtures of 2 speakers, but the model has 3 sources"):
        librimix(write_librimix(tmp_path), speakers=3).tracks("train")


def test_constructors_touch_no_disk_and_the_class_is_known(tmp_path):
    assert librimix(tmp_path / "not there", 3).mode == "min"
    file = tmp_path / "base.yml"
    file.write_text("data: {class_path: LibriMix, init_args: {mode: max}}\n")
    data = from_config(file, ["a", "b", "c"], 16_000)
    assert (data.mode, str(data.root)) == ("max", "data/Libri3Mix")


def test_several_roots_stand_one_behind_the_other(tmp_path):
    one, other = (
        write_librimix(tmp_path / name, lengths=lengths) for name, lengths in (("a", (3000,)), ("b", (3500,)))
    )
    section = {"class_path": "LibriMix", "init_args": {"root": [str(one), str(other)], "segment": 0.1}}
    (tmp_path / "data.yml").write_text(f"data: {json.dumps(section)}\n")
    tracks = from_config(tmp_path / "data.yml", ["a", "b"], 8000).tracks("train")
    assert [(track.length, track.files[0].relative_to(tmp_path).parts[0]) for track in tracks] == [
        (3000, "a"),
        (3500, "b"),
    ]
    with pytest.raises(UserError, match=r"c.*metadata.*no such file"):
        librimix([one, tmp_path / "c"]).tracks("train")
    with pytest.raises(ValueError, match="root: contains no folder"):
        librimix([])
