"""MUSDB18: 150 songs in four stems, as `.stem.mp4` files or, MUSDB18-HQ, as folders of wav files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tasnet_attn.audio.stem_files import STREAMS
from tasnet_attn.data.base import SegmentedData
from tasnet_attn.data.track import Part, Split, Track, sum_of, visible
from tasnet_attn.errors import UserError
from tasnet_attn.files import touching

STEMS = {stem: (stem,) for stem in STREAMS[1:]} | {"accompaniment": ("drums", "bass", "other")}
SUFFIX = ".stem.mp4"

# the official validation tracks, a part of the folder `train`
VALIDATION = (
    "ANiMAL - Rockshow",
    "Actions - One Minute Smile",
    "Alexander Ross - Goodbye Bolero",
    "Clara Berry And Wooldog - Waltz For My Victims",
    "Fergessen - Nos Palpitants",
    "James May - On The Line",
    "Johnny Lokke - Promises & Lies",
    "Leaf - Summerghost",
    "Meaxic - Take A Step",
    "Patrick Talbot - A Reason To Leave",
    "Skelpolu - Human Mistakes",
    "Traffic Experiment - Sirens",
    "Triviul - Angelsaint",
    "Young Griffo - Pennies",
)


class Song(Track):
    """A song of either layout; the mixture is the file's, not the sum of the stems.

    Args:
        path: a `.stem.mp4`, or a folder with `mixture.wav` and the stems.
        sources: stems, or "accompaniment", the sum of all but the vocals.
        sample_rate: required rate of the files, Hz.
    """

    def __init__(self, path: Path, sources: list[str], sample_rate: int) -> None:
        if path.name.endswith(SUFFIX):
            parts = [Part(path, stem, stream=number) for number, stem in enumerate(STREAMS)]
        else:
            parts = [Part(path / f"{stem}.wav", stem) for stem in STREAMS]
        super().__init__(path.name.removesuffix(SUFFIX), sources, sample_rate, parts, STEMS, channels=2)
        used = {stem for which in range(len(sources)) for stem in self.made_of(which)}
        self.others = [stem for stem in STREAMS[1:] if stem not in used]
        self.rest_remixed = bool(self.others)

    def read_rest(self, start: int, length: int) -> Tensor:
        """The stems that are not sources: in a remix, a one-source model hears them too."""
        return sum_of(self._signals(self.others, start, length), self.others) if self.others else torch.zeros(())


class MUSDB18(SegmentedData):
    """MUSDB18 or MUSDB18-HQ: `root/train` and `root/test` with `<track>.stem.mp4`, or `<track>/vocals.wav` and so on.

    Args:
        sources: of vocals, drums, bass, other and accompaniment (all but vocals); `train` takes them from the model.
        sample_rate: Hz, the files'; `train` takes it from the model.
        root: the folder.
        split: "official": the usual 14 validation tracks, 86 train; "random": of the folder `train`, in an order drawn
            once, four fifths train and a fifth is for validation (the LTL paper's 80/20).
        fraction: part of the training and of the validation tracks to use, at least one each (the LTL paper: 0.1).
        split_seed: of that order; separate from the run's seed, so that runs can be compared.
        settings: `SegmentedData`'s others.
    """

    obtain = """\
MUSDB18, 150 songs for research, is available from Zenodo, as .stem.mp4 files (record MUSDB18) or wav files
(MUSDB18-HQ). Unpack either to data/MUSDB18, so that data/MUSDB18/train and data/MUSDB18/test contain <track>.stem.mp4,
or
<track>/{mixture,vocals,drums,bass,other}.wav. For another place set data.init_args.root."""

    def __init__(
        self,
        sources: list[str],
        sample_rate: int,
        root: Path = Path("data/MUSDB18"),
        split: Literal["official", "random"] = "official",
        fraction: float = 1.0,
        split_seed: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(sources, sample_rate, **settings)
        if unknown := set(sources) - set(STEMS):
            raise UserError(f"MUSDB18 has no source {sorted(unknown)[0]!r}; it has {', '.join(STEMS)}")
        if split not in ("official", "random"):
            raise ValueError(f"split {split!r} is neither 'official' nor 'random'")
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction {fraction} must lie above 0, at most 1")
        self.root, self.split, self.fraction, self.split_seed = Path(root), split, fraction, split_seed

    @property
    def additive(self) -> bool:
        return sorted(stem for source in self.sources for stem in STEMS[source]) == sorted(STREAMS[1:])  # each once

    def list_tracks(self, split: Split) -> list[Track]:
        with touching(self.root):  # a folder in it may be unreadable
            return [Song(path, self.sources, self.sample_rate) for path in self._find(split).values()]

    def _find(self, split: Split) -> dict[str, Path]:
        """The songs of a split by name."""
        folder = self.root / ("test" if split == "test" else "train")
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; set data.init_args.root to the one with train and test")
        found = {path.name.removesuffix(SUFFIX): path for path in visible(folder) if _is_song(path)}
        if not found:
            raise UserError(f"{folder}: neither <track>{SUFFIX} files nor <track>/mixture.wav folders in it")
        names = list(found) if split == "test" else self._choose(split, list(found))
        if not names:
            hint = "none of the official validation tracks" if split == "valid" else "no tracks left to train on"
            raise UserError(f"{folder}: {hint} in it; set data.init_args.split to random")
        return {name: found[name] for name in names}

    def _choose(self, split: Split, names: list[str]) -> list[str]:
        """The names of a split, among all in `train`."""
        order = [names[i] for i in np.random.default_rng(self.split_seed).permutation(len(names))]
        if self.split == "official":
            chosen = [name for name in order if (name in VALIDATION) == (split == "valid")]
        else:
            border = len(names) - max(1, round(len(names) / 5)) if len(names) > 1 else 0
            chosen = order[:border] if split == "train" else order[border:]
        return sorted(chosen[: max(1, round(self.fraction * len(chosen)))])


def _is_song(path: Path) -> bool:
    return path.name.endswith(SUFFIX) or (path / "mixture.wav").is_file()
