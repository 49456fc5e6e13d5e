// Two states of one user compared: before and after an event.

import type { Candidate, Explanation, MemoryCells } from "./types";

export interface Snapshot {
  explanation: Explanation;
  cells: MemoryCells | null;
}

export interface ScoreChange {
  item: string;
  before: number;
  after: number;
  rankBefore: number;
  rankAfter: number;
}

export interface CellChange {
  field: string;
  value: string;
  low: number | null;
  high: number | null;
  before: number;
  after: number;
}

// What candidates are ordered by. A list over the catalogue adds how popular an item is, and what the user's own events
// with it say, where the service gives them: there the score says how much more likely an item is than its popularity.
export type Order = (candidate: Candidate) => number;
export const byScore: Order = ({ score }) => score;
export const asListed: Order = ({ score, popularity, from_counts }) => score + (popularity ?? 0) + (from_counts ?? 0);

export function ordered(explanation: Explanation, order: Order): Candidate[] {
  return [...explanation.candidates].sort((a, b) => order(b) - order(a));
}

export function ranks(explanation: Explanation, order: Order): Map<string, number> {
  return new Map(ordered(explanation, order).map((candidate, place) => [candidate.item, place + 1]));
}

export function scoreChanges(before: Explanation, after: Explanation, order: Order): ScoreChange[] {
  const earlier = new Map(before.candidates.map((candidate) => [candidate.item, candidate.score]));
  const rankBefore = ranks(before, order);
  const rankAfter = ranks(after, order);
  return after.candidates
    .filter((candidate) => earlier.has(candidate.item))
    .map((candidate) => ({
      item: candidate.item,
      before: earlier.get(candidate.item) ?? 0,
      after: candidate.score,
      rankBefore: rankBefore.get(candidate.item) ?? 0,
      rankAfter: rankAfter.get(candidate.item) ?? 0,
    }))
    .sort((a, b) => a.rankAfter - b.rankAfter);
}

// Ages change at every event; only counts that changed are of interest.
export function cellChanges(before: MemoryCells | null, after: MemoryCells | null): CellChange[] {
  const counts = (cells: MemoryCells | null) => {
    const found = new Map<string, CellChange>();
    for (const { field, cells: of } of cells?.fields ?? [])
      for (const { value, times, low, high } of of)
        if (value !== null) found.set(JSON.stringify([field, value]), { field, value, low, high, before: 0, after: times });
    return found;
  };
  const earlier = counts(before);
  const later = counts(after);
  const changed: CellChange[] = [];
  for (const [name, cell] of later) {
    const then = earlier.get(name)?.after ?? 0;
    if (then !== cell.after) changed.push({ ...cell, before: then });
  }
  for (const [name, cell] of earlier) if (!later.has(name)) changed.push({ ...cell, before: cell.after, after: 0 });
  return changed;
}

export function slotChanges(before: Explanation, after: Explanation): { name: string; before: number; after: number }[] {
  return after.slots
    .map((slot, place) => ({ slot, earlier: before.slots[place] }))
    .filter(({ slot, earlier }) => earlier !== undefined && (slot.covers !== earlier.covers || slot.norm !== earlier.norm))
    .map(({ slot, earlier }) => ({ name: `slot ${slot.slot + 1}`, before: earlier?.norm ?? 0, after: slot.norm }));
}
