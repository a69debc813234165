"""Separate a song block by block with ONNX Runtime, NumPy and soundfile: neither torch nor tasnet_attn is needed.

python examples/stream_onnx.py MODEL.step.onnx SONG.wav SAMPLES_PER_BLOCK -> SOURCE.wav, ... in the working folder

`tasnet-attn export MODEL --to onnx-step` writes the model. docs/streaming.md explains the state.
"""

import json
import sys

import numpy as np
import onnxruntime
import soundfile

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = json.loads(session.get_modelmeta().custom_metadata_map["tasnet_attn"])
step, rate = about["step"], about["sample_rate"]
stride, delay = step["stride"], step["delay"]
if step["lead"]:
    sys.exit("this program is for learned and gammatone encoders")

song = soundfile.SoundFile(sys.argv[2])
if song.samplerate != rate:
    sys.exit(f"resample the song to {rate} Hz first")
outputs = [soundfile.SoundFile(f"{name}.wav", "w", rate, song.channels, "FLOAT") for name in about["sources"]]

state = {}
for each in step["states"]:
    shape = [size * (song.channels if axis == each["channels"] else 1) for axis, size in enumerate(each["shape"])]
    state[each["name"]] = np.zeros(shape, each["type"])
rings = {each["name"]: each["ring"] for each in step["states"]}
waiting = np.zeros((song.channels, 0), np.float32)
frame, given = 0, -delay  # frames done; samples returned, of which those before 0 are dropped


def advance(samples, length=None):
    """Give [N, t] to the step, whole strides of it, and write what comes out, up to `length` samples in all."""
    global waiting, frame, given
    waiting = np.concatenate([waiting, samples], axis=1)
    used = waiting.shape[1] // stride * stride
    if used == 0:
        return
    estimates, *after = session.run(None, {"samples": waiting[:, :used], **state})
    for (name, ring), new in zip(rings.items(), after, strict=True):
        if ring is None:
            state[name] = new
        else:  # the new frames alone: frame f goes to slot f mod R
            slots, new = np.moveaxis(state[name], ring, 0), np.moveaxis(new, ring, 0)
            last = new[-len(slots) :]
            slots[np.arange(frame + len(new) - len(last), frame + len(new)) % len(slots)] = last
    frame, waiting = frame + used // stride, waiting[:, used:]
    ready = estimates[:, :, max(0, -given) :]  # [N, S, t]
    given += estimates.shape[2]
    if length is not None:
        ready = ready[:, :, : ready.shape[2] - max(0, given - length)]
    for index, output in enumerate(outputs):
        output.write(ready[:, index].T)


total = 0
for block in song.blocks(int(sys.argv[3]), dtype="float32", always_2d=True):
    advance(block.T)
    total += len(block)
advance(np.zeros((song.channels, step["trail"]), np.float32), length=total)
for output in outputs:
    output.close()
