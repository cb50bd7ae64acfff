// Run by tests/page/test_page.py in a folder with the page's files and cases.json, which holds what Python says.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { asCell, asCsv } from "./csv.js";
import { asSeen, dropAlpha, heatColours, scaled, squareRegion, withAlpha } from "./picture.js";

const cases = JSON.parse(readFileSync("cases.json", "utf8"));

test("a picture is seen as mixlab's own resize sees it", () => {
  for (const { picture, size, mode, fill, seen } of cases.resized) {
    const found = asSeen(picture, { size, mode, fill });
    assert.equal(found.length, seen.length);
    const furthest = Math.max(...seen.map((value, place) => Math.abs(value - found[place])));
    assert.ok(furthest < 0.01, `${mode} ${picture.height} x ${picture.width} to ${size}: ${furthest} of 255`);
  }
});

test("the square region is mixlab's", () => {
  for (const { height, width, mode, region } of cases.regions) {
    const { top, left, height: rows, width: columns } = squareRegion(height, width, mode);
    assert.deepEqual([top, left, rows, columns], region);
  }
});

test("grey is what Pillow makes of every colour of the case", () => {
  assert.deepEqual(Array.from(dropAlpha(cases.grey.rgba, 1)), cases.grey.luma);
  assert.deepEqual(Array.from(dropAlpha(cases.grey.rgba, 3)), cases.grey.rgba.filter((_, place) => place % 4 !== 3));
});

test("cells are mixlab's", () => {
  for (const { text, cell } of cases.cells) assert.equal(asCell(text), cell);
});

test("CSV has a row of equal length for each answer, an error in its last column", () => {
  assert.equal(asCsv([]), "file,unknown,error\r\n");
  assert.equal(asCsv(cases.csv.answers), cases.csv.text);
});

test("alpha is put back for one channel and three", () => {
  assert.deepEqual([...withAlpha([1, 2], 1)], [1, 1, 1, 255, 2, 2, 2, 255]);
  assert.deepEqual([...withAlpha([1, 2, 3], 3)], [1, 2, 3, 255]);
});

test("heat is scaled by its own maximum, and what speaks against the class is 0", () => {
  assert.deepEqual(scaled([-1, 2, 4]), [0, 0.5, 1]);
  assert.deepEqual(scaled([-1, -2]), [0, 0]);
  const [none, , most] = [0, 1, 2].map((place) => [...heatColours([0, 0.5, 1])].slice(4 * place, 4 * place + 4));
  assert.equal(none[3], 0);
  assert.ok(most[3] > 128 && most[3] < 255); // the picture shows through
});
