"""Separating audio of any length, rate and channel count, in bounded memory.

A stream of blocks is resampled to the model's rate, separated and resampled back; files and tensors use the same code.
A model that can stream processes block after block without seams. For all others the stream is cut into overlapping
segments, whose estimates are cross-faded.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn

from tasnet_attn.audio.reading import check_finite
from tasnet_attn.audio.resampling import exactly, resampled
from tasnet_attn.errors import UserError, first_line
from tasnet_attn.inference.ahead import ahead, worth_it
from tasnet_attn.inference.stitching import stitched
from tasnet_attn.metrics.matching import best_permutation
from tasnet_attn.metrics.signals import Signals
from tasnet_attn.model import Separates, SourceSeparator, segment_samples
from tasnet_attn.streaming import StreamingSeparator, cannot_stream

SEGMENT = 20.0  # seconds, for models of any length
OVERLAP = 0.25
BATCH = 4  # segments at once; one on a CPU, because one uses all of it
SHORTEST = 0.01  # seconds of a segment
READ, DONE = 64, 4  # blocks read ahead of the model, and waiting after it: a batch of segments or more


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto": CUDA, else Apple's MPS, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # some kinds are modules that torch lacks here
        raise UserError(f"device {name!r} is not available: {first_line(error)}") from error
    return device


def on_device(model: Separates, device: torch.device) -> Separates:
    """The model itself if it is on the device, else a copy: the caller's stays where it is."""
    assert isinstance(model, nn.Module)
    weight = next(itertools.chain(model.parameters(), model.buffers()), None)
    here = weight is None or weight.device.type == device.type and device.index in (None, weight.device.index)
    return model if here else deepcopy(model).to(device)


@contextmanager
def evaluating(model: Separates) -> Iterator[None]:
    """The model in evaluation mode inside the block; afterwards every part has its previous mode."""
    assert isinstance(model, nn.Module)
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def separate(
    model: Separates,
    mixture: Tensor,
    sample_rate: int,
    segment: float | None = None,
    overlap: float | None = None,
    device: str = "auto",
    references: Tensor | None = None,
    sources: Sequence[str] | None = None,
    remainder: str | None = None,
    mixture_consistent: bool = False,
) -> dict[str, Tensor]:
    """Separate audio in memory.

    Args:
        model: the model; it stays on its device and in its mode.
        mixture: [C, T], of any type of real numbers; it is processed in the type of the model's weights.
        sample_rate: Hz of the mixture, a whole number; if it is not the model's, the mixture is resampled, and the
            estimates back.
        segment: seconds to process at once; None: the model's own, else 20. Does not change the output of a model that
            can stream.
        overlap: part of a segment that is cross-faded with the next one, 0 to below 1; None: 0.25. Has no effect on a
            model that can stream, or one that keeps the middle of its segments.
        device: "auto", "cpu", "cuda", ...
        references: [S, C, T], for scores only: they determine the order of interchangeable sources in each segment,
            instead of continuity; without overlap the end is then zero-padded, as in AudioSlots' paper.
        sources: the sources to return, in this order; None: all.
        remainder: the name of one more signal, the mixture minus the others; None: none.
        mixture_consistent: the difference between the mixture and all estimates is added to them in equal parts.

    Returns:
        {source: [C, T]}, on the CPU.

    Raises:
        UserError: a source that the model does not separate, NaN samples, a mixture of another shape or without
            samples, a bad rate, segment or overlap, or references that do not match model and mixture.
    """
    mixture = _samples(mixture, sample_rate)
    check_finite(mixture, "mixture")
    choice = Choice(model, sources, remainder, mixture_consistent)
    stream = Stream(model, sample_rate, segment, overlap, device)
    known = None if references is None else Signals.of(references)
    if known is not None and known.shape != (len(model.sources), *mixture.shape):
        raise UserError(f"references {list(known.shape)} do not fit the mixture {list(mixture.shape)}")
    blocks = stream.run(lambda: [mixture], mixture.shape[-1], known)
    estimates = choice.of(torch.cat(list(blocks), dim=-1), mixture.cpu())
    return dict(zip(choice.names, estimates, strict=True))


def _samples(mixture: Tensor, sample_rate: float) -> Tensor:
    """The mixture in single precision, if it can be one."""
    if not isinstance(mixture, Tensor) or mixture.dim() != 2 or not len(mixture) or mixture.is_complex():
        given = str(list(mixture.shape)) if isinstance(mixture, Tensor) else type(mixture).__name__
        raise UserError(f"the mixture must be a tensor of real numbers [channels, samples]; got {given}")
    if not (sample_rate >= 1 and float(sample_rate).is_integer()):
        raise UserError(f"the sample rate {sample_rate} must be a whole number of Hz, at least 1")
    return mixture.detach().float()


class Choice:
    """The signals wanted from a model; arguments as in `separate`.

    Attributes:
        names: the signals', the remainder last.

    Raises:
        UserError: a source that the model does not separate, or a repeated name.
    """

    def __init__(
        self, model: Separates, sources: Sequence[str] | None, remainder: str | None, mixture_consistent: bool
    ) -> None:
        chosen = list(model.sources if sources is None else sources)
        for name in chosen:
            if name not in model.sources:
                raise UserError(f"this model has no source {name!r}; it separates {', '.join(model.sources)}")
        self.names = chosen + ([] if remainder is None else [remainder])
        if twice := next((name for name in self.names if self.names.count(name) > 1), None):
            raise UserError(f"{twice!r} is named twice; every stem needs its own file")
        if not chosen:
            raise UserError(f"no source is chosen; this model separates {', '.join(model.sources)}")
        self.which, self.rest, self.consistent = [model.sources.index(n) for n in chosen], remainder, mixture_consistent

    def of(self, estimates: Tensor, mixture: Tensor) -> Tensor:
        """From all estimates [S, C, t] of a mixture [C, t] to the wanted signals [len(names), C, t]."""
        if self.consistent:
            estimates = estimates + (mixture - estimates.sum(0)) / len(estimates)
        chosen = estimates[self.which]
        return chosen if self.rest is None else torch.cat([chosen, (mixture - chosen.sum(0))[None]])


class Stream:
    """Processes blocks of audio with a model; arguments as in `separate`."""

    def __init__(
        self, model: Separates, sample_rate: int, segment: float | None, overlap: float | None, device: str
    ) -> None:
        fixed, given = segment_samples(model), (segment is not None, overlap is not None)
        overlap = OVERLAP if overlap is None else overlap
        if segment is not None and fixed is not None and segment != model.segment:
            raise UserError(f"this model takes segments of {model.segment} s only; leave --segment out")
        if not 0 <= overlap < 1:
            raise UserError(f"overlap {overlap} must be at least 0 and below 1")
        if segment is not None and not (math.isfinite(segment) and segment >= SHORTEST):
            raise UserError(f"segment {segment} s must be a finite number, at least {SHORTEST}")
        self.size = fixed or round((segment or SEGMENT) * model.sample_rate)
        self.hop = max(1, self.size - int(overlap * self.size))
        self.fixed, self.rate, self.streams = fixed is not None, sample_rate, not cannot_stream(model)
        about = ("--segment is the size of its blocks", "--overlap has no effect")
        told = " and ".join(text for text, told in zip(about, given, strict=True) if told and self.streams)
        self.said = f"this model streams, without seams: {told}" if told else ""
        if model.stitch == "middle" and given[1]:
            self.said = "this model keeps the middle of segments that overlap by half: --overlap has no effect"
        self.device = pick_device(device)
        self.batch = 1 if self.device.type == "cpu" else BATCH
        self.threads = worth_it(self.device)
        self.model = on_device(model, self.device)
        assert isinstance(self.model, nn.Module)
        self.dtype = next((weight.dtype for weight in self.model.parameters()), torch.float32)  # a user may change it

    def run(
        self, read: Callable[[], Iterable[Tensor]], length: int, references: Signals | None = None
    ) -> Iterator[Tensor]:
        """From blocks [C, t] of a mixture of `length` samples to blocks [S, C, t'] of the estimates.

        `read` restarts the blocks: a model that divides by the clip's maximum reads them twice.
        """
        if length < 1:
            raise UserError("the mixture has no samples")
        if references is not None and not (self.model.interchangeable and self.rate == self.model.sample_rate):
            raise UserError("references order the sources of a model of interchangeable sources, at the model's rate")
        if self.rate == self.model.sample_rate:
            end = -length % self.size if references is not None and self.hop == self.size else 0
            blocks = self._separated(lambda: exactly(read(), length + end), length + end, references)
            yield from exactly(blocks, length) if end else blocks
            return
        inner = max(1, round(length * self.model.sample_rate / self.rate))
        outward = resampled(
            self._separated(lambda: exactly(resampled(read(), self.rate, self.model.sample_rate), inner), inner),
            self.model.sample_rate,
            self.rate,
        )
        yield from exactly(outward, length)

    def _separated(
        self, read: Callable[[], Iterable[Tensor]], length: int, references: Signals | None = None
    ) -> Iterator[Tensor]:
        """At the model's rate, with the model's method of joining segments."""
        return self.beside(self._run(lambda: self.beside(read()), length, references), DONE)

    def beside(self, blocks: Iterable[Tensor], depth: int = READ) -> Iterator[Tensor]:
        """The blocks, read ahead in a thread if that helps."""
        return ahead(blocks, depth) if self.threads else iter(blocks)

    @torch.inference_mode()  # as a decorator: a block would leave the mode on between the items, for the caller
    def _run(self, read: Callable[[], Iterable[Tensor]], length: int, references: Signals | None) -> Iterator[Tensor]:
        with evaluating(self.model):
            yield from self._joined(read, length, references)

    def _joined(
        self, read: Callable[[], Iterable[Tensor]], length: int, references: Signals | None
    ) -> Iterator[Tensor]:
        scale = self.model.clip_scale((block.to(self.device, self.dtype) for block in read()), length)
        if self.streams and references is None:
            yield from self._streamed(read())
        elif self.model.stitch == "middle":
            assert isinstance(self.model, SourceSeparator)  # other models lack the attribute
            yield from stitched(self.model, read(), length, scale, self.device)
        else:
            yield from self._faded(read(), scale, references)

    def _streamed(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Block by block, carrying the state."""
        assert isinstance(self.model, SourceSeparator)
        stream: StreamingSeparator | None = None
        for _, block in segments(blocks, self.size, self.size, whole=False):
            stream = stream or StreamingSeparator(self.model, block.shape[0])
            yield stream.feed(block).float().cpu()
        if stream is not None:
            yield stream.flush().float().cpu()

    def _faded(self, blocks: Iterable[Tensor], scale: Tensor | None, references: Signals | None) -> Iterator[Tensor]:
        """Overlap-add of the segments' estimates, divided by the summed fades."""
        done, total, weights = 0, None, torch.empty(0)  # `done` is the position of total's first sample
        for start, estimate in self._estimates(segments(blocks, self.size, self.hop), scale):
            if references is not None:
                estimate = in_order_of(references.read(start, start + estimate.shape[-1]), estimate)
            fade = _fade(estimate.shape[-1], self.size - self.hop)
            if total is None:
                total, weights = estimate * fade, fade
                continue
            ready = start - done
            if self.model.interchangeable and references is None:
                estimate = in_order_of(total[..., ready:] / weights[ready:], estimate)
            yield total[..., :ready] / weights[:ready]
            rest, rest_weights, done = total[..., ready:], weights[ready:], start
            total, weights = estimate * fade, fade.clone()
            total[..., : rest.shape[-1]] += rest
            weights[: len(rest_weights)] += rest_weights
        if total is not None:
            yield total / weights

    def _estimates(self, chunks: Iterable[tuple[int, Tensor]], scale: Tensor | None) -> Iterator[tuple[int, Tensor]]:
        """(start, [C, t]) -> (start, [S, C, t]), several at once; zero-padded for models of fixed length."""
        chunks = iter(chunks)
        while taken := list(itertools.islice(chunks, self.batch)):
            lengths = [chunk.shape[-1] for _, chunk in taken]
            size = self.size if self.fixed else max(lengths)  # only a stream's single segment may be short
            padded = [torch.nn.functional.pad(chunk, (0, size - chunk.shape[-1])) for _, chunk in taken]
            of_clip = None if scale is None else scale.flatten().repeat(len(taken), 1)  # [B, C]
            found = self.model(torch.stack(padded).to(self.device, self.dtype), of_clip).float().cpu()
            for (start, _), length, estimate in zip(taken, lengths, found, strict=True):
                yield start, estimate[..., :length]


def segments(blocks: Iterable[Tensor], size: int, hop: int, whole: bool = True) -> Iterator[tuple[int, Tensor]]:
    """Cut a stream of [C, t] into (start, [C, size]), `hop` apart.

    The last segment is moved back to have the full size, unless `whole` is False; a stream shorter than `size` is
    returned unchanged.
    """
    start, last = 0, torch.empty(0)
    buffer: Tensor | None = None
    for block in blocks:
        buffer = block if buffer is None else torch.cat([buffer, block], dim=-1)
        while buffer.shape[-1] > size:  # more than a segment: this one is not the last
            last = buffer[..., :size]
            yield start, last
            start, buffer = start + hop, buffer[..., hop:]
    if buffer is None or buffer.shape[-1] == 0:
        return
    back = size - buffer.shape[-1] if start and whole else 0
    if back:
        buffer = torch.cat([last[..., hop - back : hop], buffer], dim=-1)
    yield start - back, buffer


def _fade(length: int, overlap: int) -> Tensor:
    """Weights [length] that rise over the first and fall over the last `overlap` samples; never zero."""
    ramp = torch.arange(1, length + 1)
    return torch.minimum(ramp, ramp.flip(0)).clamp_max(overlap + 1) / (overlap + 1)


def in_order_of(target: Tensor, estimate: Tensor) -> Tensor:
    """Order the sources of `estimate` [S, C, t] by least squares on its beginning, as in `target` [S, C, <= t]."""
    if target.shape[-1] == 0:
        return estimate
    head = estimate[..., : target.shape[-1]]
    gain = torch.einsum("ict,jct->ij", target.to(head), head)  # the squared distance of a pairing, up to a constant
    return estimate[best_permutation(gain)]
