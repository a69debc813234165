"""The base install separates; a command that needs more names its extra in one line. The package's front is lazy."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import tasnet_model

import tasnet_attn
from tasnet_attn import extras

ROOT = Path(__file__).parent.parent
BASE_ONLY = """
import contextlib, io, json, sys
blocked, commands = json.load(sys.stdin)

class Without:
    "A finder that does not see the blocked packages."

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in blocked else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
from tasnet_attn.cli import main
said = []
for command in commands:
    with contextlib.redirect_stderr(io.StringIO()) as stderr, contextlib.redirect_stdout(io.StringIO()):
        said.append((main(command), stderr.getvalue()))
print(json.dumps(said))
"""


def module(requirement):
    """The module of a requirement like 'jsonargparse[signatures]>=4.40,<5'."""
    name = requirement
    for end in "[<>=;, ":
        name = name.partition(end)[0]
    return name.lower().replace("-", "_")


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.slow
def test_the_base_install_separates_and_other_commands_name_their_extra(project, tmp_path):
    blocked = {module(r) for requirements in project["optional-dependencies"].values() for r in requirements}
    blocked -= {"setuptools", "tasnet_attn"}  # torch brings setuptools; extras repeat each other by our name
    assert {"pytorch_lightning", "asteroid", "museval", "jinja2", "onnx", "ray", "huggingface_hub"} <= blocked
    assert not blocked & {module(requirement) for requirement in project["dependencies"]}
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "song.wav", 0.1 * rng.normal(size=(4000, 2)), 8000)
    model = str(tasnet_attn.save(tasnet_model(), tmp_path / "model.safetensors"))
    recipe = [str(ROOT / "recipes/demo" / name) for name in ("base.yml", "ltl/conf.yml")]
    out = ["--out", str(tmp_path / "out")]
    commands = [  # the command, and the extra that it names
        (["separate", str(tmp_path / "song.wav"), "--model", model, *out], None),
        (["export", model, "--out", str(tmp_path / "other.safetensors")], None),
        (["train", "--config", recipe[0], "--config", recipe[1], *out], "train"),
        (["demo", *out], "train"),
        (["evaluate", "--model", model, "--data", recipe[0], *out], "train"),
        (["check-data", recipe[0]], "train"),
        (["ablate", str(ROOT / "recipes/ablations/small/ffn_width.yml"), *out], "train"),
        (["report", str(tmp_path)], "train"),
        (["export", model, "--to", "onnx"], "onnx"),
        (["export", model, "--to", "huggingface"], "hub"),
        (["export", model, "--to", "asteroid"], "asteroid"),
        (["separate", str(tmp_path / "song.wav"), "--model", "hf://nobody/nothing", *out], "hub"),
    ]
    given = json.dumps([sorted(blocked), [arguments for arguments, _ in commands]])
    ended = subprocess.run([sys.executable, "-c", BASE_ONLY], input=given, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    for (arguments, extra), (status, said) in zip(commands, json.loads(ended.stdout), strict=True):
        if extra is None:
            assert (status, said) == (0, ""), arguments
        else:  # whichever of the extra's packages is imported first
            line = r"tasnet-attn: ([\w-]+) needs (\w+), which is not installed; pip install 'tasnet-attn\[(\w+)\]'\n"
            named = re.fullmatch(line, said)
            assert status == 2 and named and (named[1], named[3]) == (arguments[0], extra), said
            assert named[2] in {module(requirement) for requirement in project["optional-dependencies"][extra]}
    assert (tmp_path / "out/song/guitar.wav").is_file() and (tmp_path / "other.safetensors").is_file()


def test_a_module_of_the_users_own_is_no_extra():
    assert extras.advice(ModuleNotFoundError(name="my_separators")) is None
    assert extras.advice(ModuleNotFoundError(name="pandas.no_such_part")) is None
    assert extras.advice(ModuleNotFoundError("without a name")) is None


def test_the_front_is_complete_and_imports_nothing():
    code = "import sys, tasnet_attn\nnames = dir(tasnet_attn)\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "yaml", "soundfile"} & set(loaded)
    rooms = {path.stem for path in Path(tasnet_attn.__file__).parent.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert set(tasnet_attn.__all__) | rooms - {"__init__", "__pycache__", "songs", "shipped", "recipes"} == set(
        dir(tasnet_attn)
    )
    for name in dir(tasnet_attn):
        assert getattr(tasnet_attn, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'no_such'"):
        _ = tasnet_attn.no_such


def test_a_room_is_an_attribute():
    code = "import tasnet_attn\nprint(tasnet_attn.metrics.si_snr.__name__, tasnet_attn.__version__)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said == ["si_snr", (ROOT / "tasnet_attn/version.py").read_text().split('"')[-2]]
