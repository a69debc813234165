"""`tasnet-attn demo`: the main job end to end on the bundled songs.

It is the recipe `recipes/demo/ltl` with another ending: the unseen excerpts of the training songs (split "valid") and
the unseen song (split "test") are separated, scored, drawn and put on one page.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tasnet_attn import terminal
from tasnet_attn.data import Split, from_config
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.command import evaluate
from tasnet_attn.evaluation.results import table_of
from tasnet_attn.inference.segments import separate
from tasnet_attn.options import recipe
from tasnet_attn.reporting.command import report
from tasnet_attn.reporting.figures import spectrograms
from tasnet_attn.storage import load
from tasnet_attn.training.command import train

UNSEEN: dict[Split, str] = {"valid": "unseen excerpts of the training songs", "test": "a song never trained on"}


def demo(out: Path, steps: int | None = None) -> Path:
    """Train a small LTL, separate what it has not heard, score it, draw it, and make a page.

    Args:
        out: the folder.
        steps: training steps; None: the recipe's, a fixed number, so that a slow machine gets the same scores.

    Returns:
        The page.
    """
    if out.exists() and any(out.iterdir()) and not (out / "run").is_dir():
        raise UserError(f"{out}: already exists, and not from this demo; give another --out")
    started = time.time()
    arguments = ["--config", str(recipe("demo") / "base.yml"), "--config", str(recipe("demo/ltl") / "conf.yml")]
    if steps is not None:
        arguments += [f"--trainer.max_steps={steps}", f"--task.lr_scheduler.init_args.T_max={steps}"]
    arguments += [f"--data.cache={out / 'copies'}", "--data.workers=0"]  # decoded once, a batch takes 2 ms to read
    with _threads(2):
        run = train([*arguments, "--out", str(out / "run"), "--ckpt_path", "last"])  # an interrupted demo goes on

    # the last weights, not the best on "valid": those excerpts are to stay unseen
    model = load(run / "checkpoints" / "last.ckpt")
    data = from_config(run, model.sources, model.sample_rate)
    how: dict[str, Any] = {"audio": "wav", "show": ("SDR", "SI-SNRi"), "convention": "mean of medians"}
    with terminal.log(out / terminal.LOG):
        found = {
            split: evaluate(model, data.tracks(split), out / split, name=f"{about} ({split})", **how)
            for split, about in UNSEEN.items()
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


@contextmanager
def _threads(most: int) -> Iterator[None]:
    """Train in two threads, or in one where there is one core.

    More gain nothing in the LSTM's small steps; and sums in one order give everybody the same weights, and scores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(min(most, os.cpu_count() or 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)
