import builtins
import errno
import io
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lookalikes import write_mir1k, write_musdb18, write_stem_folders

from tasnet_attn.audio import audio_info, read_audio
from tasnet_attn.data import MIR1K, MUSDB18, LibriMix, StemFolders, Track, from_config
from tasnet_attn.data.fingerprint import record
from tasnet_attn.errors import UserError

SOURCES = ["guitar", "backing"]


def stems(root, **settings):
    return StemFolders(SOURCES, 8000, root, **{"segment": 0.125, "batch_size": 3, "segments_per_epoch": 12} | settings)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_a_segment_is_that_part_of_the_file_and_the_mixture_is_the_sum(tmp_path, suffix):
    (track, _) = stems(write_stem_folders(tmp_path, suffix=suffix)).tracks("train")
    mixture, references = track.read(1000, 700)
    whole = soundfile.read(tmp_path / "train/track0" / f"backing.{suffix}", dtype="float32")[0]
    assert references.shape == (2, 2, 700)
    torch.testing.assert_close(references[1].T, torch.from_numpy(whole[1000:1700]), atol=1e-4, rtol=0)
    torch.testing.assert_close(mixture, references.sum(0))


def test_a_source_can_be_the_sum_of_stems(tmp_path):
    root = write_stem_folders(tmp_path, sources=("vocals", "drums", "bass"))
    four = StemFolders(["vocals", "drums", "bass"], 8000, root)
    two = StemFolders(["vocals", "rest"], 8000, root, {"rest": ["drums", "bass"]})
    (mixture, stems), (same, (vocals, rest)) = (data.tracks("train")[0].read(50, 900) for data in (four, two))
    torch.testing.assert_close(same, mixture)
    assert torch.equal(vocals, stems[0]) and torch.equal(rest, stems[1] + stems[2])
    assert torch.equal(two.tracks("train")[0].read_source(1, 50, 900), rest)
    assert two.list_tracks("train")[0].files == four.list_tracks("train")[0].files
    (root / "train/track0/bass.wav").unlink()
    with pytest.raises(UserError, match="track0/bass.wav: no such file, nor .flac"):
        StemFolders(["vocals", "rest"], 8000, root, {"rest": ["drums", "bass"]}).tracks("train")


def test_segments_are_a_pure_function_of_seed_epoch_and_index(tmp_path):
    root = write_stem_folders(tmp_path)
    first, second = stems(root).segments("train"), stems(root, workers=1).segments("train")
    draws = [first.draw(epoch, index)[1] for epoch in range(3) for index in range(12)]
    assert [second.draw(epoch, index)[1] for epoch in range(3) for index in range(12)] == draws
    assert len(set(draws)) > 30
    assert [stems(root, seed=1).segments("train").draw(0, i)[1] for i in range(12)] != draws[:12]


def test_every_valid_start_of_every_track_is_equally_likely(tmp_path):
    """Tracks of 1001 and 1003 samples have 2 and 4 starts for 1000 samples."""
    segments = stems(write_stem_folders(tmp_path, (1001, 1003, 500))).segments("train")
    counts: dict = {}
    for index in range(6000):
        track, start = segments.draw(0, index)
        counts[track.name, start] = counts.get((track.name, start), 0) + 1
    assert set(counts) == {("track0", s) for s in range(2)} | {("track1", s) for s in range(4)}
    assert all(abs(n - 1000) < 5 * 1000**0.5 for n in counts.values())


def test_validation_segments_stand_end_to_end(tmp_path):
    segments = stems(write_stem_folders(tmp_path, (2500, 3000), "valid")).segments("valid")
    where = [(track.name, start) for track, start in (segments.draw(0, i) for i in range(len(segments)))]
    assert where == [("track0", 0), ("track0", 1000)] + [("track1", s) for s in (0, 1000, 2000)]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_workers_and_continue_in_mid_epoch(tmp_path, workers):
    root = write_stem_folders(tmp_path)
    whole = [mixture for mixture, _ in stems(root).train_dataloader()]
    assert len(whole) == 4 and whole[0].shape == (3, 2, 1000)
    loader = stems(root, workers=workers).train_dataloader()
    iterator = iter(loader)
    begun = [next(iterator)[0], next(iterator)[0]]
    state = loader.state_dict()
    resumed = stems(root, workers=workers).train_dataloader()
    resumed.load_state_dict(state)
    for ours, expected in zip([*begun, *(m for m, _ in resumed)], whole, strict=True):
        assert torch.equal(ours, expected)
    assert sum(1 for _ in resumed) == 4  # the epoch after it is whole


def test_channels_mean(tmp_path):
    data = stems(write_stem_folders(tmp_path), channels="mean").segments("train")
    both = stems(tmp_path).segments("train")
    torch.testing.assert_close(data[0, 5][1], both[0, 5][1].mean(1, keepdim=True))


def test_remix_takes_every_source_from_its_own_segment(tmp_path):
    root = write_stem_folders(tmp_path)
    segments, same = (stems(root, remix=1.0).segments("train") for _ in range(2))
    plain = stems(root).segments("train")
    differ = 0
    for epoch, index in [(0, i) for i in range(12)] + [(3, 5)]:
        mixture, references = segments[epoch, index]
        drawn = segments.draw_remix(epoch, index)
        assert [(t.name, s) for t, s in drawn] == [(t.name, s) for t, s in same.draw_remix(epoch, index)]
        for which, (track, start) in enumerate(drawn):
            assert torch.equal(references[which], track.read(start, 1000)[1][which])
        assert torch.equal(references[0], plain[epoch, index][1][0])
        torch.testing.assert_close(mixture, references.sum(0))
        differ += drawn[0] != drawn[1]
    assert differ >= 12


def test_remix_is_a_probability_and_for_training_only(tmp_path):
    root = write_stem_folders(write_stem_folders(tmp_path), split="valid")
    segments = stems(root, remix=0.3).segments("train")
    share = sum(bool(segments.draw_remix(0, index)) for index in range(4000)) / 4000
    assert share == pytest.approx(0.3, abs=0.035)  # 5 standard deviations
    assert not any(stems(root).segments("train").draw_remix(0, index) for index in range(100))
    assert not any(stems(root, remix=1.0).segments("valid").draw_remix(0, index) for index in range(8))
    with pytest.raises(ValueError, match="remix 1.5 is a probability"):
        stems(root, remix=1.5).segments("train")


def test_gain_and_random_channels_keep_the_mixture_the_sum(tmp_path):
    plain = stems(write_stem_folders(tmp_path)).segments("train")
    data = stems(tmp_path, gain=6.0, channels="random").segments("train")
    for key in [(0, 0), (0, 1), (1, 0)]:
        mixture, references = data[key]
        assert mixture.shape == (1, 1000)
        torch.testing.assert_close(mixture, references.sum(0))
        assert torch.equal(data[key][0], mixture)  # drawn from the key
        for ours, source in zip(references[:, 0], plain[key][1], strict=True):
            weights = torch.linalg.lstsq(source.T, ours[:, None]).solution[:, 0]
            torch.testing.assert_close(weights @ source, ours, atol=1e-5, rtol=1e-4)
            assert 10 ** (-6.01 / 20) <= weights.sum() <= 10 ** (6.01 / 20)
    assert data[0, 0][0].std() != data[0, 1][0].std()


def test_processes_share_an_epoch(tmp_path):
    from tasnet_attn.data.base import EpochSampler

    shares = [list(EpochSampler(12, rank, 3)) for rank in range(3)]
    assert sorted(sum(shares, [])) == [(0, i) for i in range(12)]


def test_the_bundled_songs():
    data = StemFolders(SOURCES, 44_100)
    names = {split: [track.name for track in data.tracks(split)] for split in ("train", "valid", "test")}
    assert names["test"] == ["metal-madness"]
    assert names["train"] == names["valid"] == ["escape-from-chaosland", "feelings", "war-of-freedom"]
    seconds = [track.length / 44_100 for track in data.tracks("train")]
    assert seconds == pytest.approx([30] * 3, abs=0.1)
    mixture, references = data.tracks("test")[0].read(44_100, 1000)
    assert references.abs().amax(dim=(1, 2)).min() > 0.01
    torch.testing.assert_close(mixture, references.sum(0))


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def damage(root, how):
    file = root / "train/track0/guitar.wav"
    samples, rate = soundfile.read(file)
    if how == "missing":
        file.unlink()
    elif how == "twice":
        soundfile.write(file.with_suffix(".flac"), samples, rate)
    elif how == "shorter":
        soundfile.write(file, samples[:-1], rate)
    elif how == "channels":
        soundfile.write(file, samples[:, :1], rate)
    elif how == "rate":
        for source in SOURCES:
            soundfile.write(file.with_name(f"{source}.wav"), samples, 22_050)
    elif how == "corrupt":
        file.write_bytes(b"RIFF no audio at all")
    elif how == "empty":
        for folder in (root / "train").iterdir():
            for found in folder.iterdir():
                found.unlink()
            folder.rmdir()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "track0/guitar.wav: no such file, nor .flac or .ogg; put it there, since each source needs one"),
        ("twice", "has guitar.wav and guitar.flac"),
        ("shorter", "guitar.wav: has 2999 samples, but backing.wav has 3000"),
        ("channels", "backing.wav: has 2 channel(s), not 1"),
        ("rate", "track0/guitar.wav: sampled at 22050 Hz, but the model has 8000 Hz"),
        ("corrupt", "guitar.wav: cannot be read as audio"),
        ("empty", "train: empty"),
    ],
)
def test_a_damaged_set_names_the_file(tmp_path, how, said):
    damage(write_stem_folders(tmp_path), how)
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        stems(tmp_path).tracks("train")
    assert "\n" not in str(caught.value)


def test_unreadable_samples_name_the_file(tmp_path):
    file = tmp_path / "a.wav"
    samples = np.zeros((100, 2), dtype=np.float32)
    samples[57, 1] = np.nan
    soundfile.write(file, samples, 8000, "FLOAT")
    with pytest.raises(UserError, match=r"a\.wav: NaN or infinite value at sample 57"):
        read_audio(file, 10, 60)
    with pytest.raises(UserError, match="10 samples shorter than"):
        read_audio(file, 60, 50)
    with pytest.raises(UserError, match="no such file"):
        read_audio(tmp_path / "b.wav")


@pytest.mark.parametrize(("said", "refused"), [(400 + 44, False), (400_000, True), (0xFFFFFFFF, False)])
def test_a_wav_header_that_says_more_than_there_is(tmp_path, said, refused):
    """Truncated; but not if a program counted its header in, or wrote to a pipe and could not know."""
    file = tmp_path / "a.wav"
    soundfile.write(file, np.zeros((100, 2)), 8000)
    content = bytearray(file.read_bytes())
    content[40:44] = said.to_bytes(4, "little")
    file.write_bytes(content)
    if refused:
        with pytest.raises(
            UserError, match=r"a\.wav: shorter than its header states: 99900 of 100000 samples are missing; the file"
        ):
            audio_info(file)
    else:
        assert audio_info(file).length == 100


def test_too_short_tracks_and_missing_folders(tmp_path):
    with pytest.raises(UserError, match="all tracks are shorter than a segment of 80000 samples"):
        stems(write_stem_folders(tmp_path), segment=10).segments("train")
    with pytest.raises(UserError, match=r"valid: no such folder"):
        stems(tmp_path).tracks("valid")


@pytest.mark.parametrize("data_set", [StemFolders, MUSDB18, MIR1K, LibriMix])
def test_constructors_touch_no_disk(data_set, tmp_path, monkeypatch):
    def touched(*arguments, **settings):
        raise AssertionError(f"looked at the disk: {arguments}")

    with monkeypatch.context() as patched:
        for module, name in ((os, "stat"), (os, "scandir"), (os, "listdir"), (builtins, "open"), (io, "open")):
            patched.setattr(module, name, touched)
        data = data_set(["vocals", "accompaniment"], 8000, tmp_path / "not there")
    with pytest.raises(UserError, match="not there"):
        data.tracks("train")


def test_from_config(tmp_path):
    file = tmp_path / "base.yml"
    file.write_text(f"data:\n  class_path: StemFolders\n  init_args: {{root: {tmp_path}, batch_size: 7}}\n")
    data = from_config(file, SOURCES, 8000)
    assert (data.batch_size, data.sample_rate, data.root) == (7, 8000, tmp_path)
    for text, said in [
        (
            "data:\n  class_path: StemFolders\n  init_args: {batch_sise: 7}\n",
            "no such setting; did you mean 'batch_size'",
        ),
        ("data: Nothing\n", "Nothing"),
        ("model: {}\n", "no `data` section"),
        ("a: [", "not a configuration"),
    ]:
        file.write_text(text)
        with pytest.raises(UserError, match=said) as caught:
            from_config(file, SOURCES, 8000)
        assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        from_config(tmp_path / "no.yml", SOURCES, 8000)


def test_a_fraction_of_the_training_tracks(tmp_path):
    for split in ("train", "valid"):
        write_stem_folders(tmp_path, (3000,) * 4, split)
    few = stems(tmp_path, fraction=0.5)
    assert [track.name for track in few.tracks("train")] == ["track0", "track1"]
    assert len(few.tracks("valid")) == 4 and len(stems(tmp_path, fraction=0.01).tracks("train")) == 1
    with pytest.raises(ValueError, match="fraction 0"):
        stems(tmp_path, fraction=0)


def test_sources_in_another_order_are_refused_before_training_and_evaluation(tmp_path):
    class Swapped(StemFolders):
        def list_tracks(self, split):
            tracks = super().list_tracks(split)
            return [Track(t.name, t.sources[::-1], t.sample_rate, t.parts) for t in tracks]

    data = Swapped(SOURCES, 8000, write_stem_folders(tmp_path))
    with pytest.raises(UserError, match="its sources are backing, guitar, the model's guitar, backing") as caught:
        data.tracks("train")
    assert "\n" not in str(caught.value)


def test_what_systems_leave_in_folders_is_passed_over(tmp_path):
    for split in (".ipynb_checkpoints", "__MACOSX", ".AppleDouble", "@eaDir"):
        (write_stem_folders(tmp_path / "stems") / "train" / split).mkdir()
    assert [track.name for track in stems(tmp_path / "stems").tracks("train")] == ["track0", "track1"]
    write_musdb18(tmp_path / "songs", "hq", ["a", "__MACOSX"])
    (tmp_path / "songs/train/._a.stem.mp4").touch()
    assert [track.name for track in MUSDB18(["vocals"], 8000, tmp_path / "songs").tracks("train")] == ["a"]
    write_mir1k(tmp_path / "clips", {"amy_1_01": 1})
    (tmp_path / "clips/Wavfile/._amy_1_01.wav").write_bytes(b"Mac OS X")
    (clip,) = MIR1K(["vocals"], 8000, tmp_path / "clips").tracks("train")
    assert clip.name == "amy_1_01"


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"segments_per_epoch": 0}, {"workers": -1}]
    + [{"segment": value} for value in (0.0, -1.0, math.nan, math.inf, 0.00001)],
)
def test_sizes_that_make_no_sense(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"^{name} {value} "):
        StemFolders(SOURCES, 8000, **wrong)


def test_a_source_may_be_called_rest(tmp_path):
    root = write_stem_folders(tmp_path, sources=("vocals", "rest"))
    (track, _) = StemFolders(["vocals", "rest"], 8000, root).tracks("train")
    mixture, references = track.read()
    assert torch.equal(mixture, references.sum(0)) and track.read_rest(0, 10).ndim == 0


def test_a_track_without_files_is_as_long_as_what_it_reads():
    class Noise(Track):
        def __init__(self):
            self.name, self.sources, self.sample_rate = "noise", ["a"], 8000

        def read(self, start=0, length=None):
            audio = torch.ones(2, 700)[:, start:]
            return audio[:, :length], audio[None, :, :length]

    track = Noise()
    assert (track.length, track.channels, str(track), track.files) == (700, 2, "noise", [])
    assert torch.equal(track.read_source(0, 10, 20), torch.ones(2, 20)) and track.read_rest(0, 5) == 0


def test_a_sum_of_nothing_is_refused():
    with pytest.raises(ValueError, match="sums: 'backing' is a sum of no files; name at least one, or leave it out"):
        StemFolders(SOURCES, 8000, sums={"backing": []})


@pytest.mark.parametrize(
    ("data_set", "call"),
    [(one, call) for one in (StemFolders, MUSDB18) for call in ("iterdir", "is_dir", "is_file")]
    + [(MIR1K, "iterdir"), (MIR1K, "is_dir"), (LibriMix, "is_file")],
)
def test_a_folder_that_may_not_be_read_is_one_line(data_set, call, tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    for folder in ("train/a", "valid/a", "Wavfile"):
        (tmp_path / folder).mkdir(parents=True)
    data = data_set(["vocals", "accompaniment"], 8000, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, call, denied)
        with pytest.raises(UserError) as caught:
            data.tracks("train")
        record(data)
    assert re.fullmatch(rf"{tmp_path}/.*: Permission denied", str(caught.value))


def test_names_that_are_no_utf_8(tmp_path):
    root = write_stem_folders(tmp_path)
    before = record(stems(root))
    os.rename(os.fsencode(root / "train/track1"), os.fsencode(root / "train") + b"/caf\xe9")
    after = record(stems(root))
    assert after["splits"]["train"]["tracks"] == before["splits"]["train"]["tracks"]
    assert after["splits"]["train"]["files"] != before["splits"]["train"]["files"]
    assert json.dumps(after)
