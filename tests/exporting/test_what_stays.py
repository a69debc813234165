"""What an export may replace, what stays after one that failed, and what `--check` takes; no file is run."""

import pytest
from conftest import tasnet_model

from tasnet_attn import save
from tasnet_attn.errors import UserError
from tasnet_attn.exporting import check, export
from tasnet_attn.storage.finding import HUB_FILES


def stand_in(passed=True, error=None):
    """Instead of `parity`, which starts a process: its verdict."""

    def parity(model, file, kind):
        assert file.is_file()
        if error is not None:
            raise error
        row = {"case": "x", "difference": 1.0, "largest": 1.0, "SNR": 0.0, "passed": passed}
        return {"passed": passed, "cases": [row], "format": kind, "tolerance": 0, "file": file.name}

    return parity


@pytest.mark.parametrize("name", HUB_FILES)
def test_a_folder_with_files_of_the_hub_s_names_is_not_touched(tmp_path, monkeypatch, name):
    """Not even the source itself, nor the user's README.md."""
    source = save(tasnet_model(), tmp_path / ("hf" if name.endswith("tensors") else "") / "model.safetensors")
    (tmp_path / "hf").mkdir(exist_ok=True)
    if not name.endswith("tensors"):
        (tmp_path / "hf" / name).write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    monkeypatch.setattr("tasnet_attn.exporting.command.parity", stand_in(passed=False))
    with pytest.raises(UserError, match=f"hf: already contains a {name}; give another --out"):
        export(str(source), "huggingface", tmp_path / "hf", half=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


@pytest.mark.parametrize("ending", [None, UserError("x"), KeyboardInterrupt(), SystemExit(143), ValueError("a bug")])
def test_a_folder_that_is_not_proven_does_not_stay(tmp_path, monkeypatch, ending):
    source = save(tasnet_model(), tmp_path / "source.safetensors")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "notes.txt").write_text("mine")
    monkeypatch.setattr("tasnet_attn.exporting.command.parity", stand_in(False, ending))
    with pytest.raises(type(ending) if ending else UserError):
        export(str(source), "huggingface", tmp_path / "hf")
    assert [path.name for path in (tmp_path / "hf").iterdir()] == ["notes.txt"]
    monkeypatch.setattr("tasnet_attn.exporting.command.parity", stand_in())
    export(str(source), "huggingface", tmp_path / "hf", half=True)
    assert {path.name for path in (tmp_path / "hf").iterdir()} >= {"notes.txt", *HUB_FILES}


@pytest.mark.parametrize(
    "to, name, meant",
    [
        ("safetensors", "m.ONNX", "safetensors writes .safetensors files; for this name use --to onnx or"),
        ("onnx", "m.half.safetensors", "onnx writes .onnx files; for this name use --to safetensors"),
        ("huggingface", "m.pth", "huggingface writes a folder; for this name use --to asteroid"),
    ],
)
def test_a_name_that_ends_like_another_format_is_refused(tmp_path, to, name, meant):
    source = save(tasnet_model(), tmp_path / "source.safetensors")
    with pytest.raises(UserError, match=f"{name}: --to {meant}"):
        export(str(source), to, tmp_path / name)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("name", ["m", "m.bin", "m.v2", "m.SAFETENSORS"])
def test_other_names_are_the_user_s(tmp_path, monkeypatch, name):
    monkeypatch.setattr("tasnet_attn.exporting.command.parity", stand_in())
    export(str(save(tasnet_model(), tmp_path / "source.safetensors")), out=tmp_path / name)
    assert (tmp_path / name).is_file()


def test_check_takes_what_export_takes(tmp_path, monkeypatch):
    source = save(tasnet_model(), tmp_path / "source.safetensors")
    with pytest.raises(UserError, match="--to 'foo' is not one of safetensors, "):
        check(str(source), "foo", source)
    with pytest.raises(UserError, match="--int8 is for onnx-step"):
        check(str(source), "onnx", source, int8=True)
    monkeypatch.setattr("tasnet_attn.exporting.command.require", lambda *names: None)
    monkeypatch.setattr("tasnet_attn.exporting.command.parity", stand_in())
    assert check(str(source), "onnx-step", source, int8=True)["format"] == "onnx-step-int8"
    assert check(str(source), "safetensors", source)["format"] == "safetensors"
    with pytest.raises(UserError, match=r"step\.json: onnx-step writes its description to that file"):
        export(str(source), "onnx-step", tmp_path / "step.json")
