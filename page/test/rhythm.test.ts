import { expect, test } from "vitest";
import { column, extremes, rhythm, rows } from "../src/rhythm";
import type { History, Model } from "../src/types";

const DAY = 86_400;
const SATURDAY = 2 * DAY + 36_000;
const weekly = Array.from({ length: 12 }, (_, week) => SATURDAY + 7 * DAY * week);

test("a rhythm is said by its usual gap, its weekday and its pause", () => {
  expect(rhythm(weekly)).toBe("usually every 7 days, on Saturdays");
  expect(rhythm([...weekly, ...weekly.map((time) => time + 300 * DAY)])).toBe("usually every 7 days, with a pause of 7 months");
  expect(rhythm(weekly.slice(0, 3))).toBe("");
});

const history: History = {
  user: "u", known_user: true, count: 4, position: [1, 2, 3, 4], time: [10, 20, 5, 30], note: "",
  items: { values: ["tea", "milk"], index: [0, 1, 0, -1] }, types: { values: [], index: [] },
  fields: { price: { values: ["1"], index: [0, 0, 0, 0] }, category: { values: ["a", "b", "c", "d", "e", "f", "g"], index: [0, 0, 6, -1] } },
};
const model = { item_fields: ["price", "category"], number_fields: ["price"] } as Model;

test("rows are the most frequent values and all others, late events included", () => {
  const { name, texts } = column(history, model);
  expect(name).toBe("category");
  const found = rows(history, texts, true);
  expect(found.map(({ label, count }) => [label, count])).toEqual([["a", 2], ["others", 2]]);
  expect(found[1]?.bins[0]).toBe(1);
  expect(extremes(history.time)).toEqual([5, 30]);
  expect(column({ ...history, fields: {} }, model).name).toBe("item");
});
