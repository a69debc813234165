"use strict";
// Sorting: a click on a column's head; numbers by value, empty cells last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending", numeric = head.classList.contains("n");
    const key = row => numeric ? parseFloat(row.cells[column].dataset.v) : row.cells[column].textContent;
    const compare = (a, b) => numeric ? a - b : a.localeCompare(b);
    const rows = [...body.rows].map(row => [key(row), row]);
    const missing = value => numeric && Number.isNaN(value);
    rows.sort(([a], [b]) => missing(a) || missing(b) ? missing(a) - missing(b) : (down ? -1 : 1) * compare(a, b));
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows.map(([, row]) => row));
  }));
}

// Players: one signal sounds at a time; another choice goes on at the same position.
const audio = JSON.parse(document.getElementById("audio").textContent);
async function decode(id) {
  const bytes = Uint8Array.from(atob(audio[id].data), letter => letter.charCodeAt(0));
  return new OfflineAudioContext(1, 1, audio[id].rate).decodeAudioData(bytes.buffer);  // at the file's own rate
}
let sounding = null;
class Player {
  constructor(element) {
    this.element = element;
    this.seconds = parseFloat(element.dataset.seconds);
    this.offset = 0;  // seconds, while it does not play
    this.buffers = {};
    this.choices = [...element.querySelectorAll("[data-signal]")];
    this.signal = this.before = this.choices[0].dataset.signal;  // `before`: the one that was chosen before it
    this.button = element.querySelector(".play");
    this.button.addEventListener("click", () => this.node ? this.pause() : this.play());
    for (const choice of this.choices) choice.addEventListener("click", () => this.choose(choice.dataset.signal));
    element.querySelector(".swap").addEventListener("click", () => this.choose(this.before));
    this.cursors = [...element.querySelectorAll(".cursor")];
    for (const picture of element.querySelectorAll(".picture")) picture.addEventListener("click", event => {
      const box = event.currentTarget.getBoundingClientRect();
      this.seek((event.clientX - box.left) / box.width * this.seconds);
    });
    this.show();
  }
  get position() {
    return this.node ? Math.min(this.seconds, this.offset + this.context.currentTime - this.since) : this.offset;
  }
  async play() {
    if (sounding && sounding !== this) { sounding.pause(); sounding.buffers = {}; }
    sounding = this;
    const signal = this.signal;
    this.buffers[signal] ??= await decode(signal);
    if (signal !== this.signal || sounding !== this || this.node) return;  // another choice was quicker
    this.context ??= new AudioContext({sampleRate: audio[signal].rate});
    await this.context.resume();
    const node = this.node = this.context.createBufferSource();
    node.buffer = this.buffers[signal];
    node.connect(this.context.destination);
    node.onended = () => { if (this.node === node) { this.pause(); this.offset = 0; this.show(); } };
    this.since = this.context.currentTime;
    node.start(0, this.offset);
    this.show();
    this.follow();
  }
  pause() {
    if (!this.node) return;
    const node = this.node;
    this.offset = this.position;
    this.node = null;
    node.stop();
    this.show();
  }
  async choose(signal) {
    const playing = this.node !== undefined && this.node !== null;
    if (playing) this.buffers[signal] ??= await decode(signal);  // decoded while the other one still sounds
    this.pause();
    if (signal !== this.signal) this.before = this.signal;
    this.signal = signal;
    this.show();
    if (playing) await this.play();
  }
  step(by) {
    const signals = this.choices.map(choice => choice.dataset.signal), count = signals.length;
    return this.choose(signals[(signals.indexOf(this.signal) + by + count) % count]);
  }
  async seek(seconds) {
    const playing = Boolean(this.node);
    this.pause();
    this.offset = Math.max(0, Math.min(seconds, this.seconds - 0.01));
    this.show();
    if (playing) await this.play();
  }
  follow() {
    if (!this.node) return;
    this.show();
    requestAnimationFrame(() => this.follow());
  }
  show() {
    for (const choice of this.choices) choice.setAttribute("aria-pressed", choice.dataset.signal === this.signal);
    for (const image of this.element.querySelectorAll("[data-of]")) image.classList.toggle("shown", image.dataset.of === this.signal);
    this.button.textContent = this.node ? "Pause" : "Play";
    for (const cursor of this.cursors) cursor.style.left = 100 * this.position / this.seconds + "%";
    this.element.querySelector(".time").textContent = this.position.toFixed(1) + " / " + this.seconds.toFixed(1) + " s";
  }
}
const keys = {  // of the player that has the focus, else of the one that sounded last, else of the first
  " ": player => player.button.click(),
  ArrowLeft: player => player.seek(player.position - 1),
  ArrowRight: player => player.seek(player.position + 1),
  ArrowUp: player => player.step(-1),
  ArrowDown: player => player.step(1),
  x: player => player.choose(player.before),
};
document.addEventListener("keydown", event => {
  const focused = event.target.closest("button, summary"), inside = event.target.closest(".player");
  const player = players.find(each => each.element === inside) ?? sounding;
  const moves = event.key.startsWith("Arrow") && !inside && !sounding;  // then arrows scroll the page, as everywhere
  if (event.ctrlKey || event.metaKey || event.altKey || moves || (event.key === " " && focused)) return;
  if (keys[event.key] && (player ?? players[0])) { event.preventDefault(); keys[event.key](player ?? players[0]); }
});
const players = [...document.querySelectorAll(".player")].map(element => new Player(element));
window.report = {decode, players};
