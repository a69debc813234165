"""`separate` on files, folders and pipes, by a model whose stems sum to the input: length, alignment, level, names."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import encoded_bytes, full_disk

from tasnet_attn import load, save, separate, separate_blocks, separate_file
from tasnet_attn.cli import main
from tasnet_attn.errors import UserError
from tasnet_attn.filterbanks import STFTDecoder, STFTEncoder
from tasnet_attn.inference import workers
from tasnet_attn.inference.record import RECORD
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import TasNet

RATE = 8000


def stft_model(sources=("guitar", "backing", "voice")):
    """Softmax masks on an STFT: the stems sum to the mixture."""
    network = partial(TasNet, hidden=2, n_layers=1)
    return SourceSeparator(list(sources), RATE, STFTEncoder(64, 32), network, STFTDecoder(64, 32))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    return str(save(stft_model(), tmp_path_factory.mktemp("model") / "model.safetensors"))


@pytest.fixture
def command(model, tmp_path, capsys):
    """Run `separate` into tmp_path/out; returns status, standard output, standard error."""

    def run(*arguments, out=tmp_path / "out", use=model):
        status = main(["separate", *map(str, arguments), "--model", use, "--out", str(out)])
        said, error = capsys.readouterr()
        progress = r"separate: \d+ of \d+ files, .* left\n"  # said where the machine is slow
        return status, said, re.sub(progress, "", error)

    return run


def song(file, length=4000, gain=0.2, rate=RATE, seed=0):
    """A float wav of noise; returns its samples [T, 2]."""
    samples = (gain * np.random.default_rng(seed).uniform(-1, 1, (length, 2))).astype("float32")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        soundfile.write(opened, samples, rate, "FLOAT", format=file.suffix.strip(".").upper() or "WAV")
    return samples


def mixed(folder, dtype="float32"):
    return sum(soundfile.read(os.fsencode(file), dtype=dtype)[0] for file in sorted(folder.iterdir()))


def tree(folder):
    """All files but the record of their inputs."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != RECORD]
    return sorted(os.fsdecode(path.relative_to(folder)) for path in files)


# ---- what is written ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--mixture-consistent",), ("--sources", "voice", "--remainder", "rest")])
def test_stems_sum_to_the_mixture_sample_for_sample(command, tmp_path, arguments):
    samples = song(tmp_path / "x.wav", rate=RATE if not arguments else 11_025)
    assert command(tmp_path / "x.wav", *arguments)[0] == 0
    np.testing.assert_allclose(mixed(tmp_path / "out/x"), samples, atol=2e-6)
    names = ["rest.wav", "voice.wav"] if "--remainder" in arguments else ["backing.wav", "guitar.wav", "voice.wav"]
    assert tree(tmp_path / "out/x") == names


def test_what_separate_gives_for_arrays_stands_in_the_files(model, tmp_path):
    network, samples = load(model), song(tmp_path / "x.wav")
    settings = {"sources": ["voice", "guitar"], "remainder": "rest", "mixture_consistent": True, "segment": 0.2}
    stems = separate(network, torch.from_numpy(samples.T), RATE, **settings)
    files = separate_file(network, tmp_path / "x.wav", tmp_path / "out", **settings)
    assert list(stems) == [file.stem for file in files] == ["voice", "guitar", "rest"]
    blocks = torch.cat(list(separate_blocks(network, tmp_path / "x.wav", **settings)), dim=-1)
    for file, stem, block in zip(files, stems.values(), blocks, strict=True):
        written = torch.from_numpy(soundfile.read(file, dtype="float32")[0].T)
        torch.testing.assert_close(written, stem)
        torch.testing.assert_close(written, block)
    with pytest.raises(UserError, match="'drums'; it separates guitar, backing, voice"):
        separate(network, torch.zeros(1, 100), RATE, sources=["drums"])


def test_names_by_a_pattern(command, tmp_path):
    song(tmp_path / "x.wav")
    song(tmp_path / "y.wav")
    both = [tmp_path / "x.wav", tmp_path / "y.wav"]
    assert command(*both, "--name", "{source}/{track}_.{ext}", "--sources", "voice")[0] == 0
    assert tree(tmp_path / "out") == ["voice/x_.wav", "voice/y_.wav"]


@pytest.mark.parametrize(
    "pattern", ["../{source}.wav", "/{source}.wav", "{track}.wav", "{nothing}", "{source.x}", "{0}", "{", "{source}/.."]
)
def test_patterns_that_cannot_be(command, tmp_path, model, capsys, pattern):
    song(tmp_path / "x.wav")
    status, _, error = command(tmp_path / "x.wav", "--name", pattern)
    assert status == 2 and "--name" in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_two_inputs_never_share_a_file(command, tmp_path):
    song(tmp_path / "x.wav")
    song(tmp_path / "y.wav")
    status, _, error = command(tmp_path / "x.wav", tmp_path / "y.wav", "--name", "{source}.{ext}")
    assert status == 2 and "put {track} in it" in error


def test_replacing_another_song_s_stems_is_said(command, tmp_path):
    first, second = song(tmp_path / "p/song.wav", seed=1), song(tmp_path / "q/song.wav", seed=2)
    assert "replaced" not in command(tmp_path / "p/song.wav")[1]
    np.testing.assert_allclose(mixed(tmp_path / "out/song"), first, atol=2e-6)
    status, said, _ = command(tmp_path / "q/song.wav")
    assert status == 0 and "3 files of the same names were replaced" in said
    np.testing.assert_allclose(mixed(tmp_path / "out/song"), second, atol=2e-6)


def test_one_sample_beyond_all_measure(command, tmp_path):
    samples = song(tmp_path / "x.wav")
    samples[100] = 3e38
    soundfile.write(tmp_path / "x.wav", samples, RATE, "FLOAT")
    status, _, error = command(tmp_path / "x.wav")
    assert (status, error.count("\n")) == (2, 1) and "NaN or infinite" in error and tree(tmp_path / "out") == []


# ---- folders --------------------------------------------------------------------------------------------------------


def test_two_kinds_of_one_name(command, tmp_path):
    samples = song(tmp_path / "f/x.wav")
    soundfile.write(tmp_path / "f/x.flac", samples, RATE)
    assert command(tmp_path / "f", "--sources", "voice")[0] == 0
    assert tree(tmp_path / "out") == ["x.flac/voice.wav", "x.wav/voice.wav"]


KINDS = [("aac", "ipod"), ("aac", "adts"), ("aac", "mp4"), ("aac", "matroska"), ("libopus", "webm"), ("wmav2", "asf")]
KINDS += [
    ("ac3", "ac3"),
    ("wavpack", "wv"),
    ("libopus", "ogg"),
    ("libmp3lame", "mp3"),
    ("mp2", "mpegts"),
    ("flac", "ogg"),
]


def test_a_folder_of_every_kind(command, tmp_path):
    (tmp_path / "f").mkdir()
    samples = (0.2 * np.random.default_rng(0).uniform(-1, 1, (9000, 2))).astype("float32")
    for codec, container in KINDS:
        data = encoded_bytes(samples, codec, container, 48_000 if codec == "libopus" else 44_100)
        (tmp_path / f"f/{codec} in {container}.x").write_bytes(data)
    status, said, error = command(tmp_path / "f", "--sources", "voice")
    assert (status, error) == (0, "") and len(said.splitlines()) == len(KINDS) == len(tree(tmp_path / "out"))
    for file in (tmp_path / "out").rglob("*.wav"):
        info = soundfile.info(file)
        assert abs(info.duration - 9000 / 44_100) < 0.06 and info.channels == 2


ODD = [b"latin1-\xe9.wav", b"...wav", b"..wav", b"-x.wav", b"a b 100%.wav", b"%s%n.wav", b"L" * 251 + b".wav"]
ODD += ["🎸🎤.wav".encode(), b"new\nline.wav", b"esc\x1b[31m.wav", b"dot..wav", b"~.wav", b"noending"]


def test_odd_names_are_separated_below_out(command, tmp_path):
    folder = tmp_path / "f"
    for name in ODD:
        song(folder / "deep" / os.fsdecode(name), 300)
    status, said, error = command(folder, "--sources", "voice")
    assert (status, error) == (0, "") and "\x1b" not in said and len(said.splitlines()) == len(ODD)
    written = tree(tmp_path / "out")
    assert len(written) == len(ODD) and all(name.startswith("deep/") for name in written)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "out"]


@pytest.mark.parametrize("format", ["flac", "m4a", "mp3"])
def test_every_writer_takes_odd_names(command, tmp_path, format):
    for name in ODD:
        song(tmp_path / "f" / os.fsdecode(name), 300)
    out = tmp_path / os.fsdecode(b"out\xe9")
    assert command(tmp_path / "f", "--format", format, "--sources", "voice", out=out)[0] == 0
    assert len(tree(out)) == len(ODD)


def test_what_is_passed_over_and_what_is_named(command, tmp_path):
    folder = tmp_path / "f"
    song(folder / "x.wav", 300)
    for name in ("._x.wav", "__MACOSX/x.wav", ".ipynb_checkpoints/x.wav", ".AppleDouble/x.wav", ".hidden.wav"):
        song(folder / name, 300)
    (folder / "cover.jpg").write_bytes(b"\xff\xd8\xff" + bytes(200))
    (folder / "notes.txt").write_text("no sound")
    os.mkfifo(folder / "pipe")
    (folder / "folder.wav").mkdir()
    status, said, error = command(folder)
    assert status == 0 and len(said.splitlines()) == 1
    assert error.startswith("3 files were not audio: ") and "cover.jpg" in error and "pipe" in error


def test_the_run_s_own_folder_is_not_walked(command, tmp_path):
    song(tmp_path / "x.wav", 300)
    for _ in range(2):
        assert command(tmp_path)[0] == 0
    assert tree(tmp_path / "out") == ["x/backing.wav", "x/guitar.wav", "x/voice.wav"]


def test_stems_in_the_input_folder_are_no_inputs_of_the_next_run(command, tmp_path):
    folder = tmp_path / "f"
    song(folder / "x.wav", 300)
    song(folder / "album/y.wav", 300)
    for _ in range(3):
        status, said, error = command(folder, "--sources", "voice", out=folder)
        assert (status, error) == (0, "") and len(said.splitlines()) == 2
    assert tree(folder) == ["album/y.wav", "album/y/voice.wav", "x.wav", "x/voice.wav"]


def test_an_input_without_permission_is_listed(command, tmp_path, monkeypatch):
    song(tmp_path / "x.wav", 300)
    stat = os.stat

    def refusing(path, *arguments, **settings):
        if "locked" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *arguments, **settings)

    monkeypatch.setattr(os, "stat", refusing)
    status, _, error = command(tmp_path / "locked/y.wav", tmp_path / "x.wav")
    assert status == 1 and error.endswith("locked/y.wav: Permission denied\n") and len(tree(tmp_path / "out")) == 3
    status, _, error = command(tmp_path / "locked/y.wav")
    assert status == 1 and error.endswith("locked/y.wav: Permission denied\n")


SLOW_2 = pytest.param(2, marks=pytest.mark.slow)


@pytest.mark.parametrize("jobs", [1, SLOW_2])
def test_one_bad_file_never_stops_the_rest(command, tmp_path, jobs):
    folder = tmp_path / "f"
    for name in "ac":
        song(folder / f"{name}.wav", 300)
    samples = song(folder / "b.wav")
    data = (folder / "b.wav").read_bytes()
    (folder / "b.wav").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty").mkdir()
    status, said, error = command(folder, tmp_path / "empty", "--jobs", jobs, "--sources", "voice")
    assert status == 1 and tree(tmp_path / "out") == ["a/voice.wav", "c/voice.wav"]
    assert [line.partition(": ")[0] for line in error.splitlines()] == ["tasnet-attn"] * 2
    assert "empty: no audio files" in error and "b.wav: shorter than its header states" in error
    status, said, _ = command(folder / "b.wav", "--partial")
    assert status == 0 and "samples shorter than its header states" in said
    np.testing.assert_allclose(mixed(tmp_path / "out/b"), samples[: len(mixed(tmp_path / "out/b"))], atol=2e-6)


def test_a_folder_that_may_not_be_read_is_named(command, tmp_path, monkeypatch):
    song(tmp_path / "f/x.wav", 300)
    (tmp_path / "f/secret").mkdir()
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    status, _, error = command(tmp_path / "f")
    assert status == 1 and "secret: Permission denied" in error and len(tree(tmp_path / "out")) == 3


def test_skip_existing_takes_complete_outputs_only(command, tmp_path):
    for name in "ab":
        song(tmp_path / "f" / f"{name}.wav", 300)
    command(tmp_path / "f")
    (tmp_path / "out/b/voice.wav").unlink()
    before = (tmp_path / "out/a/voice.wav").stat().st_mtime_ns
    status, said, _ = command(tmp_path / "f", "--skip-existing")
    assert status == 0 and "1 of 2 files are already separated" in said
    assert (tmp_path / "out/b/voice.wav").is_file() and (tmp_path / "out/a/voice.wav").stat().st_mtime_ns == before


def test_skip_existing_does_not_take_another_song_s_stems(command, tmp_path):
    first, second = song(tmp_path / "p/song.wav", seed=1), song(tmp_path / "q/song.wav", seed=2)
    for name, samples in (("p", first), ("q", second), ("q", second), ("p", first)):
        assert command(tmp_path / name / "song.wav", "--skip-existing")[0] == 0
        np.testing.assert_allclose(mixed(tmp_path / "out/song"), samples, atol=2e-6)
    (tmp_path / "p").rename(tmp_path / "moved")
    assert "1 of 1 files" in command(tmp_path / "moved/song.wav", "--skip-existing")[1]
    lines = (tmp_path / "out" / RECORD).read_text()
    (tmp_path / "out" / RECORD).write_text(lines + '{"input": "half')  # a run was killed while it wrote
    assert "1 of 1 files" in command(tmp_path / "moved/song.wav", "--skip-existing")[1]
    (tmp_path / "out" / RECORD).unlink()  # stems of earlier versions have no record
    assert "1 of 1 files" in command(tmp_path / "q/song.wav", "--skip-existing")[1]


def test_nothing_left_to_do_needs_neither_torch_nor_the_model(command, model, tmp_path):
    """A process that starts again over many files answers at once; what another request gave stays its own."""
    for name in "ab":
        song(tmp_path / "f" / f"{name}.wav", 300)
    (tmp_path / "f/notes.txt").write_text("no sound")
    command(tmp_path / "f")
    program = "import sys; from tasnet_attn.cli import main; status = main(sys.argv[1:]); print('torch' in sys.modules)"
    words = ("separate", tmp_path / "f", "-m", model, "-o", tmp_path / "out", "--skip-existing")
    ran = subprocess.run([sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-2:] == ["2 of 2 files are already separated", "False"]
    assert "1 file was not audio: " in ran.stderr
    assert command(tmp_path / "f", "--skip-existing", "--format", "flac")[0] == 0
    assert len(list((tmp_path / "out").rglob("*.flac"))) == len(list((tmp_path / "out").rglob("*.wav")))
    (tmp_path / "out/a/voice.wav").unlink()
    assert "1 of 2 files" in command(tmp_path / "f", "--skip-existing")[1]
    assert (tmp_path / "out/a/voice.wav").is_file()


def attempt_or_die(network, path, *rest):
    """As a process that is killed for memory."""
    if path.name == "b.wav":
        os.kill(os.getpid(), signal.SIGKILL)
    return path.name


@pytest.mark.slow
def test_a_process_that_is_killed_takes_only_its_file_with_it(model, tmp_path):
    tasks = {name: (tmp_path / f"{name}.wav",) for name in "abcdef"}
    found = dict(workers.in_processes(attempt_or_die, tasks, model, 2))
    assert {name: found.pop(name) for name in "acdef"} == {name: f"{name}.wav" for name in "acdef"}
    assert "b.wav: its process ended unexpectedly" in str(found["b"]) and found["b"].status == 1


def test_shards_are_a_partition(command, tmp_path):
    for number in range(7):
        song(tmp_path / "f" / f"{number}.wav", 300)
    found = []
    for k in (1, 2, 3):
        command(tmp_path / "f", "--shard", f"{k}/3", "--sources", "voice", out=tmp_path / f"out{k}")
        found += tree(tmp_path / f"out{k}")
    assert sorted(found) == [f"{number}/voice.wav" for number in range(7)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--segment", "nan"], "segment nan"),
        (["--segment", "inf"], "segment inf"),
        (["--segment", "0"], "segment 0.0"),
        (["--segment", "0.0001"], "segment 0.0001"),
        (["--overlap", "nan"], "overlap nan"),
        (["--sources", "voice,voice"], "'voice' is named twice"),
        (["--sources", ""], "no source ''"),
        (["--remainder", "voice"], "'voice' is named twice"),
        (["--shard", "0/3"], "expected K/N"),
        (["--shard", "4/3"], "expected K/N"),
        (["--jobs", "0"], "--jobs 0"),
        (["--track", "2"], "no audio track 2; it has 1"),
        (["--track", "0"], "no audio track 0"),
        (["--bits", "16", "--format", "ogg"], "bits '16'"),
    ],
)
def test_values_that_cannot_be(command, tmp_path, arguments, said):
    song(tmp_path / "x.wav", 300)
    status, _, error = command(tmp_path / "x.wav", *arguments)
    assert status == 2 and said in error and error.count("\n") == 1 and not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    "name", ["../../../evil", "/abs/evil", "", "..", ".", "a/b", "a\\b", "nul\0", "\x1b[31mred", "x" * 300, "\ud800"]
)
def test_model_files_with_hostile_names_are_refused(command, tmp_path, monkeypatch, name):
    song(tmp_path / "x.wav", 300)
    with pytest.raises(ValueError, match="a source cannot be named"):
        stft_model(["guitar", name])
    with monkeypatch.context() as patched:  # as a stranger would write it
        patched.setattr("tasnet_attn.model.check_sources", lambda names: None)
        file = str(save(stft_model(["guitar", name]), tmp_path / "evil.safetensors"))
    status, _, error = command(tmp_path / "x.wav", use=file)
    assert status == 2 and error.count("\n") == 1 and "evil.safetensors" in error and "cannot be named" in error
    assert "\x1b" not in error and not (tmp_path / "out").exists() and len(error) < 400


def test_names_that_differ_in_their_letters_size_alone_get_files_of_their_own(command, tmp_path):
    samples = song(tmp_path / "x.wav", 300)
    file = str(save(stft_model(["Voice", "voice", "a:b"]), tmp_path / "m.safetensors"))
    assert command(tmp_path / "x.wav", use=file)[0] == 0
    assert tree(tmp_path / "out/x") == ["Voice.wav", "a%3Ab.wav", "voice~2.wav"]
    np.testing.assert_allclose(mixed(tmp_path / "out/x"), samples, atol=2e-6)


# ---- pipes ----------------------------------------------------------------------------------------------------------


class Pipe(io.StringIO):
    """Standard input or output of bytes."""

    def __init__(self, data=b""):
        super().__init__()
        self.buffer = io.BytesIO(data)


def test_standard_input_and_output(model, command, tmp_path, monkeypatch):
    samples = song(tmp_path / "x.wav")
    data = bytearray((tmp_path / "x.wav").read_bytes())
    data[4:8] = b"\xff\xff\xff\xff"
    monkeypatch.setattr(sys, "stdin", Pipe(bytes(data)))
    assert command("-")[0] == 0
    np.testing.assert_allclose(mixed(tmp_path / "out/stdin"), samples, atol=2e-6)
    monkeypatch.setattr(sys, "stdin", Pipe(bytes(data)))
    monkeypatch.setattr(sys, "stdout", Pipe())
    assert main(["separate", "-", "--model", model, "--out", "-", "--sources", "voice"]) == 0
    piped, rate = soundfile.read(io.BytesIO(sys.stdout.buffer.getvalue()), dtype="float32")
    assert rate == RATE and np.array_equal(piped, soundfile.read(tmp_path / "out/stdin/voice.wav", dtype="float32")[0])


@pytest.mark.parametrize(("data", "said"), [(b"", "standard input: is empty"), (b"no sound" * 9, "standard input: ")])
def test_a_pipe_without_sound(command, tmp_path, monkeypatch, data, said):
    monkeypatch.setattr(sys, "stdin", Pipe(data))
    status, _, error = command("-")
    assert status == 2 and said in error and error.count("\n") == 1 and tree(tmp_path / "out") == []


def test_mistakes_with_pipes(command, model, tmp_path, capsys):
    song(tmp_path / "x.wav", 300, gain=3)
    assert "takes one stem" in command(tmp_path / "x.wav", out="-")[2]
    assert "cannot be combined with other inputs" in command("-", tmp_path / "x.wav")[2]
    for option in (["--shard", "1/2"], ["--jobs", "2"], ["--skip-existing"]):
        assert f"{option[0]}: takes only files and folders, not a pipe" in command("-", *option)[2]
    status, _, error = command(tmp_path / "x.wav", "--sources", "voice", "--format", "flac", "--remainder", "r")
    assert status == 0
    loud = command(
        tmp_path / "x.wav", "--remainder", "rest", "--sources", "voice", "--format", "flac", "--clip", "error"
    )
    assert loud[0] == 2 and "above full scale" in loud[2]
    loud = command(tmp_path / "x.wav", "--sources", "voice", "--format", "flac", out="-")
    assert loud[0] == 2 and loud[2].startswith("tasnet-attn: standard output: ") and "above full scale" in loud[2]


@pytest.mark.slow
def test_names_that_the_terminal_cannot_show(model, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    song(tmp_path / "🎸.wav", 300)
    process = started(tmp_path / "🎸.wav", "--model", model, "--out", tmp_path / "out")
    said, error = process.communicate(timeout=240)
    assert process.returncode == 0 and "\\U0001f3b8" in said and error == ""


@pytest.mark.slow
def test_a_pipe_that_nobody_reads_any_more(model, tmp_path):
    song(tmp_path / "x.wav", 100_000)
    process = started(tmp_path / "x.wav", "--model", model, "--sources", "voice", "--out", "-")
    process.stdout.close()
    assert process.stderr.read() == "tasnet-attn: standard output: Broken pipe\n" and process.wait(60) == 1


# ---- two at once, killed, interrupted -------------------------------------------------------------------------------


def started(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "tasnet_attn.cli", "separate", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_two_at_once_into_one_folder(model, tmp_path):
    samples = {name: song(tmp_path / "f" / f"{name}.wav", 1000, seed=i) for i, name in enumerate("abcdef")}
    both = [started(tmp_path / "f", "--model", model, "--out", tmp_path / "out") for _ in range(2)]
    ended = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    for name, expected in samples.items():
        np.testing.assert_allclose(mixed(tmp_path / "out" / name), expected, atol=2e-6)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [RECORD, *samples]


ENDINGS = [
    (signal.SIGTERM, 143, 1),
    pytest.param(signal.SIGINT, 130, 1, marks=pytest.mark.slow),
    pytest.param(signal.SIGTERM, 143, 2, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("number", "status", "jobs"), ENDINGS)
def test_a_run_that_is_ended_leaves_nothing_behind(model, tmp_path, number, status, jobs):
    for name in "ab":
        song(tmp_path / "f" / f"{name}.wav", 3_000_000)
    process = started(
        tmp_path / "f", "--model", model, "--out", tmp_path / "out", "--segment", "0.05", "--jobs", str(jobs)
    )
    waited = time.monotonic() + 240
    while not list((tmp_path / "out").glob(".work-*/*.f32")):
        assert time.monotonic() < waited and process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, error = process.communicate(timeout=240)
    assert process.returncode == status and "Traceback" not in error
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_what_a_killed_run_left_is_cleared_but_not_a_living_one_s(command, model, tmp_path):
    song(tmp_path / "long.wav", 3_000_000)
    song(tmp_path / "x.wav", 300)
    process = started(tmp_path / "long.wav", "--model", model, "--out", tmp_path / "out", "--segment", "0.05")
    waited = time.monotonic() + 240
    while not (held := list((tmp_path / "out").glob(".work-*/*.f32"))):
        assert time.monotonic() < waited and process.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    assert command(tmp_path / "x.wav")[0] == 0
    assert all(file.exists() for file in held)
    process.kill()
    process.communicate()
    assert held[0].exists()
    assert command(tmp_path / "x.wav")[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [RECORD, "x"]


# ---- what the operating system refuses ------------------------------------------------------------------------------


FULL = ["wav", "flac", "ogg", "opus", "mp3", "m4a"]


@pytest.mark.parametrize("format", FULL)
def test_a_disk_that_is_full_when_a_stem_is_encoded(command, tmp_path, monkeypatch, format):
    from tasnet_attn.audio.writing import Stems

    song(tmp_path / "x.wav", 20_000)
    write = Stems._write

    def without_room(self, *arguments):
        with full_disk(1000):
            write(self, *arguments)

    monkeypatch.setattr(Stems, "_write", without_room)
    status, _, error = command(tmp_path / "x.wav", "--format", format)
    assert (status, error.count("\n")) == (1, 1) and f"guitar.{format}: cannot be written" in error
    assert tree(tmp_path / "out") == []


def test_a_disk_that_is_full_before(command, tmp_path):
    song(tmp_path / "x.wav", 20_000)
    with full_disk(50_000):
        status, _, error = command(tmp_path / "x.wav")
    assert (status, error.count("\n")) == (1, 1) and str(tmp_path / "out") in error and "File too large" in error
    assert list((tmp_path / "out").iterdir()) == []


def test_out_is_a_file(command, tmp_path):
    song(tmp_path / "x.wav", 300)
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file/below"):
        status, _, error = command(tmp_path / "x.wav", out=out)
        assert (status, error.count("\n")) == (1, 1) and str(tmp_path / "file") in error
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_stands_where_a_stem_goes(command, tmp_path):
    song(tmp_path / "x.wav", 300)
    (tmp_path / "out/x/voice.wav").mkdir(parents=True)
    status, _, error = command(tmp_path / "x.wav")
    assert (status, error.count("\n")) == (1, 1) and "x/voice.wav: is a folder" in error
    assert tree(tmp_path / "out") == []


@pytest.mark.parametrize("reason", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")])
def test_a_folder_that_may_not_be_written(command, tmp_path, monkeypatch, reason):
    song(tmp_path / "x.wav", 300)
    mkdir = Path.mkdir

    def refusing(self, *arguments, **settings):
        if "out" in self.parts:
            raise type(reason)(reason.errno, reason.strerror, str(self))
        return mkdir(self, *arguments, **settings)

    monkeypatch.setattr(Path, "mkdir", refusing)
    status, _, error = command(tmp_path / "x.wav")
    assert (status, error.count("\n")) == (1, 1) and f"out: {reason.strerror}" in error


def test_a_folder_that_is_removed_while_running(command, tmp_path, monkeypatch):
    import shutil

    from tasnet_attn.audio.writing import Stems

    song(tmp_path / "x.wav", 300)
    finish = Stems.finish

    def removed(self):
        shutil.rmtree(tmp_path / "out")
        return finish(self)

    monkeypatch.setattr(Stems, "finish", removed)
    status, _, error = command(tmp_path / "x.wav")
    assert (status, error.count("\n")) == (1, 1) and "out" in error and "No such file" in error


def test_a_name_that_is_too_long(command, tmp_path):
    song(tmp_path / "x.wav", 300)
    status, _, error = command(tmp_path / "x.wav", "--name", "{source}" + "x" * 260)
    assert (status, error.count("\n")) == (1, 1) and "File name too long" in error and tree(tmp_path / "out") == []
