"""Separate a song with ONNX Runtime, NumPy and soundfile: neither torch nor tasnet_attn is needed.

python examples/separate_onnx.py MODEL.onnx SONG.wav -> SOURCE.wav, ... in the working folder

`tasnet-attn export MODEL --to onnx` writes the model. It names its sources, rate and window itself.
"""

import json
import sys

import numpy as np
import onnxruntime
import soundfile

model = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = json.loads(model.get_modelmeta().custom_metadata_map["tasnet_attn"])
song, rate = soundfile.read(sys.argv[2], dtype="float32", always_2d=True)  # [T, N]
if rate != about["sample_rate"]:
    sys.exit(f"resample the song to {about['sample_rate']} Hz first")
mixture, length = song.T, len(song)

window = about["graph"]["window"] or max(length, about["graph"]["minimum"])  # no fixed window: all at once
padded = np.pad(mixture, ((0, 0), (0, -length % window)))
pieces = [
    model.run(None, {"mixture": padded[:, start : start + window]})[0]  # [N, S, window]
    for start in range(0, padded.shape[1], window)
]
estimates = np.concatenate(pieces, axis=-1)[..., :length]

for name, estimate in zip(about["sources"], estimates.swapaxes(0, 1), strict=True):
    soundfile.write(f"{name}.wav", estimate.T, rate, "FLOAT")
    print(f"{name}.wav")
