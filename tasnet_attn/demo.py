"""`tasnet-attn demo`: separates clips with the shipped models, then trains and evaluates on the bundled songs.

The training is the recipe `recipes/demo/ltl`. Then the unseen excerpts of the training songs (split "valid") and the
unseen song (split "test") are separated, scored, drawn and shown on one page.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import torch

from tasnet_attn import terminal
from tasnet_attn.data import Split, from_config
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.choosing import about, trained
from tasnet_attn.evaluation.command import evaluate
from tasnet_attn.evaluation.results import table_of
from tasnet_attn.inference.command import separate_files
from tasnet_attn.inference.options import Options
from tasnet_attn.inference.segments import separate
from tasnet_attn.options import recipe
from tasnet_attn.reporting.command import listen, report
from tasnet_attn.reporting.figures import spectrograms
from tasnet_attn.reporting.tables import Table
from tasnet_attn.storage import load
from tasnet_attn.storage.finding import find
from tasnet_attn.storage.shipped import score, shipped
from tasnet_attn.storage.tensors import read_facts
from tasnet_attn.training.command import train
from tasnet_attn.version import __version__

UNSEEN: dict[Split, str] = {"valid": "unseen excerpts of the training songs", "test": "a song never trained on"}


def demo(out: Path, steps: int | None = None, training: bool = True) -> Path:
    """Separate clips with the shipped models; train a small LTL, separate unseen music, score it, make a page.

    Args:
        out: the folder.
        steps: training steps; None: the recipe's fixed number, so that slow machines get the same scores.
        training: continue after the shipped models.

    Returns:
        The page.

    Raises:
        UserError: the folder belongs to something else, or there is neither training nor a shipped model.
    """
    if out.exists() and any(out.iterdir()) and not ((out / "run").is_dir() or (out / "shipped").is_dir()):
        raise UserError(f"{out}: already exists and is not from this demo; give another --out")
    started = time.time()
    if heard := hear(out):
        print(f"shipped    {heard}\n           {time.time() - started:.0f} s", flush=True)
    if not training:
        if heard is None:
            raise UserError("demo --no-train: this version ships no model with a clip; remove --no-train")
        return heard
    arguments = ["--config", str(recipe("demo") / "base.yml"), "--config", str(recipe("demo/ltl") / "conf.yml")]
    if steps is not None:
        arguments += [f"--trainer.max_steps={steps}", f"--task.lr_scheduler.init_args.T_max={steps}"]
    arguments += [f"--data.cache={out / 'copies'}", "--data.workers=0"]  # decoded once, a batch takes 2 ms to read
    # the last weights are scored and separate, not the best on "valid": those excerpts must stay unseen
    arguments += ["--evaluation.checkpoint=last"]
    with _threads(2):
        run = train([*arguments, "--out", str(out / "run"), "--ckpt_path", "last"])  # an interrupted demo resumes

    file = find(run)
    model = load(file)
    data = from_config(run, model.sources, model.sample_rate)
    how: dict[str, Any] = {"audio": "wav", "show": ("SDR", "SI-SNRi"), "convention": "mean of medians"}
    with terminal.log(out / terminal.LOG):
        found = {
            split: evaluate(
                *(model, data.tracks(split), out / split),
                name=f"{what} ({split})",
                facts={"about": about(model, file, data, split)},
                **how,
            )
            for split, what in UNSEEN.items()
        }
    track = data.tracks("test")[0]
    mixture, references = track.read()
    signals = {"mixture": mixture}
    estimates = separate(model, mixture, track.sample_rate)
    for source, reference in zip(model.sources, references, strict=True):
        signals |= {f"{source}, reference": reference, f"{source}, estimate": estimates[source]}
    figure = spectrograms(signals, track.sample_rate, out / "spectrograms.png")
    page = report([out / split for split in UNSEEN], out / "index.html")

    for summary in found.values():
        print(f"\n{table_of(summary, terminal.columns())}")
    print(f"\nstems      {out}/valid/audio, {out}/test/audio\nfigure     {figure}\npage       {page}")
    print(f"model      {run}\n           tasnet-attn separate YOUR.wav --model {run}")
    print(f"\n{time.time() - started:.0f} s")
    return page


def hear(out: Path) -> Path | None:
    """Separate the clip of every shipped model that has one, and make a page with players; None: there is none."""
    clips: dict[str, dict[str, Path]] = {}
    rows = []
    for name, file in shipped().items():
        clip = file.with_suffix(".ogg")  # next to the model, like its card
        if not clip.is_file():
            continue
        separate_files([clip], name, out / "shipped", Options())
        stems = {stem.stem: stem for stem in sorted((out / "shipped" / name).glob("*.wav"))}
        clips[name] = {"mixture": Path(shutil.copyfile(clip, out / "shipped" / clip.name)), **stems}
        facts, known = read_facts(file), trained(load(name), file)
        data = (facts.get("training") or {}).get("data") or {}
        learned = data.get("init_args", {}).get("root") or data.get("class_path", "not recorded")
        learned = ", ".join(Path(one).name for one in (learned if isinstance(learned, list) else [learned]))
        of_it = [known["model"], known.get("steps", ""), learned, score(facts), f"{facts['sample_rate']} Hz"]
        rows.append([name, *of_it, facts.get("licence", "not stated"), f"{date.today()}", __version__])
    if not clips:
        return None
    heads = ["name", "model", "steps", "trained on", "tested", "sample rate", "licence", "separated", "version"]
    return listen("Models that ship", clips, Table(heads, rows), out / "shipped" / "index.html")


@contextmanager
def _threads(most: int) -> Iterator[None]:
    """Train in two threads, or in one on a single core.

    More threads bring nothing in the LSTM's small steps, and a fixed number gives the same sums on most machines.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(min(most, os.cpu_count() or 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)
