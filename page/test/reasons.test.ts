import { expect, test } from "vitest";
import { reasonOf } from "../src/reasons";
import type { Candidate, History } from "../src/types";

const history: History = {
  user: "u", known_user: true, count: 3, position: [1, 2, 3], time: [10, 20, 30], note: "",
  items: { values: ["tea", "milk"], index: [0, 1, 0] }, types: { values: [], index: [] },
  fields: { category: { values: ["drink"], index: [0, 0, -1] } },
};
const plain: Candidate = {
  item: "tea", known_item: true, score: 1, probability: null, reason: null, fields: {}, slots: [], events: [], rest: null, counted: null,
  popularity: null, from_counts: null,
};
const value = (field: string, text: string, times: number, effect: number) => ({
  field, value: text, state: "counted" as const, times, events_ago: 1, precision: "exact" as const, effect, low: null, high: null,
});
const places = (candidate: Candidate) => [0, 1, 2].filter((at) => reasonOf(history, candidate)?.holds(at));

test("the events of the count with the largest effect matter most, of either sign", () => {
  const counted = { values: [value("item", "tea", 2, 0.5), value("category", "drink", 2, -0.75)], affinities: [], slots_effect: null };
  expect(places({ ...plain, counted })).toEqual([0, 1]);
  expect(reasonOf(history, { ...plain, counted })?.after).toContain("its category, whose count changes the score by −0.750");
});

test("values that were never met do not count; without any, the events of the same item are marked", () => {
  const counted = { values: [{ ...value("category", "drink", 0, 3), state: "new" as const }], affinities: [], slots_effect: null };
  expect(places({ ...plain, counted })).toEqual([0, 2]);
  expect(places({ ...plain, item: "unheard of" })).toEqual([]);
});

test("by attention the events with the largest weights, or behind the slot with the largest one, matter most", () => {
  const event = { position: 2, item: "milk", time: 20, event_type: null, seconds_ago: 1, fields: {} };
  expect(places({ ...plain, events: [{ ...event, attention: 0.4 }] })).toEqual([1]);
  const slots = [
    { field: "slot", slot: 0, attention: 0.2, related: [{ ...event, same: ["item"] }] },
    { field: "slot", slot: 1, attention: 0.7, related: [{ ...event, position: 3, same: ["item"] }] },
  ];
  expect(places({ ...plain, slots })).toEqual([2]);
});

test("a number is counted together with numbers close to it, and all their events matter", () => {
  const fields = { price: { values: ["1.25", "1.3", "1.39", "none"], index: [0, 1, 2] } };
  const price = { ...value("price", "1.25", 2, 0.5), low: 1.155, high: 1.385 };
  const counted = { values: [price], affinities: [], slots_effect: null };
  const reason = reasonOf({ ...history, fields }, { ...plain, counted });
  expect([0, 1, 2].filter((at) => reason?.holds(at))).toEqual([0, 1]);
  expect(reason?.label).toBe("price 1.16–1.39");
});

test("without a candidate nothing is marked", () => { expect(reasonOf(history, null)).toBeNull(); });
