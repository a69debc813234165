"""The speakers: Kokoro's voices and blends of them, divided so that no voice is in two subsets."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np

from tasnet_attn.errors import UserError

SETS = ("train", "dev-speakers", "test")  # of speakers; the subset dev uses train's
# voices of each sex and blends in the two sets of unseen speakers; train gets the other voices
VOICES = {"test": 5, "dev-speakers": 4}
BLENDS = {"train": 174, "dev-speakers": 12, "test": 20}
ALIKE = 0.8  # cosine between two voices' styles: above it they may be the same person, and stay together
TOO_ALIKE = 0.9  # between two speakers' styles: above it they are not mixed with one another


class Speaker(NamedTuple):
    """A voice or a blend.

    Args:
        name: for file names, so without - and _.
        voices: Kokoro's voices, with weights that sum to one.
        speed: of speaking, 1 is the voice's own.
        shift: of pitch and formants, 1 is the voice's own.
    """

    name: str
    voices: tuple[tuple[str, float], ...]
    speed: float = 1.0
    shift: float = 1.0


def sex(voice: str) -> str:
    """The second letter of a voice's name, f or m; the first one is its language."""
    return voice[1]


def colour(styles: dict[str, np.ndarray], speaker: Speaker) -> np.ndarray:
    """The half of a style that makes a voice's sound, without its prosody; averaged over lengths, [128], norm 1."""
    mixed = sum(weight * styles[voice][20:120, :128].astype(np.float64).mean(0) for voice, weight in speaker.voices)
    return np.asarray(mixed / np.linalg.norm(mixed))


def groups(styles: dict[str, np.ndarray]) -> list[list[str]]:
    """Groups of similar voices, directly or through others (em_santa and pm_santa are one voice)."""
    found = [{voice} for voice in sorted(styles)]
    colours = {voice: colour(styles, Speaker("", ((voice, 1.0),))) for voice in styles}
    for one, other in combinations(sorted(styles), 2):
        if colours[one] @ colours[other] > ALIKE:
            first, second = (next(group for group in found if voice in group) for voice in (one, other))
            if first is not second:
                found.remove(second)
                first |= second
    return [sorted(group) for group in found]


def divide(styles: dict[str, np.ndarray], seed: int) -> dict[str, list[str]]:
    """Set -> its voices: whole groups, until each set of unseen speakers has its number of women and men.

    Raises:
        UserError: too few voices.
    """
    rng = np.random.default_rng([seed, 10])
    rest = groups(styles)
    rest = [rest[index] for index in rng.permutation(len(rest))]
    divided: dict[str, list[str]] = {}
    for name, wanted in VOICES.items():
        lacking, chosen = {"f": wanted, "m": wanted}, []
        for group in list(rest):
            count = {kind: sum(sex(voice) == kind for voice in group) for kind in lacking}
            if all(count[kind] <= lacking[kind] for kind in lacking):
                lacking = {kind: lacking[kind] - count[kind] for kind in lacking}
                chosen += group
                rest.remove(group)
        if any(lacking.values()):
            raise UserError(f"too few voices for {name}; kokoro-js 1.2.1 has 54 that suffice")
        divided[name] = sorted(chosen)
    return {"train": sorted(voice for group in rest for voice in group)} | divided


def blends(voices: list[str], count: int, rng: np.random.Generator) -> list[Speaker]:
    """Weighted means of two voices, mostly of one sex; no pair comes twice."""
    pairs = list(combinations(voices, 2))
    # weighted drawing without replacement: 85 % of the first draws have one sex
    weights = np.array([0.85 if sex(a) == sex(b) else 0.15 for a, b in pairs])
    if len(pairs) < count:
        raise UserError(f"{len(voices)} voices make {len(pairs)} pairs, but {count} blends are needed")
    speakers = []
    for index in rng.choice(len(pairs), count, replace=False, p=weights / weights.sum()):
        one, other = pairs[index]
        weight = round(rng.uniform(0.3, 0.7), 3)
        speed, shift = (round(float(np.exp(rng.uniform(-limit, limit))), 3) for limit in (0.12, 0.07))
        speakers.append(Speaker("", ((one, weight), (other, round(1 - weight, 3))), speed, shift))
    return speakers


def draw(styles: dict[str, np.ndarray], seed: int) -> dict[str, list[Speaker]]:
    """Set -> its speakers, in the order in which they get sentences; determined by voices and seed."""
    drawn: dict[str, list[Speaker]] = {}
    number = 0
    for index, (name, voices) in enumerate(sorted(divide(styles, seed).items())):
        rng = np.random.default_rng([seed, 20, index])
        speakers = [Speaker(voice.replace("_", ""), ((voice, 1.0),)) for voice in voices]
        for blend in blends(voices, BLENDS[name], rng):
            number += 1
            speakers.append(blend._replace(name=f"blend{number:03d}"))
        drawn[name] = [speakers[index] for index in rng.permutation(len(speakers))]
    return drawn
