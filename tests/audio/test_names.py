"""Names: every input gets its own output below the folder, for any name."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasnet_attn.audio import Sound
from tasnet_attn.audio.names import distinct, find_audio, stem_files
from tasnet_attn.errors import UserError
from tasnet_attn.files import file_name

SOUND = b"RIFF\0\0\0\0WAVEdata"


def put(folder, *names):
    for name in names:
        file = folder / (os.fsdecode(name) if isinstance(name, bytes) else name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(SOUND)


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("song.wav", "song"),
        ("a b 100%.wav", "a b 100%"),
        ("no ending", "no ending"),
        ("two.dots.wav", "two.dots"),
        ("...wav", "%2E..wav"),
        ("..wav", "%2E.wav"),
        (".wav", "%2Ewav"),
        ("-x.wav", "-x"),
        ("🎸.wav", "🎸"),
        (b"latin1-\xe9.wav", b"latin1-\xe9"),
        ("tab\t.wav", "tab%09"),
    ],
)
def test_the_folder_that_a_file_gets(tmp_path, name, output):
    put(tmp_path, name)
    (found,) = find_audio([next(tmp_path.iterdir())]).sounds
    assert found == (os.fsdecode(output) if isinstance(output, bytes) else output)


def test_names_of_255_bytes_stay_apart(tmp_path):
    put(tmp_path, "a" * 250 + "1.wav", "a" * 250 + "2.wav", "é" * 125 + ".wav")
    names = list(find_audio([tmp_path]).sounds)
    assert len(set(names)) == 3 and all(len(os.fsencode(name)) <= 100 for name in names)


def test_names_that_collide_get_their_endings_then_their_folders(tmp_path):
    put(tmp_path, "f/x.wav", "f/x.flac", "f/X.ogg", "f/y.wav", "g/x.wav")
    assert sorted(find_audio([tmp_path / "f"]).sounds) == ["X.ogg", "x.flac", "x.wav", "y"]
    put(tmp_path, "h/a.wav", "h/A.wav", "i/c/x.wav", "j/c/x.wav")
    assert sorted(find_audio([tmp_path / "h"]).sounds) == ["A.wav", "a.wav~2"]
    assert list(find_audio([tmp_path / "i/c/x.wav", tmp_path / "j/c/x.wav"]).sounds) == ["x.wav", "x.wav~2"]
    single = find_audio([tmp_path / "f/x.wav", tmp_path / "g/x.wav", tmp_path / "f/y.wav"]).sounds
    assert single == {
        "f/x.wav": tmp_path / "f/x.wav",
        "g/x.wav": tmp_path / "g/x.wav",
        "f/y.wav": tmp_path / "f/y.wav",
    }


def test_an_input_that_is_named_twice(tmp_path):
    put(tmp_path, "x.wav")
    with pytest.raises(UserError, match="given twice"):
        find_audio([tmp_path, tmp_path / "x.wav"])


def test_folders_are_mirrored_and_out_is_not_walked(tmp_path):
    put(tmp_path, "a/x.wav", "a/b/x.wav", "out/a/x/voice.wav")
    found = find_audio([tmp_path], tmp_path / "out")
    assert list(found.sounds) == ["a/x", "a/b/x"] or sorted(found.sounds) == ["a/b/x", "a/x"]
    assert found.others == [] and found.failed == []


def test_an_empty_folder_stops_nothing_unless_it_is_all(tmp_path):
    put(tmp_path, "x.wav")
    (tmp_path / "empty").mkdir()
    found = find_audio([tmp_path / "x.wav", tmp_path / "empty"])
    assert list(found.sounds) == ["x"] and "empty: no audio files" in str(found.failed[0])
    with pytest.raises(UserError, match="no audio files"):
        find_audio([tmp_path / "empty"])


def test_linked_folders_are_searched_once_and_not_in_circles(tmp_path):
    put(tmp_path, "in/a/x.wav", "in/z/y.wav", "elsewhere/far/v.wav", "out/s.wav", "secret/w.wav")
    for link, to in {
        "in/a/self": "in/a",
        "in/a/top": "in",
        "in/above": "",
        "in/b": "in/z",
        "in/linked": "elsewhere",
        "elsewhere/far/back": "elsewhere",
        "in/again": "elsewhere/far",
        "in/.hidden": "secret",
        "in/results": "out",
        "in/nowhere": "none",
    }.items():
        (tmp_path / link).symlink_to(tmp_path / to)
    found = find_audio([tmp_path / "in"], tmp_path / "out")
    assert sorted(found.sounds) == ["a/x", "again/v", "z/y"] or sorted(found.sounds) == ["a/x", "linked/far/v", "z/y"]
    assert found.others == [tmp_path / "in/nowhere"] and found.failed == []
    (tmp_path / "entry").symlink_to(tmp_path / "in")
    assert list(find_audio([tmp_path / "entry"], tmp_path / "out").sounds) == list(found.sounds)


def test_what_earlier_runs_made_is_no_input(tmp_path):
    put(tmp_path, "x.wav", "x/voice.wav", "y/voice.wav")
    found = find_audio([tmp_path], tmp_path, [tmp_path / "x/voice.wav", tmp_path / "x/gone.wav"])
    assert sorted(found.sounds) == ["x", "y/voice"] and found.others == []
    assert list(find_audio([tmp_path / "x/voice.wav"], tmp_path, [tmp_path / "x/voice.wav"]).sounds) == ["voice"]


def test_an_input_without_permission_does_not_hide_the_others(tmp_path, monkeypatch):
    put(tmp_path, "x.wav", "locked/y.wav")
    stat = os.stat

    def refusing(path, *arguments, **settings):
        if "locked/" in os.fspath(path):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *arguments, **settings)

    monkeypatch.setattr(os, "stat", refusing)
    assert list(find_audio([tmp_path / "locked/y.wav", tmp_path / "x.wav"]).sounds) == ["y", "x"]
    with pytest.raises(UserError, match="locked/y.wav: Permission denied"):
        Sound(tmp_path / "locked/y.wav")


TEXT = st.text(st.characters(codec="utf-8"), max_size=300)


@settings(max_examples=60, deadline=None)
@given(TEXT)
def test_any_text_becomes_one_file_name(name):
    made = file_name(name)
    assert 0 < len(os.fsencode(made)) <= 100 and made not in (".", "..")
    assert not set(made) & {"/", "\\", "\0", "\n", "\x1b"} and Path("folder", made).parent == Path("folder")


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=8))
def test_stems_have_files_of_their_own_below_the_folder(names):
    files = stem_files(Path("/out"), "track", names, "wav", "{track}/{source}.{ext}")
    assert len({str(file).casefold() for file in files}) == len(names)
    assert all(file.parent == Path("/out/track") and file.name.endswith(".wav") for file in files)


def test_distinct_names():
    assert distinct(["a", "A", "a~2", "b", "a"]) == ["a", "A~2", "a~2~2", "b", "a~3"]
