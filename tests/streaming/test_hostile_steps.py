"""Steps from strangers: what their metadata claims is checked before any sound is read."""

import io
import json

import numpy as np
import pytest
import torch

from tasnet_attn.errors import UserError
from tasnet_attn.streaming import OnnxSteps, StreamingSeparator, stream

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SOUND = np.linspace(-0.5, 0.5, 41, dtype="<f4")


def write_step(file, changes=(), top=(), drop=()):
    """Two sources, the samples and their negative, and a state that stays as it is; returns the file."""
    from onnx import TensorProto, helper

    kind = TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("samples", kind, ["N", "t"])]
    inputs += [helper.make_tensor_value_info("held", kind, ["N", 3])]
    outputs = [helper.make_tensor_value_info("estimates", kind, ["N", 2, "t"])]
    outputs += [helper.make_tensor_value_info("next.held", kind, ["N", 3])]
    nodes = [
        helper.make_node("Constant", [], ["one"], value=helper.make_tensor("one", TensorProto.INT64, [1], [1])),
        helper.make_node("Unsqueeze", ["samples", "one"], ["same"]),
        helper.make_node("Neg", ["same"], ["negative"]),
        helper.make_node("Concat", ["same", "negative"], ["estimates"], axis=1),
        helper.make_node("Identity", ["held"], ["next.held"]),
    ]
    graph = helper.make_graph(nodes, "step", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    step = {"stride": 4, "lead": 0, "trail": 3, "delay": 0, "latency": 3, "floor": 1e-8, "gain": [1, 1], "rest": []}
    step["states"] = [{"name": "held", "shape": [1, 3], "channels": 0, "ring": None, "type": "float32"}]
    step.update(changes)
    about = {"sources": ["same", "negative"], "sample_rate": 8000, "step": step, **dict(top)}
    for key in drop:
        (about if key in about else step).pop(key)
    helper.set_model_props(model, {"tasnet_attn": json.dumps(about)})
    onnx.save(model, file)
    return file


def streamed(file, out):
    stream(str(file), out=out, channels=1, block=1, source_pipe=io.BytesIO(SOUND.tobytes()))


def test_an_honest_step_runs(tmp_path):
    streamed(write_step(tmp_path / "m.onnx"), tmp_path / "out")
    for name, sign in (("same", 1), ("negative", -1)):
        np.testing.assert_array_equal(np.fromfile(tmp_path / f"out/{name}.raw", "<f4"), sign * SOUND)


@pytest.mark.parametrize(
    "names", [["../../evil", "x"], ["/elsewhere/evil", "x"], ["x", "x"], [], "x", "xx", [1, 2], None, ["x"]]
)
def test_names_that_cannot_be(tmp_path, names):
    (tmp_path / "deep/out").mkdir(parents=True)
    file = write_step(tmp_path / "deep/m.onnx", top={"sources": names})
    with pytest.raises(UserError, match=r"m\.onnx: not a step written by") as caught:
        streamed(file, tmp_path / "deep/out")
    assert "\n" not in str(caught.value) and not list(tmp_path.rglob("*.raw"))


def test_odd_names_become_file_names(tmp_path):
    streamed(write_step(tmp_path / "m.onnx", top={"sources": ["a:b", "A:B"]}), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["A%3AB~2.raw", "a%3Ab.raw"]


STATE = {"name": "held", "shape": [1, 3], "channels": 0, "ring": None, "type": "float32"}
CLAIMS = [
    {"stride": 0}, {"stride": -4}, {"stride": 4.0}, {"stride": "x"}, {"stride": True}, {"stride": 2**40},
    {"lead": -1}, {"trail": None}, {"delay": "x"}, {"latency": -3}, {"lead": 4}, {"rest": ["held"]}, {"rest": 5},
    {"rest": ["no", "such"]}, {"gain": "x"}, {"gain": [1, 2, 3]}, {"floor": "x"}, {"states": []}, {"states": 5},
    {"states": [{**STATE, "type": "S1000"}]}, {"states": [{**STATE, "type": "object"}]},
    {"states": [{**STATE, "type": "int64"}]}, {"states": [{**STATE, "type": []}]},
    {"states": [{**STATE, "shape": [1, -3]}]}, {"states": [{**STATE, "shape": [1, 0]}]},
    {"states": [{**STATE, "shape": [2**20, 2**20, -1]}]}, {"states": [{**STATE, "shape": [1, 4]}]},
    {"states": [{**STATE, "shape": [2**14, 2**15]}]}, {"states": [{**STATE, "channels": 2}]},
    {"states": [{**STATE, "ring": -1}]}, {"states": [{**STATE, "name": "other"}]}, {"states": [STATE, STATE]},
]  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS, ids=str)
def test_claims_that_cannot_be(tmp_path, claim):
    with pytest.raises(UserError, match=r"m\.onnx: not a step written by") as caught:
        OnnxSteps(write_step(tmp_path / "m.onnx", claim))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("top", [{"sample_rate": 0}, {"sample_rate": "x"}, {"sample_rate": 8e3}, {"step": [1]}])
def test_other_claims_that_cannot_be(tmp_path, top):
    with pytest.raises(UserError, match="not a step written by"):
        OnnxSteps(write_step(tmp_path / "m.onnx", top=top))


@pytest.mark.parametrize("key", ["sources", "sample_rate", "step", "stride", "states", "rest"])
def test_what_is_missing_is_one_line(tmp_path, key):
    with pytest.raises(UserError, match=f"not a step written by .*{key}"):
        OnnxSteps(write_step(tmp_path / "m.onnx", drop=[key]))


def test_a_step_that_fails_later_is_one_line(tmp_path):
    """As one that reserves much memory for a long block."""
    from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException

    class Failing:
        def run(self, names, given):
            raise RuntimeException("no memory\nat all")

    steps = OnnxSteps(write_step(tmp_path / "m.onnx"))
    steps.session = Failing()
    with pytest.raises(UserError, match=r"m\.onnx: cannot process 8 samples: no memory$"):
        StreamingSeparator(steps, 1).feed(torch.zeros(1, 8))
