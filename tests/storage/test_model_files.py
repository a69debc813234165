"""Files from strangers, folders in Hugging Face's layout, Asteroid's files both ways."""

import copy
import json
import pickle
import struct
import warnings
import zipfile

import pytest
import soundfile
import torch
from conftest import ROOT, tasnet_model
from export_models import KINDS

import tasnet_attn
from tasnet_attn import SourceSeparator, load, save
from tasnet_attn.cli import main
from tasnet_attn.compat import asteroid
from tasnet_attn.errors import UserError
from tasnet_attn.exporting.facts import facts_of
from tasnet_attn.storage import asteroid as asteroid_files
from tasnet_attn.storage.hub import card
from tasnet_attn.storage.tensors import write_safetensors


def refused(path, said):
    with pytest.raises(UserError, match=said) as caught:
        load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value), str(caught.value)


# ---- hostile files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".ckpt", ".pth"])
def test_a_pickled_payload_does_not_run(suffix, tmp_path):
    class Payload:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    file = tmp_path / f"bad{suffix}"
    torch.save({"model_name": "ConvTasNet", "model_args": Payload(), "state_dict": {}, "model_config": {}}, file)
    refused(file, "not a checkpoint that can be read safely")
    assert not (tmp_path / "ran").exists()


def test_python_objects_are_refused_in_our_own_words(tmp_path):
    torch.save(tasnet_model(), tmp_path / "whole.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps({"model_config": tasnet_model}))
    refused(
        tmp_path / "whole.ckpt", r"contains Python objects \(tasnet_attn.model.SourceSeparator\), which are never run"
    )
    refused(tmp_path / "plain.ckpt", "not a whole file of torch.save")


def as_checkpoint(file, config, weights, **settings):
    torch.save({"model_config": config, "state_dict": {f"model.{k}": v for k, v in weights.items()}}, file, **settings)
    return file


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_asks_for_no_more_than_it_holds(zipped, tmp_path):
    """Tensors of no stride in 4 kB; a part that states another size; torch's two formats."""
    how = {"_use_new_zipfile_serialization": zipped}
    model, file = tasnet_model(), tmp_path / "m.ckpt"
    assert load(as_checkpoint(file, model.config, model.state_dict(), **how)).sources == model.sources
    with torch.device("meta"):
        config = copy.deepcopy(model.config)
        config["separator"]["init_args"]["hidden"] = 20_000
        weights = SourceSeparator.from_config(config).state_dict()
    weights = {name: torch.zeros(()).expand(value.shape) for name, value in weights.items()}
    as_checkpoint(file, config, weights, **how)
    assert file.stat().st_size < 20_000
    refused(file, r"describes a model of 19,.* bytes; its weights are")
    torch.save({"state_dict": torch.zeros(300)}, file, **how)
    content, stated = file.read_bytes(), b"M\x2c\x01" + (b"t" if zipped else b"Nt")
    assert content.count(stated) == 1
    if zipped:
        with zipfile.ZipFile(file) as archive:
            parts = {part.filename: archive.read(part) for part in archive.infolist()}
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, part in parts.items():
                archive.writestr(name, bytes(10**8) if name.endswith("data/0") else part)
        assert file.stat().st_size < 200_000
    else:
        file.write_bytes(content.replace(stated, b"\x8a\x05" + (10**11).to_bytes(5, "little") + b"Nt"))
    refused(file, "more (memory )?than its size")


def test_a_description_that_refers_to_itself_ends(tmp_path):
    laughs = ["ha"] * 9
    for _ in range(40):
        laughs = [laughs] * 9
    model = tasnet_model()
    refused(as_checkpoint(tmp_path / "m.ckpt", model.config | {"head": laughs}, model.state_dict()), "is endless")


def test_a_module_that_a_file_names_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass LTL: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    model = tasnet_model()
    config = copy.deepcopy(model.config)
    config["separator"]["class_path"] = "trap.LTL"

    refused(
        write_safetensors(tmp_path / "named.safetensors", config, model.state_dict(), {}, None),
        r"unknown class 'trap\.LTL'; add --import trap",
    )
    for suffix in (".ckpt", ".pth"):
        ours = {"model_name": "TasnetAttn", "model_args": {"config": config}, "infos": {}}
        named = {"model_config": config, **(ours if suffix == ".pth" else {}), "state_dict": {}}
        torch.save(
            {**named, "state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}}, tmp_path / f"n{suffix}"
        )
        refused(tmp_path / f"n{suffix}", r"unknown class 'trap\.LTL'; add --import trap")
    assert not (tmp_path / "ran").exists()


def resized(tmp_path, change):
    model = tasnet_model()
    config = copy.deepcopy(model.config)
    change(config)
    return write_safetensors(tmp_path / "m.safetensors", config, model.state_dict(), {}, None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["encoder"]["init_args"].update(n_filters=10**9), "n_filters is 1000000000: too large for a file"),
        (lambda c: c["separator"]["init_args"].update(hidden=100_000), "weights do not fit.*before.*not"),
        (lambda c: c["separator"]["init_args"].update(lstm_before=10**6), "weights do not fit.*more layers"),
        (lambda c: c["separator"]["init_args"].update(transformer_layers=10**6), "weights do not fit.*more layers"),
        (lambda c: c["separator"]["init_args"].update(ffn=float("nan")), "ffn is nan"),
        (lambda c: c["encoder"]["init_args"].update(kernel_size=17), "weights do not fit.*'encoder"),
    ],
)
def test_sizes_that_the_file_does_not_hold_are_refused_before_memory_is_taken(change, said, tmp_path):
    import resource

    file = resized(tmp_path, change)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(file, said)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_a_bank_that_no_file_holds_is_bounded(tmp_path):
    model = KINDS["Hourglass, Park's"]()
    config = copy.deepcopy(model.config)
    config["encoder"]["init_args"].update(n_fft=1_000_000)
    config["decoder"] = {"class_path": "LearnedDecoder", "init_args": {"n_filters": 10**6, "kernel_size": 10**6}}
    weights = {**model.state_dict()}
    refused(
        write_safetensors(tmp_path / "m.safetensors", config, weights, {}, None),
        "do not fit",
    )
    bank = {"n_filters": 10**6, "kernel_size": 10**6, "sample_rate": 8000, "n_centres": 2}
    config = copy.deepcopy(model.config)
    config["encoder"] = {"class_path": "GammatoneEncoder", "init_args": bank}
    refused(
        write_safetensors(tmp_path / "n.safetensors", config, weights, {}, None),
        "not in the file",
    )


def test_damaged_files_are_one_line(tmp_path):
    good = save(tasnet_model(), tmp_path / "good.safetensors").read_bytes()
    size = struct.unpack("<Q", good[:8])[0]
    deep = json.dumps({"__metadata__": {"tasnet_attn": "[" * 10**5 + "]" * 10**5}}).encode()
    for name, content, said in [
        ("oversize.safetensors", struct.pack("<Q", 2**60) + good[8:], "not a model file"),
        ("large.safetensors", struct.pack("<Q", 2 * 10**8) + good[8:], "not a model file"),
        ("truncated.safetensors", good[: 8 + size + 100], "not a model file"),
        ("header.safetensors", good[: 8 + size // 2], "not a model file"),
        ("empty.safetensors", b"", "not a model file"),
        ("deep.safetensors", struct.pack("<Q", len(deep)) + deep, "header is damaged"),
        ("empty.ckpt", b"", "not a checkpoint"),
        ("text.pth", b"no model", "not a checkpoint"),
        ("graph.ts", b"", "a graph for other runtimes"),
    ]:
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, said)


def test_weights_of_another_kind_are_one_line(tmp_path):
    model = tasnet_model()
    bias = "separator.to_masks.bias"
    for name, value, said in [
        ("nan", torch.full_like(model.separator.to_masks.bias, torch.nan), "NaN"),
        ("shape", torch.zeros(3), r"is \[3\], not \[48\]"),
        ("kind", torch.zeros(48, dtype=torch.int64), "is torch.int64"),
        ("complex", torch.zeros(48, dtype=torch.complex64), "is torch.complex64"),
    ]:
        weights = {**model.state_dict(), bias: value.detach()}
        refused(
            write_safetensors(tmp_path / f"{name}.safetensors", model.config, weights, {}, None),
            said,
        )
        torch.save(
            {"model_config": model.config, "state_dict": {f"model.{k}": v for k, v in weights.items()}},
            tmp_path / f"{name}.ckpt",
        )
        refused(tmp_path / f"{name}.ckpt", said)
    torch.save({"model_config": model.config, "state_dict": {"model.gain": "three"}}, tmp_path / "text.ckpt")
    refused(tmp_path / "text.ckpt", "'gain' is not a tensor")
    gain = {f"model.{k}": torch.ones(3) if k == "gain" else v for k, v in model.state_dict().items()}
    torch.save({"model_config": model.config, "state_dict": gain}, tmp_path / "gain.ckpt")
    refused(tmp_path / "gain.ckpt", r"'gain' is \[3\], not \[2\]")
    torch.save([1], tmp_path / "list.ckpt")
    refused(tmp_path / "list.ckpt", "contains a list")


# ---- Hugging Face ---------------------------------------------------------------------------------------------------

FACTS = {
    "licence": "MIT",
    "training": {"data": {"class_path": "StemFolders"}, "trainer": {"max_steps": 7}},
    "scores": {
        "convention": "mean of medians",
        "tracks": 1,
        "sources": {"guitar": {"SDR": {"value": 3.25, "low": None, "high": None}}},
    },
}


def test_a_folder_in_hugging_face_s_layout(tmp_path):
    model = tasnet_model().eval()
    folder = model.save_pretrained(tmp_path / "mine", FACTS)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    about = json.loads((folder / "config.json").read_text())
    assert about["config"] == json.loads(json.dumps(model.config)) and about["licence"] == "MIT"
    mixture = torch.randn(1, 2, 500)
    for loaded in (SourceSeparator.from_pretrained(folder), load(folder), load(str(folder))):
        assert torch.equal(loaded(mixture), model(mixture))
    text = (folder / "README.md").read_text()
    from huggingface_hub import ModelCard

    assert ModelCard(text).data.to_dict() == {
        "license": "mit",
        "library_name": "tasnet-attn",
        "pipeline_tag": "audio-to-audio",
        "tags": ["audio-source-separation", "1_trans_0"],
    }
    for said in (
        "StemFolders",
        "| guitar | SDR | 3.25 | one track: none |",
        "max_steps: 7",
        "Of the weights: MIT.",
        "1 tracks only",
    ):
        assert said in text
    half = model.save_pretrained(tmp_path / "half", dtype=torch.float16)
    assert (load(half)(mixture) - model(mixture)).abs().max() < 0.01
    assert "Not evaluated." in card(model, {}) and "Not recorded." in card(model, {})


def test_weights_whose_header_another_tool_dropped(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tasnet_model().save_pretrained(tmp_path / "mine")
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors")
    assert load(folder).sources == ["guitar", "backing"]


def test_names_on_the_hub(tmp_path, monkeypatch):
    folder, asked = tasnet_model().save_pretrained(tmp_path / "mine"), []
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        if name == "nobody/nothing":
            raise LocalEntryNotFoundError("no connection\nand more")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert SourceSeparator.from_pretrained("someone/model").sources == ["guitar", "backing"]
    assert load("hf://someone/model").sample_rate == 8000
    assert asked == [("someone/model", ["config.json", "model.safetensors", "README.md"])] * 2
    with pytest.raises(UserError, match="hf://nobody/nothing: not available from the Hugging Face Hub: no connection$"):
        SourceSeparator.from_pretrained("nobody/nothing")
    with pytest.raises(UserError, match="no such model"):
        load("someone/model")  # the plain name may be a missing folder: the hub is not asked
    assert len(asked) == 3


def test_facts_come_from_the_run_and_no_path_of_the_machine(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "evaluation").mkdir()
    model = tasnet_model()
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save(
        {"model_config": model.config, "state_dict": weights, "epoch": 3, "global_step": 40},
        run / "checkpoints" / "best.ckpt",
    )
    (run / "config.yml").write_text(
        "data: {class_path: StemFolders, init_args: {root: /home/me/secret/songs}}\nseed_everything: 5\n"
    )
    row = {"mean of medians": {"value": 1.0, "low": 0.5, "high": 1.5, "tracks": 3}}
    (run / "evaluation" / "summary.json").write_text(
        json.dumps({"tracks": [1, 2, 3], "scores": {"guitar": {"SDR": row}}})
    )
    facts = facts_of(run / "checkpoints" / "best.ckpt", "MIT")
    assert facts["training"]["data"]["init_args"]["root"] == "songs" and "secret" not in json.dumps(facts)
    assert (facts["training"]["epoch"], facts["training"]["global_step"], facts["training"]["seed_everything"]) == (
        3,
        40,
        5,
    )
    assert facts["scores"]["sources"]["guitar"]["SDR"] == {"value": 1.0, "low": 0.5, "high": 1.5}
    again = facts_of(save(model, tmp_path / "m.safetensors", facts))
    assert again["scores"] == facts["scores"] and again["licence"] == "MIT"


# ---- Asteroid -------------------------------------------------------------------------------------------------------


def test_our_file_separates_in_asteroid_as_here(tmp_path):
    import tasnet_attn.exporting.asteroid  # noqa: F401 - registers our class

    model = tasnet_model(stride=7).eval()
    file = tmp_path / "ours.pth"
    asteroid_files.write(model, file, {"licence": "MIT"})
    theirs = asteroid.models.BaseModel.from_pretrained(str(file)).eval()
    wav = torch.randn(3, 1, 777)
    raw = model(wav).squeeze(2)
    assert torch.equal(theirs(wav), raw) and torch.equal(theirs(wav[:, 0]), raw)
    torch.testing.assert_close(theirs(wav[0, 0]), raw[0])
    separated = theirs.separate(wav)  # Asteroid's own, which brings the outputs to the mixture's level
    torch.testing.assert_close(separated, raw * (wav.abs().sum() / raw.abs().sum()))
    assert theirs.sample_rate == 8000
    again = tmp_path / "again.pth"
    torch.save(theirs.serialize(), again)
    assert torch.equal(load(again)(wav), model(wav)) and torch.equal(load(file)(wav), model(wav))
    assert facts_of(file)["licence"] == "MIT"


def theirs(name):
    torch.manual_seed(0)
    settings = {
        "ConvTasNet": {"n_filters": 16, "n_blocks": 2, "n_repeats": 1, "bn_chan": 8, "hid_chan": 8, "skip_chan": 8},
        "DPRNNTasNet": {"n_filters": 16, "n_repeats": 1, "bn_chan": 8, "hid_size": 8, "chunk_size": 20},
        "LSTMTasNet": {"n_filters": 16, "n_layers": 1, "hid_size": 8},
    }[name]
    return getattr(asteroid.models, name)(n_src=2, **settings).eval()


@pytest.mark.slow
def test_the_page_s_block_for_asteroid_on_a_stereo_file(tmp_path, monkeypatch):
    """As in docs/deploy.md: Asteroid's own `separate` takes the first channel, and rescales the outputs."""
    block = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8").split("## Asteroid, both ways\n\n```python\n")[1]
    monkeypatch.chdir(tmp_path)
    model = tasnet_model()
    save(model, "m.safetensors")
    assert main(["export", "m.safetensors", "--to", "asteroid", "--out", "model.pth"]) == 0
    song = 0.1 * torch.randn(2, 9000)
    soundfile.write("song.wav", song.T.numpy(), 8000, "FLOAT")
    exec(block.partition("```")[0], {})
    with torch.no_grad():
        expected = model.eval()(song[None, :1])[0, :, 0]
    for number, ours in enumerate(expected, 1):
        theirs = torch.from_numpy(soundfile.read(f"song_est{number}.wav", dtype="float32")[0])
        assert torch.corrcoef(torch.stack([theirs, ours]))[0, 1] > 0.999  # it writes 16 bits


@pytest.mark.parametrize("name", asteroid_files.THEIRS)
def test_asteroid_s_own_networks_are_models_here(name, tmp_path):
    network = theirs(name)
    torch.save(network.serialize(), tmp_path / "theirs.pth")  # with a TorchVersion in it, as Asteroid writes it
    model = load(tmp_path / "theirs.pth")
    assert (model.sources, model.sample_rate, model.interchangeable) == (["s1", "s2"], 8000, True)
    mixture = 0.1 * torch.randn(1, 2, 4000)
    with torch.no_grad():
        expected = torch.stack([network(mixture[0, channel]) for channel in range(2)], dim=1)
        torch.testing.assert_close(model(mixture)[0], expected, atol=1e-5, rtol=1e-4)
    separated = tasnet_attn.separate(model, mixture[0], 8000, device="cpu")
    torch.testing.assert_close(torch.stack(list(separated.values())), expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(UserError, match="only this library's models are exported"):
        from tasnet_attn.exporting.command import export

        export(str(tmp_path / "theirs.pth"))


def test_asteroid_s_network_in_separate_and_evaluate(tmp_path, capsys):
    import soundfile

    torch.save(theirs("ConvTasNet").serialize(), tmp_path / "theirs.pth")
    for name in ("s1", "s2"):
        folder = tmp_path / "data" / "test" / "track"
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{name}.wav", 0.1 * torch.randn(8000, 1).numpy(), 8000)
    (tmp_path / "data.yml").write_text(f"data: {{class_path: StemFolders, init_args: {{root: {tmp_path / 'data'}}}}}\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        command = ["--model", str(tmp_path / "theirs.pth"), "--out", str(tmp_path / "out")]
        assert main(["separate", str(tmp_path / "data" / "test" / "track" / "s1.wav"), *command]) == 0
        assert main(["evaluate", "--data", str(tmp_path / "data.yml"), *command]) == 0
    assert {file.name for file in (tmp_path / "out" / "s1").iterdir()} == {"s1.wav", "s2.wav"}
    assert set(json.loads((tmp_path / "out" / "summary.json").read_text())["scores"]) == {"s1", "s2"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p.update(model_name="DCCRNet"), "Asteroid's 'DCCRNet' cannot be used here; only ConvTasNet"),
        (lambda p: p.update(model_name="os.system"), "Asteroid's 'os.system' cannot be used here"),
        (lambda p: p["model_args"].update(n_filters=10**9), "n_filters is 1000000000: too large for a file"),
        (lambda p: p["model_args"].update(n_blocks=10**6), "more layers"),
        (lambda p: p["model_args"].update(n_filter=3), "ConvTasNet has no setting 'n_filter'"),
        (lambda p: p["model_args"].update(fb_name="stft"), "only learned ones"),
        (lambda p: p["model_args"].update(mask_act="nothing"), "rejects its settings"),
        (lambda p: p["model_args"].pop("sample_rate"), "does not state its sample rate"),
        (lambda p: p["model_args"].update(hid_chan=9), "weights do not fit"),
        (lambda p: p.pop("model_args"), "damaged"),
    ],
)
def test_strange_asteroid_files_are_one_line(change, said, tmp_path):
    packed = theirs("ConvTasNet").serialize()
    change(packed)
    torch.save(packed, tmp_path / "strange.pth")
    refused(tmp_path / "strange.pth", said)


def test_loading_and_separating_import_neither_a_compiler_nor_a_training_stack():
    import subprocess
    import sys

    others = ["torch._dynamo", "pytorch_lightning", "asteroid", "pandas", "matplotlib", "museval", "jsonargparse"]
    code = f"""
import sys, torch, tasnet_attn
model = tasnet_attn.load({str(ROOT / "tests/golden/version_0.1.0/run")!r})
tasnet_attn.separate(model, torch.randn(1, 441), 44100, device="cpu")
print([name for name in {others} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
