// The page: takes pictures, has them answered one by one, and shows the answers.

import { asCsv } from "./csv.js";
import { openEngine } from "./engine.js";
import { complain, listen } from "./sources.js";
import { cardOf, percent } from "./view.js";

const part = (id) => document.getElementById(id);
const answers = [];
const opened = open(); // pictures that come before wait for it
let waiting = [];
let isWorking = false;

async function open() {
  const response = await fetch("model.json");
  if (!response.ok) throw new Error(`model.json: ${response.status}`);
  const model = await response.json();
  introduce(model);
  const engine = openEngine(model);
  await engine.ready;
  return { model, engine };
}

function giveUp(error) {
  complain(`The network cannot be used: ${error.message}`);
  part("sources").hidden = part("work").hidden = true;
}

/** Say which network this is. */
function introduce(model) {
  document.title = `${model.name} · mixlab`;
  part("name").textContent = model.name;
  const facts = [`${model.classes.length} classes`, `${model.image_size} × ${model.image_size} px`, model.channels === 1 ? "grey" : "colour"];
  part("facts").replaceChildren(...facts.map((fact) => withText("span", fact)));
  part("classes").replaceChildren(...model.classes.map((name) => withText("li", name)));
  part("place").textContent =
    model.engine === "browser"
      ? "The network runs in this browser. No picture leaves it."
      : "Pictures are sent to the server this page comes from, and to nobody else.";
  part("heat-choice").hidden = !model.has_heat;
  part("band-legend").hidden = model.reject_below === 0;
  part("band-text").textContent = `below ${percent(model.reject_below, 0)} the first class counts as not known`;
}

function withText(tag, text) {
  return Object.assign(document.createElement(tag), { textContent: text });
}

function take(files) {
  if (files.length === 0) return;
  if (!isWorking) part("progress").max = 0;
  part("progress").max += files.length;
  waiting.push(...files);
  if (!isWorking) work().catch(giveUp);
}

async function work() {
  isWorking = true;
  const begin = answers.length;
  part("work").hidden = part("stop").hidden = part("progress").hidden = false;
  part("clear").disabled = true;
  say(waiting.length === 1 ? "Looking at one picture." : `Looking at ${waiting.length} pictures.`);
  const { model, engine } = await opened;
  while (waiting.length > 0) {
    const answer = await ask(engine, waiting.shift());
    answers.push(answer);
    part("answers").append(cardOf(answer, model));
    part("progress").value = answers.length - begin;
  }
  if (document.activeElement === part("stop")) part("save").focus(); // it vanishes under the reader's hand
  part("stop").hidden = part("progress").hidden = true;
  part("clear").disabled = false;
  say(summary(answers.slice(begin)));
  isWorking = false;
}

async function ask(engine, file) {
  try {
    return await engine.answer(file);
  } catch (error) {
    return { file: file.name, error: error.message };
  }
}

/** Say it to everybody, those who listen to the page too. */
function say(text) {
  part("status").textContent = text;
}

function summary(done) {
  const broken = done.filter((answer) => answer.error).length;
  if (done.length === 1) return spoken(done[0]);
  const without = broken ? `, ${broken} without an answer` : "";
  return `${done.length} pictures${without}.`;
}

function spoken({ file, error, unknown, label, confidence }) {
  if (error) return `${file}: ${error}.`;
  return unknown ? `${file}: not known.` : `${file}: ${label}, ${percent(confidence)}.`;
}

function listenToTools() {
  part("stop").addEventListener("click", () => {
    waiting = [];
  });
  part("clear").addEventListener("click", clear);
  part("save").addEventListener("click", save);
  part("show-heat").addEventListener("change", () => {
    part("answers").classList.toggle("plain", !part("show-heat").checked);
  });
}

function clear() {
  answers.splice(0).forEach(({ view }) => view && URL.revokeObjectURL(view));
  part("answers").replaceChildren();
  part("work").hidden = true;
  say("");
  part("chooser").focus();
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([asCsv(answers)], { type: "text/csv" }));
  link.download = "answers.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

listen(take);
listenToTools();
opened.catch(giveUp);
