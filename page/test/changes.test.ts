import { expect, test } from "vitest";
import { asListed, byScore, cellChanges, scoreChanges } from "../src/changes";
import type { Explanation, MemoryCells } from "../src/types";

const scored = (scores: Record<string, number>) =>
  ({ candidates: Object.entries(scores).map(([item, score]) => ({ item, score })) }) as unknown as Explanation;
const counted = (counts: Record<string, number>): MemoryCells => ({
  user: "u", known_user: true, count: 1,
  fields: [{ field: "item", size: 9, used: 1, cells: Object.entries(counts).map(([value, times]) => ({ value, times, events_ago: 1, precision: "exact" as const, low: null, high: null })) }],
});

test("scores and ranks before and after", () => {
  const changes = scoreChanges(scored({ tea: 1, milk: 2 }), scored({ tea: 3, milk: 2, salt: 0 }), byScore);
  expect(changes.map(({ item, rankBefore, rankAfter }) => [item, rankBefore, rankAfter])).toEqual([["tea", 2, 1], ["milk", 1, 2]]);
});

test("counters that rose, came and went", () => {
  const changes = cellChanges(counted({ tea: 1, milk: 2, old: 1 }), counted({ tea: 2, milk: 2, salt: 1 }));
  expect(changes.map(({ value, before, after }) => [value, before, after])).toEqual([["tea", 1, 2], ["salt", 0, 1], ["old", 1, 0]]);
});

test("a user without a memory has no counters", () => {
  expect(cellChanges(null, counted({ tea: 1 }))).toHaveLength(1);
});

test("in a list over the catalogue popularity and the user's own events move ranks, and not scores", () => {
  const candidates = [{ item: "rare", score: 2, popularity: 1, from_counts: 0 }, { item: "popular", score: 1, popularity: 6 }, { item: "hers", score: 0, popularity: 1, from_counts: 9 }];
  const explanation = { candidates } as unknown as Explanation;
  const changes = (order: typeof byScore) => scoreChanges(explanation, explanation, order).map(({ item, after, rankAfter }) => [item, after, rankAfter]);
  expect(changes(byScore)).toEqual([["rare", 2, 1], ["popular", 1, 2], ["hers", 0, 3]]);
  expect(changes(asListed)).toEqual([["hers", 0, 1], ["popular", 1, 2], ["rare", 2, 3]]);
});
