"""debian2mix: mixtures of two speakers, 8 kHz, from the voices in Debian packages, in LibriMix's layout.

    apt-get download ...                                       (the command lists missing packages)
    python recipes/debian2mix/local/prepare.py --packages DIR --out data/debian2mix

A speaker's prompts are joined to utterances of 3 s or more; those of different speakers are mixed as in LibriMix:
each at a level drawn between -33 and -25 dB, cut to the shorter. The packages and the seed determine everything.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from deb import Deb
from voices import CHOOSING, GAMES, KEPT_OUT, PACKAGES, PLAYING, UNSEEN, files_of, speaker_of

from tasnet_attn.audio import corpora
from tasnet_attn.audio.resampling import resample
from tasnet_attn.errors import UserError, reported
from tasnet_attn.files import holding, touching

RATE = 8000
# mixtures of each by default
SUBSETS = {"train": 2000, "dev": 200, "test": 300, "test-speakers": 300, "dev-speakers": 300}
WITH_GAMES = 4000  # mixtures of train
# the corpus's checksum by default settings, from the tested versions below (x86-64, av 18.1, soxr 1.1, soundfile 0.14)
TESTED = "bf31df0da6cf07d6b10714532f29760aeae31f8dc6c3d05e0c361ab612f6f428"
# the checksum of its two test sets, which never change: the lines of SHA256SUMS that TESTS finds
TESTS = r"/(?:mixture_)?test(?:-speakers)?(?:_mix_clean\.csv|/)"
PUBLISHED = "e9a2c16db46a8b6650004078e8076f2fef03f730dbb22c37a57e441f08c48fe2"

SHORTEST, LONGEST, PAUSE = 3.0, 6.0, 0.15  # seconds: of an utterance, of an uncut prompt, between joined prompts
MOST = 240.0  # seconds of each voice of dev-speakers, so that none dominates
LEVELS = (-33.0, -25.0)  # dB, root mean square of the active frames, full scale 0 dB
FRAME = RATE // 50


class Prompt(NamedTuple):
    """A recording: speaker, file name without suffix, samples [T] int16 without silence at the ends."""

    speaker: str
    stem: str
    samples: np.ndarray


class Utterance(NamedTuple):
    """An utterance: its name, speaker-pass-number as in LibriSpeech, and samples [T] int16."""

    name: str
    samples: np.ndarray

    @property
    def speaker(self) -> str:
        return self.name.partition("-")[0]


def decode(content: bytes, path: str) -> np.ndarray:
    """Audio of any kind as 8 kHz mono, [T] float32.

    Raises:
        UserError: damaged; names the file.
    """
    headless = path.rpartition(".")[2] if path.endswith((".g722", ".gsm")) else None
    try:
        if path.endswith(".ALS"):  # Drascula's: 8 bits unsigned, 11,025 Hz
            samples, rate = (np.frombuffer(content, np.uint8).astype(np.float32)[:, None] - 128) / 128, 11_025
        else:
            samples, rate = corpora.decode(content, path, headless)
    except UserError as error:
        raise UserError(f"{error}; fetch its package again") from error
    mono = samples[:, 0] if headless else samples.mean(1)
    return resample(torch.from_numpy(mono)[None], rate, RATE)[0].numpy() if rate != RATE else mono


def active(samples: np.ndarray) -> np.ndarray:
    """Which 20 ms frames are at most 35 dB below the loudest, [T // 160] bool."""
    power = np.square(samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME), dtype=np.float64).mean(1)
    return (power > 0) & (power >= power.max(initial=0.0) * 10**-3.5)


def prompts_of(debs: Sequence[Deb]) -> Iterator[Prompt]:
    """All prompts with 0.3 s of sound or more; repeated recordings only once."""
    seen = set()
    for deb in debs:
        for path, content in files_of(deb):
            if (speaker := speaker_of("/" + path)) is None:
                continue
            samples = decode(content, path)
            samples = np.round(samples * (32767 / max(1.0, np.abs(samples).max(initial=0.0)))).astype(np.int16)
            digest, sounding = hashlib.sha256(samples.tobytes()).digest(), np.flatnonzero(active(samples))
            if digest in seen or len(sounding) * FRAME < 0.3 * RATE:
                continue
            seen.add(digest)
            yield Prompt(speaker, Path(path).stem, samples[sounding[0] * FRAME : (sounding[-1] + 1) * FRAME])


def subset_of(prompt: Prompt, seed: int) -> str:
    """The subset of a prompt: prompts of one file name stay together, in any folder or package, for all speakers."""
    if prompt.speaker in UNSEEN:
        return "test-speakers"
    if prompt.speaker in CHOOSING:
        return "dev-speakers"
    if prompt.speaker.startswith(PLAYING):
        return "train"
    draw = int.from_bytes(hashlib.sha256(f"{seed}/{prompt.stem}".encode()).digest()[:4], "big") / 2**32
    return "train" if draw < 0.8 else "dev" if draw < 0.88 else "test"


def balanced(prompts: Sequence[Prompt], most: float) -> list[Prompt]:
    """At most `most` seconds of each speaker's prompts, in an order determined by their samples."""
    spoken: Counter[str] = Counter()
    kept = []
    for prompt in sorted(prompts, key=lambda one: hashlib.sha256(one.samples.tobytes()).digest()):
        if spoken[prompt.speaker] < most * RATE:
            kept.append(prompt)
            spoken[prompt.speaker] += len(prompt.samples) + int(PAUSE * RATE)
    return kept


def divide(prompts: Iterable[Prompt], seed: int) -> dict[str, list[Prompt]]:
    """The prompts of each subset; no game's voice has more training material than the longest other one."""
    subsets: dict[str, list[Prompt]] = {subset: [] for subset in SUBSETS}
    for prompt in prompts:
        subsets[subset_of(prompt, seed)].append(prompt)
    games = [prompt for prompt in subsets["train"] if prompt.speaker.startswith(PLAYING)]
    others = [prompt for prompt in subsets["train"] if not prompt.speaker.startswith(PLAYING)]
    spoken: Counter[str] = Counter()
    for prompt in others:
        spoken[prompt.speaker] += len(prompt.samples) + int(PAUSE * RATE)
    subsets["train"] = others + balanced(games, max(spoken.values(), default=0) / RATE)
    subsets["dev-speakers"] = balanced(subsets["dev-speakers"], MOST)
    return subsets


def join(speaker: str, prompts: Sequence[Prompt], which: int, rng: np.random.Generator) -> Iterator[Utterance]:
    """A speaker's prompts, shuffled, as utterances of 3 s or more; long ones are cut, a short remainder is dropped."""
    waiting: list[np.ndarray] = []
    number = 0
    for index in rng.permutation(len(prompts)):
        samples = prompts[index].samples
        for piece in np.array_split(samples, -(-len(samples) // int(LONGEST * RATE))):
            waiting += [piece, np.zeros(int(PAUSE * RATE), np.int16)]
            if sum(map(len, waiting[:-1])) >= SHORTEST * RATE:
                yield Utterance(f"{speaker}-{which}-{number:04d}", np.concatenate(waiting[:-1]))
                waiting, number = [], number + 1


def pair(prompts: Sequence[Prompt], count: int, rng: np.random.Generator) -> Iterator[tuple[Utterance, Utterance]]:
    """`count` pairs of different speakers' utterances. When all are used, they are joined and paired again."""
    speakers: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        speakers.setdefault(prompt.speaker, []).append(prompt)
    made = which = 0
    while made < count:
        utterances = [one for speaker, own in sorted(speakers.items()) for one in join(speaker, own, which, rng)]
        if len({one.speaker for one in utterances}) < 2:
            raise UserError("the packages do not contain 3 s of two different speakers for every subset")
        order = [utterances[index] for index in rng.permutation(len(utterances))]
        while order and made < count:
            first = order.pop()
            second = next((one for one in reversed(order) if one.speaker != first.speaker), None)
            if second is None:
                break
            order = [one for one in order if one is not second]
            made += 1
            yield first, second
        which += 1


def mix(pair: tuple[Utterance, Utterance], rng: np.random.Generator) -> np.ndarray:
    """The two sources at their levels, [2, T] int16, T the shorter's; their sum does not clip."""
    length = min(len(one.samples) for one in pair)
    sources = np.stack([one.samples[:length] for one in pair]).astype(np.float64) / 32768
    for source in sources:
        frames = source[: length // FRAME * FRAME].reshape(-1, FRAME)[active(source)]
        source *= 10 ** (rng.uniform(*LEVELS) / 20) / np.sqrt(np.square(frames).mean())
    sources *= min(1.0, 0.9 / np.abs(sources.sum(0)).max(), *(0.9 / np.abs(sources).max(1)))
    return np.round(sources * 32767).astype(np.int16)


def write_subset(root: Path, subset: str, prompts: Sequence[Prompt], count: int, seed: int) -> None:
    """Write a subset's files and its metadata."""
    rng = np.random.default_rng([seed, list(SUBSETS).index(subset)])
    rows = []
    for pair_ in pair(prompts, count, rng):
        name = "_".join(one.name for one in pair_)
        rows.append(corpora.write_mixture(root, subset, name, mix(pair_, rng), RATE))
    corpora.write_mixtures(root, subset, rows, RATE)


def write_credits(root: Path, debs: Sequence[Deb]) -> None:
    """Credit the voices, and keep every package's own statement."""
    lines = [
        "# Credits",
        "",
        "Voices, taken from these Debian packages; their copyright files are in this folder.",
        "",
    ]
    for deb in debs:
        _, licence, voice = (PACKAGES | GAMES)[deb.package]
        lines.append(f"- {deb.package} {deb.version}, {licence}: {voice}")
        (statement,) = (text for path, text in deb.files() if path == f"usr/share/doc/{deb.package}/copyright")
        (root / f"{deb.package}.copyright").write_bytes(statement)
    (root / "CREDITS.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def checksums(root: Path) -> str:
    """SHA-256 of every file below `root/wav8k`, in the format of sha256sum."""
    files = sorted((root / "wav8k").rglob("*.*"))
    return "".join(f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(root).as_posix()}\n" for f in files)


def find(packages: Path, games: bool = False) -> list[Deb]:
    """The packages, in a fixed order; the games' packages last.

    Raises:
        UserError: some are missing; says how to fetch them.
    """
    debs = sorted(packages.glob("*.deb"))
    for path in debs:
        if re.match(KEPT_OUT, path.name):
            print(f"{path}: is kept for final scoring and was not opened", file=sys.stderr)
    wanted = PACKAGES | GAMES if games else PACKAGES
    found = {name: path for path in debs if (name := path.name.partition("_")[0]) in wanted}
    if lacking := [name for name in wanted if name not in found]:
        raise UserError(f"{packages}: packages are missing; fetch them here by: apt-get download {' '.join(lacking)}")
    return [Deb(found[name]) for name in wanted]


def build(packages: Path, out: Path, seed: int = 0, sizes: dict[str, int] | None = None, games: bool = False) -> str:
    """Build the corpus, atomically.

    Args:
        packages: the folder of the .deb files.
        out: the folder to create.
        seed: of the split, the pairs and the levels.
        sizes: mixtures of each subset; None: `SUBSETS`.
        games: also use the voices of `GAMES` in train.

    Returns:
        The corpus's checksum: SHA-256 of its file SHA256SUMS.

    Raises:
        UserError: packages are missing or damaged, `out` already exists, or too little speech; names the file.
    """
    if out.exists():
        raise UserError(f"{out}: already exists; verify it with --check, or remove it to build again")
    debs = find(packages, games)
    subsets = divide(prompts_of(debs), seed)
    part = out.with_name(f".{out.name}.part")
    with holding(out.parent, f".{out.name}.building", f"{out}: {corpora.BUSY}"):
        shutil.rmtree(part, ignore_errors=True)  # a build was killed
        part.mkdir(parents=True)
        for subset, prompts in subsets.items():
            write_subset(part, subset, prompts, (sizes or SUBSETS)[subset], seed)
        write_credits(part, debs)
        listed = checksums(part)
        if listed.count("\n") != sum(3 * size + 1 for size in (sizes or SUBSETS).values()):
            raise UserError(f"{part}: files were removed while the corpus was built; build it again", status=1)
        (part / "SHA256SUMS").write_text(listed)
        part.rename(out)
    return check(out)


def check(out: Path) -> str:
    """The checksum of an existing corpus, after comparing its files with it.

    Raises:
        UserError: a file is missing, changed or not part of the corpus; names it.
    """
    if not (out / "SHA256SUMS").is_file():
        raise UserError(f"{out}: no corpus with a file SHA256SUMS; build it with --packages")
    stored, found = (out / "SHA256SUMS").read_text(), checksums(out)
    if different := set(stored.splitlines()) ^ set(found.splitlines()):
        file = min(line.partition("  ")[2] for line in different)
        raise UserError(f"{out / file}: missing, changed or not part of the corpus; remove {out} and build again")
    return hashlib.sha256(stored.encode()).hexdigest()


def tests_of(out: Path) -> str:
    """The checksum of a corpus's test sets: SHA-256 of their lines in SHA256SUMS."""
    lines = (out / "SHA256SUMS").read_text().splitlines(keepends=True)
    return hashlib.sha256("".join(line for line in lines if re.search(TESTS, line)).encode()).hexdigest()


@reported("debian2mix")
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python recipes/debian2mix/local/prepare.py", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--packages", type=Path, default=Path(), help="the folder of the .deb files")
    parser.add_argument("--out", type=Path, default=Path("data/debian2mix"), help="the folder to create")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true", help="compare an existing corpus with its checksums")
    parser.add_argument("--games", action="store_true", help="also train on the voices of two games")
    for subset, size in SUBSETS.items():
        usual = f"{size}, {WITH_GAMES} with --games" if subset == "train" else size
        parser.add_argument(f"--{subset}", type=int, help=f"mixtures in {subset}; default: {usual}")
    options = vars(parser.parse_args(arguments))
    games = options["games"]
    sizes = SUBSETS | ({"train": WITH_GAMES} if games else {})
    sizes |= {subset: given for subset in SUBSETS if (given := options[subset.replace("-", "_")]) is not None}
    with touching(options["out"]):
        if options["check"]:
            digest = check(options["out"])
        else:
            digest = build(options["packages"], options["out"], options["seed"], sizes, games)
    same = "as tested" if digest == TESTED else "not that of the tested package versions, sizes and seed"
    tests = "as published" if tests_of(options["out"]) == PUBLISHED else "not the published ones, nor are their scores"
    print(f"{options['out']}: {digest}, {same}; test sets {tests}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
