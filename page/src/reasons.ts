// Which past events matter most for a candidate's score.

import type { Candidate, History } from "./types";
import { cellWords, signed } from "./words";

export interface Reason {
  label: string;
  // A sentence around the candidate's name, which is shown as text of its own direction.
  before: string;
  item: string;
  after: string;
  // Whether the event at a place of the history is one of them.
  holds: (at: number) => boolean;
}

// By counters: the events with the value whose count adds most to the score, or takes most off it. By attention: the
// events of the largest weights, or those behind the slot of the largest weight. Else: the events of the same item.
export function reasonOf(history: History, candidate: Candidate | null): Reason | null {
  if (!candidate) return null;
  return counted(history, candidate) ?? attended(history, candidate) ?? sameItem(history, candidate.item);
}

const MATTER = "The past events that matter most for ";

function counted(history: History, candidate: Candidate): Reason | null {
  const known = (candidate.counted?.values ?? []).filter(({ value, times }) => value !== null && times > 0);
  const first = known.reduce<(typeof known)[number] | null>((best, one) => (best && Math.abs(best.effect) >= Math.abs(one.effect) ? best : one), null);
  if (!first) return null;
  const texts = first.field === "item" ? history.items : history.fields[first.field];
  const { low, high } = first;
  // Numbers close to each other are counted together.
  const same = low === null ? (text: string) => text === first.value : (text: string) => Number(text) >= low && Number(text) < (high ?? Infinity);
  const wanted = new Set(texts?.values.flatMap((text, place) => (same(text) ? [place] : [])));
  if (!texts || !wanted.size) return null;
  const label = first.field === "item" ? (first.value ?? "") : `${first.field} ${cellWords(first)}`;
  return {
    label, holds: (at) => wanted.has(texts.index[at] ?? -1),
    before: MATTER, item: candidate.item, after: `: those of its ${first.field}, whose count changes the score by ${signed(first.effect)}.`,
  };
}

function attended(history: History, candidate: Candidate): Reason | null {
  const slot = candidate.slots.filter(({ related }) => related.length).sort((a, b) => Math.abs(b.attention) - Math.abs(a.attention))[0];
  const events = candidate.events.length ? candidate.events : (slot?.related ?? []);
  if (!events.length) return null;
  const places = new Set(events.map(({ position }) => position));
  const how = candidate.events.length ? "the largest weights" : `something in common with it, behind slot ${(slot?.slot ?? 0) + 1}, which has the largest weight`;
  return {
    label: "largest weights", holds: (at) => places.has(history.position[at] ?? 0),
    before: MATTER, item: candidate.item, after: `: those with ${how}.`,
  };
}

function sameItem(history: History, item: string): Reason {
  const wanted = history.items.values.indexOf(item);
  return { label: item, holds: (at) => wanted >= 0 && history.items.index[at] === wanted, before: "Past events of ", item, after: "." };
}
