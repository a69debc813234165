// Decoding sound files with the browser, and drawing signals.

import { Mistake } from "./step.js";

/** A file -> its signal at `rate` Hz; the browser decodes and resamples. */
export async function decoded(file, rate) {
  const bytes = await file.arrayBuffer();
  let buffer;
  try {
    buffer = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes);
  } catch {
    throw new Mistake(`${file.name} has no sound that this browser can decode`);
  }
  if (!buffer.length) throw new Mistake(`${file.name} has no sound in it`);
  return Array.from({ length: buffer.numberOfChannels }, (_, channel) => buffer.getChannelData(channel).slice());
}

/** The outline of a signal as an SVG path, `columns` wide and from -1 to 1; `largest` reaches them. */
export function outline(signal, columns, largest) {
  const length = signal[0].length;
  const tops = Array.from({ length: columns }, (_, column) => {
    const end = Math.max(Math.floor((column * length) / columns) + 1, Math.floor(((column + 1) * length) / columns));
    return peak(signal.map((samples) => samples.subarray(Math.floor((column * length) / columns), end))) / (largest || 1);
  });
  const points = (sign) => tops.map((top, column) => `${column + 0.5} ${(sign * Math.max(top, 0.012)).toFixed(3)}`);
  return `M${points(-1).join("L")}L${points(1).reverse().join("L")}Z`;
}

export function peak(signal) {
  let largest = 0;
  for (const samples of signal) for (const sample of samples) if (Math.abs(sample) > largest) largest = Math.abs(sample);
  return largest;
}
