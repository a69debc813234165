"""synthsong: songs in four stems at 44.1 kHz, composed at random, played by a soundfont and sung by a synthesiser.

`python recipes/synthsong/local/prepare.py --out data/synthsong` writes `{train,valid,test}/<track>/{vocals,drums,bass,
other}.flac`, the layout of `StemFolders`. Needs the extra `synthsong`: pretty_midi (for its soundfont), midirenderer
and pysinsy; nothing of theirs is part of this package. Every label says that the songs are synthetic.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.signal import oaconvolve
from songs import BAR, SPLITS, STEMS, Part, Song, compose

from tasnet_attn.audio.corpora import BUSY, decode, write_pcm
from tasnet_attn.audio.resampling import resample
from tasnet_attn.errors import UserError, reported
from tasnet_attn.files import holding, touching, write_text

RATE = 44_100
TAIL = 1.5  # seconds for the last notes to ring
PACKAGES = ("pretty_midi", "midirenderer", "pysinsy")
LABEL = "synthetic: composed at random, played by a soundfont, sung by a synthesiser"
README = f"""# synthsong: synthetic songs

Every song here is {LABEL.removeprefix("synthetic: ")}. No person wrote, played or sang them. Scores on them say
little about real music; say "synthetic" if you quote one.

Four stems of 16 bits at {RATE} Hz for each track; the mixture is their sum. `manifest.json` has every song's key, tempo
and instruments, and the SHA-256 of its files. See CREDITS for what they were made with.
"""
CREDITS = """The sounds of these songs come from two works. Neither is part of tasnet_attn (MIT licence).

Instruments: the soundfont TimGM6mb by Tim Brechbill, GNU General Public License version 2, as the Python package
pretty_midi installs it. Its samples are heard in drums, bass and other: read its licence before you pass the songs on.

Voice: NIT SONG070 F001, Nitech Japanese Speech Database, released by the HTS Working Group, copyright (c) 2004-2015
Nagoya Institute of Technology, Department of Computer Science; Creative Commons Attribution 3.0
(http://creativecommons.org/licenses/by/3.0/), as the Python package pysinsy installs it. Changes: sung without its
global variance of pitch, with other frequency warping, resampled to another key, compressed, with reverberation.

Synthesisers: Sinsy (Sinsy Working Group, modified BSD licence) through pysinsy (MIT); midirenderer (MIT).
"""
Stereo = NDArray[np.float64]  # [T, 2] at RATE


def versions() -> dict[str, str]:
    """The installed versions of the renderers.

    Raises:
        UserError: one is missing.
    """
    try:
        return {package: version(package) for package in PACKAGES}
    except PackageNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed; pip install 'tasnet-attn[synthsong]' (needs a C++ compiler)"
        ) from None


def render(song: Song) -> dict[str, NDArray[np.int16]]:
    """Every stem of a song, [T, 2] 16-bit samples at 44.1 kHz; neither a stem nor their sum clips.

    Raises:
        UserError: the extra is not installed.
    """
    versions()
    length = round((song.seconds(song.bars * BAR) + TAIL) * RATE)
    stems = {"vocals": _sing(song)}
    for stem in STEMS[1:]:
        stems[stem] = _play([part for part in song.parts if part.stem == stem], song)
    for stem, sound in stems.items():
        sound = np.pad(sound[:length], ((0, max(0, length - len(sound))), (0, 0)))
        sound[-RATE // 10 :] *= np.linspace(1, 0, RATE // 10)[:, None]
        stems[stem] = sound * 10 ** (song.levels[stem] / 20) / _loudness(sound)
    peak = max(float(abs(sound).max()) for sound in [*stems.values(), np.sum(list(stems.values()), axis=0)])
    return {stem: np.round(sound * (0.9 * 32767 / peak)).astype(np.int16) for stem, sound in stems.items()}


def _loudness(sound: Stereo) -> float:
    """RMS of the tenths of a second that are not silent."""
    power = (sound[: len(sound) // 4410 * 4410].reshape(-1, 4410 * 2) ** 2).mean(1)
    return float(np.sqrt(power[power > power.max() * 1e-4].mean()))


def _play(parts: Sequence[Part], song: Song) -> Stereo:
    """The parts through the soundfont."""
    import midirenderer
    import pretty_midi

    score = pretty_midi.PrettyMIDI(initial_tempo=song.tempo)
    end = song.seconds(song.bars * BAR)
    for part in parts:
        player = pretty_midi.Instrument(part.program, is_drum=part.stem == "drums")
        player.notes = [
            pretty_midi.Note(
                note.velocity, note.pitch, song.seconds(note.start), song.seconds(note.start + note.length)
            )
            for note in part.notes
        ]
        # the last event keeps the renderer running while the last notes ring
        player.control_changes = [
            pretty_midi.ControlChange(10, part.pan, 0),
            pretty_midi.ControlChange(1, 0, end + TAIL),
        ]
        score.instruments.append(player)
    midi = io.BytesIO()
    score.write(midi)
    soundfont = Path(pretty_midi.__file__).parent / "TimGM6mb.sf2"
    wav = midirenderer.render_wave_from(soundfont.read_bytes(), midi.getvalue())
    sound, rate = decode(wav, "midirenderer", dtype="float64")
    return resample(torch.from_numpy(sound.T), rate, RATE).T.numpy()


def _sing(song: Song) -> Stereo:
    """The melody with its syllables.

    The voice model was recorded in few keys, so it sings on the white keys, slower or faster than the song, and
    resampling corrects tempo and key. This also shifts the formants, which makes different singers from one.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        import pysinsy
    ratio = 2 ** (song.shift / 12)
    with tempfile.TemporaryDirectory() as folder:
        # The model's global variance of pitch gives every melody the same spread, semitones off the score
        voice, score = Path(folder, "voice"), Path(folder, "score.xml")
        model = Path(pysinsy.get_default_htsvoice()).read_bytes()
        voice.write_bytes(model.replace(b"USE_GV[LF0]:1", b"USE_GV[LF0]:0", 1))
        score.write_text(music_xml(song, song.tempo / ratio), encoding="utf-8")
        singer = pysinsy.Sinsy()  # a new one for each song, to restart its noise generator
        singer.setLanguages("j", pysinsy.get_default_dic_dir())
        singer.loadVoices(str(voice))
        singer.setAlpha(song.alpha)
        singer.loadScoreFromMusicXML(str(score))
        sung, rate = singer.synthesize()
    alone = resample(torch.from_numpy(sung / 32768)[None], rate * ratio, RATE)[0].numpy()
    voice_only = alone[round(song.seconds(BAR) * RATE) :]
    gate = np.zeros(len(voice_only))
    for note in song.melody:
        begin, end = song.seconds(note.start) - 0.1, song.seconds(note.start + note.length) + 0.1
        gate[max(0, round(begin * RATE)) : round(end * RATE)] = 1
    voice_only *= uniform_filter1d(gate, RATE // 20)
    # a compressor: the model sings some pitches 20 dB below others
    envelope = np.sqrt(uniform_filter1d(voice_only**2, RATE // 5).clip(0))
    voice_only *= (envelope + envelope.max() / 100) ** -0.6
    rng = np.random.default_rng(list(song.name.encode()))
    room = rng.standard_normal((RATE, 2)) * np.exp(-7 * np.arange(RATE) / RATE)[:, None]  # 60 dB in a second
    room *= song.room / np.sqrt((room**2).sum(0))
    room[0] += 1 - song.room
    return oaconvolve(voice_only[:, None], room, axes=0)


def music_xml(song: Song, tempo: float) -> str:
    """The melody as a MusicXML score after a bar of rest, in which the singer breathes; a quarter is 4 divisions.

    Args:
        song: its melody's notes lie within bars, as `compose` writes them.
        tempo: quarter notes a minute.
    """
    measures = [f'<measure number="1">{_attributes(tempo)}{_rest(BAR)}</measure>']
    notes = list(song.melody)
    for bar in range(song.bars):
        written, now, end = "", bar * BAR, (bar + 1) * BAR
        while notes and notes[0].start < end:
            note = notes.pop(0)
            if note.start > now:
                written += _rest(note.start - now)
            step, octave = "C D EF G A B"[note.pitch % 12], note.pitch // 12 - 1
            written += (
                f"<note><pitch><step>{step}</step><octave>{octave}</octave></pitch><duration>{note.length}</duration>"
                f"<lyric><text>{note.syllable}</text></lyric></note>"
            )
            now = note.start + note.length
        if now < end:
            written += _rest(end - now)
        measures.append(f'<measure number="{bar + 2}">{written}</measure>')
    return (
        '<?xml version="1.0" encoding="UTF-8"?><score-partwise><part-list><score-part id="P1"><part-name>voice'
        f'</part-name></score-part></part-list><part id="P1">{"".join(measures)}</part></score-partwise>'
    )


def _rest(length: int) -> str:
    return f"<note><rest/><duration>{length}</duration></note>"


def _attributes(tempo: float) -> str:
    return (
        "<attributes><divisions>4</divisions><key><fifths>0</fifths><mode>major</mode></key><time><beats>4</beats>"
        f'<beat-type>4</beat-type></time></attributes><direction><sound tempo="{tempo:.6f}"/></direction>'
    )


def write_song(song: Song, folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write `folder/<song's name>/` with a file for each stem and `song.json`, atomically; returns the latter.

    Args:
        song: what to render.
        folder: of the split.
        facts: more facts for `song.json`.
    """
    part = folder.parent / ".part"  # not next to the tracks, where it could be mistaken for one
    shutil.rmtree(part, ignore_errors=True)  # left by a killed build
    part.mkdir(parents=True)
    sums = {}
    for stem, samples in render(song).items():
        file = part / f"{stem}.flac"
        write_pcm(file, samples, RATE, title=f"{song.name}: {stem}", comment=LABEL)
        sums[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    about = {"name": song.name, "synthetic": True, "about": LABEL, **facts}
    about |= {
        "samples": len(samples),
        "tempo": song.tempo,
        "semitones from C major or A minor": song.shift,
        "sha256": sums,
    }
    about["instruments"] = [[played.stem, played.program] for played in song.parts]
    (part / "song.json").write_text(json.dumps(about, indent=1))
    folder.mkdir(exist_ok=True)
    part.rename(folder / song.name)
    return about


def build(out: Path, songs: int, seed: int, bars: int) -> Path:
    """Build the data set; existing songs are kept.

    Args:
        out: the folder.
        songs: to train on; a quarter as many each for validation and test.
        seed: another seed gives other songs.
        bars: of every song.

    Returns:
        The manifest.

    Raises:
        UserError: no songs, the extra is not installed, or `out` has songs with other settings.
    """
    if songs < 1 or bars < 1 or seed < 0:
        raise UserError(f"{songs} songs of {bars} bars, seed {seed}: needs a song, a bar, and no negative seed")
    settings = {"seed": seed, "bars": bars, "versions": versions()}
    write_text(out / "README.md", README)
    write_text(out / "CREDITS", CREDITS)
    tracks: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for split, listed in tracks.items():
        count = songs if split == "train" else max(1, songs // 4)
        for index in range(1, count + 1):
            started = time.perf_counter()
            song = compose(seed, split, index, bars)
            kept = out / split / song.name / "song.json"
            if kept.is_file():
                about, took = json.loads(kept.read_text()), "there already"
                if about | settings != about:
                    raise UserError(f"{kept.parent}: built with other settings or versions; give another --out")
            else:
                about = write_song(song, out / split, settings | {"split": split, "index": index})
                took = f"made in {time.perf_counter() - started:.1f} s"
            listed.append(about)
            print(
                f"{split} {index}/{count} {song.name}: {about['samples'] / RATE:.1f} s of synthetic music, {took}",
                flush=True,
            )
    for split, listed in tracks.items():
        for about in listed:
            (out / split / about["name"] / "song.json").stat()  # otherwise the folder was removed meanwhile
    manifest = out / "manifest.json"
    write_text(manifest, json.dumps({"synthetic": True, "about": LABEL, **settings, "tracks": tracks}, indent=1))
    return manifest


@reported("synthsong")
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python recipes/synthsong/local/prepare.py", description="Build a data set of synthetic songs."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write, for example data/synthsong")
    help = "to train on; a quarter as many each for validation and test (default: 20)"
    parser.add_argument("--songs", type=int, default=20, help=help)
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other songs (default: 0)")
    help = "of every song; 32 are 57 to 103 s, a multiple of 4 ends with a phrase (default: 32)"
    parser.add_argument("--bars", type=int, default=32, help=help)
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    with touching(options.out), holding(options.out, ".building", f"{options.out}: {BUSY}"):
        manifest = build(options.out, options.songs, options.seed, options.bars)
    tracks = [about for listed in json.loads(manifest.read_text())["tracks"].values() for about in listed]
    minutes = sum(about["samples"] for about in tracks) / RATE / 60
    print(f"{len(tracks)} synthetic songs, {minutes:.1f} min, in {time.perf_counter() - started:.0f} s; {manifest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
