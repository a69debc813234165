// The metadata of a step's file. ONNX Runtime for the web does not expose them, so they are read from the bytes.

import { Mistake } from "./step.js";

const METADATA = 14; // ModelProto.metadata_props; an entry has a key, 1, and a value, 2
const KEY = "tasnet_attn";

/**
 * Files [{name, bytes}] -> the step among them, {name, bytes, about}.
 *
 * The .onnx file is enough; its side-car .json serves where a tool has removed the file's metadata.
 */
export function readStep(files) {
  const model = files.find(({ name }) => name.endsWith(".onnx"));
  const sideCar = files.find(({ name }) => name.endsWith(".json"));
  if (!model) throw new Mistake(`${files[0].name} is not a model: choose a file that ends in .step.onnx`);
  const text = metadata(model.bytes) ?? (sideCar && new TextDecoder().decode(sideCar.bytes));
  if (!text) {
    const missing = model.name.replace(/onnx$/, "json");
    throw new Mistake(`${model.name} does not say what it computes: choose it together with ${missing}`);
  }
  const about = parsed(text);
  if (!about?.step) throw new Mistake(`${model.name} is not a step; tasnet-attn export MODEL --to onnx-step writes one`);
  return { ...model, about };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function metadata(bytes) {
  const text = (data) => new TextDecoder().decode(data);
  for (const [number, entry] of fields(bytes)) {
    if (number !== METADATA) continue;
    const { 1: key, 2: value } = Object.fromEntries(fields(entry));
    if (key && value && text(key) === KEY) return text(value);
  }
  return null;
}

/** Fields of a protobuf message that have a length, [number, bytes]. */
function* fields(bytes) {
  let at = 0;
  function integer() {
    let value = 0;
    for (let scale = 1; at < bytes.length; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) break;
    }
    return value;
  }
  while (at < bytes.length) {
    const tag = integer();
    const kind = tag & 7;
    if (kind === 0) integer();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const size = integer();
      yield [Math.floor(tag / 8), bytes.subarray(at, at + size)];
      at += size;
    } else return;
  }
}
