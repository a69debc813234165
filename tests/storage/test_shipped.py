"""Models by name: what ships, a folder of one's own, and the commands that take a name."""

import hashlib
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

SCORE = {"corpus": "tones", "mixtures": 3, "SI-SNRi": {"value": 6.25, "low": 6.0, "high": 6.5}}


@pytest.fixture
def named(tmp_path, monkeypatch):
    """Two models in a folder of one's own."""
    folder = tmp_path / "named"
    for name, facts in (("tiny-8k", {"licence": "MIT", "tested": [SCORE]}), ("other-8k", None)):
        write_sum(save(tasnet_model(), folder / f"{name}.safetensors", facts, torch.float16))
    (folder / "tiny-8k.md").write_text("# The card\n")
    monkeypatch.setenv(VARIABLE, str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


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
    assert main(["models", "tiny-8k"]) == 0 and capsys.readouterr().out == "# The card\n\n"
    assert main(["models", "other-8k"]) == 2 and "has no card" in capsys.readouterr().err


def test_what_lies_there_goes_before_a_name(named, tmp_path):
    model = tasnet_model()
    save(model, tmp_path / "run" / "model.safetensors")
    (tmp_path / "run").rename("tiny-8k")
    torch.testing.assert_close(load("tiny-8k").state_dict(), model.state_dict())


def test_a_damaged_model_and_an_unknown_name_are_one_line(named):
    file = named / "tiny-8k.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(UserError, match=r"tiny-8k.safetensors: is not the model that it was; install"):
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
