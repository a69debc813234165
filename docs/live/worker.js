// The page's worker: ONNX Runtime and one stream. It answers calls [id, name, arguments] in their order.

import * as ort from "onnxruntime-web";

import { Stream } from "./step.js";

let session, stream;

const answers = {
  async load(model, runtime) {
    ort.env.wasm.numThreads = 1; // more need HTTP headers, which a file does not have
    ort.env.wasm.wasmBinary ??= runtime;
    const next = await ort.InferenceSession.create(model);
    await session?.release();
    session = next;
  },
  start(about, channels) {
    stream = new Stream(ort, session, about, channels);
  },
  feed: (signal) => stream.feed(signal),
  flush: () => stream.flush(),
};

let last = Promise.resolve();
onmessage = ({ data: [id, name, given] }) => {
  last = last.then(async () => {
    try {
      postMessage([id, await answers[name](...given)]);
    } catch (error) {
      postMessage([id, null, error.message]);
    }
  });
};
