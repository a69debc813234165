"""Print SI-SNRi by pairs of speakers from folders of `tasnet-attn evaluate`: python pairs.py FOLDER [FOLDER ...].

A mixture's value is the mean of its two speakers'; intervals are 95 % bootstraps over mixtures.
"""

import sys
from pathlib import Path

import numpy as np

from tasnet_attn.metrics.summary import summarise
from tasnet_attn.results import read_table

FEW = 10  # mixtures: pairs with fewer are counted together


def groups(folder: Path) -> dict[str, list[float]]:
    """{pair of speakers: SI-SNRi of its mixtures, dB}; "all" first, rare pairs together, last."""
    tracks: dict[str, list[float]] = {}
    for row in read_table(folder):
        if row["metric"] == "SI-SNRi":
            tracks.setdefault(row["track"], []).append(row["mean"])
    pairs: dict[str, list[float]] = {"all": [], "other pairs": []}
    for name, scores in tracks.items():
        pair = " + ".join(sorted(part.split("-")[0] for part in name.split("_")))
        for key in ("all", pair):
            pairs.setdefault(key, []).append(float(np.mean(scores)))
    for pair in [pair for pair, values in pairs.items() if len(values) < FEW and pair != "other pairs"]:
        pairs["other pairs"] += pairs.pop(pair)
    pairs["other pairs"] = pairs.pop("other pairs")
    return {pair: values for pair, values in pairs.items() if values}


def main(folders: list[str]) -> None:
    """Print a table for each folder."""
    for folder in folders:
        print(f"\n{folder}\n\n| pair | mixtures | SI-SNRi, dB | 95 % | below 3 dB |\n|---|---|---|---|---|")
        for pair, values in groups(Path(folder)).items():
            mean = summarise([[value] for value in values], [1.0] * len(values))["mean of means"]
            interval = f"{mean['low']:.1f} to {mean['high']:.1f}" if mean["low"] is not None else ""
            low = np.mean(np.array(values) < 3)
            print(f"| {pair} | {len(values)} | {mean['value']:.2f} | {interval} | {low:.0%} |")


if __name__ == "__main__":
    main(sys.argv[1:])
