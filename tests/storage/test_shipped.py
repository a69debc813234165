"""Models by name: what ships, a user's folder, and the commands that take a name."""

import base64
import hashlib
import io
import json
import re
import tomllib

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT, tasnet_model

from tasnet_attn import load, save
from tasnet_attn.cli import main
from tasnet_attn.errors import UserError
from tasnet_attn.storage.shipped import FOLDER, SUMS, VARIABLE, shipped, write_sum
from tasnet_attn.storage.tensors import read_facts, read_safetensors

TWO = {"training": {"data": {"class_path": "LibriMix", "init_args": {"root": ["data/one", "data/two"]}}}}
SCORE = {"corpus": "tones", "mixtures": 3, "SI-SNRi": {"value": 6.25, "low": 6.0, "high": 6.5}}


@pytest.fixture
def named(tmp_path, monkeypatch):
    """Two models in a user's folder, and none in the package."""
    monkeypatch.setattr("tasnet_attn.storage.shipped.FOLDER", tmp_path / "none")
    folder = tmp_path / "named"
    for name, facts in (("tiny-8k", {"licence": "MIT", "tested": [SCORE]}), ("other-8k", TWO)):
        write_sum(save(tasnet_model(), folder / f"{name}.safetensors", facts, torch.float16))
    (folder / "tiny-8k.md").write_text("# The card\n")
    monkeypatch.setenv(VARIABLE, str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.slow
def test_a_name_is_a_model_for_every_command(named, tmp_path, capsys):
    torch.testing.assert_close(load("tiny-8k").state_dict(), load(named / "tiny-8k.safetensors").state_dict())
    soundfile.write("talk.wav", 0.1 * np.random.default_rng(0).normal(size=8000), 8000)
    assert main(["separate", "talk.wav", "--model", "tiny-8k"]) == 0
    assert (tmp_path / "separated/talk/guitar.wav").is_file()
    assert main(["export", "tiny-8k"]) == 0  # not into the package
    assert (tmp_path / "model.safetensors").is_file() and not (named / "model.safetensors").exists()
    capsys.readouterr()
    assert main(["models"]) == 0
    rows = [re.split("  +", line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["name", "sources", "rate", "size", "score", "licence"]
    found = {row[0]: row[1:] for row in rows[1 : rows.index([""])]}
    assert found["tiny-8k"][0::2] == ["guitar, backing", "0.0 MB", "MIT"]
    assert found["tiny-8k"][1::2] == ["8000 Hz", "6.2 dB SI-SNRi on tones"] and "other-8k" in found
    assert main(["models", "tiny-8k"]) == 0 and capsys.readouterr().out == "# The card\n"
    assert main(["models", "other-8k"]) == 2 and "has no card" in capsys.readouterr().err


@pytest.mark.slow
def test_a_name_is_fine_tuned_on_the_stems_of_ones_own(named, tmp_path, capsys):
    """The ten lines of docs/models.md, in small."""
    write_sum(save(tasnet_model(sample_rate=44100), named / "music-44k.safetensors"))
    assert main(["models", "music-44k", "--config"]) == 0
    (tmp_path / "model.yml").write_text(capsys.readouterr().out)
    (tmp_path / "mine.yml").write_text(
        "data: {class_path: StemFolders, init_args: {segment: 0.1, batch_size: 1, segments_per_epoch: 2}}\n"
        "trainer: {max_steps: 2, accelerator: cpu, limit_val_batches: 1}\n"
    )
    given = ["train", "--config", "mine.yml", "--config", "model.yml", "--ckpt_path", "music-44k", "--fork", "exp/mine"]
    assert main(given) == 0
    tuned, before = load("exp/mine").state_dict(), load("music-44k").state_dict()
    changes = [(tuned[name] - weight).abs().max() for name, weight in before.items() if "weight" in name]
    assert 0 < max(changes) < 0.01  # two steps of Adam


def test_the_demo_lets_them_be_heard_before_it_trains(named, tmp_path, capsys):
    assert main(["demo", "--no-train"]) == 2 and "this version ships no model with a clip" in capsys.readouterr().err
    sound = 0.1 * np.random.default_rng(0).normal(size=16_000)
    for file in named.glob("*.safetensors"):
        soundfile.write(file.with_suffix(".ogg"), sound, 8000)
    assert main(["demo", "--no-train", "--out", "heard"]) == 0
    assert "shipped    heard/shipped/index.html" in capsys.readouterr().out
    assert {soundfile.info(file).frames for file in (tmp_path / "heard/shipped").rglob("*.wav")} == {16_000}
    page = (tmp_path / "heard/shipped/index.html").read_text()
    sounds = json.loads(re.search('id="audio">(.*?)</script>', page)[1]).values()
    assert {soundfile.info(io.BytesIO(base64.b64decode(sound["data"]))).frames for sound in sounds} == {16_000}
    assert page.count('<section class="player"') == 2 and page.count("data-signal=") == 6 == len(sounds)
    assert (
        "6.2 dB SI-SNRi on tones</td>" in page
        and ">MIT</td>" in page
        and ">one, two</td>" in page
        and "Scores by" not in page
    )
    assert not re.search(r'(src|href)="(?!data:)', page) and not (tmp_path / "heard/run").exists()


def test_what_lies_there_goes_before_a_name(named, tmp_path):
    model = tasnet_model()
    save(model, tmp_path / "run" / "model.safetensors")
    (tmp_path / "run").rename("tiny-8k")
    torch.testing.assert_close(load("tiny-8k").state_dict(), model.state_dict())


def test_a_damaged_model_and_an_unknown_name_are_one_line(named):
    file = named / "tiny-8k.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(UserError, match=r"tiny-8k.safetensors: does not match its checksum; install"):
        load("tiny-8k")
    (named / SUMS).unlink()
    with pytest.raises(UserError, match=r"tiny-8k.safetensors: has no checksum in .*SHA256SUMS"):
        load("tiny-8k")
    with pytest.raises(UserError, match="no such model; give other-8k, .*tiny-8k, a run folder"):
        load("tiny-9k")


def test_without_any_model_the_list_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tasnet_attn.storage.shipped.FOLDER", tmp_path / "none")
    assert main(["models"]) == 0 and "no models ship with this version" in capsys.readouterr().out
    with pytest.raises(UserError, match="no such model; give a run folder"):
        load("speech-8k")


def test_what_ships_is_whole_small_and_says_what_it_is():
    """Whatever lies in the package's folder: half precision, a card with licences and scores, a checksum."""
    own = [file for file in shipped().values() if file.parent == FOLDER]
    assert sum(file.stat().st_size for file in own) < 55e6  # the wheel stays under 60 MB
    sums = (FOLDER / SUMS).read_text() if own else ""
    assert sums.count("\n") == len(own)
    for file in own:
        assert file.stat().st_size < 16e6
        assert f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" in sums
        facts, described = read_facts(file), read_safetensors(file)
        assert all(w.dtype == torch.float16 for w in described.weights.values() if w.is_floating_point())
        assert facts["licence"] != "not stated" and facts["tested"] and facts["credits"] and facts["fails"]
        card = file.with_suffix(".md").read_text()
        assert all(title in card for title in ("## Data", "## Licences of the data", "## Scores", "## Limits"))
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["tasnet_attn"]  # hatchling takes all that git knows in there
