"""Names: every input gets its own output below the folder, for any name."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
