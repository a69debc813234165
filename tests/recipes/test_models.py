"""From a run to a shipped model and its row, by one command; docs/results.md is what its script prints."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, recipe_script, tasnet_model

from tasnet_attn import load, save
from tasnet_attn.cli import main
from tasnet_attn.data.track import Track
from tasnet_attn.evaluation.command import evaluate
from tasnet_attn.storage.shipped import VARIABLE
from tasnet_attn.storage.tensors import read_facts

sys.path.append(str(ROOT / "recipes/models"))
rows, results, ship, add = (recipe_script(f"models/{name}.py") for name in ("rows", "results", "ship", "add"))


class Noise(Track):
    def __init__(self, name, seed):
        self.name, self.sources, self.sample_rate, self.length, self.seed = (
            name,
            ["guitar", "backing"],
            8000,
            8000,
            seed,
        )

    def read(self, start=0, length=None):
        sound = torch.randn(2, 1, 8000, generator=torch.Generator().manual_seed(self.seed))[..., start:]
        sound = sound if length is None else sound[..., :length]
        return sound.sum(0), sound


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A model with scores, and rooms for what is saved."""
    monkeypatch.setattr(sys.modules["rows"], "ROWS", tmp_path / "rows")
    monkeypatch.setattr(sys.modules["rows"], "real_time_factor", lambda model: 0.1)
    file = save(tasnet_model(), tmp_path / "run/model.safetensors")
    evaluate(load(file), [Noise(f"n{i}", i) for i in range(4)], tmp_path / "scores", window=None)
    (tmp_path / "CREDITS.md").write_text("# Credits\n\n- Noise, CC0: nobody.\n")
    return file


@pytest.mark.slow
def test_one_command_makes_a_model_that_ships(trained, tmp_path, monkeypatch, capsys):
    out = tmp_path / "shipped"
    given = [str(trained.parent), "tiny-8k", "--licence", "MIT", "--cost", "no steps", "--fails", "Everything."]
    given += ["--set", f"noise={tmp_path / 'scores'}", "--credits", str(tmp_path / "CREDITS.md"), "--out", str(out)]
    assert ship.main(given) == 0, capsys.readouterr().err
    assert {path.name for path in out.iterdir()} == {"tiny-8k.safetensors", "tiny-8k.md", "SHA256SUMS"}
    monkeypatch.setenv(VARIABLE, str(out))
    own, shipped = load(trained).state_dict(), load("tiny-8k").state_dict()
    assert all(torch.equal(shipped[name], own[name].half().float()) for name in own)
    told = read_facts(out / "tiny-8k.safetensors")["tested"][0]
    assert told["mixtures"] == 4 and told["SI-SNRi"]["low"] <= told["SI-SNRi"]["value"] <= told["SI-SNRi"]["high"]
    card = (out / "tiny-8k.md").read_text()
    assert 'tasnet_attn.load("tiny-8k")' in card and "- Noise, CC0: nobody." in card and "- Everything." in card
    assert f"| noise | 4 | {told['SI-SNRi']['value']:.2f} dB" in card and "Of the weights: MIT." in card
    capsys.readouterr()
    assert main(["models"]) == 0 and "dB SI-SNRi on noise" in capsys.readouterr().out
    page = results.page(sys.modules["rows"].read())
    assert re.search(r"## noise\n\n4 mixtures\.\n\n.*\n.*\n\| tiny-8k \| [\d,]+ \| no steps \| ", page)
    assert ship.main([*given[:1], "No Name", *given[2:]]) == 2 and "a name has small letters" in capsys.readouterr().err
    assert ship.main([word.replace("scores", "nothing") for word in given]) in (1, 2)


def test_a_row_keeps_every_mixture_and_other_sets_stay(trained, tmp_path, capsys):
    given = [str(trained), "--system", "a/b", "--cost", "none", "--set"]
    for name in ("one", "two", "one"):
        assert add.main([*given, f"{name}={tmp_path / 'scores'}"]) == 0
    (saved,) = sys.modules["rows"].read()
    assert [row["corpus"] for row in saved["rows"]] == ["two", "one"]
    scores = [json.loads(file.read_text()) for file in (tmp_path / "scores").glob("n*.json")]
    assert len(saved["rows"][0]["SI-SNRi"]) == len(scores) == 4
    row = sys.modules["rows"].row_of(tmp_path / "scores", "x", "guitar")
    assert row["corpus"] == "x, guitar" and row["SI-SNRi"] != saved["rows"][0]["SI-SNRi"]
    assert add.main([*given, str(tmp_path)]) == 2 and "must be NAME=FOLDER" in capsys.readouterr().err


def system(family, scores, budget="6,000 steps", tracks="t"):
    row = {"corpus": "c", "tracks": tracks, "SI-SNRi": list(scores), "SDR": list(scores)}
    return {"system": f"{family} {scores[0]}", "family": family, "budget": budget, "parameters": 1, "cost": "", 
            "real time": 0.1, "rows": [row]}  # fmt: skip


def test_claims_are_decided_by_the_interval_of_the_paired_difference():
    rng = np.random.default_rng(0)
    base = 5 + rng.normal(size=200)
    for shift, said in ((1.0, "reproduced"), (-1.0, "not reproduced"), (0.0, "undecided")):
        ours = base + shift + 0.5 * rng.permutation(np.linspace(-1, 1, 200))
        page = results.page([system("2_trans_0", ours), system("TasNet", base)])
        line = next(line for line in page.splitlines() if line.startswith("| 2_trans_0 beats"))
        assert line.endswith(f"| {said} |"), line
        assert page.count("not measured here") == 2
    for other in ({"budget": "more"}, {"tracks": "others"}):  # nothing to compare with
        assert results.page([system("2_trans_0", base, **other), system("TasNet", base)]).count("not measured") == 3
    equal = base + 0.01 * rng.normal(size=200)
    assert "(section 4.1) | c | 6,000 steps" in results.page([system("1_trans_0", equal), system("TasNet", base)])


def test_the_page_is_what_the_script_prints():
    assert (ROOT / "docs/results.md").read_text() == results.page(sys.modules["rows"].read())


def test_speed_is_seconds_for_a_second():
    assert 0 < sys.modules["rows"].real_time_factor(tasnet_model(), 0.1) < 1000
