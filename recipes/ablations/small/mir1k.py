"""Writes a look-alike of MIR-1K: the bundled songs in clips of four seconds, with the names of its singers.

    python recipes/ablations/small/mir1k.py [FOLDER]        FOLDER: data/mir1k_small

16 kHz, the backing on the left, the guitar instead of the voice on the right. The songs of `train` are abjones and amy,
the recipes' training singers; the song of `test` is another singer.
"""

import sys
from pathlib import Path

import torch

from tasnet_attn.audio import read_audio
from tasnet_attn.audio.corpora import write_pcm
from tasnet_attn.audio.resampling import resample
from tasnet_attn.data.stem_folders import SONGS

RATE, SECONDS, CLIPS = 16_000, 4, 4
SINGERS = {"train": ("abjones", "amy", "abjones"), "test": ("bobon",)}


def main() -> None:
    """Write the clips."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "data/mir1k_small") / "Wavfile"
    folder.mkdir(parents=True, exist_ok=True)
    for split, singers in SINGERS.items():
        for number, (singer, song) in enumerate(zip(singers, sorted((SONGS / split).iterdir()), strict=True), start=1):
            stems = [read_audio(song / f"{stem}.ogg") for stem in ("backing", "guitar")]
            channels = torch.stack([resample(stem, 44_100, RATE).mean(0) for stem in stems])
            for clip, part in enumerate(channels.split(SECONDS * RATE, dim=1)[:CLIPS], start=1):
                write_pcm(folder / f"{singer}_{number}_{clip:02}.wav", part.T.numpy(), RATE)


if __name__ == "__main__":
    main()
