"""`tasnet-attn stream`: separates live sound from standard input or a microphone."""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, Literal

import torch
from torch import Tensor

from tasnet_attn.audio.names import stem_files
from tasnet_attn.audio.pipes import Layout, blocks, coded, header, opened
from tasnet_attn.errors import UserError
from tasnet_attn.extras import require
from tasnet_attn.files import standard, touching
from tasnet_attn.model import SourceSeparator
from tasnet_attn.storage import load
from tasnet_attn.streaming.devices import device, through
from tasnet_attn.streaming.live import Clock, Live
from tasnet_attn.streaming.onnx import OnnxSteps
from tasnet_attn.streaming.separator import StreamingSeparator
from tasnet_attn.streaming.steps import ModelSteps, Steps
from tasnet_attn.terminal import say

PIPE = Path("-")
LONGEST = 60_000.0  # milliseconds of a block, which waits in memory
Engine = Literal["auto", "onnx", "eager"]
WriteStep = Callable[[SourceSeparator, Path], None]


def stream(
    model: str,
    out: Path = PIPE,
    source: str | None = None,
    rate: int | None = None,
    channels: int = 2,
    coding: str = "f32",
    block: float = 10.0,
    engine: Engine = "auto",
    write_step: WriteStep | None = None,
    microphone: str | None = None,
    speakers: str | None = None,
    source_pipe: BinaryIO | None = None,
    target_pipe: BinaryIO | None = None,
) -> None:
    """Separate live sound from standard input; prints the time per block at the end.

    Args:
        model: see `load`, for a model that can stream; or a step written by `export --to onnx-step`.
        out: "-": one source to standard output; otherwise a folder, with a file or FIFO named after each source.
        source: the source for standard output; None with a folder: all.
        rate: Hz of raw samples; None: the model's. A wav has its own.
        channels: of raw samples, interleaved.
        coding: of raw samples: f32, s16 or s32, little-endian. Outputs have the input's.
        block: milliseconds to process at once.
        engine: "onnx": ONNX Runtime on the model's step, which takes seconds to prepare and a third to a half of the
            time for each block; "eager": the model itself; "auto": ONNX Runtime if it is installed.
        write_step: writes a model's step; from the `exporting` package.
        microphone: a sound device to use instead of standard input, by name or number, "default" is the system's; with
            `speakers`, or the system's default ones. Ctrl-C ends it.
        speakers: a sound device to play the source.
        source_pipe: standard input.
        target_pipe: standard output.

    Raises:
        UserError: a model that cannot stream, no such source, a wav of another kind, no samples.
    """
    if not 0 < block <= LONGEST:
        raise UserError(f"--block {block:g} must be a number of milliseconds above 0, at most {LONGEST:g}")
    for name, value in (("--rate", rate), ("--channels", channels)):
        if value is not None and value < 1:
            raise UserError(f"{name} {value} must be at least 1")
    if model.endswith(".onnx"):
        if engine == "eager":
            raise UserError(f"--engine eager: {model} is a step for ONNX Runtime; give the exported model")
        steps: Steps = OnnxSteps(Path(model))
    else:
        network = load(model).eval()
        _chosen(source, network.sources, out)  # before spending seconds on a step
        steps = _steps(network, engine, write_step)
    names = _chosen(source, steps.sources, out)
    torch.set_num_threads(1)  # a block's matrices are too small for several threads
    which = [steps.sources.index(name) for name in names]
    if microphone is not None or speakers is not None:
        if out != PIPE:
            raise UserError("--out is for pipes; with --microphone or --speakers the source is played")
        layout = Layout(rate or steps.sample_rate, channels)
        live, clock, size = _live(steps, layout, block)

        def heard(samples: Tensor) -> Tensor:
            with clock:
                return live.feed(samples)[which[0]]

        ends = device(microphone or "default"), device(speakers or "default")
        missed = through(heard, *ends, layout.sample_rate, channels, size)
        say(f"{missed} blocks were too late for the devices")
    else:
        pipe = source_pipe or standard(sys.stdin, "input")
        with touching(Path("standard input")):
            layout, before, length = opened(pipe, Layout(rate or steps.sample_rate, channels, coding))
        (live, clock, size), clipped = _live(steps, layout, block), 0
        incoming = blocks(pipe, layout, size, before, length)
        with touching(Path("standard input")):
            first = next(incoming, None)
        if first is None:
            raise UserError("standard input: has no samples")
        with _outputs(out, names, layout, target_pipe) as files:
            for samples in itertools.chain([first], incoming):
                with clock:
                    estimates = live.feed(samples)
                clipped += _write(estimates[which], layout, files)
            clipped += _write(live.flush()[which], layout, files)
        if clipped:
            say(f"{clipped} samples exceeded full scale of {layout.coding} and were clipped")
    delay = 1000 * steps.latency / steps.sample_rate
    resampled = "" if layout.sample_rate == steps.sample_rate else f"; resampled from {layout.sample_rate} Hz and back"
    say(f"{clock}; latency {delay:.1f} ms of the model and {block:g} ms of the block{resampled}")


def _live(steps: Steps, layout: Layout, milliseconds: float) -> tuple[Live, Clock, int]:
    """The stream, its clock, and the samples of a block."""
    size = max(1, round(milliseconds / 1000 * layout.sample_rate))
    live = Live(StreamingSeparator(steps, layout.channels), layout.sample_rate)
    return live, Clock(size / layout.sample_rate), size


def _chosen(source: str | None, sources: Sequence[str], out: Path) -> Sequence[str]:
    """The sources to write."""
    if source is not None and source not in sources:
        raise UserError(f"this model has no source {source!r}; it separates {', '.join(sources)}")
    if source is None and out == PIPE and len(sources) != 1:
        raise UserError(
            f"standard output takes one source; choose it with --source ({', '.join(sources)}), or use --out"
        )
    return sources if source is None else [source]


def _steps(network: SourceSeparator, engine: Engine, write_step: WriteStep | None) -> Steps:
    """ONNX Runtime's if possible, else the model's own."""
    steps = ModelSteps(network)
    if engine == "eager":
        return steps
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if write_step is None or missing:
        if engine == "onnx":
            require("onnx", "onnxscript", "onnxruntime")
        return steps
    say("exporting the model for ONNX Runtime; --engine eager starts at once")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.step.onnx"
        try:
            write_step(network, file)
        except UserError as error:
            if engine == "onnx":
                raise
            say(f"--engine eager: {error}")
            return steps
        exported = OnnxSteps(file)
    if _agree(exported, steps):
        return exported
    lack = "the step that was exported for ONNX Runtime gives other samples than the model"
    if engine == "onnx":
        raise UserError(f"--engine onnx: {lack}")
    say(f"--engine eager: {lack}")
    return steps


def _agree(exported: Steps, steps: Steps) -> bool:
    """Whether both give equal samples for some noise; a user's parts may start from other states than zeros."""
    length = steps.lead + 20 * steps.stride + 1
    noise = 0.1 * torch.randn(1, length, generator=torch.Generator().manual_seed(0))
    outputs = []
    for each in (exported, steps):
        separator = StreamingSeparator(each)
        parts = [separator.feed(block) for block in noise.split(7 * steps.stride, dim=-1)]
        outputs.append(torch.cat([*parts, separator.flush()], dim=-1))
    difference, largest = ((outputs[0] - outputs[1]).abs().max(), outputs[1].abs().max())
    return bool(difference <= 1e-3 * largest)


@contextlib.contextmanager
def _outputs(out: Path, names: Sequence[str], layout: Layout, target: BinaryIO | None) -> Iterator[list[BinaryIO]]:
    """A file, a FIFO or standard output for each source, with a wav header if the input had one."""
    with contextlib.ExitStack() as stack:
        if out == PIPE:
            files = [target or standard(sys.stdout, "output")]
        else:
            ending = "wav" if layout.wav else "raw"
            paths = stem_files(out, "", names, ending, "{source}.{ext}")
            with touching(out):
                out.mkdir(parents=True, exist_ok=True)
                files = [stack.enter_context(path.open("wb")) for path in paths]
        for file in files:
            _put(header(layout), file)
        yield files


def _write(estimates: Tensor, layout: Layout, files: list[BinaryIO]) -> int:
    """[S, C, t] to the files; returns the number of clipped samples."""
    clipped = 0
    for estimate, file in zip(estimates, files, strict=True):
        data, cut = coded(estimate.cpu(), layout)
        clipped += cut
        _put(data, file)
    return clipped


def _put(data: bytes, file: BinaryIO) -> None:
    name = getattr(file, "name", None)
    with touching(Path(name if isinstance(name, str) and name != "<stdout>" else "standard output")):
        file.write(data)
        file.flush()
