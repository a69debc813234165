"""Pairs of utterances and their mixtures, by LibriMix's rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.signal import lfilter

from tasnet_attn.audio.resampling import resample

RATE = 16_000
LOUDNESS = (-33.0, -25.0)  # LUFS, as in LibriMix
LOUDEST = 0.9  # of full scale: LibriMix's limit against clipping


class Utterance(NamedTuple):
    """An utterance: name (speaker-language-number), speaker, and its text's length over the speaker's speed."""

    name: str
    speaker: str
    length: float


def k_weighting(samples: np.ndarray, rate: int) -> np.ndarray:
    """The two filters of ITU-R BS.1770 (a shelf for the head, a high pass), their analogue form at any rate."""
    gain, quality, warped = 3.999843853973347, 0.7071752369554196, np.tan(np.pi * 1681.974450955533 / rate)
    high = 10 ** (gain / 20)
    band, square = high**0.4996667741545416 * warped / quality, warped**2
    zeros = [high + band + square, 2 * (square - high), high - band + square]
    poles = [1 + warped / quality + square, 2 * (square - 1), 1 - warped / quality + square]
    shelved = lfilter(zeros, poles, samples)
    quality, warped = 0.5003270373238773, np.tan(np.pi * 38.13547087602444 / rate)
    square = warped**2
    poles = [1 + warped / quality + square, 2 * (square - 1), 1 - warped / quality + square]
    return lfilter([1, -2, 1], np.array(poles) / poles[0], shelved)


def loudness(samples: np.ndarray, rate: int = RATE) -> float:
    """Integrated loudness of a mono signal in LUFS, with BS.1770's two gates.

    Args:
        samples: [T] float, full scale 1; 0.4 s or longer.
        rate: Hz.
    """
    squares = np.concatenate([[0.0], np.cumsum(np.square(k_weighting(samples, rate)))])
    block, hop = round(0.4 * rate), round(0.1 * rate)
    starts = np.arange(0, len(samples) - block + 1, hop)
    power = (squares[starts + block] - squares[starts]) / block
    power = power[power > 10 ** ((-70 + 0.691) / 10)]
    if not len(power):
        return -np.inf
    power = power[power >= power.mean() / 10]
    return float(-0.691 + 10 * np.log10(power.mean()))


def pair(
    utterances: Sequence[Utterance],
    uses: int,
    may_mix: Callable[[str, str], bool],
    rng: np.random.Generator,
) -> list[tuple[Utterance, Utterance]]:
    """Pairs of utterances of similar length, so that little is cut off; each utterance in at most `uses` of them.

    Args:
        utterances: of a subset.
        uses: how often each is used, with another partner each time.
        may_mix: whether two speakers may be in one mixture.
        rng: for the pairs and their order.
    """
    pairs: list[tuple[Utterance, Utterance]] = []
    made = set()
    for _ in range(uses):
        blurred = np.array([one.length for one in utterances]) * np.exp(rng.normal(0, 0.1, len(utterances)))
        waiting = [utterances[index] for index in np.argsort(blurred, kind="stable")]
        while waiting:
            one = waiting.pop()
            for place in range(len(waiting) - 1, -1, -1):
                other = waiting[place]
                names = frozenset((one.name, other.name))
                if one.speaker != other.speaker and names not in made and may_mix(one.speaker, other.speaker):
                    made.add(names)
                    del waiting[place]
                    pairs.append((one, other) if rng.random() < 0.5 else (other, one))
                    break
    return [pairs[index] for index in rng.permutation(len(pairs))]


def mix(utterances: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The sources of a mixture: both start at once, with drawn loudness, cut to the shorter ("min").

    Args:
        utterances: [T1] and [T2], int16, at `RATE`.
        rng: of the two levels.

    Returns:
        [2, T] float64; neither they nor their sum clip.
    """
    sources = []
    for samples in utterances:
        source = samples / 32768
        source *= 10 ** ((rng.uniform(*LOUDNESS) - loudness(source)) / 20)
        if np.abs(source).max() >= 1:
            source *= LOUDEST / np.abs(source).max()
        sources.append(source)
    length = min(map(len, sources))
    mixed = np.stack([source[:length] for source in sources])
    peak = np.abs(mixed.sum(0)).max()
    return mixed * (LOUDEST / peak if peak > LOUDEST else 1.0)


def at_rate(sources: np.ndarray, rate: int) -> np.ndarray:
    """Sources [2, T] at `RATE` as [2, T'] int16 at `rate`; their sum is the mixture, to the last bit."""
    if rate != RATE:
        sources = resample(torch.from_numpy(sources), RATE, rate).numpy()
    peak = max(np.abs(sources).max(), np.abs(sources.sum(0)).max())  # resampling may overshoot
    return np.round(sources * (32767 / max(1.0, peak))).astype(np.int16)
