"""check-data finds faults planted in look-alikes of every data set, names file and fix, and is content when fixed."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lookalikes import (
    sound,
    write_audio,
    write_librimix,
    write_mir1k,
    write_musdb18,
    write_stem_file,
    write_stem_folders,
)

from tasnet_attn.checking import check_data, configured
from tasnet_attn.cli import main
from tasnet_attn.data.fingerprint import read_record, record, remember
from tasnet_attn.errors import UserError

RATE, LENGTH = 8000, 12_000
CLIPS = {"abjones_1_01": 2.5, "abjones_1_02": 2.2, "amy_2_03": 2.1, "bobon_1_01": 2.2}
SONGS = "{class_path: MUSDB18, init_args: {root: ROOT, segment: 0.5, split: random}}"
SETS = {  # layout: sources, settings
    "folders": (["guitar", "backing"], "{class_path: StemFolders, init_args: {root: ROOT, segment: 0.5}}"),
    "hq": (["vocals", "accompaniment"], SONGS),
    "stems": (["vocals", "accompaniment"], SONGS),
    "mir1k": (["accompaniment", "vocals"], "{class_path: MIR1K, init_args: {root: ROOT, mixture: mean}}"),
    "librimix": (["a", "b"], "{class_path: LibriMix, init_args: {root: ROOT, segment: 0.5}}"),
    "noisy": (["a", "b"], "{class_path: LibriMix, init_args: {root: ROOT, segment: 0.5, noisy: true}}"),
}  # fmt: skip


def build(root, layout):
    """A clean set of a layout, and its YAML file."""
    if layout == "folders":
        for split in ("train", "valid", "test"):
            write_stem_folders(root, (LENGTH, LENGTH + 500), split, RATE)
    elif layout in ("hq", "stems"):
        write_musdb18(root, layout, ["a", "b", "c"], "train", LENGTH, RATE)
        write_musdb18(root, layout, ["d"], "test", LENGTH, RATE)
    elif layout == "mir1k":
        write_mir1k(root, CLIPS)
    else:
        write_librimix(root, noisy=layout == "noisy", lengths=(LENGTH, LENGTH + 500))
    return configuration(root, layout)


def configuration(root, layout, segment=None):
    sources, data = SETS[layout]
    text = f"model: {{sources: [{', '.join(sources)}], sample_rate: {RATE}}}\ndata: {data.replace('ROOT', str(root))}\n"
    file = root / "base.yml"
    file.write_text(text if segment is None else text.replace("segment: 0.5", f"segment: {segment}"))
    return file


@pytest.fixture(scope="session")
def clean(tmp_path_factory):
    """Clean sets by layout, each made once."""
    made = {}

    def get(layout):
        if layout not in made:
            made[layout] = tmp_path_factory.mktemp(layout)
            build(made[layout], layout)
        return made[layout]

    return get


@pytest.fixture
def copy(clean, tmp_path):
    def get(layout):
        root = tmp_path / layout
        shutil.copytree(clean(layout), root)
        configuration(root, layout)
        return root

    return get


@pytest.fixture
def check(capsys):
    def run(root, *options, **settings):
        """(exit status, findings with their fixes, verdict)."""
        status = check_data([root / "base.yml"], options, **settings)
        printed = capsys.readouterr().out
        findings = re.findall(r"^(?:error|warning).*\n    fix: .+", printed, re.MULTILINE)
        return status, findings, printed.splitlines()[-1]

    return run


@pytest.mark.parametrize("layout", SETS)
def test_a_clean_set_has_no_findings(layout, clean, capsys):
    root = clean(layout)
    assert main(["check-data", str(root / "base.yml")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "verdict: OK"
    assert not [line for line in printed if line.startswith(("error", "warning"))]
    table = {line.split()[0]: line for line in printed if line.startswith(("train", "valid", "test"))}
    tracks = {split: int(line.split()[1]) for split, line in table.items()}
    two = {"train": 2, "valid": 2, "test": 2}
    assert tracks == {
        "folders": two, "librimix": two, "noisy": two, "hq": {"train": 2, "valid": 1, "test": 1},
        "stems": {"train": 2, "valid": 1, "test": 1}, "mir1k": {"train": 3, "valid": 3, "test": 1},
    }[layout]  # fmt: skip
    if layout == "mir1k":
        assert "mean, -6.0 dB" in table["test"] and "3 tracks of train used again" in table["valid"]
    elif layout == "folders":
        assert "sum" in table["train"]
    else:
        worst = float(re.search(r"(-[\d.]+) dB", table["train"])[1])
        assert worst < (-12 if layout == "stems" else -50)


# ---- planted faults: changes of a clean set, and the findings ---------------------------------------------


def rewrite(file, change, rate=RATE, subtype=None):
    """Replace a file's samples [T, C]."""
    samples, _ = soundfile.read(file, always_2d=True)
    soundfile.write(file, change(samples), rate, subtype)


def cut(file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])


FAULTS = {}


def fault(name, layout, level, said, fix):
    """Register a planted fault: `plant(root)` returns the file that must be named, or several."""

    def register(plant):
        FAULTS[name] = (layout, plant, level, said, fix)
        return plant

    return register


@fault("a wrong rate", "folders", "error", "sampled at 22050 Hz, but the model has 8000 Hz", "-ar 8000")
def wrong_rate(root):
    file = root / "valid/track1/backing.wav"
    rewrite(file, lambda x: x, 22_050)
    return file


@fault("three channels", "hq", "error", "has 3 channel(s), not 2", "-ac 2")
def three_channels(root):
    file = root / "test/d/bass.wav"
    rewrite(file, lambda x: np.concatenate([x, x[:, :1]], axis=1))
    return file


@fault(
    "a shorter stem", "hq", "error", "has 11000 samples, but mixture.wav has 12000", "export this track's files again"
)
def shorter(root):
    file = root / "train/b/drums.wav"
    rewrite(file, lambda x: x[:11_000])
    return file


@fault(
    "shorter than the metadata",
    "librimix",
    "error",
    "has 11000 samples, the metadata say 12500",
    "make the data set again",
)
def shorter_than_the_metadata(root):
    file = sorted((root / "wav8k/min/test/s2").iterdir())[1]
    rewrite(file, lambda x: x[:11_000])
    return file


@fault("a mixture that is not the sum", "hq", "error", "differs from the sum of the sources by -", "as the sum")
def not_the_sum(root):
    file = root / "train/b/mixture.wav"
    vocals = soundfile.read(root / "train/b/vocals.wav")[0]
    rewrite(file, lambda x: x - 0.7 * vocals)
    return file


@fault(
    "a stem file whose mixture is not the sum", "stems", "error", "differs from the sum of the sources", "as the sum"
)
def stem_file_not_the_sum(root):
    file = root / "test/d.stem.mp4"
    write_stem_file(file, LENGTH, RATE, streams=("drums", "mixture", "bass", "other", "vocals"))
    return file


@fault("a mixture at another level", "librimix", "error", "it is their sum at -6.0 dB", "bring the sources to")
def another_level(root):
    file = sorted((root / "wav8k/min/dev/mix_clean").iterdir())[0]
    rewrite(file, lambda x: x / 2)
    return file


@fault("noise that is not in the mixture", "noisy", "error", "differs from the sum of the sources", "as the sum")
def noise_left_out(root):
    file = sorted((root / "wav8k/min/dev/mix_both").iterdir())[0]
    noise = soundfile.read(root / "wav8k/min/dev/noise" / file.name, always_2d=True)[0]
    rewrite(file, lambda x: x - noise)
    return file


@fault("a silent stem", "folders", "warning", "is silent throughout", "remove this track")
def silent(root):
    file = root / "train/track0/guitar.wav"
    rewrite(file, np.zeros_like)
    return file


@fault("a silent channel of a clip", "mir1k", "warning", "(vocals): is silent throughout", "remove this track")
def silent_voice(root):
    file = root / "Wavfile/bobon_1_01.wav"
    rewrite(file, lambda x: x * [1, 0], 16_000)
    return file


@fault(
    "a clipped stem",
    "folders",
    "warning",
    "clipped, 3 runs of 4 or more samples at full scale, the first at 0.1",
    "lower level",
)
def clipped(root):
    file = root / "test/track0/guitar.wav"

    def clip(x):
        for start in (1000, 1010, 3000):
            x[start : start + 7, 1] = 1.0
        return x

    rewrite(file, clip)
    return file


@fault("one sound for two sources", "hq", "error", "vocals is the same sound as bass", "export bass and vocals again")
def same_stem(root):
    shutil.copy(root / "train/c/bass.wav", root / "train/c/vocals.wav")
    drums, bass, other = (soundfile.read(root / f"train/c/{stem}.wav")[0] for stem in ("drums", "bass", "other"))
    soundfile.write(root / "train/c/mixture.wav", drums + 2 * bass + other, RATE)
    return root / "train/c/vocals.wav"


@fault(
    "a test track that was trained on, under another name and format",
    "folders",
    "error",
    "has the same sound as",
    "delete one",
)
def trained_on(root):
    for source in ("guitar", "backing"):
        samples, rate = soundfile.read(root / f"train/track1/{source}.wav", dtype="int16")
        write_audio(root / f"test/another name/{source}.flac", samples, rate)
    return root / "train/track1/guitar.wav", root / "test/another name/guitar.flac"


@fault("a training track twice", "mir1k", "warning", "has the same sound as", "it counts twice")
def twice(root):
    shutil.copy(root / "Wavfile/amy_2_03.wav", root / "Wavfile/amy_9_09.wav")
    return root / "Wavfile/amy_9_09.wav", root / "Wavfile/amy_2_03.wav"


@fault(
    "a test utterance trained on, louder, shorter and in another mixture",
    "librimix",
    "error",
    "begins, at some level, like",
    "delete one",
)
def same_utterance(root):
    base = root / "wav8k/min"
    file = sorted((base / "test/s1").iterdir())[0]
    trained = sorted((base / "train-360/s2").iterdir())[1]
    rewrite(file, lambda x: 1.3 * soundfile.read(trained, always_2d=True)[0][:LENGTH])
    speech = soundfile.read(file)[0] + soundfile.read(base / "test/s2" / file.name)[0]
    soundfile.write(base / "test/mix_clean" / file.name, speech, RATE)
    return file, trained


@fault("a truncated wav file", "librimix", "error", "truncated", "make or copy this file again")
def truncated(root):
    file = sorted((root / "wav8k/min/train-360/s1").iterdir())[0]
    cut(file, 0.6)
    return file


@fault("a truncated stem file", "stems", "error", "is it truncated?", "make or copy this file again")
def truncated_stem_file(root):
    cut(root / "train/b.stem.mp4", 0.7)
    return root / "train/b.stem.mp4"


@fault("a stem file whose sound ends early", "stems", "error", "truncated", "make or copy this file again")
def stem_file_ends_early(root):
    file = root / "train/c.stem.mp4"
    write_stem_file(file, LENGTH, RATE, first=True)
    cut(file, 0.7)
    return file


@fault("NaN samples", "folders", "error", "NaN or infinite value at sample 5000", "make or copy this file again")
def not_a_number(root):
    file = root / "train/track1/guitar.wav"

    def spoil(x):
        x[5000, 1] = np.nan
        return x

    rewrite(file, spoil, subtype="FLOAT")
    return file


@fault("a missing file", "folders", "error", "no such file, nor .flac or .ogg", "put it there")
def missing(root):
    (root / "valid/track0/backing.wav").unlink()
    return root / "valid/track0/backing.wav"


@fault("a stem twice", "folders", "error", "has guitar.wav and guitar.flac", "delete one of them")
def two_formats(root):
    samples, rate = soundfile.read(root / "train/track0/guitar.wav")
    write_audio(root / "train/track0/guitar.flac", samples, rate)
    return root / "train/track0"


@fault("an offset", "mir1k", "warning", "its mean is 0.200 of full scale", "highpass")
def offset(root):
    file = root / "Wavfile/abjones_1_01.wav"
    rewrite(file, lambda x: x + [0, 0.2], 16_000)
    return file


@fault("an empty table", "librimix", "error", "has no mixtures", "create the metadata again")
def empty_table(root):
    table = root / "wav8k/min/metadata/mixture_dev_mix_clean.csv"
    table.write_text(table.read_text().splitlines()[0] + "\n")
    return table


@fault(
    "a damaged line of a table",
    "librimix",
    "error",
    "line 3: length is not a number: 'many'",
    "create the metadata again",
)
def damaged_line(root):
    table = root / "wav8k/min/metadata/mixture_test_mix_clean.csv"
    table.write_text(table.read_text().replace(f",{LENGTH + 500}", ",many"))
    return table


@fault(
    "a short training track", "folders", "warning", "1 of 3 tracks are shorter than a segment of 0.5 s", "segment lower"
)
def short(root):
    for source in ("guitar", "backing"):
        write_audio(root / f"train/short/{source}.wav", sound(source, "short", 3000, RATE), RATE)
    return root / "train/short/guitar.wav"


@fault("a mono track in a stereo set", "folders", "error", "has 1 channel(s), most tracks have 2", "channels to mean")
def mono(root):
    for source in ("guitar", "backing"):
        rewrite(root / f"valid/track1/{source}.wav", lambda x: x[:, :1])
    return root / "valid/track1/guitar.wav"


def test_only_tracks_of_one_split_need_equal_channels(copy, check):
    """As in training, whose batches they are: the test set may be stereo, and larger."""
    root = copy("folders")
    for file in [*root.glob("train/*/*.wav"), *root.glob("valid/track1/*.wav")]:
        rewrite(file, lambda x: x[:, :1])
    status, (finding,), _ = check(root)
    assert status == 1 and str(root / "valid/track1/guitar.wav") in finding


def test_a_pair_is_as_long_as_its_shorter_recording(tmp_path, check):
    for place, length in (("train/a", 9), ("train/b", 9), ("valid/a", 9), ("valid/b", 3), ("test/a", 9), ("test/b", 9)):
        write_audio(tmp_path / f"{place}.wav", sound(place, "", length * RATE // 10, RATE), RATE)
    SETS["recordings"] = (["a", "b"], "{class_path: Recordings, init_args: {root: ROOT, segment: 0.5}}")
    configuration(tmp_path, "recordings")
    del SETS["recordings"]
    status, (finding,), _ = check(tmp_path)
    assert status == 1 and "1 of 1 tracks are shorter" in finding and f"{tmp_path / 'valid/b.wav'} with 0.30" in finding


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_alone_and_gone_when_fixed(name, copy, check):
    layout, plant, level, said, fix = FAULTS[name]
    root = copy(layout)
    before = root.with_name("before")
    shutil.copytree(root, before)
    named = plant(root)
    status, findings, verdict = check(root)
    found = [f for f in findings if said in f]
    assert len(found) == 1, findings
    assert found[0].startswith(level) and fix in found[0].partition("fix: ")[2]
    for file in named if isinstance(named, tuple) else (named,):
        assert str(file) in found[0]
    assert findings == found  # nothing else is blamed
    assert status == (1 if level == "error" else 0)
    assert ("1 error, 0 warnings: fix the errors first" if level == "error" else "1 warning, usable") in verdict

    shutil.rmtree(root)
    before.rename(root)
    assert check(root) == (0, [], "verdict: OK")


@pytest.mark.parametrize(("name", "silent"), [("rest", True), ("mixture", False)])
def test_a_source_may_be_called_like_a_part_beside_the_sources(name, silent, tmp_path, check):
    for split in ("train", "valid", "test"):
        write_stem_folders(tmp_path, (LENGTH, LENGTH + 500), split, RATE, sources=("guitar", name))
    for file in tmp_path.rglob(f"{name}.wav") if silent else []:
        samples, rate = soundfile.read(file)
        soundfile.write(file, 0 * samples, rate)
    (tmp_path / "base.yml").write_text(
        f"model: {{sources: [guitar, {name}], sample_rate: {RATE}}}\n"
        f"data: {{class_path: StemFolders, init_args: {{root: {tmp_path}, segment: 0.5}}}}\n"
    )
    status, findings, _ = check(tmp_path)
    assert status == 0 and len(findings) == (6 if silent else 0)
    assert all("is silent throughout" in finding for finding in findings)


def test_one_bad_file_stops_nothing(copy, check):
    root = copy("folders")
    files = [wrong_rate(root), missing(root), not_a_number(root), truncated_flac(root)]
    silent(root)
    clipped(root)
    status, findings, verdict = check(root)
    assert status == 1 and verdict.startswith("verdict: 4 errors, 2 warnings")
    assert all(sum(str(file) in finding for finding in findings) == 1 for file in files)


def truncated_flac(root):
    (root / "test/track1/guitar.wav").unlink()
    file = root / "test/track1/guitar.flac"
    write_audio(file, sound("guitar", "new", LENGTH + 500, RATE), RATE)
    cut(file, 0.5)
    return file


def test_many_findings_of_a_kind_are_counted_and_listed_on_demand(tmp_path, capsys):
    write_stem_folders(tmp_path, [LENGTH] * 12, "train", 16_000)
    for split in ("valid", "test"):
        write_stem_folders(tmp_path, [LENGTH], split, RATE)
    file = configuration(tmp_path, "folders")
    assert main(["check-data", str(file)]) == 1
    printed = capsys.readouterr().out
    assert printed.count("fix:") == 10 and "and 14 more of kind rate; --all lists them" in printed
    assert "verdict: 24 errors" in printed and "16000" in printed
    assert main(["check-data", str(file), "--all"]) == 1
    assert capsys.readouterr().out.count("fix:") == 24


def test_quick_reads_all_headers_and_the_sound_of_a_few(tmp_path, check, capsys):
    write_stem_folders(tmp_path, [600] * 45, "train", RATE)
    for split in ("valid", "test"):
        write_stem_folders(tmp_path, [600], split, RATE)
    configuration(tmp_path, "folders", segment=0.05)
    tracks = sorted(path.name for path in (tmp_path / "train").iterdir())
    for number in (0, 1):  # of the tracks by name: the first is listened to, the second is not
        rewrite(tmp_path / f"train/{tracks[number]}/guitar.wav", np.zeros_like)
    rewrite(tmp_path / f"train/{tracks[1]}/backing.wav", lambda x: x[:-1])
    status, findings, verdict = check(tmp_path, quick=True)
    assert status == 1 and len(findings) == 2
    assert f"{tracks[1]}/backing.wav: has 599" in findings[0] and f"{tracks[0]}/guitar.wav: is silent" in findings[1]
    assert "quick: read the samples of at most 20 tracks per split" in verdict
    assert len(check(tmp_path)[1]) == 3


# ---- what to look at -------------------------------------------------------------------------------------------------


def test_files_are_layered_and_overridden_like_trains(tmp_path):
    base, conf, more = (tmp_path / name for name in ("base.yml", "conf.yml", "more.yml"))
    base.write_text(
        "model: {sources: [a, b], sample_rate: 8000}\ndata: {class_path: LibriMix, init_args: {mode: max}}\n"
    )
    conf.write_text("model: {sample_rate: 16000, separator: AudioSlots}\ntask: {}\ndata: {init_args: {segment: 0.5}}\n")
    more.write_text("data: {init_args: {segment: 0.7}}\n")
    with pytest.raises(UserError, match="base.yml: model: 'foo' is not a section"):
        configured([base], ["--model", "foo"])
    data = configured([base, conf])
    assert (data.sample_rate, data.mode, data.segment) == (16_000, "max", 0.5)
    options = [
        "--trainer.max_steps",
        "3",
        "--data.root",
        "else/where",
        "--model.sources=[x, y, z]",
        "--trainer.fast_dev_run",
    ]
    data = configured([base, conf], [*options, "--config", str(more)])
    assert (str(data.root), data.sources, data.segment) == ("else/where", ["x", "y", "z"], 0.7)
    for files, options, said in (
        ([conf], [], "give both"),
        ([base], ["--data.rot=x"], "data.rot: LibriMix has no such setting"),
        ([base], ["--config", "nowhere.yml"], "nowhere.yml: no such file"),
        ([base], ["stray"], "stray: expected --key value"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            configured(files, options)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layout", SETS)
def test_data_that_are_not_there(layout, tmp_path, capsys):
    """Also a moved root: the class says how to come by the data, and which key says where they are."""
    file = configuration(tmp_path, layout)
    assert main(["check-data", str(file), "--data.root", str(tmp_path / "moved")]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"tasnet-attn: {tmp_path / 'moved'}") and printed.err.count("\n") == 1
    assert "data.init_args.root" in printed.out and "nothing is downloaded automatically" in printed.out
    name = {"hq": "MUSDB18", "stems": "MUSDB18", "mir1k": "MIR-1K", "folders": "StemFolders"}.get(layout, "LibriMix")
    assert name in printed.out.splitlines()[3]


def test_a_recipe_that_makes_its_data_says_how_in_its_readme(tmp_path, capsys):
    (tmp_path / "ltl").mkdir()
    base = configuration(tmp_path, "librimix")
    (tmp_path / "ltl/conf.yml").write_text("model: {}\n")
    (tmp_path / "README.md").write_text("# Ours\n\nBlah.\n\n## The data\n\n    python make.py\n\n## Results\n\nNone.\n")
    assert main(["check-data", str(base), str(tmp_path / "ltl/conf.yml")]) == 2
    printed = capsys.readouterr().out
    assert "python make.py" in printed and "Blah" not in printed and "Results" not in printed
    assert "generate_librimix" not in printed
    (tmp_path / "README.md").write_text("# Mine\n\n## The data\n", encoding="utf-16")  # a user's own, in any coding
    assert main(["check-data", str(base), str(tmp_path / "ltl/conf.yml")]) == 2
    assert "generate_librimix" in capsys.readouterr().out


def test_a_split_that_is_missing_is_one_error_and_the_others_are_looked_at(copy, check):
    root = copy("folders")
    shutil.rmtree(root / "valid")
    silent(root)
    status, findings, _ = check(root)
    assert status == 1 and len(findings) == 2
    assert f"{root / 'valid'}: no such folder" in "".join(findings)


@pytest.mark.slow
def test_stage_0_of_a_recipe_sees_its_command_line_and_stops_at_errors(copy, tmp_path):
    root = copy("folders")
    file = wrong_rate(root)
    script = Path(__file__).parents[2] / "recipes/own_stems/ltl/run.sh"
    options = [
        "--data.root",
        root,
        "--model.sources",
        "[guitar, backing]",
        "--model.sample_rate=8000",
        "--data.segment=0.5",
    ]
    finished = subprocess.run(
        [script, "--python", sys.executable, "--stop-stage", "1", "--trainer.max_steps", "1", *map(str, options)],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert finished.returncode == 1
    assert f"error (valid): {file}: sampled at 22050 Hz, but the model has 8000 Hz" in finished.stdout
    assert "verdict: 1 error" in finished.stdout and "stage 1" not in finished.stdout


# ---- the fingerprint -------------------------------------------------------------------------------------------------


def fingerprints(capsys, root, *options):
    status = main(["check-data", str(root / "base.yml"), *map(str, options)])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("fingerprint"))
    return status, *re.match(r"fingerprint: sound (\w+), names and sizes (\w+)", line).groups()


def test_the_fingerprint_is_of_the_sound_not_of_place_or_format(copy, capsys, clean):
    _, sound_of, files = fingerprints(capsys, clean("folders"))
    root = copy("folders")
    assert fingerprints(capsys, root) == (0, sound_of, files)
    file = root / "train/track0/guitar.wav"
    samples, rate = soundfile.read(file, dtype="int16")
    soundfile.write(file.with_suffix(".flac"), samples, rate)
    file.unlink()
    _, again, other_files = fingerprints(capsys, root)
    assert again == sound_of and other_files != files
    samples[700, 0] += 1
    soundfile.write(file.with_suffix(".flac"), samples, rate)
    assert fingerprints(capsys, root)[1] != sound_of


def test_a_run_knows_its_data(copy, tmp_path, capsys):
    """Stage 0 stores, the run begins, then the data change: check-data of the run says so, and what."""
    root, run = copy("folders"), tmp_path / "run"
    _, sound_of, _ = fingerprints(capsys, root, "--run", run)
    assert read_record(run)["sound"] == sound_of and not run.exists()  # it did not begin yet
    assert remember(record(configured([root / "base.yml"])), run) == []  # what `train` does: nothing is lost
    assert sorted(path.name for path in tmp_path.iterdir() if "run" in path.name) == ["run"]
    assert json.loads((run / "data.json").read_text())["sound"] == sound_of
    shutil.copy(root / "base.yml", run / "config.yml")
    assert main(["check-data", str(run)]) == 0
    assert capsys.readouterr().out.endswith("verdict: OK\n")

    shutil.move(root / "train/track1", root / "test/track9")
    assert main(["check-data", str(run)]) == 0
    printed = capsys.readouterr().out
    assert f"warning: {run}: the data changed since this run began: train: 2 tracks, now 1" in printed
    assert "test: 2 tracks, now 3" in printed and "verdict: 2 warnings, usable" in printed
    assert remember(record(configured([run])), run) == ["train: 2 tracks, now 1 tracks", "test: 2 tracks, now 3 tracks"]
    assert json.loads((run / "data.json").read_text())["sound"] == sound_of  # still what it began with


def test_other_sound_in_files_of_equal_names_and_sizes(copy, tmp_path, capsys):
    root, run = copy("folders"), tmp_path / "run"
    fingerprints(capsys, root, "--run", run)
    remember(record(configured([root / "base.yml"])), run)
    shutil.copy(root / "base.yml", run / "config.yml")
    rewrite(root / "train/track0/guitar.wav", lambda x: -x)
    assert remember(record(configured([run])), run) == []  # too cheap to see it
    assert main(["check-data", str(run)]) == 0
    assert "the data changed since this run began: other sound in the same files" in capsys.readouterr().out


def test_before_a_run_begins_its_record_follows_the_data(copy, tmp_path, capsys):
    root, run = copy("folders"), tmp_path / "run"
    fingerprints(capsys, root, "--run", run)
    shutil.rmtree(root / "test/track1")
    _, sound_of, _ = fingerprints(capsys, root, "--run", run)
    assert read_record(run)["sound"] == sound_of and not run.exists()


def test_training_stores_the_fingerprint(clean, tmp_path):
    from tasnet_attn.training.command import train

    recipe = Path(__file__).parents[2] / "recipes/demo"
    small = ["--model.separator.hidden=8", "--model.separator.transformer_layers=1", "--model.sample_rate=8000"]
    small += ["--trainer.max_steps=1", "--data.workers=0", "--data.batch_size=1", "--data.segments_per_epoch=1"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.logger=false", "--trainer.limit_val_batches=0"]
    files = [f"--config={recipe / 'base.yml'}", f"--config={recipe / 'ltl/conf.yml'}"]
    root = f"--data.root={clean('folders')}"
    train([*files, *small, *quiet, root, f"--out={tmp_path / 'run'}"])
    stored = json.loads((tmp_path / "run/data.json").read_text())
    assert stored == record(configured([clean("folders") / "base.yml"])) and stored["splits"]["train"]["tracks"] == 2


RECORDS = {  # names and sizes of train and test, as data.json has held them since the first runs
    "folders": ("82600335ddaf76b3", "82600335ddaf76b3"),
    "hq": ("af7dd458f648a711", "66aea979a0b343a0"),
    "mir1k": ("e27b56fc6ce0cab0", "66b717559f8e4067"),
    "noisy": ("258e902c7ac58b3b", "258e902c7ac58b3b"),
}


@pytest.mark.parametrize("layout", RECORDS)
def test_records_of_earlier_runs_stay_comparable(layout, clean):
    splits = record(configured([clean(layout) / "base.yml"]))["splits"]
    assert (splits["train"]["files"], splits["test"]["files"]) == RECORDS[layout]


# ---- a data set of the user's own ------------------------------------------------------------------------------------

OWN = """
import soundfile
import torch
from pathlib import Path

from tasnet_attn.data import MIXTURE, Part, SegmentedData, Track


class Tone(Track):
    def __init__(self, number, kind):
        self.name, self.sources, self.sample_rate = f"tone{number}", ["a", "b"], 8000
        self.number, self.kind = number, kind
        if kind == "order":
            self.sources = ["b", "a"]

    def read(self, start=0, length=None):
        generator = torch.Generator().manual_seed(self.number)
        references = 0.1 * torch.randn(2, 1, 9000, generator=generator)
        if self.kind == "silent" and self.number == 1:
            references[0] = 0
        if self.kind == "nan":
            references[1, 0, 4000] = torch.nan
        mixture = references.sum(0) * (0.5 if self.kind == "sum" else 1)
        stop = 9000 if length is None else start + length
        return mixture[:, start:stop], references[..., start:stop]


class Made(SegmentedData):
    def __init__(self, sources, sample_rate, kind: str = "good", segment: float = 0.5, **settings):
        super().__init__(sources, sample_rate, segment, **settings)
        self.kind = kind

    def list_tracks(self, split):
        first = {"train": 0, "valid": 10, "test": 20}[split]
        return [Tone(first + number, self.kind) for number in range(2)]


class Flat(SegmentedData):
    def __init__(self, sources, sample_rate, root: Path, segment: float = 0.5, **settings):
        super().__init__(sources, sample_rate, segment, **settings)
        self.root = root

    def list_tracks(self, split):
        files = sorted((self.root / split).glob("*_mix.wav"))
        return [
            Track(file.name[:-8], self.sources, self.sample_rate, [
                Part(file, MIXTURE), *(Part(file.with_name(file.name.replace("mix", s)), s) for s in self.sources)
            ])
            for file in files
        ]
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The module of a user, imported."""
    file = tmp_path_factory.mktemp("own") / "own_data_sets.py"
    file.write_text(OWN)
    spec = importlib.util.spec_from_file_location("own_data_sets", file)
    module = sys.modules["own_data_sets"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["own_data_sets"]


def of_own(tmp_path, data):
    (tmp_path / "base.yml").write_text(f"model: {{sources: [a, b], sample_rate: 8000}}\ndata: {data}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "level", "said"),
    [
        ("good", None, None),
        ("silent", "warning", "tone1 (a): is silent throughout"),
        ("nan", "error", "tone10 (b): NaN or infinite value at sample 4000"),
        ("sum", "error", "dB; it is their sum at -6.0 dB"),
        ("order", "error", "tone0: its sources are b, a, the model's a, b"),
    ],
)
def test_tracks_that_only_know_how_to_read(own, tmp_path, capsys, kind, level, said):
    root = of_own(tmp_path, f"{{class_path: own_data_sets.Made, init_args: {{kind: {kind}}}}}")
    status = main(["check-data", str(root / "base.yml"), "--run", str(tmp_path / "run")])
    printed = capsys.readouterr().out
    assert status == (level == "error")
    noted = read_record(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert noted is None if level == "error" else noted["splits"]["train"]["tracks"] == 2
    if said is None:
        assert printed.endswith("verdict: OK\n") and not re.search("^(error|warning)", printed, re.MULTILINE)
    else:
        assert re.search(f"^{level}.*{re.escape(said)}", printed, re.MULTILINE), printed


def test_tracks_of_parts_in_a_layout_of_ones_own(own, tmp_path, capsys):
    """Listed once: looked at, trained on, remembered; a fault names its file."""
    root = of_own(tmp_path, f"{{class_path: Flat, init_args: {{root: {tmp_path}}}}}")
    for split in ("train", "valid", "test"):
        for number in range(2):
            signals = {source: sound(source, f"{split}{number}", LENGTH, RATE, 1) for source in "ab"}
            for name, samples in {**signals, "mix": sum(signals.values())}.items():
                write_audio(root / split / f"song{number}_{name}.wav", samples, RATE)
    assert main(["check-data", str(root / "base.yml")]) == 0
    assert capsys.readouterr().out.endswith("verdict: OK\n")
    data = configured([root / "base.yml"])
    mixture, references = data.segments("train")[0, 0]
    assert references.shape == (2, 1, 4000) and record(data)["splits"]["valid"]["tracks"] == 2
    np.testing.assert_allclose(mixture, references.sum(0), atol=1e-4)
    rewrite(root / "valid/song1_b.wav", lambda x: x[:-1])
    assert main(["check-data", str(root / "base.yml")]) == 1
    assert f"{root}/valid/song1_b.wav: has 11999 samples, but song1_mix.wav has 12000" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"song1_b\.wav: has 11999 samples"):
        configured([root / "base.yml"]).tracks("valid")


@pytest.mark.parametrize("layout", SETS)
def test_listing_tracks_opens_none(layout, clean, monkeypatch):
    data = configured([clean(layout) / "base.yml"])
    for name in ("audio_info", "read_audio", "stem_file_info", "read_stem_file"):
        monkeypatch.setattr(f"tasnet_attn.data.track.{name}", lambda *_: pytest.fail("opened"))
    assert all(record(data)["splits"].values()) and all(len(track.files) for track in data.list_tracks("train"))
