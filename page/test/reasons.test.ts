import { expect, test } from "vitest";
import { partsOf, reason } from "../src/reasons";
import type { Candidate, CountedValue } from "../src/types";

const DAY = 86_400;
const plain: Candidate = { item: "rye bread", title: null, fields: {}, score: 1, slots: [], events: [], counted: null };
const value = (field: string, text: string, change: Partial<CountedValue>): CountedValue => ({
  field, value: text, state: "counted", times: 28, events_ago: 9, precision: "at_least", effect: 0, low: null, high: null, logged: 58,
  seconds_ago: 10 * DAY, ...change,
});
const counting = (...values: CountedValue[]): Candidate => ({
  ...plain, counted: { values, affinities: [{ field: "item", effect: 0.1 }], slots_effect: -0.3 },
});

test("the reason says how often, how long ago, and what else speaks for it", () => {
  const candidate = counting(value("item", "rye bread", { effect: 2 }), value("category", "bakery", { logged: 68, effect: 0.5 }));
  expect(reason(candidate)).toBe("58 times, last 10 days ago; goes with other bakery");
});

test("a value that is a number names its field", () => {
  const maker = value("manufacturer", "69", { logged: 68, effect: 0.5 });
  expect(reason(counting(value("item", "1082185", { effect: 2 }), maker))).toBe("58 times, last 10 days ago; goes with others of manufacturer 69");
});

test("what is not known exactly is said so", () => {
  const unknown = { logged: null, seconds_ago: null };
  const category = value("category", "bakery", { ...unknown, times: 28, effect: 0.01 });
  const candidate = counting(value("item", "rye bread", { ...unknown, times: 8, precision: "about" }), category);
  expect(reason(candidate)).toBe("about 8 times, last about 9 events ago; chosen by users with similar histories");
  expect(reason(counting(value("item", "rye bread", { state: "new", times: 0, events_ago: null, precision: "exact", ...unknown })))).toMatch(/^never or long ago; /);
  expect(reason(counting(value("item", "rye bread", { state: "new", times: 0, events_ago: null, logged: 0, seconds_ago: null })))).toMatch(/^never; /);
});

test("an item of the last event is said in words that read on", () => {
  const last = { events_ago: 1, logged: null, seconds_ago: null };
  const words = [{}, { times: 1, precision: "exact" as const }].map((change) => partsOf(counting(value("item", "tea", { effect: 2, ...last, ...change })))[0]?.words);
  expect(words).toEqual(["this item: 28 or more times, including the last event", "this item: once, in the last event"]);
});

test("the parts of a score come with the strongest first, of either sign", () => {
  const parts = partsOf(counting(value("item", "rye bread", { effect: 2 }), value("price", "4.05", { low: 3.94, high: 4.69, effect: -0.2 })));
  expect(parts.map(({ words }) => words)).toEqual([
    "this item: 58 times, last 10 days ago", "the latest events and their order", "price 3.94–4.69: 58 times, last 10 days ago", "users with similar histories, by item",
  ]);
});

test("a model that does not count names the events it attends to", () => {
  expect(reason(plain)).toBe("");
  expect(reason({ ...plain, events: [{ item: "gouda", seconds_ago: 2 * DAY, attention: 0.5 }] })).toBe("like gouda, 2 days ago");
  const slot = (attention: number, item: string) => ({ slot: 0, attention, related: [{ item, seconds_ago: null }] });
  expect(reason({ ...plain, slots: [slot(0.2, "tea"), slot(0.7, "gouda")] })).toBe("like gouda");
});
