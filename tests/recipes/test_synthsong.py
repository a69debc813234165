import json
import re
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from conftest import recipe_script

from tasnet_attn.data import StemFolders
from tasnet_attn.errors import UserError

synthsong, songs_module = (recipe_script(f"synthsong/local/{name}.py") for name in ("prepare", "songs"))
BAR = songs_module.BAR
LADDER = songs_module.LADDER
SPLITS = songs_module.SPLITS
STEMS = songs_module.STEMS
WHITE = songs_module.WHITE
compose = songs_module.compose
PACKAGES = synthsong.PACKAGES
RATE = synthsong.RATE
build = synthsong.build
main = synthsong.main
music_xml = synthsong.music_xml
render = synthsong.render

renders = pytest.mark.skipif(
    not all(find_spec(package) for package in PACKAGES), reason="renders: pip install 'tasnet-attn[synthsong]'"
)
SONGS = [compose(0, split, index) for split in SPLITS for index in (1, 2, 3)] + [compose(7, "train", 1)]


# ---- composing needs nothing but numpy ------------------------------------------------------------------------------


def test_a_song_is_a_pure_function_of_seed_split_index_and_bars():
    assert compose(3, "valid", 5, 12) == compose(3, "valid", 5, 12)
    assert len({song.melody for song in SONGS}) == len({(song.tempo, song.shift) for song in SONGS}) == len(SONGS)
    assert re.fullmatch("synthetic-valid-0005", compose(3, "valid", 5).name)


@pytest.mark.parametrize("song", SONGS, ids=lambda song: f"{song.name}-{song.tempo}")
def test_everybody_plays_the_chords_of_the_song_in_its_key(song):
    assert len(song.chords) == song.bars
    key = {(tone + song.shift) % 12 for tone in WHITE}
    for part in song.parts:
        assert min(note.start for note in part.notes) >= 0
        assert max(note.start + note.length for note in part.notes) <= song.bars * BAR
        assert all(0 < note.pitch < 128 and 0 < note.velocity < 128 for note in part.notes)
        if part.stem == "drums":
            continue
        assert {note.pitch % 12 for note in part.notes} <= key
        for note in part.notes:
            chord = song.chords[note.start // BAR]
            if part.stem == "bass":
                assert note.pitch % 12 in chord and 23 <= note.pitch <= 58
                assert note.start % BAR or note.pitch % 12 == chord[0], "a bar begins on the root"
    assert {part.stem for part in song.parts} == set(STEMS) - {"vocals"}


@pytest.mark.parametrize("song", SONGS, ids=lambda song: f"{song.name}-{song.tempo}")
def test_the_melody_can_be_sung_and_meets_the_chords(song):
    free = 0
    for note in song.melody:
        assert note.start >= free and note.start % BAR + note.length <= BAR, "one note at a time, none over a barline"
        free = note.start + note.length
        assert note.pitch in LADDER and note.syllable
        if note.start % (BAR // 2) == 0:
            assert (note.pitch + song.shift) % 12 in song.chords[note.start // BAR]
    sung = sum(note.length for note in song.melody) / (song.bars * BAR)
    assert 0.5 < sung < 0.8  # an intro, a solo, and time to breathe


@pytest.mark.parametrize("bars", [1, 2, 3, 6, 9])
def test_short_songs_have_all_stems(bars):
    song = compose(0, "train", 1, bars)
    assert song.melody and {part.stem for part in song.parts} == set(STEMS) - {"vocals"}
    assert len(song.chords) == bars and max(note.start for note in song.melody) < bars * BAR


def test_every_measure_of_the_score_is_full():
    song = compose(0, "train", 1, 9)
    score = music_xml(song, 97.5)
    measures = re.findall("<measure .*?</measure>", score)
    assert [sum(map(int, re.findall("<duration>([0-9]+)<", measure))) for measure in measures] == [BAR] * 10
    assert re.findall("<text>(.*?)<", score) == [note.syllable for note in song.melody]
    pitches = re.findall("<step>(.)</step><octave>(.)<", score)
    assert [LADDER["DEFGABCD".index(step)] if (step, octave) != ("D", "5") else 74 for step, octave in pitches] == [
        note.pitch for note in song.melody
    ]
    assert 'tempo="97.500000"' in measures[0] and all("tempo" not in measure for measure in measures[1:])


def test_a_missing_package_is_one_line_that_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(synthsong, "version", missing)
    assert main(["--out", str(tmp_path)]) == 2
    assert "pretty_midi is not installed; pip install 'tasnet-attn[synthsong]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main(["--out", str(tmp_path), "--bars", "0"]) == 2


# ---- sound ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rendered():
    song = compose(0, "train", 2, 4)
    return song, {stem: samples / 32768 for stem, samples in render(song).items()}


@renders
def test_no_stem_is_silent_and_nothing_clips(rendered):
    song, stems = rendered
    assert list(stems) == list(STEMS)
    length = song.bars * BAR * 15 / song.tempo * RATE
    for sound in stems.values():
        assert sound.shape[1] == 2 and length + RATE < len(sound) < length + 2 * RATE
        assert 0.01 < np.sqrt((sound**2).mean()) < 0.3
    peaks = [abs(sound).max() for sound in [*stems.values(), sum(stems.values())]]
    assert 0.85 < max(peaks) <= 0.901
    accompaniment = sum(stems[stem] for stem in STEMS[1:])
    assert -12 < 10 * np.log10((stems["vocals"] ** 2).sum() / (accompaniment**2).sum()) < 3


def pitch(sound, near):
    """MIDI number of a tone by autocorrelation, sought a fourth around `near`; and how periodic it is, 0-1."""
    lags = np.arange(round(RATE / _hertz(near + 5)), round(RATE / _hertz(near - 5)) + 1)
    size = len(sound) - lags[-1]
    products = np.array([sound[:size] @ sound[lag : lag + size] for lag in lags])
    best = products.argmax()
    return 69 + 12 * np.log2(RATE / lags[best] / 440), products[best] / (sound[:size] @ sound[:size])


def _hertz(number):
    return 440 * 2 ** ((number - 69) / 12)


@renders
def test_the_voice_sings_the_melody_in_the_key_of_the_song(rendered):
    song, stems = rendered
    voice = stems["vocals"].mean(1)
    assert song.shift != 0
    off = []
    for note in song.melody:
        begin, end = (song.seconds(note.start + part * note.length) for part in (0.35, 0.85))
        found, periodic = pitch(voice[round(begin * RATE) : round(end * RATE)], note.pitch + song.shift)
        off.append(abs(found - note.pitch - song.shift))
        assert periodic > 0.5
    assert np.median(off) < 0.35 and max(off) < 1.3  # semitones; a singer glides
    rest = slice(round(song.seconds(song.bars * BAR) * RATE) + RATE, None)
    assert np.sqrt((voice[rest] ** 2).mean()) < 0.03 * np.sqrt((voice**2).mean())


@renders
def test_drums_are_in_time(rendered):
    song, stems = rendered
    power = (stems["drums"] ** 2).sum(1)
    (drums,) = (part for part in song.parts if part.stem == "drums")
    for beat in sorted({note.start for note in drums.notes if note.start and note.start % 4 == 0}):
        at = round(song.seconds(beat) * RATE)
        window = round(0.01 * RATE)
        before, after = power[at - window : at - 88].mean(), power[at : at + window].mean()
        assert after > 1.5 * before, f"no stroke at sixteenth {beat}"


@pytest.mark.slow
@renders
def test_a_killed_build_goes_on_and_gives_the_same_files(tmp_path, monkeypatch):
    made = []

    def dies(song):
        made.append(song.name)
        yield from render(song).items() if len(made) == 1 else list(render(song).items())[:2]
        if len(made) == 2:
            raise KeyboardInterrupt

    class Stems:
        def __init__(self, song):
            self.song = song

        def items(self):
            return dies(self.song)

    with monkeypatch.context() as patch:
        patch.setattr(synthsong, "render", Stems)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "killed", 2, 0, 1)
    assert made == ["synthetic-train-0001", "synthetic-train-0002"]
    assert [path.name for path in (tmp_path / "killed/train").iterdir()] == made[:1]
    first = tmp_path / "killed/train/synthetic-train-0001/drums.flac"
    written = first.stat().st_mtime_ns
    manifest = build(tmp_path / "killed", 2, 0, 1)
    assert first.stat().st_mtime_ns == written and not (tmp_path / "killed/.part").exists()
    whole = build(tmp_path / "whole", 2, 0, 1)
    assert manifest.read_bytes() == whole.read_bytes()
    assert build(tmp_path / "whole", 2, 0, 1).read_bytes() == manifest.read_bytes()

    found = json.loads(manifest.read_text())
    tracks = [track for split in SPLITS for track in found["tracks"][split]]
    assert [track["name"] for track in tracks] == [
        f"synthetic-{name}" for name in ("train-0001", "train-0002", "valid-0001", "test-0001")
    ]
    assert found["synthetic"] and all(track["synthetic"] for track in tracks)
    sums = [digest for track in tracks for digest in track["sha256"].values()]
    assert len(set(sums)) == len(sums) == 16, "two stems are the same"
    assert "synthetic" in (tmp_path / "whole/README.md").read_text()
    assert {"GNU", "Nagoya"} <= set((tmp_path / "whole/CREDITS").read_text().split())
    with pytest.raises(UserError, match="synthetic-train-0001: built with other settings"):
        build(tmp_path / "whole", 2, 1, 1)

    data = StemFolders(["vocals", "accompaniment"], RATE, tmp_path / "whole", {"accompaniment": list(STEMS[1:])})
    (track,) = data.tracks("test")
    mixture, (vocals, accompaniment) = track.read()
    stems = render(compose(0, "test", 1, 1))
    exact = sum(torch.from_numpy(samples.T).to(torch.int32) for samples in stems.values()) / 32768
    assert torch.equal(mixture, exact) and torch.equal(mixture, vocals + accompaniment)
    assert torch.equal(vocals, torch.from_numpy(stems["vocals"].T) / 32768)
