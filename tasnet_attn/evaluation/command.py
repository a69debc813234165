"""Evaluation: separate tracks, score them, keep everything in files; what is done already is not done again.

Shapes: S sources, C channels, T samples.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.oracles import BASELINES
from tasnet_attn.evaluation.results import OURS, document, file_name, read_document, write_tables
from tasnet_attn.evaluation.scores import Backend, best_order, score
from tasnet_attn.files import write_text
from tasnet_attn.inference.segments import pick_device, separate
from tasnet_attn.model import SourceSeparator
from tasnet_attn.storage import load

if TYPE_CHECKING:
    from tasnet_attn.data import Track

AUDIO = {"wav": "FLOAT", "flac": "PCM_24", "ogg": "VORBIS"}


def evaluate(
    model: Any,
    tracks: Iterable[Track],
    out: Path,
    backend: Backend = "fast",
    device: str = "auto",
    *,
    window: float | None = 1.0,
    hop: float | None = None,
    v3: bool = False,
    baselines: Sequence[str] = (),
    audio: str | None = None,
    jobs: int = 1,
    segment: float | None = None,
    overlap: float = 0.25,
    order_by_references: bool = False,
    name: str | None = None,
) -> dict[str, Any]:
    """Score a system on tracks.

    Args:
        model: a `SourceSeparator`, or an oracle: called with mixture [C, T] and references [S, C, T], it returns
            estimates [S, C, T] of the tracks' sources.
        tracks: what to separate; their names differ.
        out: the folder. Tracks that it holds already, of the same model, settings and audio, are not scored again.
        backend: "fast", or "museval" itself for BSSEval.
        device: where the model runs and, with one job, the scores are computed: "auto", "cpu", "cuda", ...
        window: seconds of BSSEval v4's windows; None: whole tracks. A shorter track is one window.
        hop: seconds between windows; None: the window.
        v3: also NSDR, SIR and SAR of BSSEval v3.
        baselines: names in `metrics.oracles.BASELINES`, scored on the same tracks into `out/baselines/<name>`.
        audio: "wav", "flac" or "ogg": keep mixture, references and estimates in `out/audio/<track>`, for the report.
        jobs: processes that score, while this one separates the next track.
        segment: as for `inference.separate`.
        overlap: as for `inference.separate`.
        order_by_references: order interchangeable sources by the references, segment for segment: what a perfect
            stitching would reach (AudioSlots' paper scores so); else by continuity, which is what a user gets.
        name: the system's, for the report; None: the folder's.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        UserError: no tracks, a track that lacks a source or has another rate, NaN, or estimates of another shape.
    """
    out, tracks = Path(out), list(tracks)
    _check(model, tracks, backend, baselines, audio)
    settings: dict[str, Any] = {"backend": backend, "window": window, "hop": hop, "v3": v3}
    for each in baselines:
        oracle = copy(BASELINES[each])
        oracle.sources = getattr(model, "sources", tracks[0].sources)
        evaluate(oracle, tracks, out / "baselines" / each, device=device, jobs=jobs, name=each, **settings)
    out.mkdir(parents=True, exist_ok=True)
    for part in out.glob(".*.part"):  # a run was killed while it wrote
        part.unlink()
    system = _System(model, device, segment, overlap, order_by_references)
    documents: dict[str, dict[str, Any]] = {}
    pending: deque[tuple[str, Future[dict[str, Any]]]] = deque()

    def finish() -> None:
        track, future = pending.popleft()
        documents[track] = future.result()
        write_text(out / f"{file_name(track)}.json", json.dumps(documents[track], indent=1))

    scorer = Scorer(settings, system.device if jobs == 1 and system.device.type == "cuda" else torch.device("cpu"))
    with _executor(jobs) as executor:
        for track in tracks:
            mixture, references, sources = system.read(track)
            stamp = _digest(system.stamp, settings, sources, mixture, references)
            kept = read_document(out / f"{file_name(track.name)}.json")
            folder = out / "audio" / file_name(track.name)
            if kept and kept[OURS].get("stamp") == stamp and (audio is None or folder.is_dir()):
                documents[track.name] = kept
                continue
            estimates = system.estimates(track, mixture, references)
            order = best_order(estimates, references) if system.interchangeable else list(range(len(estimates)))
            estimates = estimates[order]
            if audio is not None:
                names = [*sources, "mixture", *(f"{source}.reference" for source in sources)]
                signals = torch.cat([estimates, mixture[None], references])
                _write_audio(folder, audio, dict(zip(names, signals, strict=True)), track.sample_rate)
            facts = {"stamp": stamp, "order": order, **settings}
            job = executor.submit(scorer, mixture, references, estimates, sources, track.sample_rate, facts)
            pending.append((track.name, job))
            while len(pending) > (jobs if jobs > 1 else 0):
                finish()
        while pending:
            finish()
    ordered = {track.name: documents[track.name] for track in tracks}
    facts = {"name": name or out.resolve().name, "interchangeable": system.interchangeable, **settings}
    return write_tables(out, ordered, sample_rate=tracks[0].sample_rate, baselines=list(baselines), **facts)


def run(
    model: str,
    data: str,
    out: str | None = None,
    backend: Backend = "fast",
    device: str = "auto",
    *,
    split: str = "test",
    **options: Any,
) -> dict[str, Any]:
    """The command `tasnet-attn evaluate`: a saved model on a split of a data set; `options` as for `evaluate`.

    Args:
        model: a run folder, a checkpoint or a model file.
        data: a YAML file with a `data` section, or a run folder.
        out: None: `evaluation` in the run's folder, or beside the model file.
        backend: as for `evaluate`.
        device: as for `evaluate`.
        split: "train", "valid" or "test".
        options: as for `evaluate`.
    """
    from tasnet_attn.data import from_config

    separator = load(model)
    tracks = from_config(Path(data), separator.sources, separator.sample_rate).tracks(split)  # type: ignore[arg-type]
    folder = default_out(Path(model)) if out is None else Path(out)
    return evaluate(separator, tracks, folder, backend, device, **options)


def default_out(model: Path) -> Path:
    """`evaluation` in the run's folder (of a checkpoint too), or beside a model file, with its name."""
    if model.is_dir():
        return model / "evaluation"
    return (
        model.parent.parent / "evaluation" if model.parent.name == "checkpoints" else model.with_suffix(".evaluation")
    )


class Scorer:
    """From signals to a track's file; callable in another process."""

    def __init__(self, settings: dict[str, Any], device: torch.device) -> None:
        self.settings, self.device = settings, device

    def __call__(
        self,
        mixture: Tensor,
        references: Tensor,
        estimates: Tensor,
        sources: list[str],
        sample_rate: int,
        facts: dict[str, Any],
    ) -> dict[str, Any]:
        """Score and describe a track."""
        length = mixture.shape[-1]
        window = length if self.settings["window"] is None else int(self.settings["window"] * sample_rate)
        hop = window if self.settings["hop"] is None else int(self.settings["hop"] * sample_rate)
        mixture, references, estimates = (x.to(self.device) for x in (mixture, references, estimates))
        v3, backend = self.settings["v3"], self.settings["backend"]
        scores = score(mixture, references, estimates, window, hop, v3, backend)
        return document(sources, scores, sample_rate, length, window, hop, facts)


class _System:
    """A model or an oracle: what it separates, and the estimates of a track."""

    def __init__(
        self, model: Any, device: str, segment: float | None, overlap: float, order_by_references: bool
    ) -> None:
        self.model, self.options, self.order_by_references = model, (segment, overlap), order_by_references
        self.device = pick_device(device)
        self.is_model = isinstance(model, SourceSeparator)
        self.interchangeable = getattr(model, "interchangeable", False)
        self.stamp = repr(model)
        if self.is_model:
            self.stamp = _digest(model.config, model.state_dict(), segment, overlap, order_by_references)

    def read(self, track: Track) -> tuple[Tensor, Tensor, list[str]]:
        """Mixture, references in the model's order, and their names."""
        mixture, references = track.read()
        sources = list(getattr(self.model, "sources", track.sources))
        references = references[[track.sources.index(source) for source in sources]]
        for what, signal in (("mixture", mixture), ("references", references)):
            if not signal.isfinite().all():
                raise UserError(f"{track.name}: its {what} hold NaN or infinite samples; repair the data")
        if references.shape[1:] != mixture.shape:
            shapes = f"mixture {list(mixture.shape)}, references {list(references.shape)}"
            raise UserError(f"{track.name}: mixture and references differ in length or channels: {shapes}")
        if 0 in mixture.shape:
            raise UserError(f"{track.name}: has no samples")
        return mixture, references, sources

    def estimates(self, track: Track, mixture: Tensor, references: Tensor) -> Tensor:
        """[S, C, T]."""
        if self.is_model:
            segment, overlap = self.options
            known = references if self.order_by_references else None
            separated = separate(self.model, mixture, track.sample_rate, segment, overlap, str(self.device), known)
            estimates = torch.stack([separated[source] for source in self.model.sources])
        else:
            estimates = self.model(mixture, references)
        if estimates.shape != references.shape:
            shapes = f"{list(estimates.shape)}, not {list(references.shape)} like the references"
            raise UserError(f"{track.name}: the system's estimates are {shapes}")
        if not estimates.isfinite().all():
            raise UserError(f"{track.name}: the system's estimates hold NaN or infinite samples; its training diverged")
        return estimates


def _check(model: Any, tracks: list[Track], backend: str, baselines: Sequence[str], audio: str | None) -> None:
    if not tracks:
        raise UserError("no tracks to evaluate")
    names = [track.name for track in tracks]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"two tracks are called {sorted(twice)[0]!r}; their scores would share a file")
    if backend not in ("fast", "museval"):
        raise UserError(f"backend {backend!r} is neither 'fast' nor 'museval'")
    if unknown := set(baselines) - set(BASELINES):
        raise UserError(f"baseline {sorted(unknown)[0]!r} is none of {', '.join(BASELINES)}")
    if audio is not None and audio not in AUDIO:
        raise UserError(f"audio format {audio!r} is none of {', '.join(AUDIO)}")
    for track in tracks:
        rate = getattr(model, "sample_rate", track.sample_rate)
        if track.sample_rate != rate:
            raise UserError(
                f"{track.name}: sampled at {track.sample_rate} Hz, the model at {rate} Hz; resample the data"
            )
        if missing := [source for source in getattr(model, "sources", []) if source not in track.sources]:
            raise UserError(f"{track.name}: has no reference for {missing[0]!r}; it has {', '.join(track.sources)}")


class _Here(Executor):
    """Does the work at once, in this process."""

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def _executor(jobs: int) -> Executor:
    if jobs < 1:
        raise UserError(f"jobs {jobs} must be at least 1")
    if jobs == 1:
        return _Here()
    from multiprocessing import get_context

    # spawn: a forked process would hang in the parent's OpenMP and CUDA
    return ProcessPoolExecutor(jobs, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))


def _digest(*parts: Any) -> str:
    """A hash of tensors and of what has a stable `repr`."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        for value in part.items() if isinstance(part, dict) else [("", part)]:
            name, content = value
            digest.update(str(name).encode())
            if isinstance(content, Tensor):
                digest.update(repr((content.dtype, tuple(content.shape))).encode())
                digest.update(content.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
            else:
                digest.update(repr(content).encode())
    return digest.hexdigest()


def _write_audio(folder: Path, format: str, signals: dict[str, Tensor], sample_rate: int) -> None:
    """Write `folder/<name>.<format>` for every signal [C, T]; the folder appears whole or not at all.

    Formats that clip get a track that exceeds full scale turned down, all its signals alike.
    """
    import soundfile

    if format != "wav":
        peak = max(1.0, *(float(signal.abs().max()) for signal in signals.values()))
        signals = {name: signal / peak for name, signal in signals.items()}

    part = folder.with_name(f".{folder.name}.part")
    for old in (part, folder):
        shutil.rmtree(old, ignore_errors=True)
    part.mkdir(parents=True)
    for name, signal in signals.items():
        with soundfile.SoundFile(
            part / f"{file_name(name)}.{format}", "w", sample_rate, len(signal), AUDIO[format], format=format.upper()
        ) as opened:
            for block in signal.T.cpu().split(1 << 16):  # libsndfile's Vorbis encoder overflows the stack on large ones
                opened.write(block.numpy())
    part.replace(folder)
