// node build.js [--model MODEL.step.onnx] [--out FILE.html]
// Puts the page, ONNX Runtime and a model into one file that works from file://, where nothing can be loaded by URL.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";

import { command } from "./command.js";
import { readStep } from "./model.js";

const HERE = dirname(fileURLToPath(import.meta.url));
const RUNTIME = join(HERE, "node_modules/onnxruntime-web/dist"); // runs on WebAssembly only
const PACKAGES = { "onnxruntime-web": join(RUNTIME, "ort.wasm.bundle.min.mjs") };

/** A module's text in which every module that it imports is a data: URL. */
function inlined(file) {
  const text = readFileSync(file, "utf8").replace(/^\/\/# sourceMappingURL.*$/m, "");
  const imports = /^(import .*? from )"([^"]+)";$/gms;
  return text.replace(imports, (_, words, name) => `${words}"${dataURL(PACKAGES[name] ?? join(dirname(file), name))}";`);
}

function dataURL(file) {
  return `data:text/javascript;base64,${Buffer.from(inlined(file)).toString("base64")}`;
}

/** A classic script: from file:// Chromium starts no module as a worker. It keeps messages until the module has loaded. */
function started(file) {
  return `const early = [];
onmessage = (event) => early.push(event);
const failed = (error) => setTimeout(() => { throw error; });
import("${dataURL(file)}").then(() => early.forEach((event) => onmessage(event)), failed);`;
}

/** Data as an element that packed.js unpacks. */
function packed(id, data, name = "") {
  const text = gzipSync(data, { level: 9 }).toString("base64");
  return `<script type="application/gzip" id="${id}" data-name="${name}">${text}</script>`;
}

function build(model, out) {
  const data = [
    packed("runtime", readFileSync(join(RUNTIME, "ort-wasm-simd-threaded.wasm"))),
    packed("worker", started(join(HERE, "worker.js"))),
    packed("worklet", dataURL(join(HERE, "worklet.js"))),
  ];
  if (model) {
    const name = basename(model).replace(/[^\w.-]/g, "_");
    const bytes = readFileSync(model);
    readStep([{ name, bytes }]);
    data.push(packed("model", bytes, name));
  }
  const parts = {
    style: `<style>\n${readFileSync(join(HERE, "style.css"), "utf8")}</style>`,
    data: data.join("\n"),
    page: `<script type="module">\n${inlined(join(HERE, "live.js"))}</script>`,
  };
  const html = readFileSync(join(HERE, "index.html"), "utf8").replace(/<!-- (\w+) -->/g, (_, part) => parts[part]);
  mkdirSync(dirname(out), { recursive: true });
  writeFileSync(out, html);
  console.log(`${out}  ${(html.length / 1e6).toFixed(1)} MB`);
}

const OPTIONS = { model: { type: "string" }, out: { type: "string", default: join(HERE, "build/live.html") } };
await command(() => {
  const { model, out } = parseArgs({ options: OPTIONS }).values;
  build(model, out);
});
