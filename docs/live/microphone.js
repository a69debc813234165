// The microphone in blocks, at a model's rate, and playback.

import { Mistake } from "./step.js";

export class Microphone {
  /**
   * rate: Hz; size: samples of a block; worklet: the address of worklet.js, a data: URL (from file:// a Blob's is refused);
   * onblock(samples): each block; ontell({delay, gaps}): seconds until a sample is heard, null where none is.
   */
  static async open({ rate, size, worklet, onblock, ontell }) {
    const found = new Microphone();
    const want = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    try {
      found.media = await navigator.mediaDevices.getUserMedia({ audio: want });
    } catch (error) {
      throw new Mistake(`no microphone: ${error.message || error.name}`);
    }
    try {
      found.context = new AudioContext({ sampleRate: rate, latencyHint: "interactive" });
      await found.context.audioWorklet.addModule(worklet);
      found.node = new AudioWorkletNode(found.context, "live", {
        channelCount: 1,
        channelCountMode: "explicit",
        outputChannelCount: [1],
        processorOptions: { block: size, reserve: size },
      });
      found.node.port.onmessage = ({ data }) => {
        if (data.block) return onblock(data.block);
        const device = (found.context.baseLatency ?? 0) + (found.context.outputLatency ?? 0);
        ontell({ ...data, delay: data.delay === null ? null : data.delay + device });
      };
      found.context.createMediaStreamSource(found.media).connect(found.node).connect(found.context.destination);
      await found.context.resume();
    } catch (error) {
      found.close();
      throw new Mistake(`this browser cannot take the microphone at ${rate} Hz: ${error.message}`);
    }
    return found;
  }

  /** Hear samples whose first one is number `position` of the stream. */
  play(samples, position) {
    this.node.port.postMessage([position, samples]);
  }

  silence() {
    this.node.port.postMessage("silence");
  }

  close() {
    for (const track of this.media.getTracks()) track.stop();
    this.context?.close();
  }
}
