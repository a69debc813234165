"""The command: checks every file of every split, lists all findings, and prints a table and a verdict."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import inf
from operator import itemgetter
from pathlib import Path
from typing import get_args

from tasnet_attn import terminal
from tasnet_attn.checking.configure import configured
from tasnet_attn.checking.overlap import overlaps
from tasnet_attn.checking.track import Finding, Look, look
from tasnet_attn.data import MIXTURE, SegmentedData, Split, Track
from tasnet_attn.data.fingerprint import digest, record, remember
from tasnet_attn.errors import UserError

SAMPLE = 20  # tracks of a split whose samples --quick reads
LISTED = 10  # findings of one kind to print without --all
SECTION = "## The data"  # of a recipe's README: how to obtain its data


def check_data(
    configs: Sequence[Path],
    overrides: Sequence[str] = (),
    quick: bool = False,
    every: bool = False,
    run: Path | None = None,
) -> int:
    """Check a data set and print what is wrong with it.

    Args:
        configs: YAML files layered like `train`'s, or a run folder.
        overrides: more of `train`'s command line; options that do not concern the data are ignored.
        quick: read every header, but the samples of only SAMPLE tracks of a split.
        every: print every finding, not only the first LISTED of a kind.
        run: a run folder. If a run has begun there, the data are compared with those it began with. Otherwise the
            fingerprint of usable data is kept next to the folder until it does.

    Returns:
        0: usable, warnings or not; 1: errors.

    Raises:
        UserError: a wrong configuration, or no data at all.
    """
    data = configured(configs, overrides)
    print(f"{', '.join(data.sources)} at {data.sample_rate} Hz, {type(data).__name__}")
    tracks, findings = _tracks(data, configs)
    looks = _look_at(data, tracks, quick)
    findings += [finding for one in looks for finding in one.findings]
    findings += [*_across(data, looks), *overlaps(looks)]
    now = record(data)
    if not quick and _all_heard(looks):
        now["sound"] = digest(_sounds(looks))
    folder = run or next((config for config in configs if config.is_dir()), None)
    unusable = any(finding.level == "error" for finding in findings)
    if folder and ((folder / "config.yml").is_file() or not unusable):
        fix = "restore the earlier data, or begin a new run (--tag, --out)"
        what = f"{folder}: the data changed since this run began: "
        findings += [
            Finding("warning", "changed", "", what + text, fix) for text in remember(now, folder, begins=False)
        ]
    _print_findings(findings, every)
    _print_table(tracks, looks, findings)
    sound = now["sound"] or ("of a sample only (--quick)" if quick else "not all could be read")
    print(f"fingerprint: sound {sound}, names and sizes {digest([json.dumps(now['splits'])])}")
    count = Counter(finding.level for finding in findings)
    errors, warnings = (f"{count[level]} {level}{'s' * (count[level] != 1)}" for level in ("error", "warning"))
    usable = f"{warnings}, usable" if count["warning"] else "OK"
    verdict = f"{errors}, {warnings}: fix the errors first" if count["error"] else usable
    print(f"verdict: {verdict}" + (f" (quick: read the samples of at most {SAMPLE} tracks per split)" if quick else ""))
    return 1 if count["error"] else 0


def _tracks(data: SegmentedData, configs: Sequence[Path]) -> tuple[dict[Split, list[Track]], list[Finding]]:
    """The tracks of all splits. If there are none, prints how to obtain them and raises UserError."""
    tracks: dict[Split, list[Track]] = {}
    findings: list[Finding] = []
    reasons: list[UserError] = []
    for split in get_args(Split):
        try:
            tracks[split] = data.list_tracks(split)
            if not tracks[split]:
                raise UserError(f"{type(data).__name__}: lists no tracks of the {split} split; add some")
        except UserError as error:
            what, _, fix = str(error).rpartition("; ")
            findings.append(Finding("error", "split", split, what or fix, fix if what else "put the split there"))
            reasons.append(error)
    if not any(tracks.values()):
        if how := _how_to_obtain(data, configs):
            print(f"\nThe data are missing, and nothing is downloaded automatically.\n{how}\n")
        raise reasons[0]
    return tracks, findings


def _how_to_obtain(data: SegmentedData, configs: Sequence[Path]) -> str:
    """The section of the recipe's README, if it has one (data that we make ourselves); else the data set's text."""
    for config in configs:
        for folder in (config.resolve().parent, config.resolve().parent.parent):
            readme = folder / "README.md"
            text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
            if SECTION in text:
                return text.partition(SECTION)[2].partition("\n## ")[0].strip()
    return data.obtain


def _look_at(data: SegmentedData, tracks: dict[Split, list[Track]], quick: bool) -> list[Look]:
    """Every track, several at a time: reading and decoding release Python's lock."""
    todo: list[tuple[str, Track, bool]] = []
    for split, listed in tracks.items():
        here = [track for track in listed if not track.again]
        chosen = {round(i * (len(here) - 1) / (SAMPLE - 1)) for i in range(SAMPLE)} if quick else range(len(here))
        todo += [(split, track, number in chosen) for number, track in enumerate(here)]
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        looks = pool.map(lambda one: look(data, *one), todo)
        found = []
        with terminal.bar(len(todo), "tracks", "check-data") as bar:
            for one in looks:
                found.append(one)
                bar.update()
        return found
    finally:
        pool.shutdown(cancel_futures=True)


def _all_heard(looks: list[Look]) -> bool:
    """Whether every signal was read to its end."""
    return all(len(one.sounds) == len(one.parts) > 0 for one in looks)


def _sounds(looks: list[Look]) -> Iterator[str]:
    for one in looks:
        for holds, sound in one.sounds.items():
            info = one.infos[one.path(holds)]
            yield f"{one.split}/{one.track.name}/{holds} {info.length} {info.sample_rate} {sound.hash}"


def _across(data: SegmentedData, looks: list[Look]) -> Iterator[Finding]:
    """Findings that need a comparison of tracks."""
    for split in ("train", "valid"):
        lengths: list[tuple[float, Path]] = []  # of the shortest file of each track
        for one in looks:
            if one.split == split and one.infos:
                seconds = ((info.length / info.sample_rate, file) for file, info in one.infos.items())
                lengths.append(min(seconds, key=itemgetter(0)))
        short = [each for each in lengths if round(each[0] * data.sample_rate) < round(data.segment * data.sample_rate)]
        if short:
            least, file = min(short, key=itemgetter(0))
            what = f"{len(short)} of {len(lengths)} tracks are shorter than a segment of {data.segment:g} s and are "
            what += f"skipped without a message: {file} with {least:.2f} s is the shortest"
            fix = "set data.init_args.segment lower, or leave them out"
            yield Finding("error" if len(short) == len(lengths) else "warning", "short", split, what, fix)
    for split in get_args(Split) if data.channels == "all" or data.augmentation.remix else ():
        here = [one for one in looks if one.split == split]  # a batch has tracks of one split
        most = Counter(info.channels for one in here for info in one.infos.values()).most_common(1)
        for one in here:
            other = [file for file, info in one.infos.items() if info.channels != most[0][0]]
            if len(other) == len(one.infos) and other and one.track.file_channels is None:
                what = f"{other[0]}: has {one.infos[other[0]].channels} channel(s), most tracks have {most[0][0]}"
                fix = "convert it, or set data.init_args.channels to mean and remix to 0"
                yield Finding("error", "channels", split, what, fix)


def _print_findings(findings: list[Finding], every: bool) -> None:
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.level, finding.kind), []).append(finding)
    for (level, kind), found in sorted(kinds.items(), key=lambda item: item[0][0]):
        print()
        for finding in found if every else found[:LISTED]:
            where = f" ({finding.split})" if finding.split and kind != "overlap" else ""
            print(f"{level}{where}: {finding.what}\n    fix: {finding.fix}")
        if not every and len(found) > LISTED:
            print(f"{level}: and {len(found) - LISTED} more of kind {kind}; --all lists them")


def _print_table(listed: dict[Split, list[Track]], looks: list[Look], findings: list[Finding]) -> None:
    print(f"\n{'split':6} {'tracks':>7} {'minutes':>9} {'channels':>9} {'rates':>12} {'mixture - sum':>15}  findings")
    for split in get_args(Split):
        tracks = listed.get(split, [])
        again = [track for track in tracks if track.again]
        here = [one for one in looks if one.split == split]
        infos = [info for one in here for info in one.infos.values()]
        seconds = sum(max((i.length / i.sample_rate for i in one.infos.values()), default=0.0) for one in here)
        residuals = [one.residual for one in here if one.residual is not None]
        made = [track.made for track in tracks if track.parts and not track.beside(MIXTURE)]
        worst = max(residuals, default=-inf)
        mixture = f"{worst:.1f} dB" if worst > -inf else "equal" if residuals else made[0] if made else "-"
        channels, rates = (_values(info[key] for info in infos) for key in (2, 0))
        here_found = Counter(finding.level for finding in findings if finding.split == split)
        counts = ", ".join(f"{n} {level}{'s' * (n != 1)}" for level, n in sorted(here_found.items())) or "none"
        if again:
            counts += f"; {len(again)} tracks of train used again"
        print(
            f"{split:6} {len(tracks):7} {seconds / 60:9.2f} {channels:>9} {rates:>12} {mixture:>15}  {counts}".rstrip()
        )


def _values(values: Iterable[int]) -> str:
    return "/".join(map(str, sorted(set(values)))) or "-"
