import csv
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import recipe_script

from tasnet_attn.data import LibriMix
from tasnet_attn.errors import UserError

debian2mix, pairs, voices = (recipe_script(f"debian2mix/local/{name}.py") for name in ("prepare", "pairs", "voices"))
Deb = recipe_script("debian2mix/local/deb.py").Deb
SUBSETS = debian2mix.SUBSETS
UNSEEN, CHOOSING = voices.UNSEEN, voices.CHOOSING
Prompt = debian2mix.Prompt
build = debian2mix.build
check = debian2mix.check
main = debian2mix.main
prompts_of = debian2mix.prompts_of
speaker_of = voices.speaker_of
subset_of = debian2mix.subset_of
SIZES = {"train": 6, "dev": 3, "test": 3, "test-speakers": 4, "dev-speakers": 5}
ASTERISK = "usr/share/asterisk/sounds"
FOLDERS = {  # where each package keeps a voice, and the kind of its files
    "asterisk-core-sounds-en-g722": [(f"{ASTERISK}/en_US_f_Allison/", ".g722")],
    "asterisk-core-sounds-es-g722": [(f"{ASTERISK}/es_MX_f_Allison/", ".g722")],
    "asterisk-core-sounds-it-g722": [(f"{ASTERISK}/it_IT_m_Carlo/", ".g722")],
    "asterisk-prompt-es-co": [(f"{ASTERISK}/es/", ".wav")],
    "asterisk-prompt-it-menardi-wav": [(f"{ASTERISK}/it_IT_f_Menardi/", ".wav")],
    "fillets-ng-data-cs": [(f"usr/share/games/fillets-ng/sound/cave/cs/jes-{who}-", ".ogg") for who in "mv"],
    "klettres-data": [("usr/share/klettres/en_GB/alpha/", ".ogg")],
    "ktuberling-data": [("usr/share/ktuberling/sounds/sr@latin/", ".wav")],
    "asterisk-prompt-fr-armelle": [(f"{ASTERISK}/fr/", ".gsm")],
    "drascula": [("usr/share/scummvm/drascula/en/BJ", ".ALS"), ("usr/share/scummvm/drascula/en/", ".ALS")],
    "gcin-voice": [],
    "pocketsphinx-testdata": [("usr/share/pocketsphinx/test/data/librivox/", ".wav")],
}
QUEEN, HOGS = "usr/share/scummvm/flight-of-the-amazon-queen/queen.1c", "usr/share/games/hedgewars/Data/Sounds/voices"


def stems():
    """Three file names for each of train, dev and test: a prompt's name decides."""
    found = {subset: [] for subset in list(SUBSETS)[:3]}
    for number in range(1000):
        stem = f"prompt{number}"
        found[subset_of(Prompt("allison", stem, np.zeros(0)), 0)].append(stem)
    return [stem for names in found.values() for stem in names[:3]]


def encoded(samples, suffix, rate=16_000):
    buffer = io.BytesIO()
    if suffix == ".g722":
        import av

        with av.open(buffer, "w", format="g722") as container:
            stream = container.add_stream("g722", rate=rate, layout="mono")
            frame = av.AudioFrame.from_ndarray((samples[None] * 32767).astype(np.int16), "s16", "mono")
            frame.sample_rate = rate
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
    elif suffix == ".gsm":
        soundfile.write(buffer, samples[::2], rate // 2, format="RAW", subtype="GSM610")
    elif suffix == ".ALS":
        played = np.interp(np.arange(0, len(samples) - 1, rate / 11_025), np.arange(len(samples)), samples)
        return np.uint8(128 + 127 * played).tobytes()
    elif suffix == ".SB":
        soundfile.write(buffer, samples, rate, format="MP3")
    else:
        soundfile.write(buffer, np.stack([samples, samples], 1), rate, format=suffix[1:].upper())
    return buffer.getvalue()


def tone(frequency, seconds=1.6, rate=16_000):
    return 0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def tar_xz(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", preset=0) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def write_deb(folder, package, files, version="1.0-1", suffix=".xz"):
    """A Debian package as dpkg-deb lays it out."""
    files = {f"usr/share/doc/{package}/copyright": b"License: GPL-2\n"} | files
    control = f"Package: {package}\nVersion: {version}\nDescription: sounds\n of a test\n".encode()
    content = b"!<arch>\n"
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": tar_xz({"control": control}),
        f"data.tar{suffix}": tar_xz(files),
    }
    for name, part in parts.items():
        content += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(part):<10}`\n".encode() + part + b"\n" * (len(part) % 2)
        )
    path = folder / f"{package}_{version}_all.deb"
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Every recording is a different tone, so that a mixture shows which ones are in it; and {path: Hz}."""
    folder, tones = tmp_path_factory.mktemp("packages"), {}
    for package, places in FOLDERS.items():
        files = {}
        for start, suffix in places:
            for stem in range(9) if suffix == ".ALS" else stems():
                tones[f"{start}{stem}{suffix}"] = frequency = 300 + 19 * len(tones)
                files[f"{start}{stem}{suffix}"] = encoded(tone(frequency), suffix)
        if package.startswith("asterisk-core"):
            files[f"{places[0][0]}silence/1.g722"] = encoded(tone(0), ".g722")
            files[f"{places[0][0]}beep.g722"] = encoded(tone(1000), ".g722")
        write_deb(folder, package, files)
    return folder, tones


@pytest.fixture(scope="module")
def corpus(packages, tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "debian2mix"
    return out, build(packages[0], out, sizes=SIZES)


def rows(out, subset):
    with (out / f"wav8k/min/metadata/mixture_{subset}_mix_clean.csv").open() as file:
        return list(csv.DictReader(file))


def speakers(row):
    return [name.split("-")[0] for name in row["mixture_ID"].split("_")]


def recordings(out, subset, tones):
    """The packages' files that are heard in a subset's sources."""
    heard = set()
    for row in rows(out, subset):
        for column in ("source_1_path", "source_2_path"):
            samples, rate = soundfile.read(out / row[column])
            spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 2 * rate))  # half a hertz
            heard |= {path for path, hertz in tones.items() if spectrum[2 * hertz] > 0.2 * spectrum.max()}
    return heard


def test_the_same_packages_and_seed_give_the_same_corpus(packages, corpus, tmp_path):
    out, digest = corpus
    assert build(packages[0], tmp_path / "again", sizes=SIZES) == digest == check(out)
    (tmp_path / ".other.part").mkdir()  # a killed build
    (tmp_path / ".other.part" / "half.wav").touch()
    with pytest.raises(
        UserError, match="do not contain 3 s of two different speakers"
    ):  # the names were chosen for seed 0
        build(packages[0], tmp_path / "other", seed=1, sizes=SIZES)
    assert not (tmp_path / "other").exists()


def test_subsets_share_no_recording_and_no_prompt_name(corpus, packages):
    heard = {subset: recordings(corpus[0], subset, packages[1]) for subset in SUBSETS}
    assert min(map(len, heard.values())) >= 4
    for one in SUBSETS:
        for other in set(SUBSETS) - {one}:
            assert not heard[one] & heard[other]
            if not {"test-speakers", "dev-speakers"} & {one, other}:
                names = [{Path(path).stem for path in heard[subset]} for subset in (one, other)]
                assert not names[0] & names[1]


def test_unseen_speakers_are_unseen_and_nobody_speaks_twice(corpus):
    found = {subset: [speakers(row) for row in rows(corpus[0], subset)] for subset in SUBSETS}
    assert {subset: len(pairs) for subset, pairs in found.items()} == SIZES
    assert all(first != second for pairs in found.values() for first, second in pairs)
    assert {name for pair in found["test-speakers"] for name in pair} == {"carlo", "july"}
    chosen = {name for pair in found["dev-speakers"] for name in pair}
    assert {"armelle", "hero", "bj"} <= chosen <= set(CHOOSING)
    rest = {name for subset in list(SUBSETS)[:3] for pair in found[subset] for name in pair}
    assert rest <= {"allison", "paola", "smallfish", "bigfish", "kdeenGB", "kdesr"}
    assert not rest & set(UNSEEN + CHOOSING)


def queen(files):
    """An archive of the Amazon Queen's kind."""
    table, content, start = b"", b"", 15 + 21 * len(files)
    for name, part in files.items():
        table += name.encode().ljust(12, b"\x00") + b"\x01"
        table += (start + len(content)).to_bytes(4, "big") + len(part).to_bytes(4, "big")
        content += part
    return b"QTBLCEM10\x00\x00\x00\x01" + len(files).to_bytes(2, "big") + table + content


def test_games_voices_are_for_training_and_none_has_more_than_the_longest_other(packages, tmp_path):
    names = [f"020{number:03d}{who}" for number in range(40) for who in ("J1", "P1")] + [
        "JOE02561",
        "C18A_181",
        "TABLE",
    ]
    heard = {f"{name}.SB": encoded(tone(500 + index), ".SB") for index, name in enumerate(names)}
    write_deb(tmp_path, "flight-of-the-amazon-queen", {QUEEN: queen(heard | {"TABLE.TBL": b"no sound"})})
    hogs = {f"{HOGS}/{who}/a.ogg": encoded(tone(900 + 9 * i), ".ogg") for i, who in enumerate(["Default_es", "Robot"])}
    write_deb(tmp_path, "hedgewars-data", hogs)
    with pytest.raises(UserError, match="apt-get download asterisk-core-sounds-en-g722 .* pocketsphinx-testdata$"):
        debian2mix.find(tmp_path, games=True)
    for deb in packages[0].glob("*.deb"):
        (tmp_path / deb.name).symlink_to(deb)
    divided = debian2mix.divide(prompts_of(debian2mix.find(tmp_path, games=True)), 0)
    spoken = {}
    for prompt in divided["train"]:
        spoken[prompt.speaker] = spoken.get(prompt.speaker, 0) + len(prompt.samples) / 8000 + debian2mix.PAUSE
    assert set(spoken) > {"joe", "queen", "hogDefaultes"} and "hogRobot" not in spoken
    longest = max(seconds for who, seconds in spoken.items() if not who.startswith(voices.PLAYING))
    assert all(longest <= spoken[who] < longest + 2 for who in ("joe", "queen"))  # a prompt more
    alone = debian2mix.divide(prompts_of(debian2mix.find(packages[0])), 0)
    for subset, prompts in alone.items():
        both = zip(prompts, divided[subset], strict=subset != "train")
        assert all(one.stem == other.stem and (one.samples == other.samples).all() for one, other in both)


def test_another_kind_of_archive_is_refused():
    whole = queen({"020001J1.SB": b"abc"})
    assert list(voices.queen(whole, "queen.1c")) == [("020001J1.SB", b"abc")]
    for content, message in ((b"QTBLPEM10", "not the archive of the talking"), (whole[:-1], "shorter than its table")):
        with pytest.raises(UserError, match=f"queen.1c: {message}"):
            list(voices.queen(content, "queen.1c"))


def test_english_and_spanish_prompts_are_one_voice():
    for language in ("en_US", "es_MX"):
        assert speaker_of(f"/{ASTERISK}/{language}_f_Allison/digits/1.g722") == "allison"
    assert (
        speaker_of("/usr/share/klettres/uk/alpha/a.ogg")
        == speaker_of("/usr/share/ktuberling/sounds/uk/b.ogg")
        == "kdeuk"
    )


@pytest.mark.parametrize(
    "path",
    [
        f"{ASTERISK}/it_IT_m_Carlo/silence/3.g722",
        f"{ASTERISK}/en_US_f_Allison/beep.g722",
        f"{ASTERISK}/en_US_f_Allison/ascending-2tone.g722",
        f"{ASTERISK}/en_US_f_Allison/tt-monkeys.g722",
        f"{ASTERISK}/en_US_f_Allison/confbridge-join.g722",
        f"{ASTERISK}/fr_CA_f_June/vm-intro.g722",
        "usr/share/games/fillets-ng/sound/share/nl/jes-m-a.ogg",
        "usr/share/games/fillets-ng/sound/gods/cs/b1-1.ogg",  # another part, whose actor is not named
        "usr/share/klettres/pics/aqua/a.ogg",
    ],
)
def test_tones_and_voices_that_cannot_be_told_are_left_out(path):
    assert speaker_of(f"/{path}") is None


def test_a_recording_that_occurs_again_is_taken_once(tmp_path):
    sound, other = encoded(tone(500), ".wav"), encoded(tone(600), ".wav")
    files = {"sr/a.wav": sound, "sr@latin/b.wav": sound, "de/a.wav": other}
    files = {f"usr/share/ktuberling/sounds/{path}": content for path, content in files.items()}
    deb = Deb(write_deb(tmp_path, "ktuberling-data", files))
    assert [(prompt.speaker, prompt.stem) for prompt in prompts_of([deb])] == [("kdede", "a"), ("kdesr", "a")]


def test_a_mixture_is_the_sum_and_levels_are_as_stated(corpus):
    out = corpus[0]
    for subset in SUBSETS:
        for row in rows(out, subset):
            mixture, first, second = (
                soundfile.read(out / row[key], dtype="int16")[0]
                for key in ("mixture_path", "source_1_path", "source_2_path")
            )
            np.testing.assert_array_equal(mixture.astype(int), first.astype(int) + second)
            assert len(mixture) == int(row["length"]) >= 3 * 8000
            for source in (first, second):
                frames = (source[: len(source) // 160 * 160].reshape(-1, 160) / 32768.0) ** 2
                power = frames.mean(1)[frames.mean(1) > frames.mean(1).max() * 10**-3.5].mean()
                assert -33.1 < 10 * np.log10(power) < -24.9


def test_librimix_reads_it(corpus):
    settings = {"root": corpus[0], "training": "train", "segment": 1.0}
    chosen = LibriMix(["a", "b"], 8000, validation="dev-speakers", **settings)
    assert len(chosen.tracks("valid")) == 5
    data = LibriMix(["a", "b"], 8000, testing="test-speakers", remix=1.0, **settings)
    assert [len(data.tracks(split)) for split in ("train", "valid", "test")] == [6, 3, 4]
    segments = data.segments("train")
    for index in range(40):
        drawn = segments.draw_remix(0, index)
        assert len({track.speaker(which) for which, (track, _) in enumerate(drawn)}) == 2
    mixture, references = segments[0, 0]
    np.testing.assert_allclose(mixture, references.sum(0), atol=1e-6)


def test_packages_kept_for_scoring_are_not_opened(packages, tmp_path, capsys):
    folder = tmp_path / "debs"
    folder.mkdir()
    for deb in packages[0].glob("*.deb"):
        (folder / deb.name).symlink_to(deb)
    for name in ("asterisk-core-sounds-fr-g722", "asterisk-core-sounds-ru-wav", "fillets-ng-data-nl"):
        (folder / f"{name}_1_all.deb").write_bytes(b"nobody reads this")
    assert len(debian2mix.find(folder)) == len(debian2mix.PACKAGES)
    assert capsys.readouterr().err.count("kept for final scoring and was not opened") == 3


def test_lacking_and_damaged_packages_are_named(packages, tmp_path, capsys):
    assert main(["--packages", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "apt-get download asterisk-core-sounds-en-g722" in said and said.count("\n") == 1
    whole = next(packages[0].glob("klettres*")).read_bytes()
    damaged = tmp_path / "klettres-data_1_all.deb"
    for content, message in ((whole[:5000], "shorter than"), (b"MZ" + whole, "not a Debian package")):
        damaged.write_bytes(content)
        with pytest.raises(UserError, match=f"klettres-data_1_all.deb: {message}"):
            Deb(damaged)
    damaged.write_bytes(whole[:2000] + bytes(400) + whole[2400:])
    with pytest.raises(UserError, match="klettres-data_1_all.deb: cannot be unpacked"):
        list(Deb(damaged).files())
    with pytest.raises(UserError, match="packed as data.tar.lzma"):
        list(Deb(write_deb(tmp_path, "klettres-data", {}, suffix=".lzma")).files())
    text = {"usr/share/klettres/de/alpha/a.ogg": b"no sound"}
    with pytest.raises(UserError, match="klettres/de/alpha/a.ogg: cannot be decoded"):
        list(prompts_of([Deb(write_deb(tmp_path, "klettres-data", text))]))


def test_check_names_a_changed_file_and_nothing_is_overwritten(packages, tmp_path, capsys):
    arguments = ["--packages", str(packages[0]), "--out", str(tmp_path / "corpus")]
    arguments += [f"--{subset}={size}" for subset, size in SIZES.items()]
    assert main(arguments) == 0 and "not that of the tested package versions" in capsys.readouterr().out
    assert "asterisk-prompt-es-co 1.0-1, GPL-2: July E. Jiménez" in (tmp_path / "corpus/CREDITS.md").read_text()
    assert (tmp_path / "corpus/klettres-data.copyright").read_bytes() == b"License: GPL-2\n"
    assert main(arguments) == 2 and "already exists" in capsys.readouterr().err
    assert main([*arguments, "--check"]) == 0
    file = next((tmp_path / "corpus").rglob("s1/*.wav"))
    soundfile.write(file, np.zeros(8000), 8000)
    assert main([*arguments, "--check"]) == 2 and file.name in capsys.readouterr().err


def test_scores_by_pairs_of_speakers(tmp_path, capsys):
    lines = ["track,source,metric,score,mean,windows,unscored,seconds"]
    for number in range(12):
        for source, score in (("speaker1", number), ("speaker2", number + 2)):
            for metric in ("SDR", "SI-SNRi"):
                lines.append(f"paola-0-{number}_allison-0-{number},{source},{metric},{score},{score},1,0,3.0")
    lines += [f"kdehu-0-0000_paola-0-0099,speaker1,{metric},20,20,1,0,3.0" for metric in ("SDR", "SI-SNRi")]
    (tmp_path / "scores.csv").write_text("\n".join(lines) + "\n")
    pairs.main([str(tmp_path)])
    once = capsys.readouterr().out
    printed = [line.split(" | ") for line in once.splitlines() if line.startswith("| ")][1:]
    means = [("| all", "13", f"{(12 * 6.5 + 20) / 13:.2f}"), ("| allison + paola", "12", "6.50")]
    assert [tuple(row[:3]) for row in printed] == [*means, ("| other pairs", "1", "20.00")]
    assert printed[1][4] == "17% |"  # 1 and 2 dB
    pairs.main([str(tmp_path), str(tmp_path)])
    assert "'difference': 0.0, 'better': 0, 'p': 1.0" in capsys.readouterr().out and "Wilcoxon" not in once
    for name, kept in (("one less", lines[:-1]), ("none", [lines[0], lines[1], lines[2].replace(",0,0,", ",,,")])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scores.csv").write_text("\n".join(kept) + "\n")
    pairs.main([str(tmp_path), str(tmp_path / "one less"), str(tmp_path / "none")])
    assert capsys.readouterr().out.count("Wilcoxon") == 1
