// node separate.js MODEL.step.onnx SONG.wav FOLDER [SAMPLES_PER_BLOCK] -> FOLDER/SOURCE.wav, ...
// The page's host of the step, in Node; prints the speed relative to real time.

import { readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";

import * as ort from "onnxruntime-web";

import { command } from "./command.js";
import { readStep } from "./model.js";
import { FRAMES, Mistake, Stream, joined, separated } from "./step.js";
import { readWav, writeWav } from "./wav.js";

async function main(model, song, folder, size) {
  const { bytes, about } = readStep([{ name: basename(model), bytes: readFileSync(model) }]);
  const { signal, rate } = readWav(readFileSync(song));
  if (rate !== about.sample_rate) throw new Mistake(`${song}: has ${rate} Hz; resample it to ${about.sample_rate} Hz`);
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(bytes);
  const stream = new Stream(ort, session, about, signal.length);
  const started = performance.now();
  const parts = [];
  for await (const part of separated(stream, signal, size || FRAMES * about.step.stride)) parts.push(part);
  const factor = ((signal[0].length / rate) * 1000) / (performance.now() - started);
  joined(parts).forEach((found, i) => writeFileSync(join(folder, `${about.sources[i]}.wav`), writeWav(found, rate)));
  console.log(`${factor.toFixed(1)} times real time`);
}

await command(async () => {
  const [model, song, folder, size] = process.argv.slice(2);
  if (!folder) throw new Mistake("usage: node separate.js MODEL.step.onnx SONG.wav FOLDER [SAMPLES_PER_BLOCK]");
  await main(model, song, folder, Number(size));
});
