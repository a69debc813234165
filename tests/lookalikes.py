"""Tiny copies of the data sets' real layouts, with sounds that a small model tells apart within a few steps.

Every sound is drawn from its own name (split, track, source): no two are alike, and every run draws the same ones.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import soundfile

from tasnet_attn.data.musdb18 import STREAMS, VALIDATION

PITCHES = {  # Hz, of harmonic tones with vibrato; drums and noise are bursts of noise
    "vocals": (250, 500), "guitar": (250, 500), "bass": (50, 90), "other": (600, 1200),
    "accompaniment": (600, 1200), "backing": (600, 1200),
    "s1": (90, 140), "s2": (280, 400), "s3": (700, 900),
}  # fmt: skip
SOURCES = ("guitar", "backing")


def sound(source, name, length, rate, channels=2):
    """The sound of a source in the track `name`, [T, C]."""
    rng = np.random.default_rng(list(f"{name}/{source}".encode()))
    time = np.arange(length)[:, None] / rate
    noise = rng.standard_normal((length, channels))
    if source not in PITCHES:
        return 0.08 * noise * (0.05 + np.exp(-20 * ((time + rng.uniform(0, 0.25)) % 0.25)))
    pitch = rng.uniform(*PITCHES[source])
    phase = 2 * np.pi * pitch * time + 0.004 * pitch * np.sin(2 * np.pi * 5 * time)  # vibrato: 2 % at 5 Hz
    partials = range(1, 1 + min(6, int(0.45 * rate / pitch)))
    tone = sum(np.sin(k * phase + rng.uniform(0, 2 * np.pi, channels)) / k for k in partials)
    syllables = 0.6 + 0.4 * np.sin(2 * np.pi * 2 * time + rng.uniform(0, 2 * np.pi))
    return 0.08 * syllables * tone + 0.001 * noise


def write_audio(file, samples, rate):
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, samples, rate)


# ---- MUSDB18: root/{train,test}/<track>.stem.mp4, or HQ: root/{train,test}/<track>/{mixture,vocals,...}.wav ----------


def song(length, rate=8000, channels=2, name="song"):
    """A song's streams, {name: [T, C]}; the mixture is the stems' sum."""
    stems = {stem: sound(stem, name, length, rate, channels) for stem in STREAMS[1:]}
    return {"mixture": sum(stems.values()), **stems}


def write_hq(folder, length, rate=8000, channels=2):
    for stem, samples in song(length, rate, channels, name=folder.name).items():
        write_audio(folder / f"{stem}.wav", samples, rate)


def write_stem_file(path, length, rate=8000, streams=STREAMS, first=False):
    """A real .stem.mp4; `first`: the index stands before the sound."""
    sound = song(length, rate, name=path.name.removesuffix(".stem.mp4"))
    encode_stem_file(path, {stream: sound[stream] for stream in streams}, rate, first)


def encode_stem_file(path, sound, rate, first=False):
    """AAC streams, {name: [T, C]} in their order, encoded by PyAV."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    length = len(next(iter(sound.values())))
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"} if first else {}) as container:
        opened = [container.add_stream("aac", rate=rate, layout="stereo", bit_rate=256_000) for _ in sound]
        for begin in range(0, length, 1024):
            for samples, stream in zip(sound.values(), opened, strict=True):
                block = np.ascontiguousarray(samples[begin : begin + 1024].T.astype(np.float32))
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
                frame.sample_rate, frame.pts = rate, begin
                container.mux(stream.encode(frame))
        for stream in opened:
            container.mux(stream.encode(None))


def write_musdb18(root, layout, names, split="train", length=9000, rate=8000):
    """Songs of a split, as folders of wav files ("hq") or as stem files ("stems")."""
    for name in names:
        if layout == "hq":
            write_hq(root / split / name, length, rate)
        else:
            write_stem_file(root / split / f"{name}.stem.mp4", length, rate)
    return root


# ---- MIR-1K: root/Wavfile/<singer>_<song>_<clip>.wav, 16 kHz, accompaniment left, voice right ------------------------


def write_mir1k(root, clips):
    """Clips, {name: seconds}."""
    for name, seconds in clips.items():
        length = int(seconds * 16_000)
        channels = [sound(source, name, length, 16_000, 1) for source in ("accompaniment", "vocals")]
        write_audio(root / "Wavfile" / f"{name}.wav", np.concatenate(channels, axis=1), 16_000)
    return root


# ---- LibriMix: root/wav8k/min/{train-360,dev,test}/{mix_clean,s1,s2}/<mixture>.wav, root/wav8k/min/metadata/*.csv ----


def write_librimix(root, speakers=2, rate=8000, mode="min", noisy=False, lengths=(3000, 4000), training="train-360"):
    """The generator's layout, with the absolute paths of another machine."""
    kind = "mix_both" if noisy else "mix_clean"
    base = root / f"wav{rate // 1000}k" / mode
    for subset in (training, "dev", "test"):
        rows = []
        for number, length in enumerate(lengths):
            name = "_".join(f"{10 * number + speaker}-1-0000" for speaker in range(speakers))
            parts = [*(f"s{i + 1}" for i in range(speakers)), *(["noise"] if noisy else [])]
            samples = {part: sound(part, f"{subset}/{name}", length, rate, 1) for part in parts}
            for folder, content in (samples | {kind: sum(samples.values())}).items():
                write_audio(base / subset / folder / f"{name}.wav", content, rate)
            elsewhere = f"/old/home/Libri/{base.relative_to(root)}/{subset}"
            sources = {f"source_{part[1:]}_path": f"{elsewhere}/{part}/{name}.wav" for part in parts[:speakers]}
            noise = {"noise_path": f"{elsewhere}/noise/{name}.wav"} if noisy else {}
            row = {"mixture_ID": name, "mixture_path": f"{elsewhere}/{kind}/{name}.wav"}
            rows.append({**row, **sources, **noise, "length": length})
        file = base / "metadata" / f"mixture_{subset}_{kind}.csv"
        file.parent.mkdir(exist_ok=True)
        with file.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return root


# ---- one's own stems: root/{train,valid,test}/<track>/<source>.{wav,flac,ogg} ----------------------------------------


def write_stem_folders(root, lengths=(3000, 5000), split="train", rate=8000, channels=2, suffix="wav", sources=SOURCES):
    for number, length in enumerate(lengths):
        for source in sources:
            samples = sound(source, f"{split}/{number}", length, rate, channels)
            write_audio(root / split / f"track{number}" / f"{source}.{suffix}", samples, rate)
    return root


# ---- all of them, each where its recipes look for it -----------------------------------------------------------------


def write_everything(root):
    """A folder `data` for every recipe, as next to `exp`."""
    data, second = root / "data", 44_100
    for layout, name in (("stems", "MUSDB18"), ("hq", "MUSDB18-HQ")):
        songs = [VALIDATION[0], "Song 1", "Song 2", "Song 3"]
        write_musdb18(data / name, layout, songs, "train", 2 * second, second)
        write_musdb18(data / name, layout, ["Test 1"], "test", 2 * second, second)
    write_mir1k(data / "MIR-1K", {"abjones_1_01": 3, "abjones_2_01": 4, "amy_1_01": 3.5, "bobon_1_01": 3})
    for name, rate, training in (
        ("Libri2Mix", 8000, 360),
        ("Libri2Mix", 16_000, 360),
        ("debian2mix", 8000, None),
        ("voices2mix", 8000, None),
    ):
        training = f"train-{training}" if training else "train"
        write_librimix(data / name, rate=rate, lengths=[2 * rate, 3 * rate], training=training)
    for split in ("train", "valid", "test"):
        sources = ("vocals", "accompaniment", "guitar", "backing")
        write_stem_folders(data / "own_stems", [2 * second], split, second, sources=sources)
        stems = ("vocals", "drums", "bass", "other")
        write_stem_folders(data / "synthsong", [2 * second], split, second, suffix="flac", sources=stems)
        for number, source in enumerate(("s1", "drums", "s3")):
            rate = (16_000, second)[number % 2]
            samples = sound(source, split, 2 * rate, rate, 1 + number % 2)
            write_audio(data / "recordings" / split / f"{split} {source}.wav", samples, rate)
    return root


if __name__ == "__main__":
    write_everything(Path(sys.argv[1]))
