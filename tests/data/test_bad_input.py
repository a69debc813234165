"""What is wrong with a file ends a command in one line that names it: no traceback, not even a worker process's."""

import csv
import re

import numpy as np
import pytest
import soundfile
from lookalikes import write_librimix, write_mir1k, write_musdb18, write_stem_file, write_stem_folders

from tasnet_attn.cli import main

CONFIG = """
model:
  sources: SOURCES
  sample_rate: RATE
  encoder: {class_path: GatedEncoder, init_args: {n_filters: 8, kernel_size: 16}}
  separator: {class_path: TasNet, init_args: {hidden: 4, n_layers: 1}}
  decoder: {class_path: LearnedDecoder, init_args: {n_filters: 8, kernel_size: 16}}
data:
  class_path: CLASS
  init_args: {root: ROOT, segment: 0.1, batch_size: 1, segments_per_epoch: 40, workers: WORKERS}
trainer: {max_epochs: 1, accelerator: cpu, log_every_n_steps: 1, enable_progress_bar: false}
"""
SETS = {
    "MUSDB18": (["vocals", "accompaniment"], 8000),
    "MIR1K": (["accompaniment", "vocals"], 8000),
    "LibriMix": (["speaker1", "speaker2"], 8000),
    "StemFolders": (["guitar", "backing"], 8000),
}


def write(root, data):
    """A sound data set."""
    if data == "MUSDB18":
        write_musdb18(root, "hq", ["a", "b", "c"])
    elif data == "MIR1K":
        write_mir1k(root, {"abjones_1_01": 1, "abjones_1_02": 1, "amy_1_01": 1})
    elif data == "LibriMix":
        write_librimix(root)
    else:
        write_stem_folders(root, (8000, 8000, 8000))
        write_stem_folders(root, (2000,), "valid")


def run(tmp_path, data, workers=0, rate=None):
    """Train; the exit status."""
    sources, usual = SETS[data]
    text = CONFIG.replace("ROOT", str(tmp_path / "set")).replace("CLASS", data).replace("WORKERS", str(workers))
    text = text.replace("RATE", str(rate or usual)).replace("SOURCES", str(sources))
    if data == "MUSDB18":
        text = text.replace("{root", "{split: random, root")
    (tmp_path / "conf.yml").write_text(text)
    return main(["train", "--config", str(tmp_path / "conf.yml"), "--out", str(tmp_path / "run")])


def cut(file, part=0.6):
    content = file.read_bytes()
    file.write_bytes(content[: int(part * len(content))])


def again(file, change):
    """Write a file once more, its samples [T, C] and rate changed."""
    samples, rate = soundfile.read(file, always_2d=True)
    soundfile.write(file, *change(samples, rate))


def three(samples, rate):
    return np.repeat(samples[:, :1], 3, axis=1), rate


def rated(samples, rate):
    return samples, 22_050


STARTING = {  # found before the first step
    "MUSDB18, truncated stem file": ("MUSDB18", lambda s: cut(stem_file(s)), r"d\.stem\.mp4: .*is it truncated"),
    "MUSDB18, truncated wav": ("MUSDB18", lambda s: cut(s / "train/b/bass.wav"), r"b/bass\.wav: .*is truncated"),
    "MUSDB18, 3 channels": ("MUSDB18", lambda s: again(s / "train/b/bass.wav", three), r"b/bass\.wav: has 3 channel"),
    "MUSDB18, rate": ("MUSDB18", lambda s: again(s / "train/b/bass.wav", rated), r"b/bass\.wav: sampled at 22050 Hz"),
    "MUSDB18, no root": ("MUSDB18", lambda s: s.rename(s.with_name("x")), r"set/train: no such folder; set data\.init"),
    "MIR-1K, truncated wav": ("MIR1K", lambda s: cut(clip(s)), r"abjones_1_02\.wav: .*the file is truncated"),
    "MIR-1K, 3 channels": ("MIR1K", lambda s: again(clip(s), three), r"abjones_1_02\.wav: has 3 channel"),
    "MIR-1K, no root": ("MIR1K", lambda s: s.rename(s.with_name("x")), r"set/Wavfile: no \.wav files there; set data"),
    "LibriMix, empty CSV": ("LibriMix", lambda s: table(s).write_text(""), r"mix_clean\.csv: has no mixtures"),
    "LibriMix, no root": ("LibriMix", lambda s: s.rename(s.with_name("x")), r"mix_clean\.csv: no such file; set data"),
    "LibriMix, moved root": (
        "LibriMix",
        lambda s: (s / "wav8k/min/train-360").rename(s / "x"),
        r"train-360/mix_clean/\S+\.wav: no such file; put it there, or set data\.init_args\.root",
    ),
    "own stems, truncated wav": ("StemFolders", lambda s: cut(guitar(s)), r"guitar\.wav: .*the file is truncated"),
    "own stems, 3 channels in a file": (
        "StemFolders",
        lambda s: again(guitar(s), three),
        r"backing\.wav: has 2 channel\(s\), not 3; convert it",
    ),
    "own stems, 3 channels in a track": (
        "StemFolders",
        lambda s: [again(file, three) for file in guitar(s).parent.iterdir()],
        r"track1/guitar\.wav: has 3 channel\(s\), the other tracks 2; a batch needs",
    ),
    "own stems, no root": ("StemFolders", lambda s: s.rename(s.with_name("x")), r"set/valid: no such folder"),
}
READING = {  # found when its turn comes
    "MUSDB18, truncated stem file": ("MUSDB18", lambda s: cut(stem_file(s, first=True)), r"d\.stem\.mp4: .*truncated"),
    "LibriMix, 3 channels": ("LibriMix", lambda s: again(speaker(s), three), r"s2/\S+\.wav: has 3 channel\(s\)"),
    "LibriMix, rate": ("LibriMix", lambda s: again(speaker(s), rated), r"s2/\S+\.wav: sampled at 22050 Hz"),
    "own stems, truncated flac": ("StemFolders", lambda s: cut(as_flac(s)), r"guitar\.flac: .*is it truncated\?"),
    "own stems, NaN": ("StemFolders", lambda s: with_nan(guitar(s)), r"guitar\.wav: NaN or infinite value at sample 7"),
}


def stem_file(root, first=False):
    file = root / "train/d.stem.mp4"
    write_stem_file(file, 9000, first=first)
    return file


def clip(root):
    return root / "Wavfile/abjones_1_02.wav"


def table(root):
    return root / "wav8k/min/metadata/mixture_train-360_mix_clean.csv"


def speaker(root):
    return sorted((root / "wav8k/min/train-360/s2").iterdir())[1]


def guitar(root):
    return root / "train/track1/guitar.wav"


def as_flac(root):
    file = guitar(root).with_suffix(".flac")
    soundfile.write(file, *soundfile.read(guitar(root)))
    guitar(root).unlink()
    return file


def with_nan(file):
    samples, rate = soundfile.read(file)
    samples[7000:, 1] = np.nan
    soundfile.write(file, samples, rate, "FLOAT")


def assert_one_line(said, capfd):
    """One line of ours ends stderr; Lightning's remarks stand before it."""
    lines = capfd.readouterr().err.rstrip().splitlines()
    assert not any("Traceback" in line or "Error:" in line for line in lines)
    assert [line for line in lines if line.startswith("tasnet-attn:")] == lines[-1:]
    assert re.search(said, lines[-1]), lines[-1]


@pytest.mark.parametrize("case", STARTING)
def test_before_training(case, tmp_path, capfd):
    data, spoil, said = STARTING[case]
    write(tmp_path / "set", data)
    spoil(tmp_path / "set")
    assert run(tmp_path, data) == 2
    assert_one_line(said, capfd)


@pytest.mark.parametrize(("case", "workers"), [*((case, 1) for case in READING), ("own stems, NaN", 0)])
def test_in_mid_training(case, workers, tmp_path, capfd):
    data, spoil, said = READING[case]
    write(tmp_path / "set", data)
    spoil(tmp_path / "set")
    assert run(tmp_path, data, workers) == 2
    assert_one_line(said, capfd)
    if case == "own stems, NaN":  # a third of the segments may hold it: there were steps before
        with (tmp_path / "run/metrics.csv").open() as file:
            assert any(row["train_loss_step"] for row in csv.DictReader(file))


def test_a_file_at_22_khz_in_a_set_at_44_khz(tmp_path, capfd):
    for split in ("train", "valid"):
        write_stem_folders(tmp_path / "set", (9000, 9000), split, rate=44_100)
    for file in (tmp_path / "set/train/track1").iterdir():
        again(file, rated)
    assert run(tmp_path, "StemFolders", rate=44_100) == 2
    said = r"track1/guitar\.wav: sampled at 22050 Hz, but the model has 44100 Hz; resample it: ffmpeg"
    assert_one_line(said, capfd)
