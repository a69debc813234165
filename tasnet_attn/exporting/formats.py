"""The formats: file name, tolerance, and writer of each.

All graph files compute the same: `mixture` [N, T] -> `estimates` [N, S, T], float32, for N independent channels. N is
free; T too, from `minimum` samples on, unless the model has a fixed segment.
"""

from __future__ import annotations

import io
import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tasnet_attn.errors import UserError
from tasnet_attn.exporting.graph import graph
from tasnet_attn.exporting.lstm import restore, to_onnx
from tasnet_attn.exporting.refusals import explained
from tasnet_attn.exporting.step import State, about_step, step_program
from tasnet_attn.model import SourceSeparator, segment_samples
from tasnet_attn.storage import asteroid, save
from tasnet_attn.storage.tensors import HEADER, header

OPSET = 18  # 23 has attention as one operation, but not with skip attention's masks; measured in docs/deploy.md
ONNX_LIMIT = 2 * 10**9  # bytes of weights: protobuf's


class Format(NamedTuple):
    """A format, written by `write(model, file, facts)`. A user's module may add one to `FORMATS`.

    `tolerance`: largest difference from the model's output, relative to its peak for the same input.
    `needs`: modules of an extra that write the file or run it for the check.
    `run`: for a user's format: from a file to a function of NumPy arrays, mixtures [N, T] -> estimates [N, S, T].
    `side_car`: JSON file written in addition, for runtimes that cannot read metadata inside the file.
    `lowest_snr`: for inexact formats: minimum SNR in dB relative to the model, instead of `tolerance`.
    """

    suffix: str
    tolerance: float
    write: Callable[[SourceSeparator, Path, dict[str, Any]], None]
    needs: tuple[str, ...] = ()
    run: Callable[[str], Callable[[np.ndarray], np.ndarray]] | None = None
    side_car: Callable[[SourceSeparator, dict[str, Any]], dict[str, Any]] | None = None
    lowest_snr: float | None = None


def lengths(model: SourceSeparator) -> dict[str, int | None]:
    """The lengths T that a graph file takes: {"window": the only one, or None, "minimum": the shortest}, in samples.

    Shorter inputs have fewer frames than poolings, strides or slices need; the model itself pads them.
    """
    window = segment_samples(model)
    if window is None and model.encoder.framed:
        hop: int = getattr(model.encoder, "hop", 1)
        return {"window": None, "minimum": max(64, 2 * getattr(model.separator, "multiple", 1)) * hop}
    return {"window": window, "minimum": window or 2 * getattr(model.encoder, "kernel_size", 1)}


def graph_header(model: SourceSeparator, facts: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a graph file."""
    about = {"input": "mixture [N, T] float32, N channels", "output": "estimates [N, S, T] float32", **lengths(model)}
    return {**header(model, facts), "config": model.config, "graph": about}


def _example(model: SourceSeparator, more: int = 1013) -> Tensor:
    """Three channels of odd length: no two sizes are equal by accident."""
    known = lengths(model)
    length = known["window"] or 2 * (known["minimum"] or 0) + more
    return 0.1 * torch.randn(3, length, generator=torch.Generator().manual_seed(0))


def _write_safetensors(model: SourceSeparator, file: Path, facts: dict[str, Any]) -> None:
    save(model, file, facts)


def _write_half(model: SourceSeparator, file: Path, facts: dict[str, Any]) -> None:
    save(model, file, facts, torch.float16)


def _write_torchscript(model: SourceSeparator, file: Path, facts: dict[str, Any]) -> None:
    with explained("torchscript", model), torch.no_grad():
        traced = torch.jit.trace(graph(model), (_example(model),), check_trace=False)  # `prove` checks it
        traced(_example(model, 4099))
    written = io.BytesIO()  # torch ends the process if the disk is full
    torch.jit.save(traced, written, _extra_files={HEADER: json.dumps(graph_header(model, facts))})
    file.write_bytes(written.getvalue())


def _program(model: SourceSeparator) -> torch.export.ExportedProgram:
    free = torch.export.Dim.DYNAMIC
    dynamic = {0: free} if lengths(model)["window"] else {0: free, 1: free}
    program = torch.export.export(
        graph(model, one_lstm=True), (_example(model),), dynamic_shapes=(dynamic,), strict=False
    )
    program.module()(_example(model, 4099))  # a size fixed by the exporter is rejected here
    return program


def _write_torch_export(model: SourceSeparator, file: Path, facts: dict[str, Any]) -> None:
    with explained("torch-export", model), torch.no_grad():
        program = _program(model)
        restore(program)
        written = io.BytesIO()
        torch.export.save(program, written, extra_files={HEADER: json.dumps(graph_header(model, facts))})
    file.write_bytes(written.getvalue())


def _write_onnx(model: SourceSeparator, file: Path, facts: dict[str, Any]) -> None:
    _fits_onnx(model)
    with explained("onnx", model), torch.no_grad():
        written = _onnx(_program(model), ["mixture"], ["estimates"], graph_header(model, facts))
    written.save(file, external_data=False)


def _write_onnx_step(model: SourceSeparator, file: Path, facts: dict[str, Any]) -> None:
    _fits_onnx(model)
    with explained("onnx-step", model), torch.no_grad():
        program, state = step_program(model)
        outputs = ["estimates", *(f"next.{name}" for name in state.names)]
        written = _onnx(program, ["samples", *state.names], outputs, step_header(model, facts))
    written.save(file, external_data=False)


def write_step(model: SourceSeparator, file: Path) -> None:
    """A model's step as an ONNX file, for `stream` to run at once.

    Raises:
        UserError: this model has no graph.
    """
    _write_onnx_step(model, file, {})


def _write_int8_step(model: SourceSeparator, file: Path, facts: dict[str, Any]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        exact = Path(folder) / "step.onnx"
        _write_onnx_step(model, exact, facts)
        logging.disable(logging.WARNING)  # it advises to prepare a graph that is already prepared
        try:
            # signed weights saturate on AVX2 without VNNI; convolutions of one block are slower in integers
            quantize_dynamic(exact, file, weight_type=QuantType.QUInt8, op_types_to_quantize=["MatMul", "LSTM"])
        finally:
            logging.disable(logging.NOTSET)


def step_header(model: SourceSeparator, facts: dict[str, Any]) -> dict[str, Any]:
    """A step's metadata, in the file and in its side-car."""
    return {**header(model, facts), "config": model.config, "step": about_step(model, State(model))}


def _fits_onnx(model: SourceSeparator) -> None:
    if sum(weight.nbytes for weight in model.state_dict().values()) > ONNX_LIMIT:
        raise UserError(f"onnx: not possible for this model: {IMPOSSIBLE['onnx']}")


def _onnx(
    program: torch.export.ExportedProgram, inputs: list[str], outputs: list[str], about: dict[str, Any]
) -> torch.onnx.ONNXProgram:
    from onnxscript import optimizer

    written = torch.onnx.export(
        program, dynamo=True, opset_version=OPSET, custom_translation_table=to_onnx(),
        input_names=inputs, output_names=outputs, verbose=False,
        optimize=False,  # it treats the epsilons of our divisions (1e-16, 1e-8) as zeros: NaN on silence
    )  # fmt: skip
    assert written is not None
    optimizer.fold_constants(written.model, input_size_limit=ONNX_LIMIT, output_size_limit=ONNX_LIMIT)
    optimizer.remove_unused_nodes(written.model)
    written.model.metadata_props[HEADER] = json.dumps(about)
    written.model.metadata_props.update(  # what a reader without this library looks for first
        sources=",".join(about["sources"]), sample_rate=str(about["sample_rate"]), licence=str(about.get("licence"))
    )
    return written


# Combinations that no exporter supports, with the message. All others are possible.
IMPOSSIBLE = {"onnx": "its weights exceed 2 GB, and protobuf, ONNX's container, allows no more in one file"}

ONNX = ("onnx", "onnxscript", "onnxruntime")
FORMATS = {
    "safetensors": Format(".safetensors", 1e-6, _write_safetensors),
    "safetensors-half": Format(".half.safetensors", 2e-2, _write_half),
    "asteroid": Format(".pth", 1e-6, asteroid.write, ("asteroid",)),
    "torchscript": Format(".ts", 3e-5, _write_torchscript),
    "torch-export": Format(".pt2", 3e-5, _write_torch_export),
    "onnx": Format(".onnx", 3e-5, _write_onnx, ONNX),
    "onnx-step": Format(".step.onnx", 3e-5, _write_onnx_step, ONNX, side_car=step_header),
    "onnx-step-int8": Format(".step.int8.onnx", 3e-5, _write_int8_step, ONNX, side_car=step_header, lowest_snr=40.0),
}
