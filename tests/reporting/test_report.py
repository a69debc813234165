"""The page: what it says, and that it works in a browser (headless Chromium, where there is one)."""

import json
import re

import numpy as np
import pytest
import soundfile
import torch
from browser import CHROMIUM, Browser

from tasnet_attn.data.track import Track
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.command import evaluate
from tasnet_attn.evaluation.oracles import OracleMask
from tasnet_attn.reporting.command import report

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
    return report(folders, tmp_path_factory.mktemp("page") / "page.html", seconds=2.0)


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
    import shutil

    copy = tmp_path / "ratio"
    shutil.copytree(folders[0], copy)
    before = report([copy]).read_text()
    assert report([copy]).read_text() == before
    text = (copy / file).read_text()
    summary = json.loads((folders[0] / "summary.json").read_text())
    if file == "scores.csv":
        old = re.search(r"a song,vocals,SDR,([-\d.]+)", text)[1]
    else:
        old = repr(summary["scores"]["vocals"]["SDR"]["median of medians"]["value"])
    (copy / file).write_text(text.replace(old, "12.3456"))
    after = report([copy]).read_text()
    assert "12.35" not in before and "12.35" in after


def test_texts_of_a_foreign_summary_are_escaped(folders, tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    summary = json.loads((folders[0] / "summary.json").read_text())
    summary |= {key: evil for key in ("name", "backend", "version", "sample_rate")}
    summary["scores"][evil] = summary["scores"].pop("vocals")
    summary["silence"][evil] = summary["silence"].pop("vocals")
    summary["conventions"] = {name: evil for name in summary["conventions"]}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    table = (folders[0] / "scores.csv").read_text().replace("vocals", evil).replace("a song", evil)
    (tmp_path / "scores.csv").write_text(table.replace("SI-SNRi", evil))
    text = report([tmp_path]).read_text()
    assert evil not in text and text.count("&lt;img src=x onerror=alert(1)&gt;") > 20


def test_few_players_go_from_the_worst_to_the_best(folders, tmp_path):
    text = report(folders, tmp_path / "page.html", players=2, seconds=1.0).read_text()
    assert text.count('<section class="player"') == 2
    assert "<h2>Listen" not in report(folders, tmp_path / "page.html", players=0).read_text()


def test_mistakes_are_one_clear_line(tmp_path, folders):
    with pytest.raises(UserError, match="no folder"):
        report([])
    with pytest.raises(UserError, match="is .* a folder of `tasnet-attn evaluate`"):
        report([tmp_path])
    (tmp_path / "scores.csv").write_text("track,score\nx,y\n")
    with pytest.raises(UserError, match="not a table"):
        report([tmp_path])
    (tmp_path / "scores.csv").write_text((folders[0] / "scores.csv").read_text())
    with pytest.raises(UserError, match="summary.json: cannot be read"):
        report([tmp_path])


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

    def until(condition):
        check = f"if ({condition}) {{ clearInterval(timer); done(); }}"
        browser.run(f"new Promise(done => {{ const timer = setInterval(() => {{ {check} }}, 10); }})")

    browser.run("report.players[0].play()")
    until("report.players[0].position > 0.2")
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
    until("report.players[0].node")
    until("!report.players[0].node")  # the end
    assert browser.run(state) == {"position": 0, "playing": False, "signal": second, "shown": [second]}
    assert browser.complaints() == []


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
            opened.picture(tmp_path / "page.png")
            assert (tmp_path / "page.png").stat().st_size > 10_000
            assert opened.complaints() == []
