"""The page: what it says, and that it works in a browser (headless Chromium, where there is one)."""

import base64
import csv
import io
import json
import math
import os
import re
import shutil
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import scipy.signal
import soundfile
import soxr
import torch
from browser import CHROMIUM, Browser
from matplotlib.figure import Figure

from tasnet_attn.audio.writing import excerpt_bytes
from tasnet_attn.data.track import Track
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.command import evaluate
from tasnet_attn.evaluation.lengths import COLUMNS
from tasnet_attn.evaluation.oracles import OracleMask
from tasnet_attn.reporting.command import TEMPLATES, report
from tasnet_attn.reporting.figures import by_length, draw_signals, spectrograms
from tasnet_attn.reporting.pictures import kilohertz, mel_spectrogram

RATE = 8000
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: the page is not tried in a browser")


class Song(Track):
    """Two seeded stereo sources; the second one is silent for a second."""

    sources, sample_rate, length = ["vocals", "rest <b>"], RATE, 3 * RATE

    def __init__(self, name):
        self.name = name

    def read(self, start=0, length=None):
        generator = torch.Generator().manual_seed(sum(map(ord, self.name)))
        references = 0.1 * torch.randn(2, 2, self.length, generator=generator)
        references[1, :, 1:] -= 0.9 * references[1, :, :-1].clone()
        references[1, :, RATE : 2 * RATE] = 0.0
        return references.sum(0), references


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluations")
    songs = [Song(name) for name in ("b & b", "a song", "c/d")]
    for mask in ("ratio", "binary"):
        evaluate(OracleMask(mask), songs, out / mask, audio="flac", baselines=["mixture"] if mask == "ratio" else [])
    return [out / "ratio", out / "binary"]


@pytest.fixture(scope="module")
def page(folders, tmp_path_factory):
    return report(folders, tmp_path_factory.mktemp("page") / "page.html", seconds=2.0, audio="flac")


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.open(page)
        yield opened


def test_the_page_has_every_part_and_asks_for_nothing(page):
    text = page.read_text()
    for part in (
        "Scores by convention",
        "Published figures",
        "Paired comparison",
        "Distribution over tracks",
        "Silence",
    ):
        assert f"<h2>{part}</h2>" in text
    for system in ("ratio", "mixture (baseline)", "binary"):
        assert f"</span>{system}</td>" in text
    assert "rest &lt;b&gt;" in text and "rest <b>" not in text
    assert "b &amp; b" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text) and "http" not in text.replace("http-equiv", "")


def test_published_figures_are_marked(page):
    rows = re.findall(r'<tr class="published">(.*?)</tr>', page.read_text())
    assert rows and all('<span class="tag">published</span>' in row for row in rows)
    assert any("Open-Unmix" in row and "6.32" in row and "vocals" in row for row in rows)
    assert not any("drums" in row for row in rows)  # nothing that was not evaluated


def test_the_tables_show_the_saved_scores(page, folders):
    text = page.read_text()
    summary = json.loads((folders[0] / "summary.json").read_text())
    found = summary["scores"]["vocals"]["SDR"]["median of medians"]
    assert f"{found['value']:.2f} <small>[{found['low']:.2f}, {found['high']:.2f}]</small>" in text
    assert re.search(r'data-v="1">1 of 3<', text)  # windows without score


@pytest.mark.parametrize("file", ["scores.csv", "summary.json"])
def test_a_changed_score_changes_the_page(folders, tmp_path, file):
    copy = tmp_path / "ratio"
    shutil.copytree(folders[0], copy)
    before = report([copy], players=0).read_text()
    assert report([copy], players=0).read_text() == before
    text = (copy / file).read_text()
    summary = json.loads((folders[0] / "summary.json").read_text())
    if file == "scores.csv":
        old = re.search(r"a song,vocals,SDR,([-\d.]+)", text)[1]
    else:
        old = repr(summary["scores"]["vocals"]["SDR"]["median of medians"]["value"])
    (copy / file).write_text(text.replace(old, "12.3456"))
    after = report([copy], players=0).read_text()
    assert "12.35" not in before and "12.35" in after


EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'{{ 7*7 }}"


def leaves(value, path=()):
    """Where the leaves and keys of plain data are: (path, whether it is the key itself)."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key), True
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path, False


def changed(value, path, key, new):
    """A copy with `new` instead of a leaf or a key."""
    if not path:
        return new
    if isinstance(value, list):
        return [changed(x, path[1:], key, new) if i == path[0] else x for i, x in enumerate(value)]
    if key and len(path) == 1:
        return {new if k == path[0] else k: x for k, x in value.items()}
    return {k: changed(x, path[1:], key, new) if k == path[0] else x for k, x in value.items()}


def scripts(page):
    """Elements that a parser finds, by name; and attributes that run something."""
    found = Counter()

    class Elements(HTMLParser):
        def handle_starttag(self, tag, attributes):
            found[tag] += 1
            found.update(name for name, _ in attributes if name.startswith("on"))

    Elements().feed(page.read_text())
    return {name: count for name, count in found.items() if name in ("script", "iframe") or name.startswith("on")}


def foreign(folders, tmp_path, summary=None, table=None):
    """A folder without audio whose files somebody else wrote."""
    if table is not None or not (tmp_path / "scores.csv").exists():
        (tmp_path / "scores.csv").write_text(table or (folders[0] / "scores.csv").read_text())
    if not isinstance(summary, str):
        summary = json.dumps(summary or json.loads((folders[0] / "summary.json").read_text()))
    (tmp_path / "summary.json").write_text(summary)
    return tmp_path


def test_hostile_text_in_any_field_is_escaped_or_refused_in_one_line(folders, tmp_path):
    """Every key and value of summary.json, kind by kind; every column of scores.csv; all that may be text at once."""
    summary = json.loads((folders[0] / "summary.json").read_text())
    plain = scripts(report([foreign(folders, tmp_path)]))
    assert plain == {"script": 2}
    kinds, refused = {}, 0
    for path, key in leaves(summary):
        kinds.setdefault((len(path), path[0], path[-1] if not key else "", key), (path, key))
    rows = list(csv.reader((folders[0] / "scores.csv").open()))
    tries = [(changed(summary, path, key, EVIL), rows) for path, key in kinds.values()]
    tries += [(summary, [rows[0], *([*r[:i], EVIL, *r[i + 1 :]] for r in rows[1:])]) for i in range(len(rows[0]))]
    everywhere = json.loads(json.dumps(summary).replace("vocals", "EVIL").replace("a song", "EVIL"))
    everywhere |= {key: "EVIL" for key in ("name", "backend", "version")}
    everywhere["conventions"] = dict.fromkeys(summary["conventions"], "EVIL")
    everywhere = json.loads(json.dumps(everywhere).replace("EVIL", json.dumps(EVIL)[1:-1]))
    names = {"vocals": EVIL, "a song": EVIL, "SI-SNRi": EVIL}
    tries.append((everywhere, [[names.get(cell, cell) for cell in row] for row in rows]))
    for found, cells in tries:
        table = io.StringIO()
        csv.writer(table).writerows(cells)
        folder = foreign(folders, tmp_path, found, table.getvalue())
        try:
            page = report([folder])
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and str(tmp_path) in str(error)
            continue
        text = page.read_text()
        assert scripts(page) == plain and "<script>alert" not in text and "<img src=x" not in text
    assert 10 < refused < len(tries) - 10
    assert text.count("&lt;img src=x onerror=alert(1)&gt;") > 20 and "49" not in text.partition("<body>")[2][:200]


@pytest.mark.parametrize(
    "damage",
    [
        "{", "[]", "null", '"x"', "[" * 100_000, '{"name": NaN}', "{}",
        {"sample_rate": "8000"}, {"tracks": {}}, {"tracks": [1]}, {"scores": []}, {"scores": {"vocals": {"SDR": {}}}},
        {"scores": {"vocals": None}}, {"seconds": float("nan")}, {"seconds": 10**400}, {"window": "<b>"},
        {"conventions": {"a": 1}}, {"silence": {"vocals": {"windows": "x"}}}, {"mean over sources": 3}, {"name": None},
    ],
)  # fmt: skip
def test_a_damaged_summary_is_one_line(folders, tmp_path, damage):
    summary = json.loads((folders[0] / "summary.json").read_text())
    folder = foreign(folders, tmp_path, damage if isinstance(damage, str) else summary | damage)
    with pytest.raises(UserError, match="summary.json: ") as caught:
        report([folder])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [(",SDR,", ",SDR2,"), (r",SDR,[-\d.]+", ",SDR,inf"), ("SI-SNRi", "SI-SNR"), (r"\n.*", ""), (",3.0\n", ",x\n")],
)
def test_a_damaged_table_is_one_line(folders, tmp_path, old, new):
    text = re.sub(old, new, (folders[0] / "scores.csv").read_text(), flags=0)
    with pytest.raises(UserError, match="scores.csv: not a table") as caught:
        report([foreign(folders, tmp_path, table=text)])
    assert "\n" not in str(caught.value)


def test_half_letters_and_other_conventions(folders, tmp_path):
    summary = json.loads((folders[0] / "summary.json").read_text())
    summary |= {"name": "\ud800", "conventions": {"mean of means": "x"}}
    text = report([folders[1], foreign(folders, tmp_path, summary)], tmp_path / "page.html", players=0).read_text()
    assert "ud800" in text


def test_systems_are_called_by_their_runs(folders, tmp_path):
    for run in ("one", "two"):
        shutil.copytree(folders[1], tmp_path / run / "evaluation")
        summary = json.loads((folders[1] / "summary.json").read_text()) | {"name": "evaluation"}  # of version 0.1
        (tmp_path / run / "evaluation" / "summary.json").write_text(json.dumps(summary))
    text = report([tmp_path / "one", tmp_path / "two"], players=0).read_text()
    assert "</span>one</td>" in text and "</span>two</td>" in text and "</span>evaluation" not in text


def test_what_an_earlier_evaluation_left_is_not_on_the_page(tmp_path):
    evaluate(OracleMask("ratio"), [Song("a")], tmp_path, baselines=["mixture", "oracle-binary"])
    evaluate(OracleMask("binary"), [Song("b")], tmp_path, baselines=["mixture"])
    (tmp_path / "by_length.csv").write_text("length,SI-SNRi\n1,2\n")
    text = report([tmp_path]).read_text()
    assert "mixture (baseline)" in text and "oracle-binary" not in text and not (tmp_path / "by_length.png").exists()


def test_systems_with_other_sources_are_heard_side_by_side(tmp_path):
    class Half(OracleMask):
        sources = ["vocals"]

    track = Song("a")
    for name, system in (("both", OracleMask("ratio")), ("vocals alone", Half("ratio"))):
        evaluate(system, [track], tmp_path / name, audio="wav")
    for order in (["both", "vocals alone"], ["vocals alone", "both"]):
        text = report([tmp_path / name for name in order], tmp_path / "page.html").read_text()
        assert text.count('<section class="player"') == 1
        for label in ("vocals: both", "vocals: vocals alone", "rest &lt;b&gt;: both"):
            assert label in text
        assert "rest &lt;b&gt;: vocals alone" not in text


def test_a_dollar_is_no_formula(tmp_path):
    table = pd.DataFrame([{name: 1.0 for name in COLUMNS}])
    by_length({r"a$\foo$": table}, tmp_path / "by_length.png")
    spectrograms({r"a$\foo$": torch.randn(1, 4000)}, 8000, tmp_path / "signals.png")


def test_the_page_says_model_steps_data_and_date(folders, tmp_path):
    copy = shutil.copytree(folders[0], tmp_path / "ratio")
    about = {"model": "TasNet, 12 parameters", "steps": "1,200", "data": "StemFolders, test"}
    summary = json.loads((copy / "summary.json").read_text()) | {"about": about}
    (copy / "summary.json").write_text(json.dumps(summary))
    os.utime(copy / "summary.json", (1e9, 1e9))
    text = report([copy], players=0).read_text()
    assert all(f">{value}</td>" in text for value in (*about.values(), "2001-09-09"))


def test_box_plots_have_a_zero_line_where_zero_is_within(page):
    plots = dict(re.findall(r"<summary>([\w-]+)</summary><div class=\"boxes\">(.*?)</details>", page.read_text(), re.S))
    for metric, plot in plots.items():
        low, high = map(int, re.findall(r"<span>(-?\d+) dB</span>", plot))
        zeros = {float(x) for x in re.findall(r'class="zero" d="M([\d.]+) ', plot)}
        assert zeros == ({round(-1000 * low / (high - low), 1)} if low < 0 < high else set()), metric
    assert any('class="zero"' in plot for plot in plots.values())


def test_few_players_go_from_the_worst_to_the_best(folders, tmp_path):
    text = report(folders, tmp_path / "page.html", players=2, seconds=1.0).read_text()
    assert text.count('<section class="player"') == 2
    assert "<h2>Listen" not in report(folders, tmp_path / "page.html", players=0).read_text()
    report(folders, tmp_path / "page.html", players=1, seconds=1e-6)  # a sample at least


def test_tracks_of_another_length_are_not_compared(tmp_path):
    """Two splits may use the same names."""
    for name, length in (("test", 3 * RATE), ("again", 3 * RATE + 20), ("valid", 2 * RATE)):
        songs = [Song("1"), Song("2")]
        for song in songs:
            song.length = length
        evaluate(OracleMask("ratio"), songs, tmp_path / name)
    for name, compared in (("again", True), ("valid", False)):
        text = report([tmp_path / "test", tmp_path / name], tmp_path / "page.html").read_text()
        assert ("tracks where the first is better" in text and " minus " in text) == compared


def test_mistakes_are_one_clear_line(tmp_path, folders):
    with pytest.raises(UserError, match="no folder"):
        report([])
    with pytest.raises(UserError, match="is .* a folder of `tasnet-attn evaluate`"):
        report([tmp_path])
    for settings in ({"seconds": 0.0}, {"seconds": math.nan}, {"seconds": math.inf}, {"players": -1}):
        with pytest.raises(UserError, match="--seconds .* must be above 0"):
            report([folders[0]], tmp_path / "page.html", **settings)
    copy = shutil.copytree(folders[0], tmp_path / "copy")
    summary = json.loads((copy / "summary.json").read_text()) | {"by_length": [1.0]}
    (copy / "summary.json").write_text(json.dumps(summary))
    for damage in ("", "a,b\n1,2\n", ",".join(COLUMNS) + "\n" + "x," * 8):
        (copy / "by_length.csv").write_text(damage)
        with pytest.raises(UserError, match="by_length.csv: not a table"):
            report([copy])
    (tmp_path / "scores.csv").write_text("track,score\nx,y\n")
    with pytest.raises(UserError, match="not a table"):
        report([tmp_path])
    (tmp_path / "scores.csv").write_text((folders[0] / "scores.csv").read_text())
    with pytest.raises(UserError, match="summary.json: cannot be read"):
        report([tmp_path])


def test_a_tone_lies_where_the_axis_says():
    """The page's picture and the figure's, which share the mel scale; the figure has one scale for all signals."""
    time = np.arange(3 * 44100) / 44100
    tones = {f"{hertz} Hz": np.sin(2 * np.pi * hertz * time)[:, None].repeat(2, 1) for hertz in (500, 2000, 8000)}
    for (label, place), tone in zip(kilohertz(44100), tones.values(), strict=True):
        decibels = mel_spectrogram(tone.astype(np.float32), 44100).max(1)
        assert abs(100 * (decibels.argmax() + 0.5) / len(decibels) - place) < 1.5, label
        assert -15 < decibels.max() < 1  # of full scale; a band is the mean over its bins
    figure = Figure()
    draw_signals(figure, {name: torch.from_numpy(tone.T).float() for name, tone in tones.items()}, 44100)
    axes = figure.axes[:-1]  # the last is the colour bar
    assert [axis.get_title("left") for axis in axes[::2]] == [*tones] and len({a.get_ylim() for a in axes[::2]}) == 1
    images = [axis.images[0] for axis in axes[1::2]]
    assert {(image.get_clim(), image.get_cmap().name) for image in images} == {((-90.0, 0.0), "magma")}
    assert [text.get_text() for text in axes[1].get_yticklabels()] == ["0.5", "2", "8"]


# ---- in the browser --------------------------------------------------------------------------------------------------


@in_browser
def test_no_complaints_and_no_network(browser):
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in browser.requests() if url.startswith("file:")]) == 1


@in_browser
def test_audio_decodes_to_the_stems_samples(browser, folders):
    """Every signal of a player: 16-bit FLAC of the file that the evaluation kept."""
    script = """(async () => {
        const whole = x => Math.round(x * (x < 0 ? 32768 : 32767));  // Chromium scales 16-bit samples like this
        const player = report.players.find(p => p.element.querySelector("h3").textContent === "a song");
        const found = {};
        for (const choice of player.choices) {
            const buffer = await report.decode(choice.dataset.signal);
            found[choice.textContent] = [0, 1].map(c => [...buffer.getChannelData(c)].map(whole));
        }
        return found;
    })()"""
    decoded = browser.run(script)
    files = {"mixture": folders[0] / "audio/a song/mixture.flac"}
    for source, name in (("vocals", "vocals"), ("rest <b>", "rest %3Cb%3E")):
        files[f"{source}: reference"] = folders[0] / f"audio/a song/{name}.reference.flac"
        for folder in folders:
            files[f"{source}: {folder.name}"] = folder / f"audio/a song/{name}.flac"
    assert list(decoded) == list(files)
    start = None
    for label, file in files.items():
        samples, rate = soundfile.read(file)
        found = np.array(decoded[label]).T
        assert rate == RATE and found.shape == (2 * RATE, 2)
        if start is None:  # which excerpt it is
            starts = range(0, len(samples) - 2 * RATE + 1, RATE // 2)
            start = min(starts, key=lambda s: abs(samples[s : s + 2 * RATE] * 32768 - found).max())
        assert abs(samples[start : start + 2 * RATE] * 32768 - found).max() <= 0.51, label


@in_browser
@pytest.mark.parametrize("rate", [8000, pytest.param(44100, marks=pytest.mark.slow)])
def test_compressed_audio_plays_in_step(rate, tmp_path):
    """MP3 as the page has it, decoded by the browser: the same length as the excerpt, and no later."""
    generator = np.random.default_rng(0)
    signal = 0.3 * scipy.signal.lfilter([1], [1, -1.8, 0.9], generator.normal(size=(2, 2 * rate)))
    signal /= 1.1 * abs(signal).max()
    data, written = excerpt_bytes(torch.from_numpy(signal).float(), rate, "mp3")
    page = tmp_path / "page.html"
    audio = json.dumps({"0": {"rate": written, "data": base64.b64encode(data).decode()}})
    script = (TEMPLATES / "report.js").read_text()
    page.write_text(f'<script type="application/json" id="audio">{audio}</script><script>{script}</script>')
    with Browser(tmp_path / "profile") as opened:
        opened.open(page)
        expression = "report.decode('0').then(b => [0, 1].map(c => [...b.getChannelData(c)]))"
        found = np.array(opened.run(expression))
        assert opened.complaints() == []
    expected = soxr.resample(signal.T, rate, written).T
    assert found.shape == expected.shape
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.95


@in_browser
def test_a_click_sorts(browser):
    column = (
        """(index => [...document.querySelector("#tracks").tBodies[0].rows].map(row => row.cells[index].textContent))"""
    )
    heads = browser.run("[...document.querySelector('#tracks').tHead.rows[0].cells].map(head => head.textContent)")
    sdr = heads.index("SDR")
    click = "document.querySelector('#tracks').tHead.rows[0].cells[{}].querySelector('button').click()"
    before = [float(x) for x in browser.run(f"{column}({sdr})")]
    browser.run(click.format(sdr))
    assert [float(x) for x in browser.run(f"{column}({sdr})")] == sorted(before) != before
    browser.run(click.format(sdr))
    assert [float(x) for x in browser.run(f"{column}({sdr})")] == sorted(before, reverse=True)
    browser.run(click.format(0))
    names = browser.run(f"{column}(0)")
    assert names == sorted(names) and names[0] == "a song"
    assert browser.run("document.querySelectorAll('th[aria-sort]').length") == 1


@in_browser
def test_switching_keeps_the_position(browser):
    state = """(player => ({position: player.position, playing: Boolean(player.node), signal: player.signal,
        shown: [...player.element.querySelectorAll("img.shown")].map(image => image.dataset.of)}))(report.players[0])"""

    browser.run("report.players[0].play()")
    browser.until("report.players[0].position > 0.2")
    before = browser.run(state)
    second = browser.run("report.players[0].choices[1].dataset.signal")
    browser.run(f"report.players[0].choose('{second}')")
    after = browser.run(state)
    assert after["signal"] == second and after["shown"] == [second]
    assert after["position"] >= before["position"] > 0.2  # it went on, it did not start again
    browser.run("report.players[0].seek(0.5)")
    browser.run("report.players[1].play()")  # another player: the first one stops where it is
    assert not browser.run(state)["playing"] and browser.run(state)["position"] >= 0.5
    browser.run("report.players[1].pause()")
    browser.run("report.players[0].seek(1.5)")
    assert browser.run(state)["position"] == pytest.approx(1.5)
    browser.run("report.players[0].element.querySelector('.play').click()")
    browser.until("report.players[0].node")
    browser.until("!report.players[0].node")  # the end
    assert browser.run(state) == {"position": 0, "playing": False, "signal": second, "shown": [second]}
    assert browser.complaints() == []


@in_browser
def test_keys_play_and_switch_at_the_same_position(browser):
    first = "report.players[0]"
    key = "document.dispatchEvent(new KeyboardEvent('keydown', {key: '%s', bubbles: true}))"
    key = key.replace("document.", "document.body.")
    browser.run(f"{first}.play().then(() => {first}.pause())")
    browser.run(f"{first}.seek(1.25).then(() => {first}.choose({first}.choices[0].dataset.signal))")
    names = [browser.run(f"{first}.choices[{i}].dataset.signal") for i in (0, 1)]
    for pressed, expected in (("ArrowDown", names[1]), ("ArrowUp", names[0]), ("x", names[1]), ("x", names[0])):
        browser.run(key % pressed)
        browser.until(f"{first}.signal === '{expected}'")
        assert browser.run(f"{first}.position") == pytest.approx(1.25)
    browser.run(key % "ArrowLeft")
    assert browser.run(f"{first}.position") == pytest.approx(0.25)
    browser.run(key % " ")
    browser.until(f"{first}.node")
    browser.run(key % " ")
    assert not browser.run(f"Boolean({first}.node)")


@in_browser
def test_pictures_and_widths(page, tmp_path):
    for width, phone in ((1100, False), (390, True)):
        with Browser(tmp_path / f"profile {width}", width, 844, phone) as opened:
            opened.open(page)
            assert opened.run(
                "document.documentElement.scrollWidth <= window.innerWidth"
            )  # tables scroll by themselves
            assert opened.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
            small = "[...document.querySelectorAll('button')].filter(b => b.closest('.player') && b.offsetHeight < 32)"
            assert opened.run(f"{small}.length") == 0  # large enough for a thumb
            cut = "[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth + 1)"
            assert not phone or opened.run(f"{cut}.length") == 0  # there rows are cards
            opened.picture(tmp_path / "page.png")
            assert (tmp_path / "page.png").stat().st_size > 10_000
            assert opened.complaints() == []
