import { expect, test } from "vitest";
import { largest, moves, number, rise } from "../src/moves";
import type { RankedItem } from "../src/types";

const ranked = (item: string, rank: number, probability: number | null): RankedItem => ({
  item, title: null, fields: {}, score: 0, popularity: null, from_counts: null, rank, probability,
});

test("what moves most comes first, after the item that is supposed", () => {
  const before = [ranked("rye", 1, 0.5), ranked("tea", 2, 0.4), ranked("milk", 3, 0.3)];
  const now = [ranked("tea", 1, 0.9), ranked("rye", 2, 0.45), ranked("milk", 3, 0.3), ranked("new", 4, 0.1)];
  const found = largest(moves(before, now), "rye", 5);
  expect(found.map(({ now: { item } }) => item)).toEqual(["rye", "tea"]);
  expect(found.map((move) => Math.round(rise(move) * 100))).toEqual([-5, 50]);
});

test("without probabilities ranks are what moves", () => {
  const [move] = moves([ranked("tea", 5, null)], [ranked("tea", 2, null)]);
  expect([move && number(move.now), move && rise(move)]).toEqual(["no. 2", 3]);
});
