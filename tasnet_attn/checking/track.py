"""Checks one track: the headers of its files, then its sound, block by block."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from math import inf, log10
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tasnet_attn.audio.reading import AudioInfo, check_finite
from tasnet_attn.data import MIXTURE, REST, Part, SegmentedData, Track
from tasnet_attn.data.track import read_parts
from tasnet_attn.errors import UserError

BLOCK = 1 << 20  # samples read at once: 24 s at 44.1 kHz
SILENT = 1e-4  # RMS of full scale, -80 dB
FULL_SCALE, FLAT, RUN = 0.999, 2e-4, 4  # clipped: RUN samples in a row at FULL_SCALE that differ by at most FLAT
OFFSET = 0.01  # mean of full scale, if it is a tenth of the RMS too
# dB of mixture - sum of the sources below the mixture: (warning, error). Codecs change stems and mixture differently:
# the MUSDB18 excerpt in stempeg has -15.4 dB, -22 dB without its ends.
LOSSLESS, LOSSY = (-40.0, -20.0), (-12.0, -6.0)
LOSSY_SUFFIXES = (".mp4", ".ogg", ".mp3")
OWN = "correct it, or remove this track"  # advice on a track without files
BEGINNING, DIMENSIONS = 8192, 64  # samples of an utterance to compare at any level, and the number of projections

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Finding:
    """A problem.

    Attributes:
        level: an error invalidates a run or its scores; a warning is for information.
        kind: one word; findings are grouped by kind.
        split: where, or "".
        what: names the file.
        fix: what to do.
    """

    level: Literal["error", "warning"]
    kind: str
    split: str
    what: str
    fix: str


@dataclass
class Look:
    """The findings in a track.

    Attributes:
        split, track: the track's.
        parts: its signals; for a track without files, what reading it returns.
        infos: the readable headers, by file.
        sounds: by the name of the part's content; empty if only the headers were read.
        residual: dB of mixture - sum of the sources relative to the mixture, if a file has the mixture.
    """

    split: str
    track: Track
    parts: Sequence[Part] = ()
    findings: list[Finding] = field(default_factory=list)
    infos: dict[Path, AudioInfo] = field(default_factory=dict)
    sounds: dict[str, Sound] = field(default_factory=dict)
    residual: float | None = None

    def find(self, level: Literal["error", "warning"], kind: str, what: str, fix: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(level, kind, self.split, what, fix))

    def beside(self, holds: str) -> bool:
        """Whether a part is the mixture or the rest, and not a source of that name."""
        return holds in (MIXTURE, REST) and (not self.track.parts or self.track.beside(holds))

    def path(self, holds: str) -> Path:
        """The file of a part."""
        return next(part.file for part in self.parts if part.holds == holds)


class Sound:
    """Statistics of a signal whose blocks are added in order.

    Attributes:
        hash: of its samples, once it is closed.
        beginning: of an utterance, projected to DIMENSIONS and normalised; None if it begins with silence.
    """

    hash: str

    def __init__(self, begin: bool) -> None:
        self.hasher: Any = hashlib.blake2b(digest_size=8)
        self.samples = self.runs = 0
        self.energy = 0.0
        self.total: Array | float = 0.0
        self.first_run: int | None = None
        self.beginning: Array | None = None
        self.begin = begin

    def add(self, x: Array) -> None:
        """A block, [C, T]."""
        # 16 bits: equal for a copy in another lossless format
        self.hasher.update(np.rint(x.T * 32768).clip(-32768, 32767).astype("<i2").tobytes())
        self.energy += float(np.square(x, dtype=np.float64).sum())
        self.total = self.total + x.sum(axis=1, dtype=np.float64)
        self._find_runs(x)
        if self.begin and not self.samples:
            start = np.zeros(BEGINNING, np.float32)
            start[: x.shape[1]] = x[0, :BEGINNING]
            if np.square(start).mean() > SILENT:
                projected = start @ projections()
                self.beginning = projected / np.linalg.norm(projected)
        self.samples += x.shape[1]

    def close(self) -> None:
        """Keep only the hash: there may be 150,000 sounds."""
        self.hash, self.hasher = self.hasher.hexdigest(), None

    def _find_runs(self, x: Array) -> None:
        loud = np.abs(x) >= FULL_SCALE
        if not loud.any():
            return
        steps = loud[:, 1:] & loud[:, :-1] & (np.abs(np.diff(x)) <= FLAT)
        within = np.lib.stride_tricks.sliding_window_view(steps, RUN - 1, axis=1).all(axis=-1)
        begins = within & ~np.pad(within, ((0, 0), (1, 0)))[:, :-1]
        if begins.any():
            self.runs += int(begins.sum())
            if self.first_run is None:
                self.first_run = self.samples + int(begins.any(axis=0).argmax())

    @property
    def rms(self) -> float:
        """RMS of full scale."""
        return float(np.sqrt(self.energy / max(1, self.samples * np.size(self.total))))

    @property
    def offset(self) -> float:
        """The largest mean of a channel."""
        return float(np.abs(self.total).max()) / max(1, self.samples)


@cache
def projections() -> Array:
    """Fixed random directions, [BEGINNING, DIMENSIONS]."""
    return np.random.default_rng(0).standard_normal((BEGINNING, DIMENSIONS), np.float32)


def look(data: SegmentedData, split: str, track: Track, listen: bool) -> Look:
    """Check every file of a track: its header, and with `listen` its samples too.

    A track without files is read as a whole.
    """
    found = Look(split, track, track.parts)
    try:
        data.check(track)
    except UserError as error:
        what, _, fix = str(error).rpartition("; ")
        found.find("error", "track", what or fix, fix if what else OWN)
        if not track.parts:
            return found
    if track.parts:
        found.infos, faults = track.headers()
        for kind, what, fix in faults:
            if not (track.problem and what.endswith("no such file")):  # the problem reports it
                found.find("error", kind, what, fix)
    else:
        _ask(found)
    if listen:
        _listen(found)
    return found


def _ask(found: Look) -> None:
    """Check the sound of a track without files."""
    track = found.track
    try:
        rest = [REST] if track.read_rest(0, 1).ndim else []
        found.infos[Path(str(track))] = AudioInfo(track.sample_rate, track.length, track.channels)
        found.parts = [Part(Path(str(track)), holds) for holds in (MIXTURE, *track.sources, *rest)]
    except UserError as error:
        found.find("error", "file", str(error), OWN)


def _listen(found: Look) -> None:
    """Read all parts in parallel, in blocks; if a file is damaged, the others are still checked."""
    parts = [part for part in found.parts if part.file in found.infos]
    found.sounds = {part.holds: Sound(found.track.utterance and not found.beside(part.holds)) for part in parts}
    mixed = MIXTURE in found.sounds and found.beside(MIXTURE)
    whole = mixed and len(parts) == len(found.parts) and len(set(found.infos.values())) == 1
    mm = ms = ss = rr = 0.0  # energies: mixture, mixture x sum, sum, mixture - sum
    start, end = 0, max((info.length for info in found.infos.values()), default=0)
    while start < end and parts:
        blocks: dict[str, Array] = {}
        for file in dict.fromkeys(part.file for part in parts):
            here = [part for part in parts if part.file == file]
            try:
                blocks |= _read(found, here, start, min(BLOCK, found.infos[file].length - start))
            except UserError as error:
                fix = "make or copy this file again, or remove its track" if found.track.parts else OWN
                found.find("error", "file", str(error), fix)
                parts, whole = [part for part in parts if part.file != file], False
                for part in here:
                    del found.sounds[part.holds]
        for holds, x in blocks.items():
            found.sounds[holds].add(x)
        if whole:
            mixture = blocks[MIXTURE].astype(np.float64)
            total = np.sum([x for holds, x in blocks.items() if holds != MIXTURE], axis=0, dtype=np.float64)
            mm, ms, ss = mm + (mixture**2).sum(), ms + (mixture * total).sum(), ss + (total**2).sum()
            rr += ((mixture - total) ** 2).sum()
        start += BLOCK
        parts = [part for part in parts if found.infos[part.file].length > start]
    for sound in found.sounds.values():
        sound.close()
    if whole and mm:
        _compare(found, mm, ms, ss, rr)
    _judge(found)


def _read(found: Look, parts: list[Part], start: int, length: int) -> dict[str, Array]:
    """Samples of a file's parts, each [C, length]."""
    track = found.track
    if track.parts:
        return {holds: signal.numpy() for holds, signal in read_parts(parts, start, length).items()}
    mixture, references = track.read(start, length)
    if references.shape != (len(track.sources), *mixture.shape) or mixture.shape[-1] != length:
        shapes = f"mixture {list(mixture.shape)}, references {list(references.shape)}"
        raise UserError(f"{track}: reading {length} samples from {start} on returns {shapes}")
    signals = {**dict(zip(track.sources, references, strict=True)), MIXTURE: mixture}
    if any(part.holds == REST for part in parts):
        signals[REST] = track.read_rest(start, length)
    for holds, signal in signals.items():
        check_finite(signal, f"{track} ({holds})", start)
    return {holds: signal.numpy() for holds, signal in signals.items()}


def _compare(found: Look, mm: float, ms: float, ss: float, rr: float) -> None:
    """Compare the mixture with the sum, by their energies."""
    found.residual = 10 * log10(rr / mm) if rr else -inf
    lossy = any(part.file.suffix.lower() in LOSSY_SUFFIXES for part in found.parts)
    warning, error = LOSSY if lossy else LOSSLESS
    if found.residual <= warning:
        return
    what = f"{found.path(MIXTURE)}: differs from the sum of the sources by {found.residual:.1f} dB"
    fix = "a source is missing, another take, shifted or processed; make the mixture again as the sum"
    if ss and ms > 0 and mm - ms**2 / ss <= mm * 10 ** (warning / 10):
        what += f"; it is their sum at {20 * log10(ms / ss):+.1f} dB"
        fix = "bring the sources to the mixture's level, or the mixture to theirs"
    found.find("error" if found.residual > error else "warning", "sum", what, fix)


def _judge(found: Look) -> None:
    """Check every sound for silence, clipping and offset."""
    for holds, sound in found.sounds.items():
        where, rate = f"{found.path(holds)}", found.infos[found.path(holds)].sample_rate
        if len(found.sounds) > len(found.infos):
            where += f" ({holds})"  # a file with several signals
        beside = found.beside(holds)
        if sound.rms < SILENT and not (beside and holds == REST):
            level: Literal["error", "warning"] = "error" if beside else "warning"
            fix = "remove this track, or accept that this source has no score here"
            found.find(level, "silent", f"{where}: is silent throughout (below -80 dB)", fix)
        if sound.runs and sound.first_run is not None:
            what = f"{where}: clipped, {sound.runs} runs of {RUN} or more samples at full scale, the first at "
            fix = "if there are many, export it again at a lower level, or remove this track"
            found.find("warning", "clipped", what + f"{sound.first_run / rate:.2f} s", fix)
        if not (beside and holds == MIXTURE) and sound.offset > OFFSET and sound.offset > sound.rms / 10:
            what = f"{where}: its mean is {sound.offset:.3f} of full scale, not zero"
            found.find("warning", "offset", what, "filter it: ffmpeg -i IN.wav -af highpass=f=5 NEW.wav")
    sources = [sound for holds, sound in found.sounds.items() if not found.beside(holds)]
    if sources and all(sound.rms < SILENT for sound in sources) and not found.beside(MIXTURE):
        found.find("error", "silent", f"{found.track}: all sources are silent", "remove this track")
