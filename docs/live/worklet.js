// On the audio thread: passes the microphone on in blocks and plays the output.

class Live extends AudioWorkletProcessor {
  constructor({ processorOptions: { block, reserve } }) {
    super();
    this.block = new Float32Array(block);
    this.reserve = reserve; // samples to buffer before playing, against gaps
    this.filled = 0;
    this.captured = 0;
    this.queue = []; // [position in the stream, samples]
    this.queued = this.read = this.gaps = this.told = 0;
    this.playing = false;
    this.port.onmessage = ({ data }) => {
      if (data === "silence") {
        this.queue = [];
        this.queued = this.read = 0;
        this.playing = false;
      } else {
        this.queue.push(data);
        this.queued += data[1].length;
      }
    };
  }

  process([input], [output]) {
    if (input.length) this.capture(input[0]);
    if (!this.playing && this.queued > this.reserve) this.playing = true;
    if (this.playing) this.play(output[0]);
    if (this.captured - this.told > sampleRate / 4) this.tell();
    return true;
  }

  capture(samples) {
    this.captured += samples.length;
    for (let start = 0; start < samples.length; ) {
      const piece = samples.subarray(start, start + this.block.length - this.filled);
      this.block.set(piece, this.filled);
      this.filled += piece.length;
      start += piece.length;
      if (this.filled === this.block.length) {
        this.port.postMessage({ block: this.block.slice() });
        this.filled = 0;
      }
    }
  }

  play(output) {
    for (let i = 0; i < output.length; i++) {
      if (!this.queue.length) {
        this.gaps++;
        this.playing = false; // until there is a reserve again
        return;
      }
      const [position, samples] = this.queue[0];
      output[i] = samples[this.read++];
      this.heard = position + this.read;
      if (this.read === samples.length) {
        this.queued -= samples.length;
        this.queue.shift();
        this.read = 0;
      }
    }
  }

  tell() {
    this.told = this.captured;
    this.port.postMessage({ delay: this.playing ? (this.captured - this.heard) / sampleRate : null, gaps: this.gaps });
  }
}

registerProcessor("live", Live);
