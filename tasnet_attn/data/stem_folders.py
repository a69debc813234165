"""StemFolders: your own stems, `root/split/track/source.wav|flac|ogg`; the bundled songs have this layout too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasnet_attn.data.base import SegmentedData
from tasnet_attn.data.track import Part, Split, Track, visible
from tasnet_attn.errors import UserError
from tasnet_attn.files import touching

SUFFIXES = (".wav", ".flac", ".ogg")
SONGS = Path(__file__).parent.parent / "songs"


class StemTrack(Track):
    """A folder with a file for each source; the mixture is their sum.

    Args:
        folder: the track's; its name is the track's name.
        sources: names of the files without suffix, or of sums.
        sample_rate: required rate of the files, Hz.
        sums: {source: names of the files whose sum it is}.
    """

    def __init__(
        self, folder: Path, sources: list[str], sample_rate: int, sums: dict[str, list[str]] | None = None
    ) -> None:
        parts, problem = [], None
        for stem in dict.fromkeys(stem for source in sources for stem in (sums or {}).get(source, [source])):
            found = [file for suffix in SUFFIXES if (file := folder / f"{stem}{suffix}").is_file()]
            if not found:
                lack = (
                    f"{folder / stem}.wav: no such file, nor .flac or .ogg; put it there, since each source needs one"
                )
                problem = problem or lack
            if len(found) > 1:
                problem = f"{folder}: has {found[0].name} and {found[1].name}; delete one of them"
            parts.append(Part(found[0] if found else folder / f"{stem}.wav", stem))
        super().__init__(folder.name, sources, sample_rate, parts, sums, problem=problem)


class StemFolders(SegmentedData):
    """Stems in folders: `root/train/<track>/<source>.wav|flac|ogg`, and the same for `valid` and `test`.

    Args:
        sources: names of the stem files; `train` takes them from the model.
        sample_rate: Hz; `train` takes it from the model.
        root: the folder; None: the songs that come with this package (guitar and backing).
        sums: sources that are sums of stem files, for example {accompaniment: [drums, bass, other]}.
        fraction: part of the training tracks used, the first ones by name, one at least.
        settings: `SegmentedData`'s others.
    """

    obtain = """\
StemFolders reads your own recordings: a folder for each track in root/train, root/valid and root/test, and in it one
file for each source of the model (model.sources), with its name: root/train/<track>/<source>.wav, .flac or .ogg, all of
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
        if empty := [source for source, stems in (sums or {}).items() if not stems]:
            raise ValueError(f"sums: {empty[0]!r} is a sum of no files; name at least one, or leave it out")
        self.root, self.sums, self.fraction = SONGS if root is None else Path(root), sums or {}, fraction

    def list_tracks(self, split: Split) -> list[Track]:
        with touching(self.root):  # a folder in it may be unreadable
            return [StemTrack(folder, self.sources, self.sample_rate, self.sums) for folder in self._find(split)]

    def _find(self, split: Split) -> list[Path]:
        """The tracks' folders."""
        folder = self.root / split
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; StemFolders expects {self.root}/{split}/<track>/<source>.wav")
        folders = [path for path in visible(folder) if path.is_dir()]
        if not folders:
            raise UserError(f"{folder}: empty; StemFolders expects a folder for each track in it")
        return folders[: max(1, round(self.fraction * len(folders)))] if split == "train" else folders
