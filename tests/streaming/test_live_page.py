"""The page of docs/live, from a file, in headless Chromium: its stems are the model's."""

import json
import subprocess
from functools import partial

import numpy as np
import pytest
import soundfile
import torch
from browser import CHROMIUM, Browser
from conftest import LIVE, fetched, tasnet_model

from tasnet_attn.exporting.formats import FORMATS, step_header
from tasnet_attn.exporting.parity import cases
from tasnet_attn.separators import LTL

RATE = 8000
pytestmark = [
    pytest.mark.slow,
    fetched,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: docs/live is not tried in a browser"),
]


@pytest.fixture(scope="module")
def ltl(tmp_path_factory):
    """A model and its step, with the side-car."""
    torch.manual_seed(0)
    window = partial(LTL, hidden=8, heads=1, ffn=8, transformer_layers=1, window=9)
    model = tasnet_model(window, kernel_size=20, stride=7).eval()
    model.gain.copy_(torch.tensor([-1.7, 0.6]))
    file = tmp_path_factory.mktemp("ltl") / "ltl.step.onnx"
    FORMATS["onnx-step"].write(model, file, {})
    file.with_suffix(".json").write_text(json.dumps(step_header(model, {})))
    return model, file


@pytest.fixture(scope="module")
def music(ltl):
    """A second of a bundled song, [2, T]."""
    return next(mixture for name, mixture in cases(ltl[0]).items() if name.startswith("music, 2"))


@pytest.fixture
def song(music, tmp_path):
    soundfile.write(tmp_path / "song.wav", music.T, RATE, "FLOAT")
    return tmp_path / "song.wav"


def separated(model, mixture):
    """{source: [T, C]} as Python computes them."""
    with torch.inference_mode():
        estimates = model(torch.from_numpy(mixture)[None])[0]
    return {source: estimate.T.numpy() for source, estimate in zip(model.sources, estimates, strict=True)}


def same(file, expected):
    """To 1e-5 of the peak."""
    found, rate = soundfile.read(file, dtype="float32", always_2d=True)
    assert rate == RATE and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * abs(expected).max())


READY = "document.getElementById('model-about').textContent.startsWith('Separates guitar and backing')"
MICROPHONE = ("use-fake-device-for-media-stream", "use-fake-ui-for-media-stream", "use-file-for-fake-audio-capture={}")


def text(browser, name):
    return browser.run(f"document.getElementById('{name}').textContent")


def click(browser, selector):
    browser.run(f"document.querySelector('{selector}').click()")


def separate(browser, file):
    """Give the page a file and wait for what it makes of it."""
    browser.run("document.getElementById('result-name').textContent = ''")
    browser.choose("#sound", file)
    browser.until(f"document.getElementById('result-name').textContent === '{file.name}'")


def downloaded(browser, folder, names):
    """{name: file} of the page's downloads."""
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    track = text(browser, "result-name").removesuffix(".wav")
    files = {name: folder / f"{track}.{name}.wav" for name in names}
    for name, file in files.items():
        click(browser, f'button[aria-label="Download {name}"]')
        while not file.is_file():
            browser.run("new Promise(done => setTimeout(done, 20))")
    return files


@pytest.fixture(scope="module")
def page(ltl, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "live.html"
    subprocess.run(["node", str(LIVE / "build.js"), "--model", str(ltl[1]), "--out", str(out)], check=True)
    return out


@pytest.fixture(scope="module")
def browser(page, music, tmp_path_factory):
    heard = tmp_path_factory.mktemp("microphone") / "heard.wav"
    soundfile.write(heard, 4 * music.T, RATE, "PCM_16")
    switches = [switch.format(heard) for switch in MICROPHONE]
    with Browser(tmp_path_factory.mktemp("profile"), switches=switches) as opened:
        opened.open(page)
        opened.until(READY)
        yield opened


def test_stems_are_the_model_s_and_nothing_is_asked_of_the_network(browser, ltl, music, song, tmp_path):
    separate(browser, song)
    expected = {"Mixture": music.T, **separated(ltl[0], music)}
    for name, stem in downloaded(browser, tmp_path, expected).items():
        same(stem, expected[name])
    assert browser.complaints() == []
    kinds = {url.split(":")[0] for url in browser.requests()}
    assert kinds <= {"file", "data", "blob"} and len([u for u in browser.requests() if u.startswith("file:")]) == 1


def test_a_switch_keeps_the_position(browser, song):
    separate(browser, song)
    position, heard = "live.player.position", "live.player.voices.get('guitar').gain.gain.value"
    click(browser, "#play")
    browser.until(f"{position} > 0.1")
    before = browser.run(position)
    browser.press("2")
    assert browser.run("live.player.chosen") == "guitar" and browser.run("live.player.playing")
    assert browser.run("document.querySelector('#signals input:checked').value") == "guitar"
    assert browser.run(position) >= before
    browser.until(f"{heard} > 0.99 && live.player.voices.get('Mixture').gain.gain.value < 0.01")
    browser.press(" ")
    stopped = browser.run(position)
    assert not browser.run("live.player.playing") and before <= stopped < 1
    browser.run("live.player.choose('backing')")
    assert browser.run(position) == stopped
    browser.run("live.player.seek(0.9)")
    browser.press(" ")
    browser.until("!live.player.playing")  # the end
    assert browser.run(position) == 0
    assert browser.complaints() == []


def test_cancel_ends_it_and_the_next_file_is_whole(browser, ltl, music, song, tmp_path):
    soundfile.write(tmp_path / "long.wav", np.tile(music.T, (120, 1)), RATE, "FLOAT")
    browser.choose("#sound", tmp_path / "long.wav")
    browser.until("document.getElementById('progress').value > 0")
    assert text(browser, "work-name") == "long.wav" and text(browser, "work-state").endswith(" %")
    click(browser, "#cancel")
    assert browser.run("document.getElementById('work').hidden && document.getElementById('error').hidden")
    separate(browser, song)
    for name, expected in separated(ltl[0], music).items():
        same(downloaded(browser, tmp_path, [name])[name], expected)


def test_mistakes_are_one_line_and_nothing_is_lost(browser, ltl, music, tmp_path):
    import onnx

    step = onnx.load(ltl[1])
    bare = tmp_path / "bare.step.onnx"
    del step.metadata_props[:]
    onnx.save(step, bare)
    whole, broken, sideless = tmp_path / "whole.onnx", tmp_path / "broken.step.onnx", tmp_path / "broken.step.json"
    onnx.helper.set_model_props(step, {"tasnet_attn": '{"sources": []}'})
    onnx.save(step, whole)
    broken.write_bytes(b"\x08\x08" + bytes(99))
    sideless.write_bytes(ltl[1].with_suffix(".json").read_bytes())
    for name, content in (("words.wav", b"no sound"), ("empty.wav", b"")):
        (tmp_path / name).write_bytes(content)
    for where, files, message in (
        ("#sound", ["words.wav"], "words.wav has no sound that this browser can decode"),
        ("#sound", ["empty.wav"], "empty.wav has no sound that this browser can decode"),
        ("#model-files", [bare.name], "does not say what it computes: choose it together with bare.step.json"),
        ("#model-files", [sideless.name], "choose a file that ends in .step.onnx"),
        ("#model-files", [whole.name], "whole.onnx is not a step; tasnet-attn export MODEL --to onnx-step writes one"),
        ("#model-files", [broken.name, sideless.name], "broken.step.onnx cannot be run: "),
    ):
        browser.run("document.getElementById('error').textContent = ''")
        browser.choose(where, *(tmp_path / file for file in files))
        browser.until("document.getElementById('error').textContent")
        assert message in text(browser, "error") and "\n" not in text(browser, "error")
        assert not browser.run("document.getElementById('error').hidden") and browser.run(READY)
    browser.run("""{
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File(["no sound"], "dropped.wav"));
        document.dispatchEvent(new DragEvent("drop", {dataTransfer, cancelable: true}));
    }""")
    browser.until("document.getElementById('error').textContent.startsWith('dropped.wav has no sound')")
    bare.with_suffix(".json").write_bytes(sideless.read_bytes())
    browser.choose("#model-files", bare, bare.with_suffix(".json"))  # the side-car serves
    browser.until(f"document.getElementById('error').hidden && {READY}")
    other = tmp_path / "other.wav"
    soundfile.write(other, np.tile(music.T, (3, 1)), 3 * RATE, "FLOAT")  # another rate: resampled
    separate(browser, other)
    assert browser.run("live.player.duration") == pytest.approx(1, abs=0.01)


def test_the_microphone_is_recorded_heard_and_separated_exactly(browser, ltl, tmp_path):
    click(browser, "#record")
    browser.until("!document.getElementById('live').hidden")
    click(browser, "#live-choices label:nth-child(2) input")
    browser.until("/heard [0-9]+ ms late/.test(document.getElementById('live-state').textContent)")
    browser.until("/scaleX.0[.][1-9]/.test(document.getElementById('level').style.transform)")
    click(browser, "#stop")
    browser.until("document.getElementById('result-name').textContent === 'Microphone'")
    files = downloaded(browser, tmp_path, ["Mixture", "guitar", "backing"])
    mixture, rate = soundfile.read(files["Mixture"], dtype="float32")
    assert rate == RATE and len(mixture) % 7 == 0 and abs(mixture).max() > 0.01
    for name, expected in separated(ltl[0], mixture[None]).items():
        same(files[name], expected)
    assert browser.complaints() == []


def test_it_fits_a_phone(page, song, tmp_path):
    with Browser(tmp_path / "profile", 390, 844, phone=True) as opened:
        opened.open(page)
        opened.until(READY)
        separate(opened, song)
        assert opened.run("document.documentElement.scrollWidth <= window.innerWidth")
        shown = "[...document.querySelectorAll('button, label, input[type=range]')].filter(e => e.offsetHeight)"
        assert opened.run(f"{shown}.length") > 8 and opened.run(f"{shown}.every(e => e.offsetHeight >= 36)")
        nodes = opened.call("Accessibility.getFullAXTree")["nodes"]
        roles = ("button", "radio", "slider", "progressbar")
        named = [n.get("name", {}).get("value") for n in nodes if n.get("role", {}).get("value") in roles]
        assert len(named) > 8 and all(named)
        assert opened.complaints() == []
