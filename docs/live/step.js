// The host of a step written by `tasnet-attn export MODEL --to onnx-step`: from blocks of sound to their sources.
// The page's worker, Node and the tests run this code. A signal is an array of Float32Arrays, one per channel.

export const FRAMES = 64; // of a block: with fewer, WebAssembly is slower than real time

/** A user's mistake; its message is one line. */
export class Mistake extends Error {}

const ARRAYS = { float32: Float32Array, float64: Float64Array, int64: BigInt64Array, int32: Int32Array, bool: Uint8Array };

/**
 * One sound on its way through a step. All that comes out is, end to end, what the model computes on the whole.
 *
 * ort: ONNX Runtime; session: its session of the step; about: what the step says of itself (model.js).
 */
export class Stream {
  constructor(ort, session, about, channels) {
    this.ort = ort;
    this.session = session;
    this.step = about.step;
    this.sources = about.sources.length;
    this.channels = channels;
    this.state = {};
    for (const { name, shape, channels: axis, type } of this.step.states) {
      if (!session.inputNames.includes(name)) throw new Mistake("the .json is not this model's: it names another state");
      const sizes = shape.map((size, index) => (index === axis ? size * channels : size));
      const zeros = new ARRAYS[type](sizes.reduce((product, size) => product * size, 1));
      this.state[name] = new ort.Tensor(type, zeros, sizes);
    }
    this.waiting = Array.from({ length: channels }, () => new Float32Array(0));
    this.fed = 0;
    this.frames = 0;
    this.given = -this.step.delay; // samples before the beginning are not returned
  }

  /** Any number of next samples -> the samples that they complete: a signal for each source, possibly empty. */
  async feed(signal) {
    this.fed += signal[0].length;
    return this.#advance(signal, Infinity);
  }

  /** The remaining samples, so that the output is as long as the input. */
  async flush() {
    const { stride, lead, trail } = this.step;
    const frames = this.fed ? Math.max(1, Math.floor((this.fed + trail) / stride)) : 0;
    const needed = (this.frames ? 0 : lead) + (frames - this.frames) * stride;
    const zeros = new Float32Array(Math.max(0, needed - this.waiting[0].length));
    const parts = [];
    if (frames > this.frames) parts.push(await this.#advance(this.waiting.map(() => zeros), this.fed));
    if (this.step.rest.length) parts.push(this.#cut(this.#rest(), this.fed));
    const left = Math.max(0, this.fed - Math.max(0, this.given)); // a signal shorter than a window ends in zeros
    parts.push(this.#signals(() => new Float32Array(left)));
    return joined(parts);
  }

  async #advance(signal, end) {
    this.waiting = this.waiting.map((before, channel) => concatenated([before, signal[channel]]));
    const { stride, lead } = this.step;
    const early = this.frames ? 0 : lead;
    const frames = Math.floor((this.waiting[0].length - early) / stride);
    if (frames < 1) return this.#signals(() => new Float32Array(0));
    if (early) this.#begin(this.#take(early));
    const samples = new this.ort.Tensor("float32", concatenated(this.#take(frames * stride)), [this.channels, frames * stride]);
    const outputs = await this.session.run({ samples, ...this.state });
    for (const { name, ring = null } of this.step.states) {
      const next = outputs[`next.${name}`];
      if (ring === null) this.state[name] = next;
      else write(this.state[name], next, ring, this.frames);
    }
    this.frames += frames;
    return this.#cut(outputs.estimates.data, end);
  }

  /** The very first samples go to the end of the encoder's memory. */
  #begin(first) {
    const { data, dims } = this.state.encoder;
    first.forEach((samples, channel) => data.set(samples, (channel + 1) * dims[1] - samples.length));
  }

  #take(size) {
    const taken = this.waiting.map((samples) => samples.subarray(0, size));
    this.waiting = this.waiting.map((samples) => samples.slice(size));
    return taken;
  }

  /** The decoder's remainder of frames that overlap the end: a waveform, and the windows that divide it. */
  #rest() {
    const [waveform, weights] = this.step.rest.map((name) => this.state[name].data);
    const gains = [this.step.gain].flat(); // one of each source, or one of all
    const size = waveform.length / (this.channels * this.sources);
    const scaled = (value, i) => gains[Math.floor(i / size) % gains.length] * value;
    return waveform.map((value, i) => scaled(value, i) / Math.max(weights[i % weights.length], this.step.floor));
  }

  /** [channels, sources, t], flat -> signals, of samples 0 to `end` of the sound. */
  #cut(estimates, end) {
    const size = estimates.length / (this.channels * this.sources);
    const first = Math.min(size, Math.max(0, -this.given));
    const last = Math.max(first, Math.min(size, end - this.given));
    this.given += size;
    return this.#signals((source, channel) => {
      const start = (channel * this.sources + source) * size;
      return estimates.slice(start + first, start + last);
    });
  }

  #signals(samples) {
    const count = (length, make) => Array.from({ length }, (_, index) => make(index));
    return count(this.sources, (source) => count(this.channels, (channel) => samples(source, channel)));
  }
}

/** Write the new frames, the first of which is `frame`, to the ring buffer: frame f goes to slot f mod R. */
function write(ring, frames, axis, frame) {
  const product = (sizes) => sizes.reduce((all, size) => all * size, 1);
  const [slots, count] = [ring.dims[axis], frames.dims[axis]];
  const size = product(ring.dims.slice(axis + 1));
  for (let outer = 0; outer < product(ring.dims.slice(0, axis)); outer++) {
    for (let i = Math.max(0, count - slots); i < count; i++) {
      const from = (outer * count + i) * size;
      ring.data.set(frames.data.subarray(from, from + size), (outer * slots + ((frame + i) % slots)) * size);
    }
  }
}

/** A whole signal through a stream (or an object with its `feed` and `flush`), by blocks of `size` samples: yields each part. */
export async function* separated(stream, signal, size) {
  for (let start = 0; start < signal[0].length; start += size) {
    yield await stream.feed(signal.map((samples) => samples.slice(start, start + size)));
  }
  yield await stream.flush();
}

/** Parts that follow each other -> a signal for each source. */
export function joined(parts) {
  return parts[0].map((signal, source) =>
    signal.map((_, channel) => concatenated(parts.map((part) => part[source][channel]))),
  );
}

function concatenated(arrays) {
  const whole = new Float32Array(arrays.reduce((sum, array) => sum + array.length, 0));
  let start = 0;
  for (const array of arrays) {
    whole.set(array, start);
    start += array.length;
  }
  return whole;
}
