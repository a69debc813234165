"""Facts of files and run folders that are damaged, or that strangers wrote; model files of any name."""

import json

import pytest
import torch
from conftest import tasnet_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tasnet_attn import load, save
from tasnet_attn.cli import main
from tasnet_attn.errors import UserError
from tasnet_attn.evaluation.choosing import trained
from tasnet_attn.exporting.facts import facts_of
from tasnet_attn.storage import asteroid
from tasnet_attn.storage.finding import find
from tasnet_attn.storage.hub import card, write_folder
from tasnet_attn.storage.shipped import SUMS, VARIABLE, write_sum
from tasnet_attn.storage.tensors import HEADER, read_facts, read_safetensors


@pytest.fixture
def run(tmp_path):
    """A run folder with its evaluation; its checkpoint."""
    model, folder = tasnet_model(), tmp_path / "run"
    for name in ("checkpoints", "evaluation"):
        (folder / name).mkdir(parents=True)
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    file = folder / "checkpoints/best.ckpt"
    torch.save({"model_config": model.config, "state_dict": weights, "epoch": 1, "global_step": 2}, file)
    (folder / "config.yml").write_text("data: {root: 2024-01-01}\ntrainer: {max_steps: 3}\n")
    (folder / "data.json").write_text('{"train": "abc"}')
    figures = {"mean of medians": {"value": 1.0, "low": None, "high": None}}
    summary = {"tracks": ["a"], "scores": {"guitar": {"SDR": figures}}}
    (folder / "evaluation/summary.json").write_text(json.dumps(summary))
    return file


def test_a_whole_run(run):
    facts = facts_of(run)
    assert facts["scores"]["sources"]["guitar"]["SDR"]["value"] == 1.0 and facts["training"]["epoch"] == 1
    assert json.loads(json.dumps(facts))["training"]["data"] == {"root": "2024-01-01"}  # YAML's dates are no JSON


@pytest.mark.parametrize("name", ["evaluation/summary.json", "data.json"])
@pytest.mark.parametrize("content", [b'{"scores": {"voc', b"", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_file_of_a_run_is_named(run, name, content):
    file = run.parents[1] / name
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: damaged \(.+\); restore or remove it") as caught:
        facts_of(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "summary",
    [[], 5, {"scores": 5}, {"scores": {"a": 5}}, {"scores": {"a": {"SDR": {"mean of medians": {}}}}}, {"tracks": 3}],
)
def test_a_summary_of_another_kind_is_named(run, summary):
    (run.parents[1] / "evaluation/summary.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match="summary.json: not a summary of `tasnet-attn evaluate`"):
        facts_of(run)


def test_a_trainer_of_another_kind_is_named(run):
    (run.parents[1] / "config.yml").write_text("trainer: [max_steps]\n")
    with pytest.raises(UserError, match="config.yml: trainer must be a mapping"):
        facts_of(run)


FIGURES = {"value": 2.5, "low": 2.0, "high": 3.0}
GOOD = {
    "licence": "MIT",
    "training": {"data": {"class_path": "Songs"}, "trainer": {"max_steps": 3}},
    "scores": {"convention": "mean of medians", "tracks": 3, "sources": {"guitar": {"SDR": FIGURES}}},
    "tested": [{"corpus": "songs", "mixtures": 9, "SI-SNRi": FIGURES, "SDR": {"value": 1.25}}],
    "credits": "by someone",
    "cost": "an hour",
    "fails": ["On applause."],
}


def test_facts_of_our_shape_are_in_the_card():
    text = card(tasnet_model(), GOOD)
    for said in ("license: mit", "Songs", "| songs | 9 | 2.50 dB (2.00 to 3.00) | 1.25 dB |  |", "by someone"):
        assert said in text
    assert "Cost: an hour." in text and "- On applause." in text
    text = card(tasnet_model(), {key: value for key, value in GOOD.items() if key != "tested"})
    assert "| guitar | SDR | 2.50 | 2.00 to 3.00 |" in text


STRANGE = [
    {"licence": 5}, {"licence": None}, {"training": "x"}, {"training": {"data": 5}}, {"training": [1]},
    {"scores": {"sources": {"a": {"SDR": {}}}}}, {"scores": {"tracks": "x", "convention": "c", "sources": {}}},
    {"scores": 5}, {"scores": {"convention": "c", "tracks": True, "sources": {"a": {"SDR": FIGURES}}}},
    {"tested": [{"corpus": "c"}]}, {"tested": "x"}, {"tested": [{"corpus": "c", "mixtures": 2, "SDR": {"value": "x"}}]},
    {"tested": [{"corpus": "c", "mixtures": 2, "SDR": {"value": 1, "more": "x"}}]}, {"tested": {"a": 1}},
    {"fails": "abc"}, {"fails": [1]}, {"cost": [1]}, {"credits": {}}, {"versions": "x"}, {"licence": "\ud800"},
]  # fmt: skip


@pytest.mark.parametrize("strange", STRANGE, ids=str)
def test_facts_of_another_shape_are_left_out(tmp_path, strange):
    file = save(tasnet_model(), tmp_path / "m.safetensors", {**GOOD, **strange})
    folder = write_folder(load(file), tmp_path / "hf", facts_of(file))
    text = (folder / "README.md").read_text()
    assert text.count("\n## ") >= 6 and load(folder).sources == ["guitar", "backing"]
    assert isinstance(facts_of(file)["licence"], str) and isinstance(read_facts(file).get("licence", ""), str)


def test_facts_of_asteroid_s_format_are_plain(tmp_path):
    """A stranger's file may hold tensors in them, which are no JSON."""
    asteroid.write(tasnet_model(), tmp_path / "m.pth", {"licence": "MIT"})
    packed = torch.load(tmp_path / "m.pth", weights_only=True)
    for infos, licence in (
        ({**packed["infos"], "more": torch.zeros(2), 3: (1,)}, "MIT"), ("x", "not stated"), (None, "not stated"),
    ):  # fmt: skip
        torch.save({**packed, "infos": infos}, tmp_path / "m.pth")
        facts = facts_of(tmp_path / "m.pth")
        assert facts["licence"] == licence
        save(load(tmp_path / "m.pth"), tmp_path / "m.safetensors", facts)


# ---- files of any name ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["speech.v2", "speech", "speech.ckpt", "speech.safetensors", "speech.pth"])
def test_the_content_decides_how_a_model_is_read(tmp_path, name):
    model, file = tasnet_model(), tmp_path / name
    save(model, file, {"licence": "MIT"})
    assert facts_of(file)["licence"] == "MIT"
    torch.testing.assert_close(load(file).state_dict(), model.state_dict())
    weights = {f"model.{key}": value for key, value in model.state_dict().items()}
    for zipped in (True, False):
        checkpoint = {"model_config": model.config, "state_dict": weights, "epoch": 3}
        torch.save(checkpoint, file, _use_new_zipfile_serialization=zipped)
        assert facts_of(file)["training"]["epoch"] == 3
        torch.testing.assert_close(load(file).state_dict(), model.state_dict())
    asteroid.write(model, file, {"licence": "MIT"})
    assert facts_of(file)["licence"] == "MIT"
    torch.testing.assert_close(load(file).state_dict(), model.state_dict())


# ---- the list and the cards -----------------------------------------------------------------------------------------


@pytest.fixture
def named(tmp_path, monkeypatch):
    """A user's folder with one model; the package's is empty."""
    monkeypatch.setattr("tasnet_attn.storage.shipped.FOLDER", tmp_path / "none")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "named"))
    monkeypatch.chdir(tmp_path)
    write_sum(save(tasnet_model(), tmp_path / "named/mine.safetensors"))
    return tmp_path / "named"


HEADERS = [None, "{}", "5", "[]", '"x"', "{", '{"sources": "ab", "sample_rate": 8}', '{"sources": ["a"]}']


@pytest.mark.parametrize("header", HEADERS)
def test_a_foreign_file_does_not_hide_the_models(named, capsys, header):
    about = None if header is None else {HEADER: header}
    save_file({"x": torch.zeros(1)}, named / "foreign\x1b.safetensors", about)
    assert main(["models"]) == 0
    said = capsys.readouterr()
    assert "mine " in said.out and "foreign" not in said.out and said.err.count("\n") == 1 and "\x1b" not in said.err
    assert "warning: left out: " in said.err and "foreign\\x1b.safetensors: not a model file of this" in said.err


def test_a_card_cannot_steer_the_terminal(named, capsys):
    card = named / "mine.md"
    card.write_bytes(b"# card \x1b]0;owned\x07\x1b[31mred\n\tand caf\xe9\n")
    assert main(["models", "mine"]) == 0
    assert capsys.readouterr().out == "# card \\x1b]0;owned\\x07\\x1b[31mred\n\tand caf\ufffd\n"


def test_checksums_of_names_in_any_encoding(named, capsys):
    sums = named / SUMS
    sums.write_bytes(b"0" * 64 + b"  caf\xe9.safetensors\n" + sums.read_bytes())
    assert load("mine").sources == ["guitar", "backing"]
    write_sum(named / "mine.safetensors")
    lines = sums.read_bytes().splitlines()
    assert len(lines) == 2 and lines[0].endswith(b"  caf\xe9.safetensors")
    assert read_safetensors(named / "mine.safetensors").facts["sample_rate"] == 8000


def rewritten(file, weights=None, **facts):
    """A model file with other facts in its header."""
    header = {**json.loads(read_header(file)), **facts}
    save_file(weights or load_file(file), file, {HEADER: json.dumps(header)})


def read_header(file):
    with safe_open(file, framework="pt") as opened:
        return opened.metadata()[HEADER]


@pytest.mark.parametrize("config", [None, 5, "x", []])
def test_a_header_that_describes_no_model_is_one_line(config, tmp_path):
    file = save(tasnet_model(), tmp_path / "x.safetensors")
    rewritten(file, config=config)
    with pytest.raises(UserError, match="x.safetensors: its 'tasnet_attn' header is damaged: it describes no model"):
        load(file)


@pytest.mark.parametrize("training", [None, "x", {"global_step": "100"}, {"global_step": True}])
def test_steps_of_another_shape_are_not_shown(training, tmp_path):
    file = save(tasnet_model(), tmp_path / "x.safetensors")
    rewritten(file, training={"global_step": 100})
    assert trained(load(file), file)["steps"] == "100"
    rewritten(file, training=training)
    assert "steps" not in trained(load(file), file)


def test_weights_of_eight_bits_are_read(tmp_path):
    file = save(tasnet_model(), tmp_path / "x.safetensors")
    small = {name: weight.to(torch.float8_e4m3fn) for name, weight in load_file(file).items()}
    rewritten(file, small)
    for name, weight in load(file).state_dict().items():
        assert torch.equal(weight, small[name].float())


def test_a_run_that_chooses_no_checkpoint_uses_its_best(run):
    (run.parents[1] / "config.yml").write_text("evaluation: {checkpoint: null}\n")
    assert find(run.parents[1]) == run
