// The network in the browser: decodes a picture, asks ONNX Runtime, and says what `engine.js` promises.

import * as runtime from "./ort.wasm.min.js";
import { asSeen, dropAlpha, scaled, withAlpha } from "./picture.js";

const MAX_PIXELS = 100_000_000; // as in mixlab.data.decode
const LONGEST_SIDE = 65_535; // so too
let model, session;

onmessage = async ({ data }) => {
  try {
    postMessage(data.model ? await open(data.model) : await answer(data.file, data.top));
  } catch (error) {
    postMessage(error instanceof Unreadable ? { error: error.message } : { error: why(error), lost: true });
  }
};

class Unreadable extends Error {}

function why(error) {
  return /memory|alloc|length/i.test(String(error)) ? "does not fit into memory" : String(error.message ?? error);
}

async function open(description) {
  model = description;
  const beside = (name) => new URL(name, import.meta.url).href;
  runtime.env.wasm.wasmPaths = { mjs: beside("ort-wasm-simd-threaded.js"), wasm: beside("ort-wasm-simd-threaded.wasm") };
  runtime.env.wasm.numThreads = crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  session = await runtime.InferenceSession.create(beside(model.onnx));
  await ask({ pixels: new Uint8Array(model.channels), height: 1, width: 1, channels: model.channels }); // the first takes longest
  return { ready: true };
}

async function answer(file, count) {
  const begin = performance.now();
  const picture = await decode(file);
  const outputs = await ask(picture);
  const milliseconds = performance.now() - begin;
  const probabilities = outputs.probabilities.data;
  const best = Array.from(probabilities.keys()).sort((one, other) => probabilities[other] - probabilities[one]);
  const confidence = probabilities[best[0]];
  const unknown = confidence < model.reject_below;
  return {
    label: unknown ? null : model.classes[best[0]],
    unknown,
    confidence,
    top: best.slice(0, count).map((index) => ({ class: model.classes[index], probability: probabilities[index] })),
    heat_map: model.has_heat ? heatOf(outputs.heat, best[0]) : null,
    view: await drawn(picture),
    milliseconds,
  };
}

function ask({ pixels, height, width, channels }) {
  return session.run({ pictures: new runtime.Tensor("uint8", pixels, [1, height, width, channels]) });
}

/** Return {pixels, height, width, channels} as mixlab decodes it: turned as it is displayed, transparency over white. */
async function decode(file) {
  const bitmap = await createImageBitmap(file, {
    imageOrientation: "from-image",
    colorSpaceConversion: "none",
    premultiplyAlpha: "none",
  }).catch(() => {
    throw new Unreadable(file.size ? "this browser cannot read it as a picture" : "0 bytes");
  });
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS) throw new Unreadable(`${width * height} pixels, more than the limit of ${MAX_PIXELS}`);
  const longest = Math.max(width, height);
  if (longest > LONGEST_SIDE) throw new Unreadable(`${longest} pixels long, more than the limit of ${LONGEST_SIDE}`);
  const paper = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  paper.fillStyle = "#fff";
  paper.fillRect(0, 0, width, height);
  paper.drawImage(bitmap, 0, 0);
  bitmap.close();
  const pixels = dropAlpha(paper.getImageData(0, 0, width, height).data, model.channels);
  return { pixels, height, width, channels: model.channels };
}

function heatOf(heat, index) {
  const [, , rows, columns] = heat.dims;
  const values = heat.data.subarray(index * rows * columns, (index + 1) * rows * columns);
  return { rows, columns, values: scaled(values) };
}

/** Return a PNG of a picture as the network sees it. */
async function drawn(picture) {
  const size = model.image_size;
  const seen = asSeen(picture, { size, mode: model.resize_mode, fill: model.mean }).map(Math.round);
  const canvas = new OffscreenCanvas(size, size);
  canvas.getContext("2d").putImageData(new ImageData(withAlpha(seen, picture.channels), size, size), 0, 0);
  return canvas.convertToBlob();
}
