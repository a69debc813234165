"""A corpus with fewer voices or hours of train than another one in LibriMix's layout; its sound is linked, not copied.

    python recipes/voices2mix/local/fewer.py data/debian2mix --voices 4 --hours 1 --out data/debian2mix-4-voices-1h

The voices with the most utterances are kept, and of their mixtures the first ones. The other sets do not change.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasnet_attn.audio import corpora
from tasnet_attn.errors import UserError, reported
from tasnet_attn.files import touching

METADATA = Path("min/metadata")
TRAIN = "mixture_train_mix_clean.csv"


def speakers(row: Mapping[str, str]) -> list[str]:
    """Speakers of a mixture's row: LibriMix names a mixture after its utterances, speaker-chapter-number."""
    return [utterance.partition("-")[0] for utterance in row["mixture_ID"].split("_")]


def seconds(rows: Sequence[Mapping[str, str]], sample_rate: int) -> float:
    """Seconds of mixtures."""
    return sum(int(row["length"]) for row in rows) / sample_rate


def fewer(
    rows: Sequence[Mapping[str, str]], voices: int | None, hours: float | None, sample_rate: int
) -> list[Mapping[str, str]]:
    """The mixtures of a metadata file that are kept.

    Args:
        rows: the mixtures.
        voices: the number of voices, those with the most utterances; None: all.
        hours: of mixtures, from the first one on; None: all.
        sample_rate: Hz, of the column length.

    Raises:
        UserError: there are not as many, or none are asked for.
    """
    if hours is not None and hours <= 0:
        raise UserError(f"--hours {hours:g} must be above 0")
    count = Counter(speaker for row in rows for speaker in speakers(row))
    if voices is not None and not 2 <= voices <= len(count):
        raise UserError(f"--voices {voices}: choose 2 to {len(count)}, the voices of train")
    chosen = {speaker for speaker, _ in count.most_common(voices)}
    kept = [row for row in rows if chosen.issuperset(speakers(row))]
    if hours is None:
        return kept
    left = round(hours * 3600 * sample_rate)
    for number, row in enumerate(kept, start=1):
        left -= int(row["length"])
        if left <= 0:
            return kept[:number]
    raise UserError(f"--hours {hours:g}: these voices have {seconds(kept, sample_rate) / 3600:.2f} h of mixtures")


def build(corpus: Path, out: Path, voices: int | None = None, hours: float | None = None) -> tuple[int, float]:
    """Write the corpus, for every rate that the other one has.

    Returns:
        The voices and the hours of its train.

    Raises:
        UserError: `corpus` has no train, or not as much of it; `out` already exists.
    """
    found = sorted(corpus.glob(f"wav*k/{METADATA}/{TRAIN}"))
    if not found:
        raise UserError(f"{corpus}: has no wav8k/{METADATA}/{TRAIN}; give the folder of a corpus in LibriMix's layout")
    if out.exists():
        raise UserError(f"{out}: already exists; give another --out")
    part = out.with_name(f".{out.name}.part")
    with touching(out):
        shutil.rmtree(part, ignore_errors=True)  # of a killed build
        try:
            for file in found:
                folder = file.parents[1]  # wav8k/min
                name = folder.parent.name
                rate = 1000 * int(name.removeprefix("wav").removesuffix("k"))
                with file.open(newline="", encoding="utf-8") as opened:
                    kept = fewer(list(csv.DictReader(opened)), voices, hours, rate)
                shutil.copytree(file.parent, part / name / METADATA)
                corpora.write_table(part / name / METADATA / TRAIN, kept)
                for subset in folder.iterdir():
                    if subset.name != METADATA.name:
                        (part / name / "min" / subset.name).symlink_to(subset.resolve(), target_is_directory=True)
            part.rename(out)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return len({speaker for row in kept for speaker in speakers(row)}), seconds(kept, rate) / 3600


@reported("fewer")
def main(given: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="fewer.py", description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path, help="the folder that contains wav8k or wav16k")
    parser.add_argument("--out", type=Path, required=True, help="the new corpus, a folder")
    parser.add_argument("--voices", type=int, metavar="N", help="default: all")
    parser.add_argument("--hours", type=float, metavar="H", help="hours of mixtures; default: all")
    options = parser.parse_args(given)
    voices, hours = build(options.corpus, options.out, options.voices, options.hours)
    print(f"{options.out}: train has {voices} voices and {hours:.2f} h of mixtures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
