import { expect, test } from "vitest";
import { binned, lanes } from "../src/lanes";

test("rows are the most frequent values, and one for all others", () => {
  const found = lanes({ values: ["tea", "milk", "salt"], index: [0, 0, 1, 2, -1] }, 2);
  expect(found.labels).toEqual(["tea", "milk", "others"]);
  expect(found.counts).toEqual([2, 1, 2]);
  expect([...found.row]).toEqual([0, 0, 1, 2, 2]);
});

test("there is no row for others where there are none", () => {
  expect(lanes({ values: ["tea"], index: [0] }).labels).toEqual(["tea"]);
});

test("every event in the window is counted on one pixel of its row", () => {
  const size = 100_000;
  const x = Float64Array.from({ length: size }, (_, at) => at);
  const row = Uint8Array.from({ length: size }, (_, at) => at % 3);
  const counts = binned(x, row, 0, size, 0, size / 800, 800, 3);
  expect(counts.reduce((sum, count) => sum + count, 0)).toBe(size);
});
