"""debian2mix in rooms: training mixtures as recordings without stems, test sets with the rooms in their references.

    python recipes/debian2mix/local/rooms.py --corpus data/debian2mix --out data/debian2mix-rooms

Each mixture has a synthetic room of its own (`data.augment.room`), each speaker a distance. The seed determines all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tasnet_attn.audio.corpora import write_mixture, write_mixtures, write_pcm
from tasnet_attn.data import LibriMix
from tasnet_attn.data.augment import Augmentation
from tasnet_attn.errors import UserError, reported
from tasnet_attn.files import whole_folder

RATE = 8000
LEARNED, TESTS = "train", ("test", "test-speakers")
ROOM = Augmentation(reverb=1.0)
LOUDEST = 0.9  # of full scale


def in_rooms(corpus: Path, subset: str, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Every mixture of a subset: its name, and its speakers in a room, [2, T] int16, whose sum does not clip."""
    tracks = LibriMix(["speaker1", "speaker2"], RATE, corpus, testing=subset).tracks("test")
    for number, track in enumerate(tracks):
        rng = np.random.default_rng([seed, (LEARNED, *TESTS).index(subset), number])
        sources = ROOM.place(track.read()[1], RATE, rng)[:, 0].double().numpy()
        sources *= min(1.0, LOUDEST / np.abs(sources.sum(0)).max(), *(LOUDEST / np.abs(sources).max(1)))
        yield track.name, np.round(sources * 32767).astype(np.int16)


def build(corpus: Path, out: Path, seed: int = 0) -> None:
    """Write `out/recordings`, mixtures alone, and the test sets in LibriMix's layout, atomically.

    Raises:
        UserError: `out` already exists, or the corpus is incomplete.
    """
    if out.exists():
        raise UserError(f"{out}: already exists; remove it to build again")
    with whole_folder(out) as part:
        (part / "recordings").mkdir()
        for name, sources in in_rooms(corpus, LEARNED, seed):
            write_pcm(part / "recordings" / f"{name}.wav", sources.sum(0, dtype=np.int16), RATE)
        for subset in TESTS:
            rows = [write_mixture(part, subset, *mixture, RATE) for mixture in in_rooms(corpus, subset, seed)]
            write_mixtures(part, subset, rows, RATE)


@reported("rooms")
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python recipes/debian2mix/local/rooms.py", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--corpus", type=Path, default=Path("data/debian2mix"), help="debian2mix")
    parser.add_argument("--out", type=Path, default=Path("data/debian2mix-rooms"), help="the folder to create")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    build(options.corpus, options.out, options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
