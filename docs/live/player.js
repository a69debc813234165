// Signals of one length that share a position: all run together and one is heard, so switching loses no sample.

const FADE = 0.01; // seconds of a cross-fade, to avoid clicks

export class Player {
  /** signals: a Map of names to signals; changed: called whenever it starts, stops or another signal is heard. */
  constructor(signals, rate, changed) {
    this.signals = signals;
    this.rate = rate;
    this.changed = changed;
    this.chosen = [...signals.keys()][0];
    this.duration = signals.get(this.chosen)[0].length / rate;
    this.offset = 0;
    this.voices = null; // a Map of names to {node, gain} while it plays
  }

  get playing() {
    return this.voices !== null;
  }

  get position() {
    if (!this.playing) return this.offset;
    return Math.min(this.duration, this.offset + Math.max(0, this.context.currentTime - this.started));
  }

  async play() {
    if (this.playing) return;
    this.context ??= new AudioContext(); // not before a gesture: browsers keep it silent
    this.buffers ??= [...this.signals].map(([name, signal]) => [name, this.#buffer(signal)]);
    await this.context.resume();
    if (this.playing) return;
    this.started = this.context.currentTime + 0.02;
    this.voices = new Map();
    for (const [name, buffer] of this.buffers) {
      const node = new AudioBufferSourceNode(this.context, { buffer });
      const gain = new GainNode(this.context, { gain: name === this.chosen ? 1 : 0 });
      node.connect(gain).connect(this.context.destination);
      node.start(this.started, this.offset);
      this.voices.set(name, { node, gain });
    }
    const voices = this.voices;
    voices.get(this.chosen).node.onended = () => {
      if (this.voices === voices) this.#stop(0); // it was the end
    };
    this.changed();
  }

  pause() {
    if (this.playing) this.#stop(this.position);
  }

  seek(seconds) {
    const playing = this.playing;
    this.#stop(Math.max(0, Math.min(this.duration, seconds)));
    if (playing) this.play();
  }

  choose(name) {
    this.chosen = name;
    for (const [other, { gain }] of this.voices ?? []) {
      gain.gain.setTargetAtTime(other === name ? 1 : 0, this.context.currentTime, FADE / 3);
    }
    this.changed();
  }

  close() {
    this.#stop(0);
    this.context?.close();
  }

  #stop(offset) {
    const voices = this.voices;
    this.voices = null;
    this.offset = offset;
    for (const { node } of voices?.values() ?? []) node.stop();
    this.changed();
  }

  #buffer(signal) {
    const buffer = this.context.createBuffer(signal.length, signal[0].length, this.rate);
    signal.forEach((samples, channel) => buffer.copyToChannel(samples, channel));
    return buffer;
  }
}
