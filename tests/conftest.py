"""What several tests share: generated signals, tiny models, the bundled songs."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "0")  # before torch: two threads otherwise spin while they wait

import importlib.util
import io
import resource
import shutil
import signal
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import hypothesis
import numpy as np
import pytest
import soundfile
import torch

from tasnet_attn.config import IMPORTED
from tasnet_attn.filterbanks import GammatoneEncoder, GatedEncoder, LearnedDecoder
from tasnet_attn.model import SourceSeparator
from tasnet_attn.separators import LTL, TasNet

# Processes in the background of a script inherit that Ctrl-C is ignored; ours, which tests interrupt, must not.
signal.signal(signal.SIGINT, signal.default_int_handler)

# the suite runs in two processes, a thread each; alone (-n 0) in two threads
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1 if "PYTEST_XDIST_WORKER" in os.environ else 2)))
ROOT = Path(__file__).parents[1]
# a page and a program for Node; what they run on is fetched by `make live` and by .ci/run alone
LIVE = ROOT / "docs/live"
fetched = pytest.mark.skipif(
    shutil.which("node") is None or not (LIVE / "node_modules/onnxruntime-web").is_dir(),
    reason="no Node, or no docs/live/node_modules (`make live` fetches them): docs/live is not tried",
)
hypothesis.settings.register_profile("repeatable", derandomize=True)  # the same examples everywhere
hypothesis.settings.load_profile("repeatable")


def recipe_script(name):
    """A script of a recipe, like "debian2mix/local/prepare.py", as a separate module that finds its neighbours."""
    file = ROOT / "recipes" / name
    module_name = "recipes." + ".".join(file.relative_to(ROOT / "recipes").with_suffix("").parts)
    if module_name not in sys.modules:
        if str(file.parent) not in sys.path:
            sys.path.append(str(file.parent))
        spec = importlib.util.spec_from_file_location(module_name, file)
        sys.modules[module_name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[module_name])
    return sys.modules[module_name]


def pytest_terminal_summary(terminalreporter):
    """Say loudly what could not be tested on this machine, each reason once."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", ()))
    if reasons:
        terminalreporter.section("NOT TESTED HERE", red=True, bold=True)
        for reason, number in reasons.items():
            terminalreporter.line(f"{number} tests: {reason.removeprefix('Skipped: ')}", red=True)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_modules_of_other_tests():
    """What a test `--import`s is not asked for by the processes of the next one."""
    before = list(IMPORTED)
    IMPORTED.clear()
    yield
    IMPORTED[:] = before


def tasnet_model(separator=None, encoder=None, kernel_size=16, stride=None, sample_rate=8000, n_filters=24, **settings):
    """A tiny time-domain model; `separator` defaults to a small LTL."""
    return SourceSeparator(
        ["guitar", "backing"],
        sample_rate,
        encoder or GatedEncoder(n_filters, kernel_size, stride),
        separator or partial(LTL, hidden=8, heads=2, ffn=12, transformer_layers=2),
        LearnedDecoder(n_filters, kernel_size, stride),
        **settings,
    )


SMALL = {
    "gated LTL": lambda: tasnet_model(),
    "gated LTL, overlapping": lambda: tasnet_model(stride=7),
    "gated TasNet": lambda: tasnet_model(partial(TasNet, hidden=8, n_layers=4)),
    "gammatone LTL": lambda: tasnet_model(encoder=GammatoneEncoder(24, 16, 8000, n_centres=6)),
    "gammatone TasNet": lambda: tasnet_model(
        partial(TasNet, hidden=8, n_layers=2), GammatoneEncoder(24, 16, 8000, n_centres=6)
    ),
    "LTL both ways": lambda: tasnet_model(
        partial(LTL, hidden=8, heads=2, lstm_after=1, bidirectional=True, positional="sinusoidal", window=9)
    ),
}


LSTM = {
    "class_path": "LTL",
    "init_args": {"lstm_before": 1, "transformer_layers": 0, "hidden": 6, "bidirectional": True},
}
SMALL_SEPARATORS = {  # what makes each kind of network small
    "TasNet": {"hidden": 8, "n_layers": 2},
    "LTL": {"hidden": 8, "heads": 2, "ffn": 8, "transformer_layers": 1, "lstm_before": 1},
    "Hourglass": {"n_stacks": 2, "n_poolings": 2, "channels": 4, "growth": 0, "stem": [2]},
    "SkipAttentionHourglass": {"n_stacks": 1, "n_poolings": 2, "channels": 4, "stem": [2]},
    "SamsNet": {"channels": 4, "n_modules": 1},
    "AudioSlots": {
        "encoder": {"class_path": "ResNet", "init_args": {"channels": 4, "groups": 2, "blocks": [1, 1, 1, 1]}},
        "slots": {"class_path": "QueryTransformer", "init_args": {"width": 16, "n_layers": 1, "heads": 2, "ffn": 16}},
        "decoder_hidden": 8,
    },
    "DualPath": {"width": 8, "n_blocks": 1, "within": LSTM, "across": LSTM},
    "TDConvNet": {"n_blocks": 2, "bn_chan": 4, "hid_chan": 4, "skip_chan": 4},
    "DPRNN": {"bn_chan": 4, "hid_size": 4, "n_repeats": 1},
}


@pytest.fixture(params=list(SMALL))
def model(request):
    """Every kind of small time-domain model in turn."""
    return SMALL[request.param]()


def encoded_bytes(samples, codec, container, rate=44_100, options=None, source_rate=44_100):
    """Bytes of a file that FFmpeg writes of [T, C] at `source_rate` Hz."""
    with tempfile.NamedTemporaryFile() as file:
        with av.open(file.name, "w", format=container, options=options or {}) as out:
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]]
            stream = out.add_stream(codec, rate=rate, layout=layout)
            stream.bit_rate = 192_000
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = source_rate, 0, Fraction(1, source_rate)
            context = stream.codec_context
            fitting = av.AudioResampler(context.format, layout, rate, frame_size=context.frame_size or None)
            for piece in [*fitting.resample(frame), *fitting.resample(None), None]:
                for packet in stream.encode(piece):
                    out.mux(packet)
        return Path(file.name).read_bytes()


def audio_bytes(samples, container, subtype="PCM_16", rate=44_100):
    """Bytes of a file of [T, C] that libsndfile writes; FFmpeg where the container's name is one of its, in small."""
    if container.islower():
        return encoded_bytes(samples, subtype, container, rate, source_rate=rate)
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate, samples.shape[1], subtype, format=container) as out:
        for start in range(0, len(samples), 1 << 14):
            out.write(samples[start : start + (1 << 14)])
    return file.getvalue()


def train_until(model, loss, batch, reached, steps, lr, every=10):
    """Steps of Adam on one batch (mixture, references) until `reached(model)`; fails where `steps` are not enough.

    Looked at before the first step and then every few. A test's `steps` are three times what the slowest of seeds 0 to
    4, on one thread and on two, needed.
    """
    mixture, references = batch
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for step in range(steps + 1):
        if step % every == 0:
            with torch.no_grad():
                if reached(model):
                    return step
        optimizer.zero_grad()
        loss(model.analyse(mixture), references, model).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5)
        optimizer.step()
    pytest.fail(f"not reached in {steps} steps")


@contextmanager
def full_disk(size):
    """Files cannot grow beyond a size, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
