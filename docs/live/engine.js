// The page's side of the worker: a model is loaded into it, and streams run there.

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
    this.runtime = undefined; // the worker has it now
    this.about = about;
  }

  /** A new stream, and the end of the one before: `feed` and `flush` as step.js has them. */
  async stream(channels) {
    const turn = (this.turn = Symbol("stream"));
    const call = (name, ...given) => {
      if (turn !== this.turn) throw new Mistake("it was ended: another sound has begun");
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
