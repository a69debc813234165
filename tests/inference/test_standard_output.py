"""Standard output that nobody reads, that is full or closed: one line, and the files are written all the same."""

import io
import os
import sys

import pytest
from test_separate_files import command, model, song, tree  # noqa: F401  fixtures too

from tasnet_attn import terminal
from tasnet_attn.cli import main


@pytest.fixture(params=["full", "unread", "full, without a buffer"])
def deaf(request, monkeypatch):
    """From its call on standard output takes nothing; returns the reason."""
    if request.param != "unread":
        if not os.path.exists("/dev/full"):
            pytest.skip("no /dev/full")
        descriptor, reason = os.open("/dev/full", os.O_WRONLY), "No space left on device"
    else:
        reading, descriptor = os.pipe()
        os.close(reading)
        reason = "Broken pipe"

    def begins():  # in the test itself: pytest sets its own before
        monkeypatch.setattr(sys, "stdout", stream)
        return reason

    with open(descriptor, "wb", buffering=-1 if request.param in ("full", "unread") else 0) as output:
        stream = io.TextIOWrapper(output, write_through=True)  # PYTHONUNBUFFERED
        yield begins
        assert not output.closed
        stream.detach()


def test_all_files_are_separated(deaf, command, tmp_path):  # noqa: F811
    for name in "ab":
        song(tmp_path / "f" / f"{name}.wav", 300)
    reason = deaf()
    status, _, error = command(tmp_path / "f", "--sources", "voice")
    assert (status, error) == (1, f"tasnet-attn: failed: standard output: {reason}\n")
    assert tree(tmp_path / "out") == ["a/voice.wav", "b/voice.wav"]
    sys.stdout.write("as Python does at its end")
    sys.stdout.flush()
    assert terminal.lost() is None


def test_what_is_there_already_does_not_stop_the_rest(command, tmp_path, monkeypatch):  # noqa: F811
    for name in "ab":
        song(tmp_path / "f" / f"{name}.wav", 300)
    command(tmp_path / "f/a.wav")
    with open("/dev/null", "r") as unwritable:  # noqa: UP015
        monkeypatch.setattr(sys, "stdout", os.fdopen(os.dup(unwritable.fileno()), "w"))
        status, _, error = command(tmp_path / "f", "--skip-existing")
    assert (status, error) == (1, "tasnet-attn: failed: standard output: Bad file descriptor\n")
    assert len(tree(tmp_path / "out")) == 6


@pytest.mark.parametrize("words", [["models"], ["models", "MODEL", "--config"], ["train", "--help"]])
def test_other_commands_say_it(deaf, model, capsys, words):  # noqa: F811
    reason = deaf()
    assert main([model if word == "MODEL" else word for word in words]) == 1
    assert capsys.readouterr().err == f"tasnet-attn: standard output: {reason}\n"


def test_a_stem_that_nobody_takes(deaf, command, tmp_path):  # noqa: F811
    song(tmp_path / "x.wav", 100_000)
    reason = deaf()
    status, _, error = command(tmp_path / "x.wav", "--sources", "voice", out="-")
    assert (status, error) == (1, f"tasnet-attn: standard output: {reason}\n")


def test_a_stream_that_nobody_takes(deaf, model, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bytes(100_000))))
    reason = deaf()
    assert main(["stream", "--model", model, "--source", "voice", "--engine", "eager"]) == 1
    assert capsys.readouterr().err == f"tasnet-attn: standard output: {reason}\n"


def test_closed_before_the_start(command, tmp_path, monkeypatch):  # noqa: F811
    """Python then has None in their places."""
    song(tmp_path / "x.wav", 300)
    monkeypatch.setattr(sys, "stdin", None)
    for words in (["-"], ["-", "--sources", "voice"]):
        status, _, error = command(*words)
        assert (status, error) == (1, "tasnet-attn: standard input: is closed\n")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert command(tmp_path / "x.wav")[0] == 0 and len(tree(tmp_path / "out")) == 3
        status, _, error = command(tmp_path / "x.wav", "--sources", "voice", out="-")
        assert status == 1 and error.endswith("tasnet-attn: standard output: is closed\n")


def test_standard_input_is_a_folder(command, tmp_path, monkeypatch):  # noqa: F811
    descriptor = os.open(tmp_path, os.O_RDONLY)

    class Folder(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, into):
            return len(os.read(descriptor, 10))

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Folder())))
    status, _, error = command("-")
    assert (status, error) == (1, "tasnet-attn: standard input: Is a directory\n")
    os.close(descriptor)


def test_an_error_without_a_name_is_a_bug(command, tmp_path, monkeypatch):  # noqa: F811
    song(tmp_path / "x.wav", 300)

    def failing(*given):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("tasnet_attn.inference.record.Record.forget", failing)
    with pytest.raises(OSError, match="Input/output error"):
        command(tmp_path / "x.wav")
