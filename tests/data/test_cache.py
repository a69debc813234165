"""Decoded copies: the same samples bit for bit, written atomically, made again when a track changes."""

import os
import resource
import shutil
import signal
import threading

import numpy as np
import pytest
import torch
from filelock import FileLock
from lookalikes import write_musdb18, write_stem_folders

from tasnet_attn.data import MUSDB18, StemFolders
from tasnet_attn.data.cache import CachedTrack
from tasnet_attn.errors import UserError

TWO = ["vocals", "accompaniment"]
KEYS = [(epoch, index) for epoch in range(3) for index in range(12)]


def musdb18(root, **settings):
    settings = {"split": "random", "segment": 0.2, "segments_per_epoch": 12, "batch_size": 3} | settings
    return MUSDB18(TWO, 8000, root, **settings)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_musdb18(tmp_path_factory.mktemp("set"), "stems", ["a", "b", "c"], length=16_000)


@pytest.fixture
def root(written, tmp_path):
    return shutil.copytree(written, tmp_path / "set")


def names(cache):
    return sorted(path.name.rpartition("-")[2] for path in cache.iterdir() if path.name != ".lock")


@pytest.mark.parametrize("augmented", [False, True])
def test_segments_are_the_same_bit_for_bit(root, tmp_path, augmented):
    settings = {"remix": 0.5, "gain": 3.0, "swap": 0.5, "polarity": 0.5} if augmented else {}
    for split in ("train", "valid"):
        plain = musdb18(root, **settings).segments(split)
        cached = musdb18(root, cache=tmp_path / "cache", **settings).segments(split)
        for key in KEYS if split == "train" else [(0, index) for index in range(len(plain))]:
            for ours, theirs in zip(cached[key], plain[key], strict=True):
                assert ours.dtype == torch.float32 and torch.equal(ours, theirs)
    assert names(tmp_path / "cache") == ["a.npy", "b.npy", "c.npy"]


@pytest.mark.parametrize("suffix", ["ogg", "flac"])
def test_stems_of_ones_own_and_worker_processes(tmp_path, suffix):
    root = write_stem_folders(tmp_path / "set", suffix=suffix)
    make = lambda **s: StemFolders(["guitar", "backing"], 8000, root, segment=0.1, segments_per_epoch=8, **s)  # noqa: E731
    plain = list(make().train_dataloader())
    for workers in (0, 1):
        cached = list(make(cache=tmp_path / "cache", workers=workers).train_dataloader())
        assert all(torch.equal(x, y) for a, b in zip(cached, plain, strict=True) for x, y in zip(a, b, strict=True))


def test_what_makes_a_source_is_part_of_what_is_kept(tmp_path):
    root = write_stem_folders(tmp_path / "set", suffix="flac", sources=("x", "y", "z"))
    for sums in ({"a": ["x", "y"], "b": ["z"]}, {"a": ["x"], "b": ["y", "z"]}):
        settings = {"segment": 0.1, "sums": sums}
        plain = StemFolders(["a", "b"], 8000, root, **settings).segments("train")[0, 0][1]
        cached = StemFolders(["a", "b"], 8000, root, cache=tmp_path / "cache", **settings).segments("train")[0, 0][1]
        assert torch.equal(cached, plain)


def test_wav_files_are_read_where_they_are(tmp_path):
    root = write_stem_folders(tmp_path / "set")
    data = StemFolders(["guitar", "backing"], 8000, root, segment=0.1, cache=tmp_path / "cache")
    data.segments("train")
    assert not (tmp_path / "cache").exists()


def test_the_size_is_said_and_the_second_run_decodes_nothing(root, tmp_path, caplog, monkeypatch):
    data = musdb18(root, cache=tmp_path / "cache")
    data.prepare_data()  # what Lightning calls, in one process of each machine
    first = caplog.messages[0]
    length = data.tracks("train")[0].length
    assert "decoding 2 of 2 tracks" in first and f"{2 * 3 * 2 * length * 4 / 1e9:.2f} GB" in first
    caplog.clear()
    monkeypatch.setattr("tasnet_attn.data.track.read_stem_file", lambda *_: pytest.fail("decoded again"))
    again = musdb18(root, cache=tmp_path / "cache")
    again.prepare_data()
    again.segments("train")[0, 0]
    assert caplog.messages == []


def test_a_changed_track_and_other_sources_are_decoded_anew(root, tmp_path):
    cache = tmp_path / "cache"
    before = musdb18(root, cache=cache).segments("train")[0, 0]
    songs = [track.files[0] for track in musdb18(root).tracks("train")]
    contents = [song.read_bytes() for song in songs]
    for song, content in zip(songs, reversed(contents), strict=True):
        song.write_bytes(content)
    after, plain = musdb18(root, cache=cache).segments("train")[0, 0], musdb18(root).segments("train")[0, 0]
    assert torch.equal(after[1], plain[1]) and not torch.equal(after[1], before[1])
    assert len(names(cache)) == 2  # the copies of what the songs were are gone
    four = MUSDB18(["vocals", "drums", "bass", "other"], 8000, root, split="random", segment=0.2, cache=cache)
    assert torch.equal(four.segments("train")[0, 0][1][0], plain[1][0])
    assert len(names(cache)) == 4


def test_killed_while_it_decodes_it_goes_on(root, tmp_path):
    """SIGKILL in the middle of the second track's file: the first is kept, the second is not taken for whole."""
    cache = tmp_path / "cache"
    save, calls = np.save, []

    def half(file, array):
        calls.append(array)
        if len(calls) == 1:
            return save(file, array)
        file.write(array.tobytes()[:5000])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    process = os.fork()
    if process == 0:
        try:
            torch.set_num_threads(1)  # the threads were not forked along
            np.save = half
            musdb18(root, cache=cache).prepare_data()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    found = {path.suffix: path for path in cache.iterdir() if path.suffix}
    assert set(found) == {".npy", ".part"} and found[".part"].stat().st_size == 5000
    kept = found[".npy"].stat().st_mtime_ns
    cached, plain = musdb18(root, cache=cache), musdb18(root)
    cached.prepare_data()
    assert found[".npy"].stat().st_mtime_ns == kept and names(cache) == ["a.npy", "b.npy", "c.npy"]
    assert all(torch.equal(cached.segments("train")[key][1], plain.segments("train")[key][1]) for key in KEYS)


def test_of_two_runs_at_once_one_decodes(root, tmp_path):
    track = CachedTrack(musdb18(root).tracks("train")[0], tmp_path)
    track.track.read = lambda: pytest.fail("decoded though another run had")
    with FileLock(tmp_path / ".lock"):
        waiting = threading.Thread(target=track.fill)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        np.save(track.copy, np.zeros((3, 2, track.length), dtype=np.float32))
    waiting.join(10)
    assert not waiting.is_alive() and track.read()[0].abs().max() == 0


def test_a_full_disk_is_one_line(root, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1000))
        with pytest.raises(UserError, match=r"cache: the decoded tracks need 0\.0 GB, 0\.0 GB are free; make room"):
            musdb18(root, cache=cache).prepare_data()
    assert names(cache) == []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # the system refuses to write on
    try:
        with pytest.raises(UserError, match=r"cache/.*\.npy: File too large; make room there, or set") as caught:
            musdb18(root, cache=cache).prepare_data()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value) and names(cache) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/cache: Not a directory; make room"):
        musdb18(root, cache=tmp_path / "file/cache").prepare_data()


def test_a_damaged_track_is_named_and_leaves_nothing(root, tmp_path):
    for path in (root / "train").iterdir():
        path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(UserError, match=r"\.stem\.mp4: .*truncated"):
        musdb18(root, cache=tmp_path / "cache").prepare_data()
    assert not (tmp_path / "cache").exists() or names(tmp_path / "cache") == []


def test_a_track_may_have_a_name_as_long_as_a_file_s(tmp_path):
    root = write_stem_folders(tmp_path / "set", suffix="flac")
    for number, folder in enumerate(sorted((root / "train").iterdir())):
        folder.rename(folder.with_name(f"{number}{'あ' * 84}"))
    data = StemFolders(["guitar", "backing"], 8000, root, segment=0.1, cache=tmp_path / "cache")
    assert len(data.segments("train")[0, 0]) == 2 and len(names(tmp_path / "cache")) == number + 1
