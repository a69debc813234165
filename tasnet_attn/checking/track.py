"""What is wrong with one track: the headers of its files, then its sound, block by block."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from math import inf, log10
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tasnet_attn.audio.reading import AudioInfo, audio_info, read_audio
from tasnet_attn.data.files import MIXTURE, REST, Entry, Part
from tasnet_attn.data.musdb18 import read_stem_file, stem_file_info
from tasnet_attn.errors import UserError

BLOCK = 1 << 20  # samples read at once: 24 s at 44.1 kHz
SILENT = 1e-4  # RMS of full scale, -80 dB
FULL_SCALE, FLAT, RUN = 0.999, 2e-4, 4  # clipped: RUN samples in a row at FULL_SCALE that differ by FLAT at most
OFFSET = 0.01  # mean of full scale, if it is a tenth of the RMS too
# dB of mixture - sum of the sources below the mixture: (warning, error). Codecs change stems and mixture differently:
# the MUSDB18 excerpt that stempeg carries has -15.4 dB, -22 dB without its ends.
LOSSLESS, LOSSY = (-40.0, -20.0), (-12.0, -6.0)
LOSSY_SUFFIXES = (".mp4", ".ogg", ".mp3")
BEGINNING, DIMENSIONS = 8192, 64  # samples of an utterance that are compared at any level, by so many projections

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Finding:
    """Something wrong.

    Attributes:
        level: an error spoils a run or its scores; a warning is to be known.
        kind: one word; findings are listed by kind.
        split: where, or "".
        what: names the file.
        mend: what to do.
    """

    level: Literal["error", "warning"]
    kind: str
    split: str
    what: str
    mend: str


@dataclass
class Look:
    """What was found in a track.

    Attributes:
        split, entry: which.
        infos: headers by file, of those that could be read.
        sounds: by what the part holds; empty if only the headers were looked at.
        residual: dB of mixture - sum of the sources against the mixture, if a file holds the mixture.
    """

    split: str
    entry: Entry
    findings: list[Finding] = field(default_factory=list)
    infos: dict[Path, AudioInfo] = field(default_factory=dict)
    sounds: dict[str, Sound] = field(default_factory=dict)
    residual: float | None = None

    def find(self, level: Literal["error", "warning"], kind: str, what: str, mend: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(level, kind, self.split, what, mend))

    def path(self, holds: str) -> Path:
        """The file of a part."""
        return next(part.file for part in self.entry.parts if part.holds == holds)


class Sound:
    """What is kept of a signal whose blocks are added in order.

    Attributes:
        hash: of its samples, once it is closed.
        beginning: of an utterance, projected to DIMENSIONS and normalised; None if it begins silent.
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
        # 16 bits: a copy in another lossless format has the same
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
        """Keep the hash alone: there may be 150,000 sounds."""
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
        """Of full scale."""
        return float(np.sqrt(self.energy / max(1, self.samples * np.size(self.total))))

    @property
    def offset(self) -> float:
        """The largest mean of a channel."""
        return float(np.abs(self.total).max()) / max(1, self.samples)


@cache
def projections() -> Array:
    """Fixed random directions, [BEGINNING, DIMENSIONS]."""
    return np.random.default_rng(0).standard_normal((BEGINNING, DIMENSIONS), np.float32)


def look(split: str, entry: Entry, listen: bool) -> Look:
    """Look at every file of a track; `listen`: at its samples too, else at its headers alone."""
    found = Look(split, entry)
    if entry.problem:
        found.find("error", "track", *_split(entry.problem, "mend it, or leave this track out"))
    _headers(found)
    if listen:
        _listen(found)
    return found


def _split(text: str, mend: str) -> tuple[str, str]:
    what, semicolon, advice = text.rpartition("; ")
    return (what, advice) if semicolon else (text, mend)


def _headers(found: Look) -> None:
    entry, streams = found.entry, {part.file for part in found.entry.parts if part.stream is not None}
    for file in entry.files:
        try:
            found.infos[file] = stem_file_info(file) if file in streams else audio_info(file)
        except UserError as error:
            mend = "make or copy this file anew" if file.is_file() else "put it there, or set data.init_args.root"
            found.find("error", "file", str(error), f"{mend}; or leave its track out")
    if not found.infos:
        return
    channels = entry.channels or Counter(info.channels for info in found.infos.values()).most_common(1)[0][0]
    in_rate = {file: i.length for file, i in found.infos.items() if entry.sample_rate in (None, i.sample_rate)}
    mixture = next((part.file for part in entry.parts if part.holds == MIXTURE), None)
    longest = max(in_rate, key=in_rate.__getitem__, default=None)
    model = mixture if mixture in in_rate else longest  # whose length the others must have
    length = entry.length or (in_rate[model] if model else 0)
    for file, info in found.infos.items():
        if info.channels != channels:
            mend = f"convert it: ffmpeg -i {file.name} -ac {channels} NEW.wav"
            found.find("error", "channels", f"{file}: has {info.channels} channel(s), not {channels}", mend)
        if file not in in_rate:
            what = f"{file}: sampled at {info.sample_rate} Hz, but the model takes {entry.sample_rate} Hz"
            mend = f"resample it: ffmpeg -i {file.name} -ar {entry.sample_rate} NEW.wav"
            mend += f"; or, if all files are like that, set model.sample_rate to {info.sample_rate}"
            found.find("error", "rate", what, mend)
        elif info.length != length and entry.length:
            what = f"{file}: has {info.length} samples, the metadata say {length}"
            found.find("error", "length", what, "make the set anew, or this track's files and its line")
        elif info.length != length and model:
            what = f"{file}: has {info.length} samples, {model.name} beside it {length}"
            found.find("error", "length", what, "export this track's files anew, all of one length")
        elif not info.length:
            found.find("error", "length", f"{file}: holds no samples", "leave this track out")


def _listen(found: Look) -> None:
    """Read all parts side by side, in blocks: a damaged file leaves the others to be looked at."""
    parts = [part for part in found.entry.parts if part.file in found.infos]
    found.sounds = {part.holds: Sound(found.entry.utterance and part.holds not in (MIXTURE, REST)) for part in parts}
    whole = MIXTURE in found.sounds and len(parts) == len(found.entry.parts) and len(set(found.infos.values())) == 1
    mm = ms = ss = rr = 0.0  # energies: mixture, mixture x sum, sum, mixture - sum
    start, end = 0, max((info.length for info in found.infos.values()), default=0)
    while start < end and parts:
        blocks: dict[str, Array] = {}
        for file in dict.fromkeys(part.file for part in parts):
            here = [part for part in parts if part.file == file]
            try:
                blocks |= _read(here, start, min(BLOCK, found.infos[file].length - start))
            except UserError as error:
                found.find("error", "file", str(error), "make or copy this file anew; or leave its track out")
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


def _read(parts: list[Part], start: int, length: int) -> dict[str, Array]:
    """Samples of a file's parts, each [C, length]."""
    file = parts[0].file
    if parts[0].stream is not None:
        signals = read_stem_file(file, [part.stream for part in parts if part.stream is not None], start, length)
        return {part.holds: signal.numpy() for part, signal in zip(parts, signals, strict=True)}
    audio = read_audio(file, start, length).numpy()
    return {p.holds: audio if p.channel is None else audio[p.channel : p.channel + 1] for p in parts}


def _compare(found: Look, mm: float, ms: float, ss: float, rr: float) -> None:
    """Judge the mixture against the sum, by their energies."""
    found.residual = 10 * log10(rr / mm) if rr else -inf
    lossy = any(part.file.suffix.lower() in LOSSY_SUFFIXES for part in found.entry.parts)
    warning, error = LOSSY if lossy else LOSSLESS
    if found.residual <= warning:
        return
    what = f"{found.path(MIXTURE)}: differs from the sum of the sources by {found.residual:.1f} dB"
    mend = "a source is missing, another take, shifted or processed: make the mixture anew as the sum"
    if ss and ms > 0 and mm - ms**2 / ss <= mm * 10 ** (warning / 10):
        what += f"; it is their sum at {20 * log10(ms / ss):+.1f} dB"
        mend = "bring the sources to the mixture's level, or the mixture to theirs"
    found.find("error" if found.residual > error else "warning", "sum", what, mend)


def _judge(found: Look) -> None:
    """Silence, clipping and offset of every sound."""
    for holds, sound in found.sounds.items():
        where, rate = f"{found.path(holds)}", found.infos[found.path(holds)].sample_rate
        if len(found.sounds) > len(found.infos):
            where += f" ({holds})"  # a file with several signals
        if sound.rms < SILENT and holds != REST:
            level: Literal["error", "warning"] = "error" if holds == MIXTURE else "warning"
            mend = "leave this track out, or know that this source has no score here"
            found.find(level, "silent", f"{where}: is silent throughout (below -80 dB)", mend)
        if sound.runs and sound.first_run is not None:
            what = f"{where}: clipped, {sound.runs} runs of {RUN} or more samples at full scale, the first at "
            mend = "export it anew at a lower level, if many; or leave this track out"
            found.find("warning", "clipped", what + f"{sound.first_run / rate:.2f} s", mend)
        if holds != MIXTURE and sound.offset > OFFSET and sound.offset > sound.rms / 10:
            what = f"{where}: its mean is {sound.offset:.3f} of full scale, not zero"
            found.find("warning", "offset", what, "filter it: ffmpeg -i IN.wav -af highpass=f=5 NEW.wav")
    sources = [sound for holds, sound in found.sounds.items() if holds not in (MIXTURE, REST)]
    if sources and all(sound.rms < SILENT for sound in sources) and MIXTURE not in found.sounds:
        found.find("error", "silent", f"{found.entry.files[0]}: all sources are silent", "leave this track out")
