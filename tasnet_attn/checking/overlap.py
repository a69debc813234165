"""The same sound twice: within a track, in two tracks, in two splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from tasnet_attn.checking.track import SILENT, Finding, Look
from tasnet_attn.data import REST

ALIKE = 0.9999  # cosine of two beginnings; 16-bit rounding of speech at another level leaves 0.999999
CHUNK = 2048

Pair = tuple[int, int]  # of looks, by index


def overlaps(looks: list[Look]) -> list[Finding]:
    """Findings about equal sounds, in files of any name and any lossless format."""
    findings = [finding for one in looks for finding in _within(one)]
    pairs: dict[Pair, list[tuple[Path, Path, str]]] = defaultdict(list)
    first: dict[str, tuple[int, Path]] = {}
    for number, one in enumerate(looks):
        for holds, sound in one.sounds.items():
            beside = one.beside(holds)
            if beside and holds == REST or sound.rms < SILENT:
                continue
            earlier, file = first.setdefault(sound.hash, (number, one.path(holds)))
            if earlier == number:
                continue
            mixed = beside and len(one.infos) > 1  # otherwise an utterance that is its own mixture
            if one.track.utterance and looks[earlier].split == one.split and not mixed:
                continue  # a split may mix an utterance several times
            pairs[earlier, number].append((file, one.path(holds), "has the same sound as"))
    for earlier, number, file, other in _same_beginnings(looks):
        if (earlier, number) not in pairs:
            pairs[earlier, number].append((file, other, "begins, at some level, like"))
    return findings + [_finding(looks, pair, found) for pair, found in pairs.items()]


def _within(one: Look) -> Iterator[Finding]:
    sources = {h: s for h, s in one.sounds.items() if not one.beside(h) and s.rms >= SILENT}
    for (a, first), (b, second) in combinations(sources.items(), 2):
        if first.hash == second.hash:
            what = f"{one.path(b)}: {b} is the same sound as {a}, {one.path(a).name}"
            yield Finding("error", "duplicate", one.split, what, f"export {a} and {b} again, or remove this track")


def _same_beginnings(looks: list[Look]) -> Iterator[tuple[int, int, Path, Path]]:
    """Utterances of two splits with the same beginning, at any level and length: (look, look, file, file)."""
    known: dict[str, list[tuple[int, Path, np.ndarray]]] = defaultdict(list)
    for number, one in enumerate(looks):
        for holds, sound in one.sounds.items():
            if sound.beginning is not None:
                known[one.split].append((number, one.path(holds), sound.beginning))
    for a, b in combinations(known, 2):
        whole = np.stack([beginning for _, _, beginning in known[a]])
        for start in range(0, len(known[b]), CHUNK):
            chunk = known[b][start : start + CHUNK]
            alike = np.stack([beginning for _, _, beginning in chunk]) @ whole.T
            for (number, other, _), best, cosine in zip(chunk, alike.argmax(1), alike.max(1), strict=True):
                if cosine > ALIKE:
                    yield known[a][best][0], number, known[a][best][1], other


def _finding(looks: list[Look], pair: Pair, found: Iterable[tuple[Path, Path, str]]) -> Finding:
    earlier, later = (looks[number].split for number in pair)
    (file, other, how), *more = found
    what = f"{other} ({later}) {how} {file} ({earlier})" + (f", as do {len(more)} more" if more else "")
    if earlier == later:
        return Finding("warning", "duplicate", later, what, "delete one of the two tracks: it counts twice")
    level = "error" if "test" in (earlier, later) else "warning"
    spoilt = "scores on it" if level == "error" else "early stopping"
    return Finding(level, "overlap", later, what, f"delete one of the two; {spoilt} would be invalid")  # type: ignore[arg-type]
