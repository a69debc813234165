"""Separate sound while it arrives, block by block, in constant memory.

python examples/stream.py MODEL SONG OUT

MODEL is causal and has a window, like the demo's. The blocks come from a file here; an audio callback or a socket can
take its place. The outputs equal those of the model on the whole song.
"""

import sys
from pathlib import Path

import soundfile
import torch

import tasnet_attn

BLOCK = 0.02  # seconds

model = tasnet_attn.load(sys.argv[1]).eval()
song, out = soundfile.SoundFile(sys.argv[2]), Path(sys.argv[3])
if song.samplerate != model.sample_rate:
    sys.exit(f"{sys.argv[2]}: has {song.samplerate} Hz, the model needs {model.sample_rate}")
out.mkdir(parents=True, exist_ok=True)
files = [soundfile.SoundFile(out / f"{s}.wav", "w", song.samplerate, song.channels, "FLOAT") for s in model.sources]
stream = tasnet_attn.StreamingSeparator(model, song.channels)


def write(stems):
    """Stems [S, C, t]; t may be 0."""
    for file, stem in zip(files, stems, strict=True):
        file.write(stem.T.numpy())


with torch.inference_mode():
    for block in song.blocks(round(BLOCK * song.samplerate), dtype="float32", always_2d=True):
        write(stream.feed(torch.from_numpy(block.T)))
    write(stream.flush())
for file in files:
    file.close()
print(f"an output waits for at most {1000 * stream.latency / song.samplerate:.1f} ms of input after it")
