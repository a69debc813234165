"""SI-SNRi by pairs of speakers.

A mixture's value is the mean of its two speakers'; intervals are 95 % bootstraps over mixtures.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from tasnet_attn.errors import reported
from tasnet_attn.evaluation.results import by_track, read_table
from tasnet_attn.evaluation.summary import compare, summarise

FEW = 10  # mixtures: pairs with fewer are combined


def mixtures(folder: Path) -> dict[str, float]:
    """{mixture: SI-SNRi, dB}."""
    return by_track(read_table(folder), "SI-SNRi").dropna().to_dict()


def groups(scores: dict[str, float]) -> dict[str, list[float]]:
    """{pair of speakers: SI-SNRi of its mixtures}; "all" first, rare pairs combined at the end."""
    pairs: dict[str, list[float]] = {"all": list(scores.values())}
    for name, score in scores.items():
        pairs.setdefault(" + ".join(sorted(part.split("-")[0] for part in name.split("_"))), []).append(score)
    rare = [pair for pair, values in pairs.items() if len(values) < FEW and pair != "all"]
    others = [score for pair in rare for score in pairs.pop(pair)]
    return pairs | ({"other pairs": others} if others else {})


@reported("pairs")
def main(arguments: list[str] | None = None) -> int:
    """Print a table for each folder, and compare the first with each other one on the same mixtures."""
    parser = argparse.ArgumentParser(prog="python recipes/debian2mix/local/pairs.py", description=__doc__)
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="of `tasnet-attn evaluate`")
    folders = parser.parse_args(arguments).folders
    found = {folder: mixtures(Path(folder)) for folder in folders}
    for folder, scores in found.items():
        print(f"\n{folder}\n\n| pair | mixtures | SI-SNRi, dB | 95 % | below 3 dB |\n|---|---|---|---|---|")
        for pair, values in groups(scores).items():
            if not values:
                continue
            mean = summarise(pd.DataFrame({"score": values, "mean": values, "seconds": 1.0}))["mean of means"]
            interval = f"{mean['low']:.1f} to {mean['high']:.1f}" if mean["low"] is not None else ""
            low = np.mean(np.array(values) < 3)
            print(f"| {pair} | {len(values)} | {mean['value']:.2f} | {interval} | {low:.0%} |")
    for other in folders[1:]:
        if found[folders[0]].keys() & found[other].keys():  # in one, a mixture may have no score
            paired = compare(found[folders[0]], found[other])
            print(f"\n{folders[0]} minus {other}, median over mixtures, Wilcoxon: {paired}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
