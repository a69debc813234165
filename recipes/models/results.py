"""Print docs/results.md from the saved rows in recipes/models/rows.

python recipes/models/results.py > docs/results.md
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import rows as saved  # noqa: E402

HEAD = """# Results

Every trained system that has saved rows, on every corpus that it was scored on. Printed from `recipes/models/rows/` by
`python recipes/models/results.py > docs/results.md`; nothing here is typed. A row is saved by `recipes/models/add.py`
from the folder of a `tasnet-attn evaluate`.

A figure is the mean over mixtures of the mean over a mixture's sources, in dB, with its 95 % interval (bootstrap over
the mixtures); *better* is the share of mixtures whose SI-SNRi is above 0. Cost is what the training took. Real time is
what one thread of the machine that saved the row took for a second of sound, in seconds.
"""
CLAIMS = [  # of the LTL paper (hal-02986238): what it says, ours, the other, what is expected of the difference in dB
    ("2_trans_0 beats TasNet (section 4.1: by 0.25 dB)", "2_trans_0", "TasNet"),
    ("1_trans_0 about equals TasNet (section 4.1)", "1_trans_0", "TasNet"),
    ("3_trans_0 both ways is slightly inferior to TasNet both ways (section 4.4)", "TasNet both ways", "3_trans_0"),
]
EQUAL = "about equals"
COMPARED = [
    "The paper's models are unidirectional, with four layers behind a learned encoder, trained for days on music.",
    "These are small, bidirectional, behind an STFT, and trained on speech for minutes; a row compares one training of",
    "each. A claim is decided by the interval of the mean difference over the mixtures (bootstrap); p is Wilcoxon's",
    "signed-rank test on the same differences.",
]


def about(found: dict[str, float], unit: float = 1.0, digits: int = 2) -> str:
    """A value and its interval, as a cell of a table."""
    if found["low"] is None:
        return f"{found['value'] * unit:.{digits}f}"
    low, high = found["low"] * unit, found["high"] * unit
    return f"{found['value'] * unit:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def tables(systems: list[dict[str, Any]]) -> list[str]:
    """A table for each corpus, its best system first."""
    lines = []
    corpora = sorted({row["corpus"] for system in systems for row in system["rows"]})
    for corpus in corpora:
        found = [(system, row) for system in systems for row in system["rows"] if row["corpus"] == corpus]
        count = len(found[0][1]["SI-SNRi"])
        lines += [f"## {corpus}", "", f"{count} mixture{'s' if count > 1 else ''}.", ""]
        lines += [
            "| system | parameters | cost | real time | SI-SNRi | SDR | better, % |",
            "|---|---|---|---|---|---|---|",
        ]
        for system, row in sorted(found, key=lambda pair: -sum(pair[1]["SI-SNRi"]) / len(pair[1]["SI-SNRi"])):
            told = saved.figures(row)
            cells = [system["system"], f"{system['parameters']:,}", system["cost"], f"{system['real time']:.3f}"]
            cells += [about(told["SI-SNRi"]), about(told["SDR"]), about(told["better than the mixture"], 100, 0)]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines


def verdict(claim: str, difference: dict[str, float]) -> str:
    """What a paired difference (ours minus the other) says of a claim, by its 95 % interval."""
    low, high = difference["low"], difference["high"]
    if EQUAL in claim:
        return "reproduced" if -0.25 < low and high < 0.25 else "not reproduced" if low > 0 or high < 0 else "undecided"
    return "reproduced" if low > 0 else "not reproduced" if high < 0 else "undecided"


def claims(systems: list[dict[str, Any]]) -> list[str]:
    """The paper's claims, each on every corpus where both systems of one budget have the same mixtures."""
    lines = ["## The LTL paper's claims at these budgets", "", *COMPARED, ""]
    lines += ["| claim | corpus | cost of both | difference, dB | p | verdict |", "|---|---|---|---|---|---|"]
    for claim, ours, other in CLAIMS:
        pairs = [
            (one, row, their_row)
            for one in systems
            for them in systems
            if one.get("family") == ours and them.get("family") == other and one.get("budget") == them.get("budget")
            for row in one["rows"]
            for their_row in them["rows"]
            if row["corpus"] == their_row["corpus"]
        ]
        told = [(one, row, found) for one, row, their in pairs if (found := saved.paired(row, their))]
        for one, row, found in told:
            cells = [
                claim,
                row["corpus"],
                one.get("budget") or "",
                about(found),
                f"{found['p']:.2g}",
                verdict(claim, found),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        if not told:
            lines.append(f"| {claim} |  |  |  |  | not measured here |")
    return [
        *lines,
        "",
        "[fidelity.md](fidelity.md) has the papers' tables and what the small twins of their sweeps say;",
        "[ablations.md](ablations.md#every-system-at-one-budget-small) every system, with Asteroid's Conv-TasNet and",
        "DPRNN, at a small budget with three seeds.",
    ]


def page(systems: list[dict[str, Any]]) -> str:
    """The whole page."""
    body = tables(systems) if systems else ["No system has saved rows yet.", ""]
    return "\n".join([HEAD, *body, *claims(systems)]) + "\n"


if __name__ == "__main__":
    print(page(saved.read()), end="")
