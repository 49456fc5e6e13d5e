import { expect, test } from "vitest";
import { difference, parse, quantileOf, total } from "../src/metrics";
import { ago, cellWords, counted, eventsAgo, ownWords, range, shown, signed } from "../src/words";

test("times, numbers and effects in words", () => {
  expect([ago(59), ago(3_600), ago(-1), ago(null)]).toEqual(["59 seconds ago", "1 hour ago", "in 1 second", ""]);
  expect([counted(8, "exact"), counted(20, "about"), counted(28, "at_least")]).toEqual(["8", "about 20", "28 or more"]);
  expect([eventsAgo(1), eventsAgo(2), eventsAgo(null)]).toEqual(["the last event", "2 events ago", "–"]);
  expect([signed(1.5), signed(-0.25), signed(-0.0001)]).toEqual(["+1.500", "−0.250", "0.000"]);
  expect([shown("7.23077343935"), shown("dairy"), shown(null)]).toEqual(["about 7.23", "dairy", "–"]);
});

test("a number is said with the numbers that are counted with it, as lifelong explain does", () => {
  expect([range(0, 0.0009), range(1130.2, 1344.1), range(1e10, null)]).toEqual(["0–0.0009", "1,130–1,340", "10,000,000,000 or more"]);
  const price = { value: "1.25", low: 1.155, high: 1.385 };
  expect([cellWords(price), ownWords(price)]).toEqual(["1.16–1.39", "1.25 (counted as 1.16–1.39)"]);
  const category = { value: "dairy", low: null, high: null };
  expect([cellWords(category), ownWords(category)]).toEqual(["dairy", "dairy"]);
});

const TEXT = `# HELP x
lifelong_events_total{outcome="applied"} 12.0
lifelong_request_seconds_bucket{le="0.01",method="POST",route="/v1/score"} 98.0
lifelong_request_seconds_bucket{le="+Inf",method="POST",route="/v1/score"} 100.0
odd{label="a \\"quoted\\" }"} 1`;

test("metrics are read", () => {
  const samples = parse(TEXT);
  expect(samples).toHaveLength(4);
  expect(total(samples, "lifelong_events_total", { outcome: "applied" })).toBe(12);
  expect([quantileOf(samples, "lifelong_request_seconds", 0.5, { route: "/v1/score" }), quantileOf(samples, "lifelong_request_seconds", 0.99, { route: "/v1/score" })]).toEqual([0.01, Infinity]);
  expect(quantileOf(samples, "lifelong_request_seconds", 0.5, { route: "/v1/other" })).toBeNull();
  expect(total(difference(samples, samples), "lifelong_events_total")).toBe(0);
});

