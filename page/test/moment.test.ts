import { expect, test } from "vitest";
import { momentOf, momentWords } from "../src/moment";
import type { History, Model } from "../src/types";

const texts = { values: [], index: [] };
const history: History = {
  user: "u", known_user: true, count: 4, position: [2, 3, 4], time: [100, 200, 300], items: texts, types: texts, fields: {}, note: "",
};
const model = { time_unit: "seconds" } as Model;

test("a moment has the time of its last event, where that is known", () => {
  expect(momentOf(3, history)).toEqual({ after_events: 3, time: 200 });
  expect(momentOf(1, history)).toEqual({ after_events: 1 });
  expect(momentOf(0, { ...history, position: [1, 2], count: 4 })).toEqual({ after_events: 0, time: 100 });
});

test("after all events it is now", () => {
  expect([momentOf(4, history), momentOf(9, history), momentOf(null, history), momentOf(1, null)]).toEqual([null, null, null, null]);
});

test("a moment in words", () => {
  expect(momentWords({ after_events: 0 }, history, model)).toBe("before the first event");
  expect(momentWords({ after_events: 3, time: 200 }, history, model)).toMatch(/^after event 3 of 4, 1 Jan 1970/);
});
