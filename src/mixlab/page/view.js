// One answer as a card. Names of classes and files are text wherever they appear.

import { heatColours } from "./picture.js";

/** Return the card of an answer, or of a file that could not be read. */
export function cardOf(answer, model) {
  const card = document.getElementById("card").content.cloneNode(true).firstElementChild;
  const inside = (selector) => card.querySelector(selector);
  inside(".file bdi").textContent = answer.file;
  if (answer.error) return brokenCard(card, inside, answer);
  inside("h2").append(answer.unknown ? "Not known" : named(answer.label));
  card.classList.toggle("unknown", answer.unknown);
  if (answer.unknown) {
    inside(".why").hidden = false;
    inside(".why").textContent = `No class reaches ${percent(model.reject_below, 0)}.`;
  }
  inside(".classes").append(...answer.top.map((found, place) => rowOf(found, place === 0 ? model.reject_below : 0)));
  inside(".time").textContent = time(answer.milliseconds);
  drawPicture(inside, answer);
  return card;
}

/** Return a probability for people. */
export function percent(share, digits = 1) {
  return `${(100 * share).toFixed(digits)}\u00a0%`;
}

function brokenCard(card, inside, { error }) {
  card.classList.add("broken");
  inside("figure").remove();
  inside(".classes").remove();
  inside(".time").remove();
  inside("h2").textContent = "No answer";
  inside(".why").hidden = false;
  inside(".why").textContent = error;
  return card;
}

function rowOf({ class: name, probability }, rejectBelow) {
  const row = document.createElement("li");
  const share = document.createElement("span");
  share.className = "share";
  share.textContent = percent(probability);
  const track = document.createElement("span");
  track.className = "track";
  track.setAttribute("aria-hidden", "true");
  const bar = document.createElement("span");
  bar.className = "bar";
  bar.style.width = `${100 * probability}%`;
  if (rejectBelow > 0) track.append(bandOf(rejectBelow));
  track.append(bar);
  row.append(named(name), share, track);
  return row;
}

function bandOf(rejectBelow) {
  const band = document.createElement("span");
  band.className = "band";
  band.style.width = `${100 * rejectBelow}%`;
  return band;
}

/** A name keeps its own direction of writing and turns nothing around it. */
function named(name) {
  const text = document.createElement("bdi");
  text.textContent = name;
  return text;
}

function drawPicture(inside, { view, heat_map: heat, top }) {
  if (!view) return inside("figure").remove();
  inside(".view").src = view;
  inside(".view").alt = "The picture as the network sees it";
  if (!heat) return undefined;
  const canvas = inside(".heat");
  [canvas.width, canvas.height, canvas.hidden] = [heat.columns, heat.rows, false];
  canvas.getContext("2d").putImageData(new ImageData(heatColours(heat.values), heat.columns, heat.rows), 0, 0);
  inside("figure").title = `Lit: what speaks for ${top[0].class}`;
  return undefined;
}

function time(milliseconds) {
  return milliseconds < 10_000 ? `${Math.max(1, Math.round(milliseconds))} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}
