"""StemFolders: one's own stems, `root/split/track/source.wav|flac|ogg`; the bundled songs have this layout too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasnet_attn.audio.reading import audio_info, read_audio
from tasnet_attn.data.base import SegmentedData, Split, Track
from tasnet_attn.data.files import Entry, Part
from tasnet_attn.errors import UserError

SUFFIXES = (".wav", ".flac", ".ogg")
SONGS = Path(__file__).parent.parent / "songs"


class StemTrack(Track):
    """A folder with a file for each source; the mixture is their sum.

    Args:
        folder: it; its name is the track's.
        sources: names of the files without suffix, or of sums.
        sums: {source: names of the files whose sum it is}.

    Raises:
        UserError: a source is missing or there twice, or files differ in rate, channels or length.
    """

    def __init__(self, folder: Path, sources: list[str], sums: dict[str, list[str]] | None = None) -> None:
        self.name, self.sources = folder.name, sources
        self.parts = [[self._find(folder, stem) for stem in (sums or {}).get(source, [source])] for source in sources]
        self.files = [file for files in self.parts for file in files]
        self.variant = [len(files) for files in self.parts]
        infos = [audio_info(file) for file in self.files]
        for file, info in zip(self.files, infos, strict=True):
            if info != infos[0]:
                raise UserError(
                    f"{file}: {info.sample_rate} Hz, {info.length} samples, {info.channels} channels, but "
                    f"{self.files[0].name} beside it: {infos[0].sample_rate}, {infos[0].length}, {infos[0].channels}"
                )
        self.sample_rate, self.length, self.channels = infos[0]

    @staticmethod
    def _find(folder: Path, source: str) -> Path:
        found = [folder / f"{source}{suffix}" for suffix in SUFFIXES]
        found = [file for file in found if file.is_file()]
        if len(found) != 1:
            what = f"has {found[0].name} and {found[1].name}" if found else f"has no {source}.wav, .flac or .ogg"
            raise UserError(f"{folder}: {what}; a track folder holds one file for each source")
        return found[0]

    def read(self, start: int = 0, length: int | None = None) -> tuple[Tensor, Tensor]:
        references = torch.stack([self.read_source(which, start, length) for which in range(len(self.parts))])
        return references.sum(0), references

    def read_source(self, which: int, start: int, length: int | None) -> Tensor:
        return torch.stack([read_audio(file, start, length) for file in self.parts[which]]).sum(0)


class StemFolders(SegmentedData):
    """Stems in folders: `root/train/<track>/<source>.wav|flac|ogg`, likewise `valid` and `test`.

    Args:
        sources: names of the stem files; `train` takes them from the model.
        sample_rate: Hz; `train` takes it from the model.
        root: the folder; None: the songs that come with this package (guitar and backing).
        sums: sources that are sums of stem files, for example {accompaniment: [drums, bass, other]}.
        fraction: part of the training tracks used, the first ones by name, one at least.
        settings: `SegmentedData`'s others.
    """

    obtain = """\
StemFolders reads recordings of your own: a folder for each track in root/train, root/valid and root/test, and in it one
file for each source of the model (model.sources), named like it: root/train/<track>/<source>.wav, .flac or .ogg, all of
one length, rate (model.sample_rate) and number of channels. The mixture is their sum. Set data.init_args.root."""

    def __init__(
        self,
        sources: list[str],
        sample_rate: int,
        root: Path | None = None,
        sums: dict[str, list[str]] | None = None,
        fraction: float = 1.0,
        **settings: Any,
    ) -> None:
        super().__init__(sources, sample_rate, **settings)
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction {fraction} must lie above 0, at most 1")
        self.root, self.sums, self.fraction = SONGS if root is None else Path(root), sums or {}, fraction

    def list_tracks(self, split: Split) -> list[Track]:
        return [StemTrack(folder, self.sources, self.sums) for folder in self._find(split)]

    def entries(self, split: Split) -> list[Entry]:
        entries = []
        for folder in self._find(split):
            parts, problem = [], None
            for stem in [stem for source in self.sources for stem in self.sums.get(source, [source])]:
                found = [file for suffix in SUFFIXES if (file := folder / f"{stem}{suffix}").is_file()]
                if len(found) > 1:
                    problem = f"{folder}: has {found[0].name} and {found[1].name}; delete one of them"
                parts.append(Part(found[0] if found else folder / f"{stem}.wav", stem))
            entries.append(Entry(folder.name, tuple(parts), self.sample_rate, problem=problem))
        return entries

    def _find(self, split: Split) -> list[Path]:
        """The tracks' folders."""
        folder = self.root / split
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; StemFolders expects {self.root}/{split}/<track>/<source>.wav")
        folders = [path for path in sorted(folder.iterdir()) if path.is_dir()]
        if not folders:
            raise UserError(f"{folder}: empty; StemFolders expects a folder for each track in it")
        return folders[: max(1, round(self.fraction * len(folders)))] if split == "train" else folders
