"""Evaluation: separate tracks, score them, store the results in files; a second call does only what is missing.

Shapes: S sources, C channels, T samples.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from copy import copy
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor

from tasnet_attn import config, terminal
from tasnet_attn.audio.writing import Encoding, write_signals
from tasnet_attn.data import Track, from_config
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation import lengths
from tasnet_attn.evaluation.choosing import about, choose
from tasnet_attn.evaluation.oracles import BASELINES
from tasnet_attn.evaluation.results import (
    OURS,
    document,
    file_name,
    read_document,
    shown,
    signal_names,
    table_of,
    write_tables,
)
from tasnet_attn.evaluation.scores import Backend, best_order, offered, score
from tasnet_attn.evaluation.spool import Spool
from tasnet_attn.evaluation.summary import Convention
from tasnet_attn.evaluation.systems import System, fingerprint, written
from tasnet_attn.files import holding, touching, unfinished, whole_folder, workspace, write_text
from tasnet_attn.metrics.base import Metric
from tasnet_attn.metrics.signals import Signals
from tasnet_attn.storage.finding import CHECKPOINTS
from tasnet_attn.version import __version__

Baseline = Literal["mixture", "oracle-binary", "oracle-ratio", "oracle-wiener"]
LOWEST, HIGHEST = 1000, 1_000_000  # Hz; limits of the rate for scoring
RATES = f"{LOWEST} at least, {HIGHEST} at most"
SEPARATING = ("segment", "overlap", "device")  # for oracles that separate themselves
BUSY = "another `evaluate` is using this folder; wait for it, or give another --out"
OWN = ("model", "tracks", "out", "facts", "separating")  # arguments that are not in configurations
CHOICE = tuple(key for key in config.settings(choose) if key not in OWN)  # arguments of `choose` in the section


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
    metrics: Sequence[Metric] = (),
    baselines: Sequence[Baseline] = (),
    audio: Literal["wav", "flac", "ogg"] | None = None,
    jobs: int = 1,
    segment: float | None = None,
    overlap: float = 0.25,
    order_by_references: bool = False,
    rate: int | None = None,
    beside: Sequence[int] = (),
    by_length: Sequence[float] = (),
    show: Sequence[str] = (),
    convention: Convention = "median of medians",
    name: str | None = None,
    facts: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Score a system on tracks; all arguments but OWN are also the `evaluation` section of a configuration.

    Args:
        model: an `nn.Module` with the attributes of `model.Separates`, or an oracle: called with
            mixture [C, T] and references [S, C, T], whole in memory, it returns estimates [S, C, T] of the tracks'
            sources.
        tracks: the tracks to separate, with unique names.
        out: the folder. Tracks already there from the same model, settings, audio and version of this library are not
            scored again.
        backend: "fast", or "museval" to compute BSSEval with museval itself.
        device: where the model runs and, with one job, the scores are computed: "auto", "cpu", "cuda", ...
        window: seconds of BSSEval v4's windows; None: whole tracks. A shorter track is one window.
        hop: seconds between windows; None: the window.
        v3: also NSDR, SIR and SAR of BSSEval v3.
        metrics: the user's own, scored as well.
        baselines: names in `oracles.BASELINES`, scored on the same tracks in `out/baselines/<name>`.
        audio: keep mixture, references and estimates in `out/audio/<track>`, for the report.
        jobs: processes that score while this one separates the next track.
        segment: see `inference.separate`.
        overlap: see `inference.separate`.
        order_by_references: order interchangeable sources by the references, segment by segment, as with perfect
            stitching (AudioSlots' paper does this); otherwise by continuity, as for users.
        rate: Hz at which the estimates are scored; None: the tracks' rate. The mixture is resampled for a model of
            another rate, and its estimates are resampled back.
        beside: more rates, in Hz, for additional scores of whole tracks ("NSDR at 8 kHz"); keeps whole tracks in
            memory.
        by_length: seconds; also score excerpts of these lengths, each separated in one piece: `lengths.by_length`.
        show: metrics in the printed table; none: all.
        convention: the one in that table, see `summary.CONVENTIONS`.
        name: the system's, for the report; None: the folder's, or its parent's if it is called "evaluation".
        facts: more facts for the summary.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        UserError: no tracks, a track that lacks a source, NaN, estimates of another shape, a metric to show that is not
            scored, or one that does not give one score for each source.
    """
    out, tracks = Path(out), list(tracks)
    checked = {"backend": backend, "baselines": baselines, "audio": audio, "rate": rate, "beside": beside}
    for key, value in {**checked, "convention": convention}.items():
        config.complete(value, config.settings(evaluate)[key].annotation, f"evaluation.{key}")
    _check(model, tracks)
    for hertz in (*beside, *([] if rate is None else [rate])):
        if not LOWEST <= hertz <= HIGHEST:
            raise UserError(f"evaluation: a rate of {hertz} Hz is too {'low' if hertz < LOWEST else 'high'}; {RATES}")
    if by_length:
        lengths.checked(model, tracks, by_length)
    names = offered(v3, beside)
    if not metrics and (unknown := [metric for metric in show if metric not in names]):
        raise UserError(f"evaluation.show: {unknown[0]!r} is not scored; choose from {', '.join(names)}")
    lowest = rate or min(track.sample_rate for track in tracks)
    for key, seconds in (("window", window), ("hop", hop)):
        if seconds is not None and not (math.isfinite(seconds) and seconds * lowest >= 1):
            raise UserError(f"evaluation.{key}: {seconds} must be finite and at least one sample, in seconds")
    settings: dict[str, Any] = {"backend": backend, "window": window, "hop": hop, "v3": v3}
    settings |= {"rate": rate, "beside": list(beside)}
    shows: dict[str, Any] = {"show": list(show), "convention": convention}
    with holding(out, ".evaluating", f"{out}: {BUSY}"):
        for each in baselines:
            oracle = copy(BASELINES[each])
            oracle.sources = getattr(model, "sources", tracks[0].sources)
            below = out / "baselines" / each
            evaluate(oracle, tracks, below, device=device, jobs=jobs, name=each, metrics=metrics, **settings, **shows)
        for part in (*unfinished(out), *unfinished(out / "audio")):  # a run was killed while it wrote
            with touching(part):
                part.unlink() if part.is_file() else shutil.rmtree(part)
        system = System(model, device, segment, overlap, order_by_references, rate)
        documents: dict[str, dict[str, Any]] = {}
        pending: deque[tuple[str, Path, Future[dict[str, Any]]]] = deque()

        name = name or named(out)
        seconds_of = {track.name: track.length / track.sample_rate for track in tracks}

        def finish() -> None:
            track, place, future = pending.popleft()
            try:
                documents[track] = future.result()
            except BrokenExecutor as error:
                what = "a process that scores was killed, perhaps for lack of memory; use fewer --jobs"
                raise UserError(f"{track}: {what}", status=1) from error
            shutil.rmtree(place, ignore_errors=True)
            write_text(out / f"{file_name(track)}.json", json.dumps(documents[track], indent=1))
            bar.update(seconds_of[track])

        gpu = jobs == 1 and system.device.type == "cuda"
        scorer = Scorer(settings, metrics, system.device if gpu else torch.device("cpu"))
        how = {"version": __version__, "metrics": config.describe(list(metrics)), **settings}
        how |= {f"class {number}": found for number, found in enumerate(written(metrics))}
        length = sum(seconds_of.values())
        with workspace(out) as work, _executor(jobs) as executor, terminal.bar(length, "s of audio", name) as bar:
            for number, track in enumerate(tracks, 1):
                bar.set_postfix_str(f"track {number} of {len(tracks)}")
                place = work / str(number)  # for signals, which may not fit into memory
                with touching(place):
                    place.mkdir()
                spools = [Spool(place / what) for what in ("mixture", "references", "estimates")]
                sources, scored_rate = system.read(track, *spools[:2])
                mixture, references = (spool.signals() for spool in spools[:2])
                stamp = fingerprint(system.stamp, how, sources, mixture, references)
                kept = read_document(out / f"{file_name(track.name)}.json")
                folder = out / "audio" / file_name(track.name)
                ours = {} if kept is None else kept[OURS]
                # the same samples may get another rate
                known = ours.get("stamp") == stamp and ours.get("sample_rate") == scored_rate
                _check_replaceable(folder)
                if known and (audio is None or any(folder.glob(f"*.{audio}"))):
                    assert kept is not None
                    documents[track.name] = kept
                    shutil.rmtree(place, ignore_errors=True)
                    bar.update(seconds_of[track.name])
                    terminal.detail(f"{track.name}: scored already")
                    continue
                shutil.rmtree(folder, ignore_errors=True)  # another model's, or in another format
                began = time.perf_counter()
                system.estimate(track.name, scored_rate, mixture, references, spools[2])
                took = f"separated in {time.perf_counter() - began:.1f} s"
                terminal.detail(f"{track.name}: {seconds_of[track.name]:.1f} s of audio, {took}")
                estimates = spools[2].signals()
                order = best_order(estimates, references) if system.interchangeable else list(range(len(sources)))
                if audio is not None:
                    with whole_folder(folder) as part:
                        blocks = _together(mixture, references, estimates, order)
                        write_signals(part, signal_names(sources), blocks, scored_rate, Encoding(audio))
                about = {"stamp": stamp, "order": order, **settings}
                pending.append((track.name, place, executor.submit(scorer, spools, sources, scored_rate, about)))
                while len(pending) > (jobs if jobs > 1 else 0):
                    finish()
            while pending:
                finish()
        # a folder's name that is not UTF-8 is text in tables
        texts = {track.name: track.name.encode("utf-8", "backslashreplace").decode() for track in tracks}
        ordered = {texts[track.name]: documents[track.name] for track in tracks}
        about = {"name": name, "interchangeable": system.interchangeable, **settings, **shows}
        about |= {"sample_rate": rate or tracks[0].sample_rate, "model_rate": system.rate, "baselines": list(baselines)}
        about |= {"by_length": list(by_length)}
        summary = write_tables(out, ordered, **about, **(facts or {}))
        if by_length:
            lengths.by_length(model, tracks, out, by_length, device)
        for track in tracks:
            with touching(out):
                (out / f"{file_name(track.name)}.json").stat()  # otherwise the folder was removed meanwhile
        return summary


def run(
    model: str, data: str, out: str | None = None, *, split: str = "test", overrides: Sequence[str] = (), **given: Any
) -> dict[str, Any]:
    """The command `tasnet-attn evaluate`: score a saved model on a split of a data set; prints the scores.

    Args:
        model: a run folder, a checkpoint or a model file. The `evaluation` section of a run's configuration applies
            where `given` has nothing.
        data: a YAML file with a `data` section, or a run folder.
        out: None: `evaluation` in the run's folder, or next to the model file.
        split: "train", "valid" or "test".
        overrides: `--data.key value`, on top of `data`.
        given: arguments of `evaluate` as plain data.
    """
    options, choice = _options(Path(model), given)
    systems, sources, rate, file = choose(Path(model), **choice, separating={key: options[key] for key in SEPARATING})
    dataset = from_config(Path(data), sources, rate, overrides)
    tracks = dataset.tracks(split, own_rate=True)  # type: ignore[arg-type]
    folder = default_out(Path(model)) if out is None else Path(out)
    found: list[dict[str, Any]] = []
    name = options["name"] or named(_run_folder(Path(model)))
    scored = file.stem if file.suffix == ".ckpt" and file.stem in CHECKPOINTS else None
    terminal.say(f"{name}: {split} of {data}, tracks: {len(tracks)}")
    with terminal.log(folder / terminal.LOG):
        for number, (mask, system) in enumerate(systems.items()):
            below = folder / "masks" / mask if number else folder
            called = {"name": f"{name}, {mask} masks" if mask else name}
            facts = {"checkpoint": scored, "oracle": choice["oracle"], "mask": mask or None}
            facts["masks"] = list(systems)[1:] if not number else []
            facts["about"] = about(system, file, dataset, split)
            found.append(evaluate(system, tracks, below, **options | called, facts=facts))
            print(shown(below, found[-1]))
            if options["by_length"]:
                print(lengths.shown(pd.read_csv(below / lengths.FILE)))
    write_text(folder / "table.txt", "\n\n".join(map(table_of, found)) + "\n")
    return found[0]


def named(path: Path) -> str:
    """A system's name: of its run folder, which contains `evaluation`, or of the model file."""
    path = path.resolve()
    if path.name in ("evaluation", "model.evaluation", "model.safetensors"):
        return path.parent.name
    return path.stem if path.suffix in (".evaluation", ".safetensors", ".ckpt") else path.name


def complete(section: dict[str, Any]) -> dict[str, Any]:
    """Check the `evaluation` section of a configuration and fill in the defaults of `evaluate` and `choose`."""
    if not isinstance(section, dict):
        return config.complete_arguments(section, evaluate, "evaluation", skip=OWN)
    chosen = {key: value for key, value in section.items() if key in CHOICE}
    rest = {key: value for key, value in section.items() if key not in CHOICE}
    return {
        **config.complete_arguments(rest, evaluate, "evaluation", skip=OWN),
        **config.complete_arguments(chosen, choose, "evaluation", skip=OWN),
    }


def _options(model: Path, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of `evaluate` and `choose`: the run's configuration, overridden by the given ones."""
    file = _run_folder(model) / "config.yml"
    section = config.read([f"--config={file}"]).ours.get("evaluation", {}) if file.is_file() else {}
    schema = {**config.settings(evaluate), **config.settings(choose)}
    built = {
        key: config.build(value, schema[key].annotation, f"evaluation.{key}")
        for key, value in complete({**section, **given}).items()
    }
    return {key: built[key] for key in built if key not in CHOICE}, {key: built[key] for key in CHOICE}


def _run_folder(model: Path) -> Path:
    """A model's run folder: the folder itself, or a checkpoint's; for a model file the folder that it is in."""
    return model if model.is_dir() else model.parent.parent if model.parent.name == "checkpoints" else model


def default_out(model: Path) -> Path:
    """`evaluation` in the run's folder (also of a checkpoint), or next to a model file or here, with its name."""
    if str(model).startswith("hf:") or not (model.exists() or model.suffix):  # a name: of a shipped model, or on a hub
        return Path(f"{model.name}.evaluation")
    folder = _run_folder(model)
    return model.with_suffix(".evaluation") if folder == model and not model.is_dir() else folder / "evaluation"


class Scorer:
    """From signals to a track's file; callable in another process."""

    def __init__(self, settings: dict[str, Any], metrics: Sequence[Metric], device: torch.device) -> None:
        self.settings, self.metrics, self.device = settings, metrics, device

    def __call__(
        self, spools: list[Spool], sources: list[str], sample_rate: int, facts: dict[str, Any]
    ) -> dict[str, Any]:
        """Score and describe a track whose mixture, references and estimates are in files."""
        mixture, references, estimates = (spool.signals().map(lambda x: x.to(self.device)) for spool in spools)
        estimates = estimates.map(lambda x: x[facts["order"]])
        length = mixture.length
        window = length if self.settings["window"] is None else int(self.settings["window"] * sample_rate)
        hop = window if self.settings["hop"] is None else int(self.settings["hop"] * sample_rate)
        v3, backend = self.settings["v3"], self.settings["backend"]
        beside = self.settings["beside"]
        scores = score(mixture, references, estimates, window, hop, v3, backend, self.metrics, sample_rate, beside)
        return document(sources, scores, sample_rate, length, window, hop, facts)


def _together(mixture: Signals, references: Signals, estimates: Signals, order: list[int]) -> Iterator[Tensor]:
    """Blocks of all signals to keep, in the order of `signal_names`."""
    for blocks in zip(mixture.pieces(), references.pieces(), estimates.pieces(), strict=True):
        yield torch.cat([blocks[0][None], blocks[1], blocks[2][order]])


def _check(model: Any, tracks: list[Track]) -> None:
    if not tracks:
        raise UserError("no tracks to evaluate")
    name, count = Counter(track.name for track in tracks).most_common(1)[0]
    if count > 1:
        raise UserError(f"two tracks are called {name!r}; their scores would share a file")
    for track in tracks:
        if missing := [source for source in getattr(model, "sources", []) if source not in track.sources]:
            raise UserError(f"{track.name}: has no reference for {missing[0]!r}; it has {', '.join(track.sources)}")


def _check_replaceable(folder: Path) -> None:
    """Refuse to replace a folder in `audio` that no evaluation wrote: `--out` may be a folder with other things."""
    stems = {path.stem for path in folder.iterdir()} if folder.is_dir() else set()
    if stems and not ("mixture" in stems and any(stem.endswith(".reference") or "~" in stem for stem in stems)):
        raise UserError(f"{folder}: not the audio of an evaluation, which would replace it; give another --out")


class _Here(Executor):
    """Does the work immediately, in this process."""

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def _executor(jobs: int) -> Executor:
    if jobs < 1:
        raise UserError(f"jobs {jobs} must be at least 1")
    if jobs == 1:
        return _Here()
    # spawn: a forked process would hang in the parent's OpenMP and CUDA
    given = (list(config.IMPORTED), terminal.log_file())
    return ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_prepare, initargs=given)


def _prepare(modules: list[str], log: Path | None) -> None:
    """Initialise a scoring process: one thread, and the modules with the user's metrics."""
    terminal.serve(log)
    torch.set_num_threads(1)
    config.import_modules(modules)
