// A list before and after an event that is supposed.

import type { RankedItem } from "./types";
import { percent } from "./words";

export const SHOWN = 10;

export interface Move {
  now: RankedItem;
  before: RankedItem | null;
}

export function moves(before: RankedItem[], now: RankedItem[]): Move[] {
  const earlier = new Map(before.map((one) => [one.item, one]));
  return now.map((one) => ({ now: one, before: earlier.get(one.item) ?? null }));
}

// The one number of an item: its probability, else its rank.
export function number(one: RankedItem): string {
  return one.probability === null ? `no. ${one.rank}` : percent(one.probability);
}

// How far an item has risen: by probability where there is one, else by rank.
export function rise({ now, before }: Move): number {
  if (!before) return 0;
  return now.probability !== null && before.probability !== null ? now.probability - before.probability : before.rank - now.rank;
}

// What changed most, the supposed item first.
export function largest(all: Move[], after: string, most: number): Move[] {
  const changed = all.filter((one) => one.before && (one.now.item === after || number(one.now) !== number(one.before)));
  const weight = (one: Move) => (one.now.item === after ? Infinity : Math.abs(rise(one)));
  return changed.sort((a, b) => weight(b) - weight(a)).slice(0, most);
}

// What orders a list: a bar is as long as an item is likely next to the first one.
export function value({ score, popularity, from_counts }: RankedItem): number {
  return score + (popularity ?? 0) + (from_counts ?? 0);
}
