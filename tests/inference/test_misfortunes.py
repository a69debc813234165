"""What happens to one file while it is separated: too little memory, a file that changes; the others go on."""

import pytest
import torch
from conftest import encoded_bytes
from test_inference import Gains
from test_separate_files import RATE, command, model, song, tree  # noqa: F401  fixtures too

from tasnet_attn import separate_blocks, separate_file
from tasnet_attn.errors import UserError
from tasnet_attn.inference.files import in_parts
from tasnet_attn.inference.options import Options
from tasnet_attn.inference.segments import Stream

LACKS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("lack", LACKS, ids=lambda error: type(error).__name__)
def test_too_little_memory_for_one_file_does_not_stop_the_rest(command, tmp_path, monkeypatch, lack):  # noqa: F811
    for name, length in (("a", 300), ("b", 4000), ("c", 300)):
        song(tmp_path / "f" / f"{name}.wav", length)
    run = Stream.run

    def greedy(self, read, length, references=None):
        if length > 1000:
            raise lack
        return run(self, read, length, references)

    monkeypatch.setattr(Stream, "run", greedy)
    status, _, error = command(tmp_path / "f", "--sources", "voice")
    assert status == 1 and tree(tmp_path / "out") == ["a/voice.wav", "c/voice.wav"]
    assert error == f"tasnet-attn: failed: {tmp_path / 'f/b.wav'}: too little memory; try a smaller --segment, or" + (
        " fewer --jobs\n"
    )
    status, _, error = command(tmp_path / "f/b.wav", "--sources", "voice", out="-")
    assert status == 1 and "b.wav: too little memory" in error and error.count("\n") == 1


def test_another_runtime_error_is_a_bug(command, tmp_path, monkeypatch):  # noqa: F811
    song(tmp_path / "x.wav", 300)
    monkeypatch.setattr(Stream, "run", lambda *given: torch.zeros(2) + torch.zeros(3))
    with pytest.raises(RuntimeError, match="size of tensor"):
        command(tmp_path / "x.wav")


@pytest.mark.parametrize("segment", [0.1, 20.0])
@pytest.mark.parametrize("change", ["shrinks", "grows"])
def test_a_file_that_changes_between_the_passes_is_said(tmp_path, change, segment):
    """AAC in ADTS does not state its length."""
    file, noise = tmp_path / "song.aac", 0.1 * torch.randn(60_000, 2).numpy()
    short, long = (encoded_bytes(noise[:length], "aac", "adts") for length in (20_000, 60_000))
    before, after = (long, short) if change == "shrinks" else (short, long)
    file.write_bytes(before)
    parts = in_parts(Gains(), file, tmp_path / "out", "song", Options(segment=segment))
    next(parts)
    file.write_bytes(after)
    with pytest.raises(UserError, match=r"song\.aac: changed while it was read: .* samples, \d+ before"):
        next(parts)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_number_of_an_audio_track_and_the_name_of_a_folder(tmp_path):
    """`track` is the audio track, in `separate_file` as in `separate_blocks`."""
    song(tmp_path / "x.wav", 300)
    (first, _) = separate_file(Gains(), tmp_path / "x.wav", tmp_path, track_name="mine", track=1)
    assert first == tmp_path / "mine/one.wav" and first.is_file()
    for run in (lambda **given: separate_file(Gains(), tmp_path / "x.wav", tmp_path, **given), blocks_of(tmp_path)):
        with pytest.raises(UserError, match="no audio track 2; it has 1"):
            run(track=2)
        with pytest.raises(UserError, match="track 'mine' must be a number: which audio track"):
            run(track="mine")


def blocks_of(folder):
    return lambda **given: list(separate_blocks(Gains(), folder / "x.wav", **given))
