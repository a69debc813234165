"""AudioSlots over many chunks: how often its sources change places, with three ways of ordering them.

    python recipes/librimix/local/swaps.py RUN --data CONF.yml [--tracks N] [--data.key value ...]

"carried on": a chunk's slots are the next chunk's queries. "continuity": chunks overlap by a quarter, and the overlap
orders them. "references": the references order every chunk, which is possible only in a test. The weights are the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from tasnet_attn import load
from tasnet_attn.data import Track, from_config
from tasnet_attn.errors import UserError, reported
from tasnet_attn.evaluation.scores import best_order
from tasnet_attn.evaluation.summary import summarise
from tasnet_attn.filterbanks import STFTEncoder
from tasnet_attn.inference import separate
from tasnet_attn.metrics import si_snr
from tasnet_attn.metrics.matching import best_permutation
from tasnet_attn.model import SourceSeparator, segment_samples
from tasnet_attn.separators import AudioSlots

HEARD = 1e-3  # of a reference's mean power: below it, a chunk's estimate cannot be matched


def swaps(estimates: Tensor, references: Tensor, size: int) -> int:
    """How often the best order of the estimates changes between chunks, without chunks with a silent reference.

    Args:
        estimates: [S, C, T].
        references: [S, C, T].
        size: samples of a chunk; an incomplete last chunk is ignored.
    """
    least = HEARD * references.square().mean((1, 2))
    orders = []
    for ours, theirs in zip(estimates.split(size, -1), references.split(size, -1), strict=True):
        if ours.shape[-1] == size and bool((theirs.square().mean((1, 2)) >= least).all()):
            orders.append(best_permutation(torch.einsum("ict,jct->ij", theirs, ours)))
    return sum(before != after for before, after in zip(orders, orders[1:], strict=False))


class Ways:
    """A model with all three ways of ordering, whichever it was trained for.

    Raises:
        UserError: not AudioSlots behind an STFT, or without a length of a chunk.
    """

    def __init__(self, model: SourceSeparator) -> None:
        if not (isinstance(model.separator, AudioSlots) and isinstance(model.encoder, STFTEncoder)):
            raise UserError("only AudioSlots behind an STFT has slots to carry on")
        segment, chunk = segment_samples(model), model.separator.chunk
        if segment is None and chunk is None:
            raise UserError("the model has neither a segment nor separator.chunk: so the length of a chunk is unknown")
        frames = chunk or model.encoder.n_frames(segment or 0)
        self.size, self.rate = segment or frames * model.encoder.hop, model.sample_rate
        self.carrying, self.alone = deepcopy(model), deepcopy(model)
        self.carrying.segment, self.carrying.separator.chunk = None, frames
        self.alone.segment, self.alone.separator.chunk = self.size / self.rate, None

    def estimates(self, mixture: Tensor, references: Tensor) -> dict[str, Tensor]:
        """{way: [S, C, T]}."""
        whole = (mixture.shape[-1] + 1) / self.rate
        ways = {
            "carried on": separate(self.carrying, mixture, self.rate, segment=max(whole, 0.01)),
            "continuity": separate(self.alone, mixture, self.rate),
            "references": separate(self.alone, mixture, self.rate, overlap=0.0, references=references),
        }
        return {way: torch.stack(list(found.values())) for way, found in ways.items()}


def table(model: SourceSeparator, tracks: Iterable[Track]) -> str:
    """Swaps per minute and SI-SNRi (mean over tracks of the mean over sources, with 95 % interval) of each way."""
    ways = Ways(model)
    rows: dict[str, list[dict[str, float]]] = {}
    for track in tracks:
        mixture, references = track.read()
        before = si_snr(references, mixture.expand_as(references)).mean().item()
        for way, estimates in ways.estimates(mixture, references).items():
            ordered = estimates[best_order(estimates, references)]
            gained = si_snr(references, ordered).mean().item() - before
            count = swaps(estimates, references, ways.size)
            seconds = mixture.shape[-1] / ways.rate
            rows.setdefault(way, []).append({"score": gained, "mean": gained, "seconds": seconds, "swaps": count})
    lines = ["| order by | swaps per minute | SI-SNRi, dB |", "|---|---|---|"]
    for way, found in rows.items():
        data = pd.DataFrame(found)
        figure = summarise(data)["mean of means"]
        interval = "" if figure["low"] is None else f" ({figure['low']:.2f} to {figure['high']:.2f})"
        rate = 60 * data["swaps"].sum() / data["seconds"].sum()
        lines.append(f"| {way} | {rate:.1f} | {figure['value']:.2f}{interval} |")
    minutes = sum(row["seconds"] for row in rows["references"]) / 60
    return "\n".join(
        [*lines, "", f"{len(rows['references'])} tracks, {minutes:.1f} min, chunks of {ways.size} samples"]
    )


@reported("swaps")
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python recipes/librimix/local/swaps.py", description=__doc__)
    parser.add_argument("model", help="a run folder, a checkpoint or a model file")
    parser.add_argument(
        "--data", type=Path, required=True, help="a YAML file with a data section; its test split is used"
    )
    parser.add_argument("--tracks", type=int, help="only this many tracks, the first ones")
    options, overrides = parser.parse_known_args(arguments)
    if options.tracks is not None and options.tracks < 1:
        raise UserError(f"--tracks {options.tracks} must be at least 1")
    model = load(options.model)
    tracks = from_config(options.data, model.sources, model.sample_rate, overrides).tracks("test")
    print(table(model, tracks[: options.tracks]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
