// Answers as CSV (RFC 4180), with the columns and the spelling of `mixlab predict --csv`.

/** Return the text of the file; an answer has `error` or `top`, and each row has room for the longest `top`. */
export function asCsv(answers) {
  const places = Math.max(0, ...answers.map(({ top }) => top?.length ?? 0));
  const names = Array.from({ length: places }, (_, place) => [`class_${place + 1}`, `probability_${place + 1}`]);
  const rows = answers.map((answer) => row(answer, places));
  return [["file", ...names.flat(), "unknown", "error"], ...rows].map((cells) => cells.map(quoted).join(",") + "\r\n").join("");
}

/** Return text for a cell: what a spreadsheet would compute gets an apostrophe in front, as in mixlab's own tables. */
export function asCell(text) {
  return /^'*[=+\-@\t\r]/.test(text) ? `'${text}` : text;
}

/** Return text with its control characters, and those that turn the direction of what follows, spelt out. */
export function oneLine(text) {
  return text.replace(/[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, (found) => {
    const code = found.charCodeAt(0);
    const name = { 9: "t", 10: "n", 13: "r" }[code];
    return "\\" + (name ?? (code < 256 ? "x" + code.toString(16).padStart(2, "0") : "u" + code.toString(16)));
  });
}

function row(answer, places) {
  const top = answer.top ?? [];
  const cells = top.flatMap((found) => [found.class, found.probability.toFixed(6)]);
  const room = Array(2 * (places - top.length)).fill("");
  const unknown = answer.error === undefined ? String(Number(answer.unknown)) : "";
  return [answer.file, ...cells, ...room, unknown, answer.error ?? ""];
}

function quoted(text) {
  const cell = asCell(oneLine(text));
  return /[",]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
}
