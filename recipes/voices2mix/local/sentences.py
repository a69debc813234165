"""Sentences in six languages from Debian packages: quotations (fortunes) and a book (debian-handbook)."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tasnet_attn.archives import tar_files, unpacked_by
from tasnet_attn.errors import UserError

# package: its licence, according to its copyright file
PACKAGES = {
    "debian-handbook": "GPL-2+ or CC-BY-SA-3.0",
    "fortunes": "BSD-3-Clause, quotations",
    "fortunes-min": "BSD-3-Clause, quotations",
    "fortunes-br": "GPL-2+, quotations",
    "fortunes-de": "GPL-2+, quotations",
    "fortunes-es": "GPL-2+, quotations in the public domain",
    "fortunes-it": "public domain, quotations",
}
BOOK = {"en": "en-US", "es": "es-ES", "fr": "fr-FR", "it": "it-IT", "pt": "pt-BR", "de": "de-DE"}  # the handbook's
FORTUNES = {  # package, language: the files with inoffensive prose
    ("fortunes", "en"): "art computers cookie education food goedel humorists law literature magic medicine "
    "miscellaneous news paradoxum people pets platitudes politics science sports tao wisdom work",
    ("fortunes-min", "en"): "fortunes literature riddles",
    ("fortunes-br", "pt"): "brasil",
    ("fortunes-de", "de"): "anekdoten gedichte murphy regeln sprichworte sprueche stilblueten tips wusstensie zitate",
    ("fortunes-es", "es"): "amistad arte asimov ciencia familia famosos filosofia humanos informatica lao-tse "
    "libertad nietzsche poder proverbios refranes sabiduria schopenhauer sentimientos varios verdad vida",
    ("fortunes-it", "it"): "computer definizioni formiche italia leggi zuse",
}
LETTERS = "A-Za-zÀ-ÖØ-öø-ÿœŒ"
GRAVE = str.maketrans("aeiou", "àèìòù")
# capitals within a word, dashes, single consonants, irregular punctuation
ODD = (
    rf"[{LETTERS}][A-Z]|--| -|- |\b(?:www|http|etc|(?<!')[b-df-hj-np-tv-xz])\b(?!')|\b[B-HJ-Z]:|[:;] ?[.!?]|[ ,][,;.!?]"
)
SHORTEST, LONGEST, FEWEST_WORDS = 55, 110, 8  # characters: about 3.5 to 8 s of speech


class Sentence(NamedTuple):
    """A sentence and its language, a key of `BOOK`."""

    text: str
    language: str


class Deb:
    """A Debian package; `dpkg-deb` unpacks it.

    Args:
        path: the .deb file, as `apt-get download` writes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.package, self.version = self._run("--show", "--showformat=${Package} ${Version}").decode().split()

    def _run(self, *arguments: str) -> bytes:
        return unpacked_by(["dpkg-deb", arguments[0], str(self.path), *arguments[1:]], self.path)

    def files(self) -> dict[str, bytes]:
        """Path in the package -> content."""
        return dict(tar_files(self._run("--fsys-tarfile"), self.path))


def find(folder: Path) -> list[Deb]:
    """The packages, in a fixed order.

    Raises:
        UserError: a package is not available; says how to get it.
    """
    found = {path.name.partition("_")[0]: path for path in sorted(folder.glob("*.deb"))}
    if lacking := [name for name in PACKAGES if name not in found]:
        raise UserError(f"{folder}: not available: {' '.join(lacking)}; fetch them with --fetch")
    return [Deb(found[name]) for name in PACKAGES]


def quotations(text: str) -> Iterator[str]:
    """The entries of a file of fortunes, without their authors."""
    for entry in re.split(r"^%.*$", text, flags=re.MULTILINE):
        yield re.split(r"^\s*(?:--|―|—) ?", entry, maxsplit=1, flags=re.MULTILINE)[0]


def paragraphs(page: str) -> Iterator[str]:
    """The paragraphs of a page of the handbook; code is replaced by a character that no sentence has."""
    for paragraph in re.findall(r'<div class="para">(.*?)</div>', page, flags=re.DOTALL):
        paragraph = re.sub(r"<(code|pre|tt|kbd)\b.*?</\1>", "\0", paragraph, flags=re.DOTALL)
        yield html.unescape(re.sub(r"<[^>]*>", "", paragraph))


def split(text: str, language: str) -> Iterator[Sentence]:
    """The sentences of a text that are easy to read aloud: no numbers, no code, no abbreviations, not too long."""
    text = " ".join(text.replace("\u2019", "'").split())
    if language == "it":  # perche', citta', e' stato: an apostrophe for an accent
        text = re.sub(r"[aeiou]'(?=[ ,;:.!?]|$)", lambda found: found[0][0].translate(GRAVE), text)
    for one in re.split(rf"(?<=[.!?])\s+(?=[¿¡{LETTERS}])", text):
        whole = re.fullmatch(rf"[¿¡]?[A-ZÀ-ÖØ-ÞŒ][{LETTERS} ,;:'¿¡!?-]*[.!?]", one)
        words = re.findall(rf"[{LETTERS}]+", one)
        if whole and not re.search(ODD, one) and len(words) >= FEWEST_WORDS and SHORTEST <= len(one) <= LONGEST:
            yield Sentence(one, language)


def read(debs: list[Deb]) -> list[Sentence]:
    """All sentences of the packages, without repetitions (ignoring case and commas); English ones first."""
    found: dict[str, Sentence] = {}
    contents = {deb.package: deb.files() for deb in debs}
    for language, folder in BOOK.items():
        texts: list[str] = []
        for (package, of), names in FORTUNES.items():
            for path, content in sorted(contents[package].items()) if of == language else ():
                name = path.rpartition("/")[2].removesuffix(".fortunes")
                if "/games/fortunes/" in path and "/off/" not in path and name in names.split():
                    texts += quotations(content.decode(errors="replace"))
        for path, content in sorted(contents["debian-handbook"].items()):
            if re.search(rf"/html/{folder}/[^/]*\.html$", path):
                texts += paragraphs(content.decode())
        for text in texts:
            for sentence in split(text, language):
                found.setdefault(re.sub(rf"[^{LETTERS}]", "", sentence.text).lower(), sentence)
    return list(found.values())


def shares(sentences: list[Sentence], parts: dict[str, float], seed: int) -> dict[str, list[Sentence]]:
    """Divide sentences among subsets and order them, depending only on their text and the seed.

    Args:
        sentences: to divide.
        parts: subset -> its part of all; they sum to one.
        seed: another one gives another division.

    Returns:
        Subset -> its sentences, in random order.
    """
    divided: dict[str, list[Sentence]] = {subset: [] for subset in parts}
    digests = {one: hashlib.sha256(f"{seed}/{one.language}/{one.text}".encode()).digest() for one in sentences}
    for one in sorted(sentences, key=digests.__getitem__):
        draw, total = int.from_bytes(digests[one][-4:], "big") / 2**32, 0.0
        for subset, part in parts.items():
            total += part
            if draw < total or subset == list(parts)[-1]:
                divided[subset].append(one)
                break
    return divided
