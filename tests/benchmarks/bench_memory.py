"""Peak memory of `separate`, `stream` and `evaluate` for a minute and for an hour of sound, each in a fresh process.

`separate`: stereo at 44.1 kHz through an identity model. `stream`: the same sound through the demo's model, of random
weights, in blocks of 20 ms; it says by the clock how long they took and how many were late. `evaluate`: two mono
sources at 8 kHz, BSSEval v4 and v3, SI-SNR, and the baselines that ask for no whole track.

    python tests/benchmarks/bench_memory.py [MINUTES ...]
"""

import os
import platform
import subprocess
import sys
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("GOMP_SPINCOUNT", "0")

import numpy as np
import soundfile
from bench_stream import MODELS

from tasnet_attn import config, save
from tasnet_attn.filterbanks import STFTDecoder, STFTEncoder
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import TasNet

RUN = """
import sys
from tasnet_attn.cli import main
status = main(sys.argv[1:])
print("peak", next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(status)
"""


def identity(sources, sample_rate):
    """Softmax masks on an STFT: the stems sum to the mixture; a single one is the mixture."""
    network = partial(TasNet, hidden=2, n_layers=1)
    return SourceSeparator(sources, sample_rate, STFTEncoder(1024, 512), network, STFTDecoder(1024, 512))


def write_noise(file, seconds, sample_rate, channels, seed):
    """A 16-bit wav of noise, a second at a time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with soundfile.SoundFile(file, "w", sample_rate, channels, "PCM_16") as out:
        for _ in range(seconds):
            out.write(rng.uniform(-0.3, 0.3, (sample_rate, channels)))


def peak(*arguments):
    """Peak resident memory (MB) and seconds of a command in its own process."""
    begin = time.perf_counter()
    song = next((word for word in arguments if str(word).startswith("<")), None)
    with open(str(song)[1:] if song else os.devnull, "rb") as pipe:
        words = [str(word) for word in arguments if word != song]
        run = subprocess.run([sys.executable, "-c", RUN, *words], text=True, stdin=pipe, stdout=subprocess.PIPE)
    if run.returncode:
        raise SystemExit(f"{arguments[0]} ended with status {run.returncode}")
    return int(run.stdout.rpartition("peak ")[2]) / 1024, time.perf_counter() - begin


def separating(folder, minutes):
    """The words of a `separate` of one file of so many minutes."""
    write_noise(folder / "song.wav", 60 * minutes, 44_100, 2, 0)
    model = save(identity(["song"], 44_100), folder / "identity.safetensors")
    return "separate", folder / "song.wav", "--model", model, "--out", folder / "out"


def streaming(folder, minutes):
    """The words of a `stream` of the same."""
    write_noise(folder / "song.wav", 60 * minutes, 44_100, 2, 0)
    model = save(MODELS["demo"](), folder / "demo.safetensors")
    for source in ("guitar", "backing"):
        (folder / f"{source}.wav").symlink_to(os.devnull)
    return "stream", "--model", model, "--block", 20, "--out", folder, f"<{folder / 'song.wav'}"


def evaluating(folder, minutes):
    """The words of an `evaluate` of one track of so many minutes."""
    for seed, source in enumerate(("one", "two")):
        write_noise(folder / f"test/track/{source}.wav", 60 * minutes, 8000, 1, seed)
    model = save(identity(["one", "two"], 8000), folder / "model.safetensors")
    data = {"class_path": "StemFolders", "init_args": {"root": str(folder)}}
    (folder / "data.yml").write_text(config.write_yaml({"data": data}))
    words = "evaluate", "--model", model, "--data", folder / "data.yml", "--out", folder / "out", "--v3"
    return (*words, "--baselines", "mixture", "oracle-wiener")


if __name__ == "__main__":
    lengths = [int(word) for word in sys.argv[1:]] or [1, 60]
    print(f"{platform.processor() or platform.machine()}, torch {version('torch')}, Python {platform.python_version()}")
    print("command   minutes  peak MB  seconds")
    for words in (separating, streaming, evaluating):
        for minutes in lengths:
            with TemporaryDirectory() as folder:
                megabytes, seconds = peak(*words(Path(folder), minutes))
                print(f"{words.__name__:10s} {minutes:6d} {megabytes:8.0f} {seconds:8.1f}", flush=True)
