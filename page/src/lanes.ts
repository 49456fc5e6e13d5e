// The rows of a drawing: the most frequent values of one column, and a last row for all others.

import type { History, Texts } from "./types";

export interface Lanes {
  labels: string[];
  counts: number[];
  // Per event its row.
  row: Uint8Array;
}

export const MOST_LANES = 9;

export function columns(history: History, numberFields: readonly string[]): string[] {
  const fields = Object.keys(history.fields).filter((name) => !numberFields.includes(name));
  return [...fields, ...(history.types.values.length ? ["event type"] : []), "item"];
}

export function columnOf(history: History, name: string): Texts {
  if (name === "event type" && history.types.values.length) return history.types;
  return history.fields[name] ?? history.items;
}

export function lanes(texts: Texts, most = MOST_LANES): Lanes {
  const named = Math.min(texts.values.length, most);
  const row = new Uint8Array(texts.index.length);
  const counts = new Array<number>(named + 1).fill(0);
  texts.index.forEach((place, at) => {
    const own = place >= 0 && place < named ? place : named;
    row[at] = own;
    counts[own] = (counts[own] ?? 0) + 1;
  });
  const labels = [...texts.values.slice(0, named), "others"];
  // No row for others where there are none.
  if (!counts[named]) {
    labels.pop();
    counts.pop();
  }
  return { labels, counts, row };
}

// How many events of each row fall on each column of pixels.
export function binned(
  x: ArrayLike<number>, row: ArrayLike<number>, first: number, last: number, from: number, perPixel: number, width: number, rows: number,
): Uint32Array {
  const found = new Uint32Array(width * rows);
  for (let at = first; at < last; at++) {
    const pixel = Math.floor(((x[at] ?? 0) - from) / perPixel);
    if (pixel < 0 || pixel >= width) continue;
    const place = (row[at] ?? 0) * width + pixel;
    found[place] = (found[place] ?? 0) + 1;
  }
  return found;
}
