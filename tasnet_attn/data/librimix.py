"""LibriMix: mixtures of 2 or 3 speakers, listed in `root/wav8k/min/metadata/mixture_<subset>_mix_clean.csv`."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from tasnet_attn.data.base import SegmentedData
from tasnet_attn.data.track import MIXTURE, REST, Part, Split, Track
from tasnet_attn.errors import UserError
from tasnet_attn.files import touching


class Utterances(Track):
    """A mixture of utterances, mono; its headers are read only when it is first read (there are 150,000 files).

    Args:
        name: the mixture's.
        mixture: its file.
        speakers: the speakers' files.
        noise: the noise's file, or None.
        sources: names for the speakers.
        sample_rate: required rate of the files, Hz.
        length: required length of the files, samples.
    """

    utterance = True

    def __init__(
        self,
        name: str,
        mixture: Path,
        speakers: list[Path],
        noise: Path | None,
        sources: list[str],
        sample_rate: int,
        length: int,
    ) -> None:
        parts = [Part(mixture, MIXTURE), *map(Part, speakers, sources), *([Part(noise, REST)] if noise else [])]
        super().__init__(name, sources, sample_rate, parts, length=length, channels=1)

    def speaker(self, which: int) -> str:
        # LibriMix names a mixture after its utterances and an utterance speaker-chapter-number
        utterances = self.name.split("_")
        if len(utterances) <= which:
            raise UserError(
                f"{self}: mixture_ID {self.name!r} does not name {len(self.sources)} utterances like 19-198-0001, so "
                "that a remix has different speakers; set data.init_args.remix to 0"
            )
        return utterances[which].partition("-")[0]


class LibriMix(SegmentedData):
    """Libri2Mix or Libri3Mix as written by its generator; the model's number of sources determines which.

    The CSV files contain absolute paths of the machine that made them. Only the last five parts of each (wav8k, min,
    the subset, s1, the file) are used, below `root`, so that the data set can be moved.

    Args:
        sources: names for the speakers, 2 or 3; `train` takes them from the model. One: every utterance is a separate
            track and its own mixture, clean (for autoencoders).
        sample_rate: Hz, 8000 or 16,000, for the folder wav8k or wav16k; `train` takes it from the model.
        root: the folder that contains wav8k or wav16k, or several such folders, whose mixtures are concatenated;
            None: data/Libri3Mix for three sources, else data/Libri2Mix.
        noisy: mixtures with noise (mix_both), else without (mix_clean). The noise is not a source.
        mode: "min": mixtures end with the shortest utterance; "max": with the longest.
        training: the training subset, "train-360" or "train-100".
        validation: the validation subset; debian2mix and voices2mix also have "dev-speakers", with voices of no other
            set.
        testing: the test subset; the generator writes "test", debian2mix also "test-speakers".
        segment: seconds; shorter mixtures are skipped.
        settings: `SegmentedData`'s others; `remix` is dynamic mixing of different speakers; the noise stays in place.
    """

    fixed = ("channels", "swap", "cache")
    obtain = """\
LibriMix is generated: its authors' script (JorisCos/LibriMix on GitHub, generate_librimix.sh) fetches
LibriSpeech and WHAM noise and mixes them. Put its Libri2Mix (for three speakers: Libri3Mix) into data, so that
data/Libri2Mix/wav8k/min/metadata/mixture_train-360_mix_clean.csv is there. For another place set data.init_args.root;
for other variants set data.init_args.mode, noisy and training, and model.sample_rate."""

    def __init__(
        self,
        sources: list[str],
        sample_rate: int,
        root: Path | list[Path] | None = None,
        noisy: bool = False,
        mode: Literal["min", "max"] = "min",
        training: str = "train-360",
        validation: str = "dev",
        testing: str = "test",
        segment: float = 3.0,
        **settings: Any,
    ) -> None:
        super().__init__(
            sources, sample_rate, segment, channels="all", swap=0.0, cache=None, **settings
        )  # mono wav files
        if mode not in ("min", "max"):
            raise ValueError(f"mode {mode!r} is neither 'min' nor 'max'")
        if noisy and len(sources) == 1:
            raise ValueError("noisy: a single source is clean speech; leave noisy out")
        usual = Path(f"data/Libri{max(2, len(sources))}Mix")
        self.roots = [usual] if root is None else [Path(one) for one in (root if isinstance(root, list) else [root])]
        if not self.roots:
            raise ValueError("root: contains no folder")
        self.root = self.roots[0]
        self.noisy, self.mode = noisy, mode
        self.training, self.validation, self.testing = training, validation, testing

    @property
    def additive(self) -> bool:
        return not self.noisy

    def list_tracks(self, split: Split) -> list[Track]:
        with touching(self.root):  # a folder in it may be unreadable
            return [track for root in self.roots for track in self._list(root, split)]

    def _list(self, root: Path, split: Split) -> list[Track]:
        file, rows, speakers = self._rows(root, split)
        tracks: list[Track] = []
        for line, row in enumerate(rows, start=2):
            try:
                tracks += self._tracks(root, file, line, row, speakers)
            except UserError as error:
                name, problem = row["mixture_ID"] or f"line {line}", f"{error}; create the metadata again"
                tracks.append(Track(name, self.sources, self.sample_rate, (), problem=problem))
        return tracks

    def _rows(self, root: Path, split: Split) -> tuple[Path, list[dict[str, str | None]], list[str]]:
        """The metadata of a split: file, rows, and the columns of the speakers."""
        subset = {"train": self.training, "valid": self.validation, "test": self.testing}[split]
        kind = "mix_both" if self.noisy else "mix_clean"
        folder = root / f"wav{self.sample_rate / 1000:g}k" / self.mode / "metadata"
        file = folder / f"mixture_{subset}_{kind}.csv"
        if not file.is_file():
            raise UserError(
                f"{file}: no such file; set data.init_args.root, mode, noisy, training, validation or testing to what "
                "is there"
            )
        try:
            with file.open(newline="", encoding="utf-8-sig") as opened:
                reader = csv.DictReader(opened)
                rows, columns = list(reader), reader.fieldnames or []
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{file}: not a CSV file: {error}") from error
        if not rows:
            raise UserError(f"{file}: has no mixtures; create the metadata again")
        speakers = [column for column in columns if column.startswith("source_") and column.endswith("_path")]
        if len(self.sources) not in (1, len(speakers)):
            raise UserError(
                f"{file}: mixtures of {len(speakers)} speakers, but the model has {len(self.sources)} sources"
            )
        needed = ["mixture_ID", "mixture_path", *speakers, "length", *(["noise_path"] if self.noisy else [])]
        if lacking := [column for column in needed if column not in columns]:
            raise UserError(f"{file}: has no column {lacking[0]!r}")
        return file, rows, speakers

    def _tracks(
        self, root: Path, file: Path, line: int, row: dict[str, str | None], speakers: list[str]
    ) -> list[Utterances]:
        """Tracks of a metadata row: one, or for a single source one for each speaker."""

        def path(column: str) -> Path:
            parts = PurePosixPath((row[column] or "").replace("\\", "/")).parts
            if len(parts) < 5:
                raise UserError(
                    f"{file}: line {line}: {column} is not a path like wav8k/min/dev/s1/x.wav: {row[column]!r}"
                )
            return root.joinpath(*parts[-5:])

        try:
            length = int(float(row["length"] or ""))
        except (ValueError, OverflowError):  # or infinite
            raise UserError(f"{file}: line {line}: length is not a number: {row['length']!r}") from None
        if length < 1:
            raise UserError(f"{file}: line {line}: length {length} must be at least 1 sample")
        noise = path("noise_path") if self.noisy else None
        mixture, files = path("mixture_path"), [path(column) for column in speakers]
        name, rest = row["mixture_ID"] or mixture.stem, (self.sources, self.sample_rate, length)
        if len(self.sources) == 1:
            return [Utterances(f"{name}_s{i}", one, [one], None, *rest) for i, one in enumerate(files, start=1)]
        return [Utterances(name, mixture, files, noise, *rest)]
