"""AudioSlots' table 1: trains missing runs, scores oracle, autoencoder and AudioSlots with both masks, and prints it.

    python recipes/librimix/local/table1.py --out exp/table1 [--config FILE ...] [--key value ...]

`--config` and `--key value` apply to every training, on top of the recipes' files; call it again to resume.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tasnet_attn.errors import reported
from tasnet_attn.evaluation.command import run
from tasnet_attn.evaluation.results import by_track, read_table
from tasnet_attn.evaluation.summary import summarise
from tasnet_attn.files import write_text
from tasnet_attn.training import train

RECIPES = Path(__file__).parents[1]
SLOT_ATTENTION = "--model.separator.slots=SlotAttention"
SYSTEMS = {  # row: recipe, options of its training, settings of its evaluation
    "oracle masks": ("audioslots", [], {"oracle": "masks"}),
    "autoencoder, transformer": ("audioslots_autoencoder", [], {}),
    "autoencoder, Slot Attention": ("audioslots_autoencoder", [SLOT_ATTENTION], {}),
    "AudioSlots, transformer": ("audioslots", [], {}),
    "AudioSlots, Slot Attention": ("audioslots", [SLOT_ATTENTION], {}),
}
MASKS = {"binary": "masks/binary", "wiener": "."}  # as in the recipes' `evaluation.mask`
PUBLISHED = "published: autoencoder minus AudioSlots 0.18 +- 0.01 dB (Reddy et al. 2023); never ours"


def table1(out: Path, options: Sequence[str], seconds: Sequence[float] = (0.5, 1.0)) -> str:
    """Train, score and tabulate; returns the table, which is also `out/table.md`.

    Args:
        out: a folder for the runs and their scores.
        options: for every training, as on the command line.
        seconds: lengths of the chunks.
    """
    scores: dict[tuple[str, float, str], pd.Series] = {}  # (row, seconds, mask) -> SI-SNR by track
    improvements: dict[tuple[str, float, str], pd.Series] = {}
    for length in seconds:
        for row, (recipe, own, scoring) in SYSTEMS.items():
            kind = "_slot_attention" if own else ""
            folder = out / f"{recipe}{kind}_{length:g}s"
            files = [RECIPES / "base.yml", *(RECIPES / recipe / name for name in ("conf.yml", "data.yml"))]
            chunks = [f"--model.segment={length}", f"--data.init_args.segment={length}"]
            arguments = [f"--config={file}" for file in files] + [*options, *own, *chunks]
            train([*arguments, f"--out={folder}", "--ckpt_path=last"])  # a finished run only says so, or what differs
            place = folder / ("oracle" if scoring else "evaluation")
            run(str(folder), str(folder), str(place), **scoring)
            for mask, below in MASKS.items():
                table = read_table(place / below)
                for kept, metric in ((scores, "SI-SNR"), (improvements, "SI-SNRi")):
                    kept[row, length, mask] = by_track(table, metric)
    lines = [
        "| chunks | system | binary: SI-SNR | SI-SNRi | Wiener-like: SI-SNR | SI-SNRi |",
        "|---|---|---|---|---|---|",
    ]
    for length in seconds:
        for row in SYSTEMS:
            cells = [_shown(kept[row, length, mask]) for mask in MASKS for kept in (scores, improvements)]
            lines.append(f"| {length:g} s | {row} | {' | '.join(cells)} |")
    lines += ["", "dB: mean over the mixtures of the mean over their speakers [95 % bootstrap interval].", ""]
    for length in seconds:
        for kind in ("transformer", "Slot Attention"):
            for mask in MASKS:
                ours = (scores[f"{name}, {kind}", length, mask] for name in ("autoencoder", "AudioSlots"))
                gap = _shown(next(ours).sub(next(ours)))
                lines.append(f"- autoencoder minus AudioSlots, {kind}, {length:g} s, {mask} masks, dB: {gap}")
    lines.append(f"- {PUBLISHED}")
    text = "\n".join(lines)
    write_text(out / "table.md", text + "\n")
    return text


def _shown(tracks: pd.Series) -> str:
    found = summarise(pd.DataFrame({"score": tracks, "mean": tracks, "seconds": 1.0}))["mean of means"]
    if found["value"] is None:
        return "no score"
    return f"{found['value']:.2f}" + ("" if found["low"] is None else f" [{found['low']:.2f}, {found['high']:.2f}]")


@reported("table1")
def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("exp/audioslots_table1"))
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.5, 1.0], help="of a chunk (default: 0.5 1)")
    given, options = parser.parse_known_args(arguments)
    print(table1(given.out, options, given.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
