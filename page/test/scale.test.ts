import { expect, test } from "vitest";
import { gaps, lowerBound, moved, nearest, numberTicks, timeTicks, whole, zoomed } from "../src/scale";

const DAY = 86_400;

test("the nearest event is found", () => {
  const x = [0, 10, 10, 30];
  expect([-5, 4, 6, 21, 99].map((at) => nearest(x, at))).toEqual([0, 0, 1, 3, 3]);
  expect(nearest([], 1)).toBe(-1);
  expect(lowerBound(x, 10)).toBe(1);
});

test("a pause that is long for this history is a gap", () => {
  const daily = Array.from({ length: 100 }, (_, at) => at * DAY);
  expect(gaps(daily)).toEqual([]);
  expect(gaps([...daily, 400 * DAY])).toEqual([{ from: 99 * DAY, to: 400 * DAY }]);
});

test("zooming keeps the place under the pointer, and nothing moves beyond the ends", () => {
  const all = { from: 0, to: 100 };
  expect(zoomed(all, 0.5, 20, all, 1)).toEqual({ from: 10, to: 60 });
  expect(zoomed({ from: 10, to: 60 }, 10, 20, all, 1)).toEqual(all);
  expect(zoomed({ from: 0, to: 2 }, 0.1, 0, all, 1)).toEqual({ from: 0, to: 1 });
  expect(moved({ from: 10, to: 60 }, 999, all)).toEqual({ from: 50, to: 100 });
});

test("ticks lie on whole days, months and years", () => {
  const start = Date.UTC(2025, 0, 15) / 1000;
  expect(timeTicks({ from: start, to: start + 3 * 365 * DAY }, 4).map(({ label }) => label)).toEqual(["2026", "2027", "2028"]);
  expect(timeTicks({ from: start, to: start + 100 * DAY }, 4).map(({ label }) => label)).toEqual(["Feb 2025", "Mar 2025", "Apr 2025"]);
  expect(timeTicks({ from: start, to: start + 3 * DAY }, 3).every(({ at }) => at % DAY === 0)).toBe(true);
  expect(numberTicks({ from: 0, to: 1000 }, 4).map(({ at }) => at)).toEqual([0, 500, 1000]);
});

test("one event has a window, too", () => {
  const { from, to } = whole([5]);
  expect(from).toBeLessThan(5);
  expect(to).toBeGreaterThan(5);
});
