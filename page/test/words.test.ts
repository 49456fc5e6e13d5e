import { expect, test } from "vitest";
import { total } from "../src/engineers";
import { ago, cellWords, counted, eventsAgo, percent, signed, times } from "../src/words";

test("times, numbers and effects in words", () => {
  expect([ago(59), ago(3_600), ago(-1)]).toEqual(["59 seconds ago", "1 hour ago", "in 1 second"]);
  expect([counted(7, "exact"), counted(20, "about"), counted(28, "at_least")]).toEqual(["7", "about 20", "28 or more"]);
  expect([1, 2, 3].map(eventsAgo)).toEqual(["the last event", "2 events ago", "about 3 events ago"]);
  expect([signed(1.5), signed(-0.25), signed(-0.0001)]).toEqual(["+1.500", "−0.250", "0.000"]);
  expect([percent(0.71), percent(0.0731), percent(0.0001), percent(0)]).toEqual(["71 %", "7.3 %", "< 0.1 %", "0.0 %"]);
});

test("a coarse count is said as such, and the true one where it is known", () => {
  expect(times({ times: 28, precision: "at_least" })).toBe("28 or more times");
  expect(times({ times: 8, precision: "about", logged: null })).toBe("about 8 times");
  expect(times({ times: 28, precision: "at_least", logged: 82 })).toBe("82 times");
  expect(times({ times: 1, precision: "exact" })).toBe("once");
});

test("a number is said with the numbers that are counted with it, as lifelong explain does", () => {
  expect(cellWords({ value: "1.25", low: 1.155, high: 1.385 })).toBe("1.16–1.39");
  expect(cellWords({ value: "2e10", low: 1e10, high: null })).toBe("10,000,000,000 or more");
  expect(cellWords({ value: "dairy", low: null, high: null })).toBe("dairy");
});

test("figures of the service are summed over their labels", () => {
  const text = '# HELP x\nlifelong_events_total{outcome="applied"} 12.0\nlifelong_events_total{outcome="late"} 1.0\nlifelong_users 3\nlifelong_users_other 9';
  expect([total(text, "lifelong_events_total"), total(text, "lifelong_users"), total(text, "lifelong")]).toEqual([13, 3, null]);
});
