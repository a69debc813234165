"""The speakers in the Debian packages, and their files."""

from __future__ import annotations

import re
from collections.abc import Iterator

from deb import Deb

from tasnet_attn.errors import UserError

# package: (tested version, licence as its copyright file states it, whose voice)
PACKAGES = {
    "asterisk-core-sounds-en-g722": ("1.6.1-1", "CC-BY-SA-3.0", "Allison Smith"),
    "asterisk-core-sounds-es-g722": ("1.6.1-1", "CC-BY-SA-3.0", "Allison Smith"),
    "asterisk-core-sounds-it-g722": ("1.6.1-1", "CC-BY-3.0", "Carlo Flora"),
    "asterisk-prompt-es-co": ("0.20070403-2.1", "GPL-2", "July E. Jiménez"),
    "asterisk-prompt-it-menardi-wav": ("1:1.4.22+mm20110907-3.1", "CC-BY-SA-3.0 (Italy)", "Paola Dal Zot"),
    "fillets-ng-data-cs": ("1.0.1-1.1", "GPL-2", "not named: the small fish and the big fish of the Czech game"),
    "klettres-data": ("4:22.12.3-1", "GPL-2+", "not named: a voice or two for each language"),
    "ktuberling-data": ("4:22.12.3-1", "GPL-2+", "not named: a voice or two for each language"),
    "asterisk-prompt-fr-armelle": ("20070613-2.2", "BSD-2-clause", "Armelle Desjardins"),
    "drascula": ("1.0+ds4-2", "the game's own", "not named: the hero and BJ of the game Drascula"),
    "gcin-voice": ("0~20170223-3", "GPL-3 or LGPL-3; CC-BY-3", "Edward Der-Hua Liu; Chu Lo"),
    "pocketsphinx-testdata": ("0.8+5prealpha+1-15", "BSD-2", "not named: a reader of LibriVox"),
}
GAMES = {  # with --games, only for training
    "flight-of-the-amazon-queen": ("1.0.0-9", "the game's own", "not named: the hero, and those he talks to"),
    "hedgewars-data": ("1.0.2-6", "GFDL-1.3", "not named: a voice for each of 14 folders"),
}
# Allison Smith speaks both the English and the Spanish prompts: one speaker, never mixed with herself. Of the unnamed
# voices a language counts as a speaker, across both KDE packages, so that no voice is mixed with itself. Those
# whom the hero of the Amazon Queen talks to share actors: one speaker for the same reason.
SPEAKERS = {
    r"/en_US_f_Allison/": "allison",
    r"/es_MX_f_Allison/": "allison",
    r"/it_IT_m_Carlo/": "carlo",
    r"/asterisk/sounds/es/": "july",
    r"/it_IT_f_Menardi/": "paola",
    r"/fillets-ng/.*/cs/[a-z0-9]+-m-": "smallfish",
    r"/fillets-ng/.*/cs/[a-z0-9]+-v-": "bigfish",
    r"/klettres/([a-z]+(?:_[A-Z]+)?)/(?:alpha|syllab)/": "kde",
    r"/ktuberling/sounds/([a-z]+)(?:@[a-z]+)?/": "kde",
    r"/asterisk/sounds/fr/": "armelle",
    r"/drascula/en/\d+\.ALS": "hero",
    r"/drascula/en/BJ\d+\.ALS": "bj",
    r"/gcin-voice/ogg/.*/3\.ogg": "liu",
    r"/gcin-voice/ogg/.*/5\.ogg": "lo",
    r"/pocketsphinx/.*/librivox/": "narrator",
    r"/queen\.1c/(?:\d\d.{4}J\d|.{4}SSSS|JOE.{5})\.SB": "joe",
    r"/queen\.1c/\d\d.{4}P\d\.SB": "queen",
    r"/hedgewars/.*/voices/(\w+)/": "hog",
}
UNSEEN = ("carlo", "july", "kdeml", "kdeuk")  # two men, two women: only in test-speakers
CHOOSING = ("armelle", "bj", "hero", "liu", "lo", "narrator")  # only in dev-speakers
PLAYING = ("joe", "queen", "hog")  # prefix of the games' speakers
# tones, monkeys and silence; tn is overdriven; ru may be uk's voice under another name; a robot
LEFT_OUT = r"/silence/|/beep|2tone|tt-monkeys\.|confbridge-(join|leave)\.|/klettres/tn/|/(klettres|sounds)/ru/|/Robot/"
KEPT_OUT = r"asterisk-core-sounds-(fr|ru)|fillets-ng-data-nl|fretsonfire-songs|beneath-a-steel-sky"  # for final scoring
SOUNDS = (".g722", ".gsm", ".wav", ".ogg", ".opus", ".ALS", ".SB")


def speaker_of(path: str) -> str | None:
    """The speaker of a package's file; None: none, or not distinguishable."""
    if not path.endswith(SOUNDS) or re.search(LEFT_OUT, path):
        return None
    for pattern, speaker in SPEAKERS.items():
        if match := re.search(pattern, path):
            return speaker + "".join(match.groups()).replace("_", "")
    return None


def files_of(deb: Deb) -> Iterator[tuple[str, bytes]]:
    """A package's files as in `Deb.files`, including those in the Amazon Queen's archive, in its order."""
    for path, content in deb.files():
        if path.endswith("/queen.1c"):
            yield from ((f"{path}/{name}", part) for name, part in queen(content, f"{deb.path}: {path}"))
        else:
            yield path, content


def queen(content: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    """The files in `queen.1c` of Flight of the Amazon Queen: (name, content).

    The archive begins with QTBL, a version, a byte for the coding of speech (1: mp3) and a big-endian number of entries
    of 21 bytes: name (12, padded with zeros), bundle (1), offset (4), size (4).

    Args:
        content: the archive.
        name: its name, for messages.

    Raises:
        UserError: another kind of archive, or damaged.
    """
    count = int.from_bytes(content[13:15], "big")
    if not content.startswith(b"QTBLCEM10\x00") or content[12] != 1 or len(content) < 15 + 21 * count:
        raise UserError(f"{name}: not the archive of the talking version with mp3 speech; fetch its package again")
    for start in range(15, 15 + 21 * count, 21):
        entry = content[start : start + 21]
        offset, size = int.from_bytes(entry[13:17], "big"), int.from_bytes(entry[17:], "big")
        if offset + size > len(content):
            raise UserError(f"{name}: shorter than its table states; fetch its package again")
        yield entry[:12].rstrip(b"\x00").decode("latin-1"), content[offset : offset + size]
