// Answers as CSV (RFC 4180), with the columns of `mixlab predict --csv` and whether the class is not known.

/** Return the text of the file; an answer has `error` or `top`, and each row has room for the longest `top`. */
export function asCsv(answers) {
  const places = Math.max(0, ...answers.map(({ top }) => top?.length ?? 0));
  const names = Array.from({ length: places }, (_, place) => [`class_${place + 1}`, `probability_${place + 1}`]);
  const rows = answers.map((answer) => row(answer, places));
  return [["file", "unknown", ...names.flat(), "error"], ...rows].map((cells) => cells.map(quoted).join(",") + "\r\n").join("");
}

/** Return text for a cell: what a spreadsheet would compute gets an apostrophe in front, as in mixlab's own tables. */
export function asCell(text) {
  return /^'*[=+\-@\t\r]/.test(text) ? `'${text}` : text;
}

function row(answer, places) {
  const top = answer.top ?? [];
  const cells = top.flatMap((found) => [found.class, found.probability.toFixed(6)]);
  const room = Array(2 * (places - top.length)).fill("");
  return [answer.file, answer.error ? "" : answer.unknown ? "yes" : "no", ...cells, ...room, answer.error ?? ""];
}

function quoted(text) {
  const cell = asCell(text);
  return /[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
}
