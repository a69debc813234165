"""What the loader reads per second, against what an LTL training step takes; resident memory over epochs.

Three songs of 12 s in MUSDB18's two layouts, made of the bundled songs: guitar as the voice, the backing as the other
stems. Segments of 4 s in batches of 2: with the recipes' 20 s and 4 a step costs more for a second of sound (attention
grows with the square) and a read less, so that this is the harder case for the loader.
"""

import os
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("GOMP_SPINCOUNT", "0")
sys.path.insert(0, str(Path(__file__).parent.parent))

import soundfile
import torch
from lookalikes import encode_stem_file
from pytorch_lightning.utilities import rank_zero_only
from results import keep

from tasnet_attn.data import MUSDB18, StemFolders
from tasnet_attn.data.musdb18 import STREAMS
from tasnet_attn.filterbanks import GatedEncoder, LearnedDecoder
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import LTL

RATE, SEGMENT, BATCH, PER_EPOCH = 44_100, 4.0, 2, 10
SOURCES = ["vocals", "accompaniment"]
EPOCHS = 5


def write_songs(root):
    """The same songs as `.stem.mp4` and as wav files."""
    for track in StemFolders(["guitar", "backing"], RATE).tracks("train"):
        _, (voice, backing) = track.read(0, 12 * RATE)
        stems = {"vocals": voice, "drums": backing / 3, "bass": backing / 3, "other": backing / 3}
        stems["mixture"] = voice + backing
        sound = {stream: (0.5 * stems[stream]).T.numpy() for stream in STREAMS}
        encode_stem_file(root / "stems/train" / f"{track.name}.stem.mp4", sound, RATE)
        for stem, samples in sound.items():
            file = root / "hq/train" / track.name / f"{stem}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, samples, RATE)


def loader_of(root, layout, cached, workers):
    settings = {"segment": SEGMENT, "batch_size": BATCH, "segments_per_epoch": PER_EPOCH, "workers": workers}
    cache = root / "cache" if cached else None
    data = MUSDB18(SOURCES, RATE, root / layout, split="random", cache=cache, remix=0.5, **settings)
    return data.train_dataloader()


def step_time(threads, batch):
    """Seconds and CPU seconds of a training step of 1_trans_0: forward, backward, Adam."""
    torch.set_num_threads(threads)
    model = SourceSeparator(SOURCES, RATE, GatedEncoder(500, 220), LTL, LearnedDecoder(500, 220))
    optimizer = torch.optim.Adam(model.parameters())
    mixture, references = batch
    times, cpu = [], []
    for _ in range(3):
        begin, busy = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        (model(mixture) - references).square().mean().backward()
        optimizer.step()
        times.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - busy)
    return statistics.median(times[1:]), statistics.median(cpu[1:])


def resident(loader):
    """MiB, of this process and of the loader's workers (Linux)."""
    workers = loader._iterator._workers if loader._iterator else []
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in [os.getpid(), *(w.pid for w in workers)]]
    return "+".join(f"{count * os.sysconf('SC_PAGE_SIZE') / 2**20:.0f}" for count in pages)


def read(loader):
    """Seconds of an epoch and this process's CPU seconds, not counting the first (workers start); memory after each."""
    times, cpu, memory = [], [], []
    for epoch in range(EPOCHS):
        loader.sampler.set_epoch(epoch)
        begin, busy = time.perf_counter(), time.process_time()
        for _ in loader:
            pass
        times.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - busy)
        memory.append(resident(loader))
    return statistics.median(times[1:]), statistics.median(cpu[1:]), memory


def main(root):
    batch = next(iter(loader_of(root, "hq", False, 0)))
    steps = {threads: step_time(threads, batch) for threads in (1, 2)}
    torch.set_num_threads(1)
    print(f"a training step of LTL 1_trans_0, {BATCH} x {SEGMENT:g} s stereo:")
    for threads, (seconds, cpu) in steps.items():
        print(
            f"  {threads} thread(s): {seconds:.2f} s, {BATCH * SEGMENT / seconds:.2f} s of sound per s; CPU {cpu:.2f} s"
        )
    print(
        "CPU: this process's, ms per segment, and how often that goes into a step's; x 1, x 2: sound read per second,"
    )
    print("times what a step takes per second with 1 and 2 threads; MiB: resident after each epoch, main + workers\n")
    print("layout     cache workers   CPU  x CPU  segments/s  sound s/s   x 1   x 2   MiB")
    for layout, cached in (("stems", False), ("stems", True), ("hq", False)):
        for workers in (0, 1, 2):
            seconds, cpu, memory = read(loader_of(root, layout, cached, workers))
            rate, cpu = PER_EPOCH / seconds, cpu / PER_EPOCH
            if workers == 0:
                keep(f"loader, {layout}{', copies' * cached}, s of CPU a segment", cpu)
            own = f"{1e3 * cpu:6.1f}{steps[1][1] / BATCH / cpu:7.0f}" if workers == 0 else " " * 13
            times = [rate * SEGMENT / (BATCH * SEGMENT / step) for step, _ in steps.values()]
            print(
                f"{'.stem.mp4' if layout == 'stems' else 'HQ wav':10}{'yes' if cached else 'no':>6}{workers:8}{own}"
                f"{rate:12.1f}{rate * SEGMENT:11.0f}{times[0]:6.0f}{times[1]:6.0f}   {' '.join(memory)}"
            )


if __name__ == "__main__":
    rank_zero_only.rank = 1  # no line about the cache in the table
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {version('torch')}, "
          f"av {version('av')}, soundfile {version('soundfile')}\n")  # fmt: skip
    sys.stdout.reconfigure(line_buffering=True)
    with TemporaryDirectory() as folder:
        write_songs(Path(folder))
        main(Path(folder))
