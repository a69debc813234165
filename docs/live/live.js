// The page: choices, progress and playback. The worker does the computation.

import { Engine } from "./engine.js";
import { Microphone } from "./microphone.js";
import { readStep } from "./model.js";
import { unpacked } from "./packed.js";
import { Player } from "./player.js";
import { decoded, outline, peak } from "./sound.js";
import { FRAMES, Mistake, joined, separated } from "./step.js";
import { writeWav } from "./wav.js";

const MIXTURE = "Mixture";
const COLUMNS = 480; // of a waveform, as its viewBox in index.html

const at = (id) => document.getElementById(id);
const page = { engine: null, player: null, task: null, microphone: null }; // task: the running one; a new one ends it
globalThis.live = page; // for control from outside, for example by tests

// ---- model ----------------------------------------------------------------------------------------------------------

async function useModel(step) {
  endTask();
  at("model-about").textContent = `Loading ${step.name} …`;
  try {
    await page.engine.load(step);
  } finally {
    const { about } = page.engine;
    at("model-about").textContent = about ? described(about) : "No model yet: choose a .step.onnx file";
    at("record").disabled = !about;
  }
}

function described({ sources, sample_rate: rate, step }) {
  const names = new Intl.ListFormat("en").format(sources);
  return `Separates ${names}, ${rate / 1000} kHz, latency ${((1000 * step.latency) / rate).toFixed(1)} ms`;
}

const blockSize = () => FRAMES * page.engine.about.step.stride;

// ---- a file ---------------------------------------------------------------------------------------------------------

async function useFile(file) {
  const { about } = page.engine;
  if (!about) throw new Mistake("choose a model first: a .step.onnx file");
  const task = beginTask(file.name, "Reading");
  try {
    const signal = await decoded(file, about.sample_rate);
    if (page.task !== task) return;
    const parts = [];
    const started = performance.now();
    let done = 0;
    const stream = await page.engine.stream(signal.length);
    for await (const part of separated(stream, signal, blockSize())) {
      if (page.task !== task) return;
      parts.push(part);
      done += part[0][0].length / signal[0].length;
      at("progress").value = done;
      at("work-state").textContent = `${Math.floor(100 * done)} %`;
    }
    const [seconds, took] = [signal[0].length / about.sample_rate, (performance.now() - started) / 1000];
    const speed = `${clock(seconds)} of sound in ${took.toFixed(1)} s, ${(seconds / took).toFixed(1)} times real time`;
    show(file.name, signal, joined(parts), about, speed);
  } catch (error) {
    if (page.task === task) throw error;
  } finally {
    if (page.task === task) endTask();
  }
}

function beginTask(name, state) {
  endTask();
  page.player?.pause();
  page.task = Symbol(name);
  at("work-name").textContent = name;
  at("work-state").textContent = state;
  at("progress").value = 0;
  at("work").hidden = false;
  return page.task;
}

function endTask() {
  page.task = null;
  at("work").hidden = true;
}

// ---- the microphone -------------------------------------------------------------------------------------------------

async function record() {
  endTask();
  page.player?.pause();
  const { about } = page.engine;
  const rate = about.sample_rate;
  const stream = await page.engine.stream(1);
  const heard = choices("live-choices", ["Nothing", ...about.sources]);
  const [mixture, parts, pending] = [[], [], []];
  let [captured, given] = [0, 0];
  page.microphone = await Microphone.open({
    rate,
    size: blockSize(),
    worklet: page.worklet,
    onblock: (samples) => pending.push(separate(samples).catch(report)),
    ontell: ({ delay, gaps }) => tell(delay, gaps),
  });
  at("live").hidden = false;
  at("choice").inert = true;
  at("live-choices").onchange = () => page.microphone.silence();
  tell(null, 0);

  async function separate(samples) {
    mixture.push([[samples]]);
    captured += samples.length;
    at("live-time").textContent = clock(captured / rate);
    at("level").style.transform = `scaleX(${Math.min(1, Math.sqrt(peak([samples])))})`;
    const part = await stream.feed([samples]);
    parts.push(part);
    if (heard() > 0) page.microphone?.play(part[heard() - 1][0], given);
    given += part[0][0].length;
  }

  function tell(delay, gaps) {
    const behind = (captured - given - blockSize()) / rate;
    const late = behind > 1 ? `This device is ${behind.toFixed(0)} s behind; the recording will be complete. ` : "";
    const now = delay === null ? "It is recorded." : `It is recorded, and heard ${Math.round(1000 * delay)} ms late.`;
    at("live-state").textContent = `${late}${now}${gaps ? ` Gaps: ${gaps}.` : ""}`;
  }

  async function stop() {
    page.microphone.close();
    page.microphone = null;
    at("live").hidden = true;
    at("choice").inert = false;
    at("record").focus();
    await Promise.all(pending);
    parts.push(await stream.flush());
    if (captured) show("Microphone", joined(mixture)[0], joined(parts), about, `${clock(captured / rate)} recorded`);
  }

  at("stop").onclick = () => attempt(stop);
  at("stop").focus();
}

/** Radio buttons; returns a function for the chosen one. */
function choices(id, names) {
  const inputs = names.map((name, index) => {
    const [label, input] = [document.createElement("label"), document.createElement("input")];
    Object.assign(input, { type: "radio", name: id, checked: index === 0 });
    label.append(input, name);
    return label;
  });
  at(id).replaceChildren(...inputs);
  return () => inputs.findIndex((label) => label.firstChild.checked);
}

// ---- results ---------------------------------------------------------------------------------------------------------

function show(name, mixture, stems, { sources, sample_rate: rate }, about) {
  page.player?.close();
  const signals = new Map([[MIXTURE, mixture], ...sources.map((source, i) => [source, stems[i]])]);
  page.player = new Player(signals, rate, refresh);
  const largest = Math.max(...[...signals.values()].map(peak));
  const rows = [...signals].map(([label, signal], index) => {
    const row = at("signal").content.cloneNode(true).firstElementChild;
    row.style.setProperty("--colour", `var(--c${index % 7})`);
    row.querySelector("span").textContent = label;
    row.querySelector("path").setAttribute("d", outline(signal, COLUMNS, largest));
    const input = row.querySelector("input");
    Object.assign(input, { value: label, checked: index === 0, onchange: () => page.player.choose(label) });
    row.querySelector(".wave").onclick = ({ offsetX, currentTarget }) =>
      page.player.seek((offsetX / currentTarget.clientWidth) * page.player.duration);
    const button = row.querySelector("button");
    button.setAttribute("aria-label", `Download ${label}`);
    button.onclick = () => download(`${name.replace(/\.\w+$/, "")}.${label}.wav`, writeWav(signal, rate));
    return row;
  });
  at("signals").replaceChildren(...rows);
  at("last-key").textContent = Math.min(9, rows.length);
  at("result-name").textContent = name;
  at("result-about").textContent = about;
  at("position").max = page.player.duration;
  at("position").step = page.player.duration / 200; // an arrow key's
  at("result").hidden = false;
  refresh();
  at("result").scrollIntoView({ block: "nearest" });
}

function refresh() {
  const { playing, position, duration } = page.player;
  at("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  at("play").classList.toggle("playing", playing);
  const time = `${clock(position)} of ${clock(duration)}`;
  at("position").value = position;
  at("position").setAttribute("aria-valuetext", time);
  at("time").textContent = time.replace(" of ", " / ");
  at("result").style.setProperty("--at", position / duration);
  if (playing && !page.drawing) {
    page.drawing = requestAnimationFrame(() => {
      page.drawing = null;
      refresh();
    });
  }
}

function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

function download(name, bytes) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes], { type: "audio/wav" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// ---- hands ----------------------------------------------------------------------------------------------------------

function report(error) {
  at("error").textContent = error instanceof Mistake ? error.message : `This is a bug of the page: ${error.message}`;
  at("error").hidden = false;
  if (!(error instanceof Mistake)) console.error(error);
}

/** Runs a function and shows its errors. */
async function attempt(work) {
  at("error").hidden = true;
  try {
    await work();
  } catch (error) {
    report(error);
  }
}

/** Files, chosen or dropped: of a model, a sound, or both. */
async function take(files) {
  const isModel = ({ name }) => /\.(onnx|json)$/.test(name);
  const model = files.filter(isModel);
  const sound = files.find((file) => !isModel(file));
  if (model.length) {
    const read = async (file) => ({ name: file.name, bytes: new Uint8Array(await file.arrayBuffer()) });
    await useModel(readStep(await Promise.all(model.map(read))));
  }
  if (sound) await useFile(sound);
}

for (const id of ["sound", "model-files"]) {
  at(id).onchange = ({ target }) => {
    const files = [...target.files];
    target.value = ""; // the same file may be chosen again
    attempt(() => take(files));
  };
}
at("cancel").onclick = () => {
  endTask();
  at("sound").focus();
};
at("record").onclick = () => attempt(record);
at("play").onclick = () => (page.player.playing ? page.player.pause() : page.player.play());
at("position").oninput = ({ target }) => page.player.seek(Number(target.value));

let depth = 0; // dragging over a child leaves its parent
const dragged = (by) => {
  depth += by;
  document.body.classList.toggle("dropping", depth > 0);
};
document.ondragenter = () => dragged(1);
document.ondragleave = () => dragged(-1);
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
  event.preventDefault();
  dragged(-depth);
  const files = [...event.dataTransfer.files];
  if (files.length && !page.microphone) attempt(() => take(files));
};

document.onkeydown = (event) => {
  if (!page.player || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " " && !event.target.closest("button, input, label")) {
    event.preventDefault();
    at("play").click();
  }
  const row = at("signals").querySelectorAll("input")[Number(event.key) - 1];
  row?.click();
};

attempt(async () => {
  at("record").disabled = true;
  const text = new TextDecoder();
  page.worklet = text.decode(await unpacked("worklet"));
  page.engine = new Engine(text.decode(await unpacked("worker")), await unpacked("runtime"));
  const name = at("model")?.dataset.name;
  const bytes = await unpacked("model");
  if (bytes) await useModel(readStep([{ name, bytes }]));
  else at("model-about").textContent = "No model yet: choose a .step.onnx file";
});
