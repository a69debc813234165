"""Utterances: planned, spoken and stored, each with its own checksum, so that a build can be stopped at any time."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mixing import RATE
from speakers import Speaker

from tasnet_attn.audio.corpora import read_pcm, write_pcm
from tasnet_attn.audio.resampling import resample
from tasnet_attn.errors import UserError
from tasnet_attn.files import whole

Synthesiser = Callable[[str, str, Speaker], tuple[np.ndarray, int]]  # text, language, speaker -> samples, rate


class Planned(NamedTuple):
    """An utterance before it is spoken."""

    name: str
    subset: str
    speaker: Speaker
    language: str
    text: str

    @property
    def key(self) -> str:
        """Everything that determines the samples: another key means another recording."""
        return hashlib.sha256(json.dumps([self.speaker, self.language, self.text]).encode()).hexdigest()

    @property
    def path(self) -> str:
        return f"utterances/{self.subset}/{self.name}.flac"


def trim(samples: np.ndarray) -> np.ndarray:
    """The samples without silence at the ends: 20 ms frames more than 40 dB below the loudest; 40 ms are kept."""
    frame = RATE // 50
    power = np.square(samples[: len(samples) // frame * frame].reshape(-1, frame), dtype=np.float64).mean(1)
    loud = np.flatnonzero(power > power.max(initial=0.0) * 1e-4)
    return samples[max(0, loud[0] - 2) * frame : (loud[-1] + 3) * frame] if len(loud) else samples[:0]


def digest(samples: np.ndarray) -> str:
    """SHA-256 of int16 samples."""
    return hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest()


def load(path: Path, key: str) -> np.ndarray | None:
    """A stored utterance, [T] int16; None: missing, with another key, or damaged according to its checksum."""
    try:
        samples, comment = read_pcm(path)
    except UserError:
        return None
    return samples if comment == f"{key} {digest(samples)}" else None


def speak(synthesise: Synthesiser, planned: Planned, out: Path) -> tuple[float, float]:
    """Store an utterance at 16 kHz; returns seconds of speech and of CPU time.

    Raises:
        UserError: the synthesiser gave silence.
    """
    start = time.process_time()
    samples, rate = synthesise(planned.text, planned.language, planned.speaker)
    samples = trim(resample(torch.from_numpy(np.asarray(samples, np.float32))[None], rate, RATE)[0].numpy())
    if len(samples) < RATE:
        raise UserError(f"{planned.name}: less than a second of speech for {planned.text!r}")
    samples = np.round(samples * (32767 / max(1.0, np.abs(samples).max()))).astype(np.int16)
    path = out / planned.path
    with whole(path, path.suffix) as part:
        write_pcm(part, samples, RATE, comment=f"{planned.key} {digest(samples)}")
    return len(samples) / RATE, time.process_time() - start


_worker: list[Any] = []  # in a worker process: its synthesiser and the corpus's folder


def _start(make: Callable[[], Synthesiser], out: Path) -> None:
    _worker[:] = [make(), out]


def _speak(planned: Planned) -> tuple[float, float]:
    return speak(_worker[0], planned, _worker[1])


def speak_all(
    todo: list[Planned], make: Callable[[], Synthesiser], out: Path, jobs: int
) -> Iterator[tuple[float, float]]:
    """`speak` for each, over `jobs` processes; each file is written atomically, so a later call resumes."""
    if jobs == 1:
        synthesise = make()
        yield from (speak(synthesise, planned, out) for planned in todo)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), _start, (make, out)) as pool:
        try:
            yield from pool.map(_speak, todo)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def report(done: Iterator[tuple[float, float]], before: int, total: int) -> None:
    """Print the progress every minute."""
    speech = cpu = 0.0
    said = time.monotonic()
    for number, (seconds, used) in enumerate(done, start=before + 1):
        speech, cpu = speech + seconds, cpu + used
        if time.monotonic() - said > 60 or number == total:
            said = time.monotonic()
            line = f"voices2mix: {number} of {total} utterances; now {speech / 60:.1f} min of speech, "
            print(f"{line}{cpu / speech:.2f} s of CPU per second", file=sys.stderr, flush=True)
