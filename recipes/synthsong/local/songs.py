"""Composes random songs with a sung melody, as notes; every song is a pure function of (seed, split, index, bars).

Times are in sixteenth notes, pitches are MIDI numbers. Everything is written on the white keys (C major or A minor) and
transposed to the song's key by `Song.shift`; the melody stays there, because the voice sings the white keys best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

BAR = 16
SPLITS = ("train", "valid", "test")
STEMS = ("vocals", "drums", "bass", "other")
WHITE = (0, 2, 4, 5, 7, 9, 11)
LADDER = (62, 64, 65, 67, 69, 71, 72, 74)  # white keys that the voice hits within half a semitone
SHIFTS = range(-5, 4)  # with more, a resampled voice sounds like a giant's or a mouse's
FORM = "IAABBSAB"  # four bars each: intro and solo without the voice, two sections with it

# degrees of the C major scale that carry the chords of four bars; half of them begin on A minor
PROGRESSIONS = (
    (0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 3), (0, 2, 3, 4), (0, 5, 1, 4),
    (5, 3, 0, 4), (5, 4, 3, 4), (5, 1, 4, 5), (5, 3, 1, 4), (5, 0, 4, 3),
)  # fmt: skip
# lengths in a bar, rests are negative
RHYTHMS = (
    (4, 4, 4, 4), (4, 4, 8), (8, 4, 4), (2, 2, 4, 4, 4), (6, 2, 8), (4, 2, 2, 4, 4), (-4, 4, 4, 4), (6, 6, 4),
    (2, 2, 2, 2, 4, 4), (3, 3, 2, 4, 4),
)  # fmt: skip
ENDINGS = ((8, -8), (4, 8, -4), (12, -4), (4, 4, 4, -4))  # of a phrase: time to breathe
BASS = (  # (start, length, tone): 0 the root, 1 the third, 2 the fifth, 3 the octave
    tuple((i, 2, 0) for i in range(0, BAR, 2)),
    ((0, 4, 0), (4, 4, 0), (8, 4, 2), (12, 4, 0)),
    ((0, 6, 0), (6, 2, 0), (8, 6, 2), (14, 2, 3)),
    ((0, 4, 0), (4, 4, 1), (8, 4, 2), (12, 4, 3)),
    ((0, 8, 0), (8, 8, 2)),
    ((0, 3, 0), (3, 3, 0), (6, 4, 3), (10, 2, 2), (12, 4, 0)),
)
CHORDS = (  # (start, length) of whole chords, or of one tone after the other in an arpeggio
    ((0, 16),),
    ((0, 8), (8, 8)),
    ((0, 4), (4, 4), (8, 4), (12, 4)),
    ((0, 3), (3, 3), (6, 2), (8, 3), (11, 3), (14, 2)),
    ((2, 2), (6, 2), (10, 2), (14, 2)),
)
ARPEGGIOS = (tuple((i, 2) for i in range(0, BAR, 2)), tuple((i, 1) for i in range(BAR)))
PROGRAMS = {  # General MIDI, counted from 0
    "bass": (32, 33, 34, 35, 36, 38, 39),
    "pad": (48, 49, 50, 16, 19, 89, 91, 52),
    "chords": (0, 1, 4, 5, 6, 7, 21, 25, 27, 28, 29),
    "arpeggio": (24, 25, 26, 0, 11, 12, 46, 81, 45),
    "lead": (40, 41, 56, 60, 65, 66, 68, 71, 73, 75, 80, 81),
    "drums": (0, 8, 16, 24, 25, 40),
}
KICK, SNARES, HATS, CRASH, TOMS = 36, (38, 40, 37), (42, 42, 51, 46), 49, (50, 47, 45, 41)
SYLLABLES = (
    "あ い う え お か き く け こ さ し す せ そ た ち つ て と な に ぬ ね の は ひ ふ へ ほ ま み む め も や ゆ よ "
    "ら り る れ ろ わ が ぎ ぐ げ ご ざ ず ぜ ぞ だ で ど ば び ぶ べ ぼ ぱ ぽ しゃ しゅ しょ ちゃ きゃ りょ にゃ ん"
).split()

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Note:
    """A note; `syllable` is sung with it."""

    start: int
    length: int
    pitch: int
    velocity: int = 90
    syllable: str = ""


@dataclass(frozen=True)
class Part:
    """The part of an instrument: a General MIDI program (or kit), its place from 0 (left) to 127, and notes."""

    stem: str
    program: int
    pan: int
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class Song:
    """A song as notes.

    Attributes:
        name: contains "synthetic", its split and its number.
        tempo: quarter notes per minute.
        bars: of four quarter notes.
        shift: semitones from the white keys to the song's key; already applied to the parts, but not to the melody.
        chords: the pitch classes of every bar's chord, root first, in the song's key.
        melody: of the voice, on the white keys.
        alpha: the voice's frequency warping; 0.55 is the recorded singer.
        room: part of reverberation in the voice's sound.
        levels: dB of every stem relative to the others.
        parts: the instruments, in the song's key.
    """

    name: str
    tempo: float
    bars: int
    shift: int
    chords: tuple[tuple[int, ...], ...]
    melody: tuple[Note, ...]
    alpha: float
    room: float
    levels: dict[str, float]
    parts: tuple[Part, ...]

    def seconds(self, sixteenths: float) -> float:
        """The time in seconds of a position in the score."""
        return sixteenths * 15 / self.tempo


def compose(seed: int, split: str, index: int, bars: int = 32) -> Song:
    """Write song number `index` of a split: key, tempo, chords, drums, bass, accompaniment, melody and syllables."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    phrases = -(-bars // 4)
    form = (FORM * phrases)[:phrases] if phrases > 2 else "A" * phrases  # a short song has no time for an intro
    shift, tempo = int(rng.choice(SHIFTS)), round(float(rng.uniform(76, 138)), 2)
    styles = {section: _Style(rng) for section in "AB"}
    styles |= {"I": styles["A"], "S": styles["B"]}
    played: dict[str, list[Note]] = {role: [] for role in PROGRAMS}
    melody: list[Note] = []
    chords: list[tuple[int, ...]] = []
    for number, section in enumerate(form):
        style, first = styles[section], 4 * number
        phrase = [_chord(degree) for degree in style.progression][: bars - first]
        chords += phrase
        for bar, chord in enumerate(phrase, start=first):
            played["drums"] += _drums(rng, style, bar * BAR, bar == first, bar == first + 3)
            played["bass"] += _bass(rng, style, bar * BAR, chord)
            for role in style.roles:
                played[role] += _chords(rng, style.rhythms[role], bar * BAR, chord, role == "arpeggio")
        if section == "S":
            played["lead"] += [Note(n.start, n.length, n.pitch + 12) for n in _melody(rng, first, phrase)]
        elif section != "I":
            melody += _melody(rng, first, phrase)
    parts = []
    for role, notes in played.items():
        program, pan = _pick(rng, PROGRAMS[role]), 64 if role in ("drums", "bass") else int(rng.integers(24, 105))
        moved = tuple(_move(note, 0 if role == "drums" else shift) for note in notes)
        if moved:
            parts.append(Part(role if role in STEMS else "other", program, pan, moved))
    return Song(
        name=f"synthetic-{split}-{index:04}",
        tempo=tempo,
        bars=bars,
        shift=shift,
        chords=tuple(tuple((tone + shift) % 12 for tone in chord) for chord in chords),
        melody=tuple(melody),
        alpha=round(float(rng.uniform(0.52, 0.58)), 3),
        room=round(float(rng.uniform(0.05, 0.25)), 3),
        levels={stem: round(float(rng.uniform(-3, 3)) - (stem != "vocals") * 4, 2) for stem in STEMS},
        parts=tuple(parts),
    )


class _Style:
    """The common settings of a section's phrases."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.progression, self.bass = _pick(rng, PROGRESSIONS), _pick(rng, BASS)
        self.snare, self.hat, self.hats = _pick(rng, SNARES), _pick(rng, HATS), int(rng.choice([1, 2, 2, 4]))
        kicks = {0} | {int(step) for step in rng.choice([3, 6, 8, 8, 10, 11, 14], size=2)}
        self.kicks = sorted(kicks)
        roles = ["pad", "chords", "arpeggio"]
        rng.shuffle(roles)
        self.roles = roles[: int(rng.integers(1, 4))]
        self.rhythms = {"pad": CHORDS[0], "chords": _pick(rng, CHORDS[1:]), "arpeggio": _pick(rng, ARPEGGIOS)}


def _pick(rng: np.random.Generator, options: Sequence[Choice]) -> Choice:
    return options[int(rng.integers(len(options)))]


def _move(note: Note, shift: int) -> Note:
    return Note(note.start, note.length, note.pitch + shift, note.velocity)


def _chord(degree: int) -> tuple[int, ...]:
    """Pitch classes of the triad on a degree, root first."""
    return tuple(WHITE[(degree + third) % 7] for third in (0, 2, 4))


def _melody(rng: np.random.Generator, bar: int, chords: Sequence[tuple[int, ...]]) -> list[Note]:
    """A phrase that steps along the white keys, with a chord tone on the first and third quarter."""
    notes = []
    step = int(rng.integers(2, 6))
    motif = [_pick(rng, RHYTHMS) for _ in range(2)]
    for number, chord in enumerate(chords):
        start = (bar + number) * BAR
        last = number == len(chords) - 1
        for length in _pick(rng, ENDINGS) if last else motif[number % 2]:
            if length > 0:
                step = int(np.clip(step + rng.choice([-2, -1, -1, 0, 1, 1, 2]), 0, len(LADDER) - 1))
                if start % (BAR // 2) == 0:
                    fits = [i for i, pitch in enumerate(LADDER) if pitch % 12 in chord]
                    step = min(fits, key=lambda i: abs(i - step))
                notes.append(Note(start, length, LADDER[step], syllable=_pick(rng, SYLLABLES)))
            start += abs(length)
    return notes


def _drums(rng: np.random.Generator, style: _Style, start: int, first: bool, last: bool) -> list[Note]:
    """A bar of drums: a crash opens a phrase, toms close it."""
    hits = [(step, KICK, 105) for step in style.kicks] + [(step, style.snare, 100) for step in (4, 12)]
    hits += [(step, style.hat, 60 if step % 4 else 80) for step in range(0, 8 if last else BAR, style.hats)]
    hits += [(0, CRASH, 90)] * first + [(8 + 2 * i, tom, 95) for i, tom in enumerate(TOMS)] * last
    return [Note(start + step, 1, pitch, loud + int(rng.integers(-8, 9))) for step, pitch, loud in hits]


def _bass(rng: np.random.Generator, style: _Style, start: int, chord: tuple[int, ...]) -> list[Note]:
    root = 28 + (chord[0] - 28) % 12
    pitches = [root, root + (chord[1] - root) % 12, root + (chord[2] - root) % 12, root + 12]
    return [Note(start + at, length, pitches[tone], int(rng.integers(80, 105))) for at, length, tone in style.bass]


def _chords(
    rng: np.random.Generator, rhythm: Sequence[tuple[int, int]], start: int, chord: tuple[int, ...], broken: bool
) -> list[Note]:
    """A bar of chords in close position around middle C, or of their tones in turn."""
    pitches = sorted(55 + (tone - 55) % 12 for tone in chord)
    notes = []
    for number, (at, length) in enumerate(rhythm):
        loud = int(rng.integers(65, 95))
        played = [pitches[number % 3] + 12 * (number // 3 % 2)] if broken else pitches
        notes += [Note(start + at, length, pitch, loud) for pitch in played]
    return notes
