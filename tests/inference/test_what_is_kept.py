"""`separate` never replaces its inputs, and clears nothing but its own unfinished files."""

import os
import time

import numpy as np
import pytest
import soundfile
from conftest import tasnet_model

from tasnet_attn import UserError, load, save, separate_file
from tasnet_attn.cli import main
from tasnet_attn.files import clear, workspace

STEMS = ("guitar", "backing")


@pytest.fixture
def model(tmp_path):
    return str(save(tasnet_model(), tmp_path / "model.safetensors"))


@pytest.fixture
def song(tmp_path):
    """A song at the place of one of its own stems."""
    (tmp_path / "guitar").mkdir()
    file = tmp_path / "guitar/guitar.wav"
    soundfile.write(file, 0.1 * np.random.default_rng(0).normal(size=400), 8000, "FLOAT")
    return file


def refused(capsys, *arguments):
    assert main(["separate", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "is an input and would be replaced" in error
    return error


@pytest.mark.parametrize("more", [(), ("--jobs", "2"), ("--name", "{track}/guitar.{ext}", "--sources", "backing")])
def test_an_input_is_not_replaced(model, song, tmp_path, capsys, monkeypatch, more):
    before = song.read_bytes()
    monkeypatch.chdir(tmp_path)
    assert "guitar/guitar.wav" in refused(capsys, song.relative_to(tmp_path), "-m", model, "-o", ".", *more)
    (tmp_path / "other").symlink_to(tmp_path)
    refused(capsys, song, "-m", model, "-o", tmp_path / "other", *more)
    assert song.read_bytes() == before and sorted(path.name for path in song.parent.iterdir()) == [song.name]


def test_another_input_is_not_replaced_either(model, song, tmp_path, capsys):
    other, before = tmp_path / "x.flac", song.read_bytes()
    soundfile.write(other, np.zeros(400), 8000)
    song = song.parent.rename(tmp_path / "x") / song.name
    assert "x/guitar.wav" in refused(capsys, other, song, "-m", model, "-o", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "x", "x.flac"]
    with open(song) as opened, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", opened)
        refused(capsys, "-", "-m", model, "-o", tmp_path, "--name", "x/{source}.{ext}")
    assert song.read_bytes() == before


def test_from_python_too(model, song, tmp_path):
    before = song.read_bytes()
    with pytest.raises(UserError, match="guitar.wav: is an input and would be replaced"):
        separate_file(load(model), song, tmp_path)
    assert song.read_bytes() == before


def test_how_many_files_are_replaced(model, song, tmp_path, capsys):
    given = ["separate", str(song), "-m", model, "-o", str(tmp_path / "out")]
    for more, said in ((["--sources", "guitar"], ""), ([], "(1 file of the same name was replaced)"), ([], "2 files")):
        assert main([*given, *more]) == 0 and said in capsys.readouterr().out


def test_only_workspaces_are_cleared(tmp_path):
    old = time.time() - 1000
    kept = [tmp_path / ".work-mine", tmp_path / ".work-0123456789ab.old", tmp_path / "work-0123456789ab"]
    for folder in (*kept, left := tmp_path / ".work-0123456789ab"):
        folder.mkdir()
        (folder / "thesis.tex").write_text("mine")
        os.utime(folder, (old, old))
    (tmp_path / ".work-x").write_text("a file")
    (tmp_path / ".work-ba9876543210").write_text("a file")
    (tmp_path / ".work-ba9876543211").symlink_to(kept[0])
    with workspace(tmp_path):
        pass
    assert not left.exists() and all((folder / "thesis.tex").read_text() == "mine" for folder in kept)
    assert len(list(tmp_path.iterdir())) == len(kept) + 3


def test_another_user_s_workspace_does_not_stop_a_run(tmp_path, monkeypatch):
    left = tmp_path / ".work-0123456789ab"
    left.mkdir()

    def refused(self, timeout):
        raise PermissionError(13, "Permission denied", self.lock_file)

    monkeypatch.setattr("tasnet_attn.files.FileLock.acquire", refused)
    clear(tmp_path, age=0)
    os.utime(left, (1, 1))
    clear(tmp_path, age=0)
    assert left.exists()
