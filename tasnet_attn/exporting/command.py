"""`tasnet-attn export`: writes a trained model to a file and verifies the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tasnet_attn.errors import UserError
from tasnet_attn.exporting.facts import facts_of
from tasnet_attn.exporting.formats import FORMATS
from tasnet_attn.exporting.parity import parity, table
from tasnet_attn.extras import require
from tasnet_attn.files import digest, holding, touching, whole, write_text
from tasnet_attn.model import SourceSeparator
from tasnet_attn.storage import load
from tasnet_attn.storage.finding import HUB, HUB_FILES, find
from tasnet_attn.storage.hub import write_folder
from tasnet_attn.storage.tensors import read_safetensors

HUGGINGFACE = "huggingface"
BUSY = "another `export` is writing to this file; wait for it, or give another --out"
VARIANTS = {"safetensors": "safetensors-half", "onnx-step": "onnx-step-int8"}  # by --half and --int8


def export(
    model: str,
    to: str = "safetensors",
    out: Path | None = None,
    half: bool = False,
    licence: str | None = None,
    int8: bool = False,
    about: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a model to one file, run the file in a new process, and keep it only if its outputs match the model's.

    Args:
        model: see `load`.
        to: "safetensors", "asteroid", "torchscript", "torch-export", "onnx", "onnx-step" (for streaming), or
            "huggingface" (a folder).
        out: the file; None: `model` with the format's suffix in the run folder, or next to the file. The report is
            `<file>.parity.json`.
        half: store the weights as float16 ("safetensors" and "huggingface").
        licence: of the weights, for the file's header and the model card.
        int8: multiply 8-bit integers ("onnx-step").
        about: more text for the file's header and the model card.

    Returns:
        The report of `exporting.parity.prove`, with "path".

    Raises:
        UserError: the file's ending is another format's, it would overwrite its source, the exporter rejects the model,
            or the file's outputs differ.
    """
    kind = _kind(to, half, int8)
    if out is not None:
        _agree(out, to)
    source, original = _original(model)
    facts = {**facts_of(source, licence), **(about or {})}
    elsewhere = str(model).startswith(HUB) or not Path(model).exists()  # cache and package take no new files
    home = Path() if elsewhere else Path(model) if Path(model).is_dir() else source.parent
    if to == HUGGINGFACE:
        return _export_folder(original, out or home / "huggingface", facts, kind)
    require(*FORMATS[kind].needs)
    file = out or home / f"model{FORMATS[kind].suffix}"
    if file.exists() and file.samefile(source):
        raise UserError(f"{file}: is the model itself; choose another --out")
    if file.is_dir():
        raise UserError(f"{file}: is a folder; --out names the file")
    if FORMATS[kind].side_car and file.suffix == ".json":
        raise UserError(f"{file}: {to} writes its description to that file; give --out another ending")
    with holding(file.parent, f".{digest([file.name])}.lock", f"{file}: {BUSY}"):  # its report goes with the file
        with whole(file, FORMATS[kind].suffix) as part:
            FORMATS[kind].write(original, part, facts)
            report = _proven(original, part, kind, file)
        if side_car := FORMATS[kind].side_car:
            write_text(file.with_suffix(".json"), json.dumps(side_car(original, facts), indent=1) + "\n")
        return _keep(report, file)


def _kind(to: str, half: bool, int8: bool) -> str:
    """The name in `FORMATS` of what `--to`, `--half` and `--int8` ask for."""
    names = [name for name in (*FORMATS, HUGGINGFACE) if name not in VARIANTS.values()]
    if to not in names:
        own = "to use your own format, add --import with its module"
        raise UserError(f"--to {to!r} is not one of {', '.join(names)}; {own}")
    if half and to not in ("safetensors", HUGGINGFACE):
        raise UserError(f"--half is for safetensors and huggingface; {to} keeps float32")
    if int8 and to != "onnx-step":
        raise UserError("--int8 is for onnx-step")
    to = "safetensors" if to == HUGGINGFACE else to
    return VARIANTS[to] if half or int8 else to


def _agree(out: Path, kind: str) -> None:
    """Reject a name whose ending is another format's: such a file would not be what its name says."""
    ours = {name: form for name, form in FORMATS.items() if name not in VARIANTS.values()}
    endings = {name: Path(f"x{form.suffix}").suffix for name, form in ours.items()}
    own = "" if kind == HUGGINGFACE else Path(f"x{FORMATS[kind].suffix}").suffix
    meant = [name for name, ending in endings.items() if ending and ending == out.suffix.lower() != own]
    if meant:
        writes = f"{own} files" if own else "a folder"
        raise UserError(f"{out}: --to {kind} writes {writes}; for this name use --to {' or --to '.join(meant)}")


def _original(model: str) -> tuple[Path, SourceSeparator]:
    """The model's file, and the model."""
    source = find(model)
    original = load(source)
    if "asteroid" in original.config:
        name = original.config["asteroid"]
        raise UserError(f"{source}: is Asteroid's own {name}; only this library's models are exported")
    return source, original


def _export_folder(model: SourceSeparator, folder: Path, facts: dict[str, Any], kind: str) -> dict[str, Any]:
    with holding(folder, ".exporting", f"{folder}: {BUSY}"):
        if there := next((name for name in HUB_FILES if (folder / name).exists()), None):
            raise UserError(f"{folder}: already contains a {there}; give another --out")
        weights = folder / "model.safetensors"
        try:
            write_folder(model, folder, facts, torch.float16 if kind == VARIANTS["safetensors"] else None)
            return _keep(_proven(model, weights, kind, weights), weights)
        except BaseException:  # also Ctrl-C: an unverified model does not stay
            for name in HUB_FILES:  # none of them was there before
                (folder / name).unlink(missing_ok=True)
            raise


def _proven(model: SourceSeparator, part: Path, kind: str, file: Path) -> dict[str, Any]:
    try:
        report = parity(model, part, kind)
    except UserError:
        with touching(file):
            part.stat()  # otherwise the folder was removed meanwhile
        raise
    if not report["passed"]:
        raise UserError(f"{file}: removed, because it {_differs(report)}")
    return {**report, "file": file.name}


def _differs(report: dict[str, Any]) -> str:
    worst = max((row for row in report["cases"] if not row["passed"]), key=lambda row: row["difference"])
    lowest = FORMATS[report["format"]].lowest_snr
    if lowest is not None and worst["SNR"] is not None:
        return f"is {worst['SNR']:.1f} dB from the model's output on {worst['case']!r}; {lowest:g} are required"
    return (
        f"differs from the model: {worst['difference']:.1e} apart on {worst['case']!r}, where "
        f"{report['format']} allows {report['tolerance']:g} of {worst['largest']:.2g}"
    )


def _keep(report: dict[str, Any], file: Path) -> dict[str, Any]:
    write_text(file.with_name(f"{file.name}.parity.json"), json.dumps(report, indent=1) + "\n")
    return {**report, "path": str(file)}


def check(model: str, to: str, file: Path, half: bool = False, int8: bool = False) -> dict[str, Any]:
    """Verify an existing file again. TorchScript and torch.export files can contain code: check only files you trust.

    Args:
        model: see `load`.
        to: the file's format, as for `export`.
        file: the file; for "huggingface" the folder.
        half: as for `export`; half precision is also detected from the file's tensors.
        int8: as for `export`.

    Raises:
        UserError: no such format or file, it does not run, or its outputs differ from the model's.
    """
    kind = _kind(to, half, int8)
    _, original = _original(model)
    file = file / "model.safetensors" if to == HUGGINGFACE else file
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    if kind == "safetensors" and any(w.dtype == torch.float16 for w in read_safetensors(file).weights.values()):
        kind = VARIANTS[kind]
    require(*FORMATS[kind].needs)
    report = parity(original, file, kind)
    if not report["passed"]:
        raise UserError(f"{file}: {_differs(report)}")
    return {**report, "path": str(file)}


def shown(report: dict[str, Any]) -> str:
    """The printed output: the report, then the file's path."""
    return f"{table(report)}\n{report['path']}"
