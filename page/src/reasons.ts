// Why an item is where it is in the list, in words: from what the memory counts, and what each part does to the score.

import type { Candidate, CountedValue } from "./types";
import { ago, cellWords, eventsAgo, times } from "./words";

export interface Part {
  words: string;
  effect: number;
}

// Effects on the score below this are not worth a word.
const WORTH = 0.05;

function last(value: CountedValue): string {
  if (value.seconds_ago !== null) return `, last ${ago(value.seconds_ago)}`;
  if (value.events_ago === 1) return value.times > 1 ? ", including the last event" : ", in the last event";
  return value.events_ago === null ? "" : `, last ${eventsAgo(value.events_ago)}`;
}

function never(value: CountedValue): string {
  return value.logged === 0 ? "never" : "never or long ago";
}

function met(value: CountedValue): string {
  const known = value.logged ?? value.times;
  return known ? `${times(value)}${last(value)}` : never(value);
}

// What each part of the memory does to a candidate's score, the strongest first.
export function partsOf(candidate: Candidate): Part[] {
  const { counted } = candidate;
  if (!counted) return [];
  const parts = counted.values.filter(({ state }) => state !== "unknown").map((value) => ({
    words: value.field === "item" ? `this item: ${met(value)}` : `${value.field} ${cellWords(value)}: ${met(value)}`, effect: value.effect,
  }));
  for (const { field, effect } of counted.affinities)
    parts.push({ words: `users with similar histories, by ${field}`, effect });
  if (counted.slots_effect !== null) parts.push({ words: "the latest events and their order", effect: counted.slots_effect });
  return parts.sort((a, b) => Math.abs(b.effect) - Math.abs(a.effect));
}

// What else speaks for a candidate most, next to how often it was met itself.
function besides({ counted }: Candidate): string {
  const own = counted?.values.find(({ field }) => field === "item");
  const found: Part[] = [];
  for (const value of counted?.values ?? []) {
    const others = (value.logged ?? value.times) - (own?.logged ?? own?.times ?? 0);
    if (value.field === "item" || others < 1) continue;
    const kind = cellWords(value);
    // A number alone, such as that of a maker, does not say of what.
    const alike = /\p{L}/u.test(kind) ? `goes with other ${kind}` : `goes with others of ${value.field} ${kind}`;
    found.push({ words: value.low === null ? alike : `usual ${value.field}`, effect: value.effect });
  }
  found.push({ words: "chosen by users with similar histories", effect: Math.max(0, ...(counted?.affinities ?? []).map(({ effect }) => effect)) });
  found.push({ words: "fits the latest events", effect: counted?.slots_effect ?? 0 });
  found.sort((a, b) => b.effect - a.effect);
  return found[0] && found[0].effect > WORTH ? found[0].words : "";
}

// One line below an item's name.
export function reason(candidate: Candidate): string {
  const own = candidate.counted?.values.find(({ field }) => field === "item");
  if (own) return [own.state === "unknown" ? "new to the model" : met(own), besides(candidate)].filter(Boolean).join("; ");
  const slot = [...candidate.slots].sort((a, b) => b.attention - a.attention)[0];
  const like = slot?.related[0] ?? candidate.events[0];
  return like ? `like ${like.item || "an unknown item"}${like.seconds_ago === null ? "" : `, ${ago(like.seconds_ago)}`}` : "";
}
