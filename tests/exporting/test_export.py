"""Every separator in every format, proven in a fresh process; what is broken is found; what a file says of itself."""

import json
import math
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import tasnet_model
from export_models import KINDS
from safetensors.torch import load_file

from tasnet_attn import load, save, separators
from tasnet_attn.cli import main
from tasnet_attn.config import import_modules
from tasnet_attn.errors import UserError
from tasnet_attn.exporting import check, export, formats
from tasnet_attn.exporting.formats import FORMATS, IMPOSSIBLE, lengths
from tasnet_attn.exporting.parity import cases, prove, table
from tasnet_attn.filterbanks import LearnedDecoder
from tasnet_attn.separators import Separator
from tasnet_attn.storage.tensors import HEADER

GRAPHS = ("torchscript", "torch-export", "onnx")
WHOLE = {to: format for to, format in FORMATS.items() if not to.startswith("onnx-step")}  # the steps: test_step.py
FACTS = {"licence": "MIT", "training": {"data": "songs", "global_step": 7}}


def kind(name):
    torch.manual_seed(0)
    return KINDS[name]().eval()


QUICK = ("TasNet, gated", "SamsNet")
REST = [name for name in KINDS if name not in QUICK]


def write_all(folder, kinds):
    """Kinds in every format: {(kind, format): (file, report)}; one fresh process runs them all.

    A graph is made once for ONNX and torch.export, half of what writing takes; torch.export's file changes it.
    """
    files = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "_program", cache(formats._program))
        for name in kinds:
            model = kind(name)
            for to in sorted(WHOLE):  # onnx before torch-export
                stem = f"{name} {to}".replace(",", "").replace("'", "").replace(" ", "_")
                files[name, to] = folder / f"{stem}{WHOLE[to].suffix}"
                WHOLE[to].write(model, files[name, to], FACTS)
    reports = prove([(kind(name), file, to) for (name, to), file in files.items()])
    return {key: (file, report) for (key, file), report in zip(files.items(), reports, strict=True)}


def test_the_matrix_holds_every_separator():
    ours = {cls.__name__ for cls in vars(separators).values() if isinstance(cls, type) and issubclass(cls, Separator)}
    assert {type(kind(name).separator).__name__ for name in KINDS} == ours - {"Separator"}
    assert set(WHOLE) == {"safetensors", "safetensors-half", "asteroid", *GRAPHS}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("exported"), QUICK)


@pytest.fixture(scope="module")
def all_written(written, tmp_path_factory):
    return {**written, **write_all(tmp_path_factory.mktemp("all"), REST)}


@pytest.mark.parametrize("to", WHOLE)
@pytest.mark.parametrize("name", QUICK)
def test_two_separators_in_every_format(name, to, written):
    assert_is_the_model(name, to, *written[name, to])


@pytest.mark.slow
@pytest.mark.parametrize("to", WHOLE)
@pytest.mark.parametrize("name", REST)
def test_every_separator_in_every_format(name, to, all_written):
    assert_is_the_model(name, to, *all_written[name, to])


def assert_is_the_model(name, to, file, report):
    assert file.stat().st_mode & 0o040, "the group cannot read it"
    assert report["passed"], table(report)
    assert report["format"] == to and len(report["cases"]) == 6
    assert {case["case"].split(",")[0] for case in report["cases"]} == {"music", "noise", "silence"}
    assert {case["shape"][0] for case in report["cases"]} == {1, 2, 3, 4}
    window = lengths(kind(name))["window"]
    frame = 1024 if "bands" in name else 32
    assert {case["shape"][-1] for case in report["cases"]} == ({window} if window else {8000, 4007 + frame, frame})
    if to in GRAPHS:
        assert report["largest difference"] < 1e-4


def header_of(file, to):
    if to.startswith("safetensors"):
        from safetensors import safe_open

        with safe_open(file, "pt") as opened:
            return json.loads(opened.metadata()[HEADER])
    if to == "asteroid":
        packed = torch.load(file, weights_only=True)
        return {**packed["infos"], "config": packed["model_args"]["config"]}
    if to == "torchscript":
        extra = {HEADER: ""}
        torch.jit.load(file, _extra_files=extra)
        return json.loads(extra[HEADER])
    if to == "torch-export":
        extra = {HEADER: ""}
        torch.export.load(file, extra_files=extra)
        return json.loads(extra[HEADER])
    import onnx

    properties = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert properties["sources"] == "guitar,backing" and properties["licence"] == "MIT"
    return json.loads(properties[HEADER])


@pytest.mark.parametrize("to", WHOLE)
def test_names_rate_licence_and_training_are_inside(to, written):
    file, _ = written["SamsNet", to]
    about = header_of(file, to)
    assert about["sources"] == ["guitar", "backing"] and about["sample_rate"] == 8000
    assert about["licence"] == "MIT" and about["training"]["global_step"] == 7
    assert about["config"] == json.loads(json.dumps(kind("SamsNet").config))
    assert about["versions"]["torch"] == version("torch")  # torch itself may add its build
    if to in GRAPHS:
        assert about["graph"]["window"] == about["graph"]["minimum"] == 400


def mutate(file, to):
    """Change one number of one weight."""
    if to == "onnx":
        import onnx
        from onnx import numpy_helper

        model = onnx.load(file)
        weight = next(w for w in model.graph.initializer if w.name.endswith("to_masks.bias"))
        values = numpy_helper.to_array(weight).copy()
        values.flat[0] += 0.5
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        onnx.save(model, file)
    elif to == "torchscript":
        module = torch.jit.load(file)
        dict(module.named_parameters())["model.separator.to_masks.bias"].data[0] += 0.5
        torch.jit.save(module, file)
    elif to == "torch-export":
        program = torch.export.load(file)
        program.state_dict["model.separator.to_masks.bias"][0] += 0.5
        torch.export.save(program, file)
    elif to == "asteroid":
        packed = torch.load(file, weights_only=True)
        packed["state_dict"]["model.separator.to_masks.bias"][0] += 0.5
        torch.save(packed, file)
    else:
        from safetensors import safe_open
        from safetensors.torch import save_file

        with safe_open(file, "pt") as opened:
            metadata = opened.metadata()
        weights = load_file(file)
        weights["separator.to_masks.bias"][0] += 0.5
        save_file(weights, file, metadata)


@pytest.mark.slow
def test_one_changed_weight_is_found_in_every_format(written, tmp_path):
    name, changed = "TasNet, gated", []
    for to in WHOLE:
        file = tmp_path / written[name, to][0].name
        shutil.copy(written[name, to][0], file)
        mutate(file, to)
        changed.append((kind(name), file, to))
    for report in prove(changed):
        assert not report["passed"], report["format"]
        assert [case["passed"] for case in report["cases"] if case["case"].startswith("music")] == [False] * 3
        assert "NOT equal" in table(report)


def test_the_command_proves_checks_and_refuses(tmp_path, capsys):
    source = str(save(kind("TasNet, gated"), tmp_path / "source.safetensors", FACTS))
    file = tmp_path / "model.ts"
    assert main(["export", source, "--to", "torchscript", "--out", str(file), "--licence", "CC-BY-4.0"]) == 0
    printed = capsys.readouterr().out
    assert "silence, 2 channels" in printed and printed.endswith(f"{file}\n")
    report = json.loads((tmp_path / "model.ts.parity.json").read_text())
    assert report["passed"] and report["file"] == "model.ts" and report["lowest SNR"] > 90
    about = header_of(file, "torchscript")
    assert about["licence"] == "CC-BY-4.0" and about["training"]["global_step"] == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model.ts",
        "model.ts.parity.json",
        "source.safetensors",
    ]
    mutate(file, "torchscript")
    assert main(["export", source, "--to", "torchscript", "--check", str(file)]) == 2
    assert "differs from the model" in capsys.readouterr().err


def test_beyond_the_tolerance_no_file_is_left(tmp_path, monkeypatch):
    """A writer that writes another model than it was given."""
    source = save(kind("TasNet, gated"), tmp_path / "source.safetensors")
    strange = kind("TasNet, gated")
    strange.separator.to_masks.bias.data[0] += 0.1
    wrong = FORMATS["safetensors"]._replace(write=lambda model, file, facts: save(strange, file, facts))
    monkeypatch.setitem(FORMATS, "safetensors", wrong)
    with pytest.raises(UserError, match="removed, because it differs"):
        export(str(source), "safetensors", tmp_path / "out" / "m.safetensors")
    assert not (tmp_path / "out").exists()


def test_a_file_that_does_not_run_is_one_line(tmp_path):
    source = save(kind("TasNet, gated"), tmp_path / "source.safetensors")
    (tmp_path / "no.onnx").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"no\.onnx: cannot be run in a new process") as caught:
        check(str(source), "onnx", tmp_path / "no.onnx")
    assert "\n" not in str(caught.value)


class Unfollowable(Separator):
    """Its course depends on values: no exporter can follow."""

    def __init__(self, n_features, n_sources):
        super().__init__()
        self.n_sources = n_sources

    def forward(self, features):
        rows = [features * (i if features.sum().item() > 0 else 1 - i) for i in range(self.n_sources)]
        return [torch.stack(rows, 1)]


class Counting(Unfollowable):
    """Its course depends on the number of frames."""

    def forward(self, features):
        pieces = [features[..., 8 * i : 8 * i + 8] for i in range(math.ceil(features.shape[-1] / 8))]
        return [torch.stack([torch.cat(pieces, -1)] * self.n_sources, 1)]


@pytest.mark.parametrize("to", ["torchscript", "torch-export"])
@pytest.mark.parametrize(
    ("separator", "said", "line"),
    [
        (Unfollowable, "its control flow depends on values", "features.sum().item()"),
        (Counting, "computes sizes from the number of frames in Python", "math.ceil("),
    ],
)
def test_what_an_exporter_cannot_follow_is_said_with_its_place(to, separator, said, line, tmp_path):
    if to == "torchscript" and separator is Unfollowable:
        pytest.skip("a trace takes one of the two ways, and the proof tells whether it is right")
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    number = next(i for i, text in enumerate(lines, start=1) if line in text)
    with pytest.raises(UserError, match=f"{to}: not possible for {separator.__name__}: {said}") as caught:
        FORMATS[to].write(tasnet_model(separator), tmp_path / "m", {})
    assert f": {__file__}:{number}; " in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_onnx_holds_no_more_than_2_gb(monkeypatch, tmp_path):
    monkeypatch.setattr("tasnet_attn.exporting.formats.ONNX_LIMIT", 100)
    with pytest.raises(UserError, match=f"onnx: not possible for this model: {IMPOSSIBLE['onnx']}"):
        FORMATS["onnx"].write(kind("SamsNet"), tmp_path / "m.onnx", {})
    assert list(tmp_path.iterdir()) == []


MINE = """
from torch import nn
from tasnet_attn.separators import Separator


class Mine(Separator):
    def __init__(self, n_features: int, n_sources: int, hidden: int = 6):
        super().__init__()
        self.n_sources = n_sources
        self.lstm = nn.LSTM(n_features, hidden, 2, bidirectional=True)  # time first
        self.out = nn.Linear(2 * hidden, n_sources * n_features)

    def forward(self, features):
        x = self.out(self.lstm(features.permute(2, 0, 1))[0])
        return [x.unflatten(-1, (self.n_sources, -1)).permute(1, 2, 3, 0)]
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A model with a user's separator, from a module that only the working folder has; its file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_exported.py").write_text(MINE)
    import_modules(["my_exported"])
    model = tasnet_model(sys.modules["my_exported"].Mine).eval()
    yield model, save(model, tmp_path / "source.safetensors")
    del sys.modules["my_exported"]


@pytest.mark.slow
@pytest.mark.parametrize("to", ["safetensors", "asteroid"])
def test_a_user_s_separator_is_imported_where_this_library_loads(to, mine, tmp_path):
    report = export(str(mine[1]), to, tmp_path / "out" / "m")
    assert report["passed"], table(report)


@pytest.mark.slow
@pytest.mark.parametrize("to", GRAPHS)
def test_a_user_s_separator_in_a_graph(to, mine, tmp_path):
    report = export(str(mine[1]), to, tmp_path / "out" / "m")
    assert report["passed"], table(report)


@pytest.mark.slow
def test_check_knows_half_precision_by_the_tensors(written, tmp_path):
    source = save(kind("SamsNet"), tmp_path / "source.safetensors")
    report = check(str(source), "safetensors", written["SamsNet", "safetensors-half"][0])
    assert report["passed"] and report["format"] == "safetensors-half"


def test_the_cases_are_music_noise_and_silence():
    mixtures = cases(kind("TasNet, gated"))
    music = [mixture for name, mixture in mixtures.items() if name.startswith("music")]
    assert all(0.05 < np.abs(mixture).max() < 2 and mixture.dtype == np.float32 for mixture in music)
    assert not any(mixture.any() for name, mixture in mixtures.items() if name.startswith("silence"))


def test_one_source_comes_out_of_the_learned_decoder_as_one():
    assert LearnedDecoder(8, 4)(torch.randn(2, 1, 8, 5), 18).shape == (2, 1, 18)


def test_half_precision_halves_the_file_and_loads_as_float32(written):
    half, whole = (written["SamsNet", to][0] for to in ("safetensors-half", "safetensors"))
    assert all(w.dtype == torch.float16 for w in load_file(half).values() if w.is_floating_point())
    model = load(half)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    sizes = [sum(w.nbytes for w in load_file(file).values()) for file in (half, whole)]
    assert sizes[0] == sizes[1] / 2


def test_a_weight_too_large_for_half_precision_is_said(tmp_path):
    model = kind("TasNet, gated")
    model.separator.to_masks.bias.data[0] = 1e6
    with pytest.raises(UserError, match=r"separator\.to_masks\.bias contains a weight that is too large for float16"):
        save(model, tmp_path / "m.safetensors", dtype=torch.float16)


def test_the_example_in_onnx_runs_without_torch(written, tmp_path):
    """The script as it stands, where importing torch or this library fails."""
    code = (Path(__file__).parents[2] / "examples/separate_onnx.py").read_text(encoding="utf-8")
    blocker = "import sys\nfor name in ('torch', 'tasnet_attn', 'asteroid', 'scipy'):\n    sys.modules[name] = None\n"
    (tmp_path / "separate.py").write_text(blocker + code)
    music = cases(kind("TasNet, gated"))
    mixture = next(iter(music.values()))[:, :7001]
    soundfile.write(tmp_path / "song.wav", mixture.T, 8000, "FLOAT")
    for name in ("TasNet, gated", "SamsNet"):
        model = kind(name)
        command = [sys.executable, "separate.py", str(written[name, "onnx"][0]), "song.wav"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        pieces = torch.from_numpy(mixture)
        window = lengths(model)["window"]
        if window:
            pieces = torch.nn.functional.pad(pieces, (0, -7001 % window)).unfold(-1, window, window).transpose(0, 1)
        else:
            pieces = pieces[None]
        with torch.no_grad():
            whole = torch.cat(list(model(pieces)), dim=-1)[..., :7001]
        for source, expected in zip(model.sources, whole, strict=True):
            got, _ = soundfile.read(tmp_path / f"{source}.wav", dtype="float32", always_2d=True)
            np.testing.assert_allclose(got.T, expected.numpy(), atol=1e-5)
