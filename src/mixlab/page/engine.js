// Who answers: the server that the page comes from, or a network inside the browser. Both say the same of a picture.
//
//   {file, label, unknown, confidence, top: [{class, probability}], heat_map, view, milliseconds}
//
// An error that is thrown is about this one picture.

const TOP = 5;

export function openEngine(model) {
  return model.engine === "browser" ? openBrowser(model) : openServer(model);
}

function openServer(model) {
  return {
    ready: Promise.resolve(),
    async answer(file) {
      const begin = performance.now();
      const response = await sent(file);
      const said = await response.json().catch(() => ({}));
      const answer = said.answers?.[0];
      if (!answer || answer.error) throw new Error(answer?.error ?? said.error ?? `the server says ${response.status}`);
      return { ...answer, file: file.name, milliseconds: performance.now() - begin };
    },
  };
}

async function sent(file, patience = 5) {
  const body = new FormData();
  body.append("file", file, file.name);
  const response = await fetch(`predict?heat_map=true&top=${TOP}`, { method: "POST", body }).catch(() => {
    throw new Error("the server does not answer, or the file cannot be read");
  });
  const pause = Number(response.headers.get("retry-after"));
  if (response.status !== 503 || pause === 0 || patience === 0) return response;
  await new Promise((resolve) => setTimeout(resolve, 1000 * pause));
  return sent(file, patience - 1);
}

function openBrowser(model) {
  let opened = openWorker(model);
  return {
    get ready() {
      return opened.ready;
    },
    async answer(file) {
      await opened.ready;
      const answer = await opened.ask({ file, top: TOP });
      if (answer.lost) opened = openWorker(model); // what has run out of memory once has none left for the next
      if (answer.error) throw new Error(answer.error);
      if (answer.view) answer.view = URL.createObjectURL(answer.view);
      return { ...answer, file: file.name };
    },
  };
}

/** Start a worker with the network. `ask` sends one message and waits for its answer: one at a time. */
function openWorker(model) {
  const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  const ask = (message) =>
    new Promise((resolve) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = (event) => resolve({ error: event.message || "the browser cannot start the network", lost: true });
      worker.postMessage(message);
    }).then((data) => {
      if (data.lost) worker.terminate();
      return data;
    });
  const ready = ask({ model }).then((data) => {
    if (data.error) throw new Error(data.error);
  });
  ready.catch(() => {}); // whoever waits for it is told
  return { ready, ask };
}
