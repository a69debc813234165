"""Reading ahead and writing behind, as on a GPU: the same files, lines and errors as one step after the other."""

import os
import signal
import time

import pytest
import soundfile
from test_separate_files import RATE, command, model, song, tree  # noqa: F401  fixtures too

from tasnet_attn.audio.writing import Stems
from tasnet_attn.inference import running, segments
from tasnet_attn.inference.ahead import ahead


def test_in_order_and_no_further_ahead_than_asked():
    made, closed = [], []

    def items():
        try:
            for i in range(20):
                made.append(i)
                yield i
            raise OSError("in its turn")
        finally:
            closed.append(True)

    taken = []
    with pytest.raises(OSError, match="in its turn"):
        for item in ahead(items(), 3):
            taken.append(item)
            assert len(made) <= len(taken) + 3
    assert taken == made == list(range(20))
    made.clear()
    some = ahead(items(), 3)
    assert [next(some), next(some)] == [0, 1]
    some.close()
    assert len(made) <= 5 and closed == [True, True]


@pytest.fixture
def threads(monkeypatch):
    """Switch them on or off, on this CPU."""

    def switch(on):
        for module in (running, segments):
            monkeypatch.setattr(module, "worth_it", lambda device: on)

    return switch


@pytest.fixture
def both(command, tmp_path, threads):  # noqa: F811
    """Run `separate` without and with threads; what both gave: status, lines, files with their bytes."""

    def run(*arguments):
        found = []
        for on in (False, True):
            threads(on)
            out = tmp_path / f"out{on}"
            status, *said = command(*arguments, "--segment", "2", out=out)
            files = {name: (out / name).read_bytes() for name in tree(out)}
            found.append((status, [text.replace(str(out), "OUT") for text in said], files))
        return found

    return run


def test_the_same_files_in_the_same_order(both, tmp_path):
    for i, (name, rate) in enumerate({"a": RATE, "b": 11_025, "c": RATE, "d": RATE}.items()):
        song(tmp_path / "f" / f"{name}.wav", 66_000 if i == 0 else 5_000, gain=1, rate=rate, seed=i)
    one_by_one, overlapped = both(tmp_path / "f", "--format", "flac", "--remainder", "rest")
    assert overlapped == one_by_one and overlapped[0] == 0 and len(overlapped[2]) == 16


@pytest.mark.parametrize("reads", [True, False])
def test_an_error_of_a_thread_is_the_same_line(both, tmp_path, monkeypatch, reads):
    """Of a file that changes once it was counted, in the thread that reads; of a full disk, in that which encodes."""
    for i, name in enumerate("abcd"):
        song(tmp_path / "f" / f"{name}.wav", 70_000, seed=i)
    write, blocks = Stems._write, running.in_parts.__globals__["Sound"].blocks

    def full(self, number, part, factor):
        if "b" in self.files[0].parts and number == 1:
            raise OSError(28, "No space left on device")
        write(self, number, part, factor)

    def damaged(self, check=True):
        self.passes = getattr(self, "passes", 0) + 1
        for i, block in enumerate(blocks(self, check)):
            if self.path.name == "b.wav" and self.passes > 1 and i == 1:
                raise self._damaged(soundfile.SoundFileError("x"))
            yield block

    if reads:
        monkeypatch.setattr("tasnet_attn.audio.reading.Sound.blocks", damaged)
    else:
        monkeypatch.setattr(Stems, "_write", full)
    one_by_one, overlapped = both(tmp_path / "f")
    assert overlapped == one_by_one and overlapped[0] == 1 and overlapped[1][1].count("failed:") == 1
    assert {name.split("/")[0] for name in overlapped[2]} == set("acd")


def test_an_interrupt_leaves_whole_songs_only(command, tmp_path, threads, monkeypatch):  # noqa: F811
    """Of four, when the second is encoded and the third has the model."""
    for i, name in enumerate("abcd"):
        song(tmp_path / "f" / f"{name}.wav", 70_000, seed=i)
    threads(True)
    encode = Stems._encode

    def slowly(self, number, part, factor):
        if "b" in self.files[0].parts:
            while not list((tmp_path / "out").glob(".work-*/0.f32"))[1:]:  # the third's
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            while True:
                self.check()
                time.sleep(0.01)
        encode(self, number, part, factor)

    monkeypatch.setattr(Stems, "_encode", slowly)
    assert command(tmp_path / "f", "--segment", "2")[0] == 130
    assert {name.split("/")[0] for name in tree(tmp_path / "out")} == {"a"}
    assert not list((tmp_path / "out").glob(".work-*"))
