// The page's side of the worker: it loads a model and runs streams.

import { Mistake } from "./step.js";

export class Engine {
  constructor(workerSource, runtime) {
    this.worker = new Worker(URL.createObjectURL(new Blob([workerSource], { type: "text/javascript" })));
    this.runtime = runtime;
    this.pending = new Map();
    this.count = 0;
    this.worker.onmessage = ({ data: [id, value, error] }) => {
      const { resolve, reject } = this.pending.get(id);
      this.pending.delete(id);
      error === undefined ? resolve(value) : reject(new Mistake(error));
    };
    this.worker.onerror = (event) => {
      for (const { reject } of this.pending.values()) reject(new Mistake(`the worker failed: ${event.message}`));
      this.pending.clear();
    };
  }

  /** A step as `readStep` returns it. */
  async load({ name, bytes, about }) {
    try {
      await this.#call("load", bytes, this.runtime);
    } catch (error) {
      throw new Mistake(`${name} cannot be run: ${error.message.split("\n")[0]}`);
    }
    this.runtime = undefined; // the worker owns it now
    this.about = about;
  }

  /** A new stream, which ends the previous one: `feed` and `flush` as in step.js. */
  async stream(channels) {
    const turn = (this.turn = Symbol("stream"));
    const call = (name, ...given) => {
      if (turn !== this.turn) throw new Mistake("stopped: another sound was started");
      return this.#call(name, ...given);
    };
    await call("start", this.about, channels);
    return { feed: async (signal) => call("feed", signal), flush: async () => call("flush") };
  }

  #call(name, ...given) {
    const id = this.count++;
    const answer = new Promise((resolve, reject) => this.pending.set(id, { resolve, reject }));
    this.worker.postMessage([id, name, given]);
    return answer;
  }
}
