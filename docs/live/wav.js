// Wav files: written as 32-bit float, so that nothing is rounded or clipped; read for Node.

import { Mistake } from "./step.js";

const [PCM, FLOAT, EXTENSIBLE] = [1, 3, 0xfffe];

/** A signal -> the bytes of a wav. */
export function writeWav(signal, rate) {
  const channels = signal.length;
  const length = signal[0].length;
  const size = 4 * channels * length;
  const view = new DataView(new ArrayBuffer(58 + size));
  const text = (at, word) => [...word].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 50 + size, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 18, true);
  view.setUint16(20, FLOAT, true);
  view.setUint16(22, channels, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 4 * channels * rate, true);
  view.setUint16(32, 4 * channels, true);
  view.setUint16(34, 32, true);
  text(38, "fact");
  view.setUint32(42, 4, true);
  view.setUint32(46, length, true);
  text(50, "data");
  view.setUint32(54, size, true);
  for (let at = 58, i = 0; i < length; i++) {
    for (let channel = 0; channel < channels; channel++, at += 4) view.setFloat32(at, signal[channel][i], true);
  }
  return new Uint8Array(view.buffer);
}

/** The bytes of a wav, of 16 bits or float -> {signal, rate}. */
export function readWav(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const word = (at) => String.fromCharCode(...bytes.subarray(at, at + 4));
  if (word(0) !== "RIFF" || word(8) !== "WAVE") throw new Mistake("not a wav");
  let format;
  for (let at = 12; at + 8 <= bytes.length; ) {
    const [name, size] = [word(at), view.getUint32(at + 4, true)];
    const start = at + 8;
    if (name === "fmt ") {
      const coding = view.getUint16(start, true);
      format = {
        coding: coding === EXTENSIBLE ? view.getUint16(start + 24, true) : coding,
        channels: view.getUint16(start + 2, true),
        rate: view.getUint32(start + 4, true),
        bits: view.getUint16(start + 14, true),
      };
    }
    if (name === "data" && format) return samples(view, start, Math.min(size, bytes.length - start), format);
    at = start + size + (size % 2);
  }
  throw new Mistake("a wav without samples");
}

function samples(view, start, size, { coding, channels, rate, bits }) {
  const readers = {
    [`${PCM} 16`]: (at) => view.getInt16(at, true) / 32768,
    [`${FLOAT} 32`]: (at) => view.getFloat32(at, true),
  };
  const read = readers[`${coding} ${bits}`];
  if (!read) throw new Mistake(`a wav of ${bits} bits in coding ${coding}; 16 bits and 32-bit float are read`);
  const width = bits / 8;
  const length = Math.floor(size / (width * channels));
  const signal = Array.from({ length: channels }, (_, channel) =>
    Float32Array.from({ length }, (_, i) => read(start + (i * channels + channel) * width)),
  );
  return { signal, rate };
}
