// A history as people see it: when, how often, and rows of what.

import type { History, Model, Texts } from "./types";
import { ago, plural, span } from "./words";

const DAY = 86_400;
const ROWS = 5;
export const BINS = 240;

export interface Row {
  label: string;
  count: number;
  // Events in each of the bins of the time that the history takes.
  bins: Uint32Array;
}

// The column that says most of a history for people: a field of words, else the event types, else the items.
export function column(history: History, model: Model): { name: string; texts: Texts } {
  const name = model.item_fields.find((field) => !model.number_fields.includes(field));
  const texts = name === undefined ? undefined : history.fields[name];
  if (name !== undefined && texts?.values.length) return { name, texts };
  return history.types.values.length > 1 ? { name: "event type", texts: history.types } : { name: "item", texts: history.items };
}

// The most frequent values, a row each, and one row for all others.
export function rows(history: History, { values, index }: Texts, timed: boolean): Row[] {
  const at = timed ? history.time : history.position;
  const first = Math.min(...extremes(at));
  const size = Math.max(1, Math.max(...extremes(at)) - first);
  const named = values.length > ROWS + 1 ? ROWS : values.length;
  const found = [...values.slice(0, named), "others"].map((label) => ({ label, count: 0, bins: new Uint32Array(BINS) }));
  at.forEach((time, place) => {
    const value = index[place] ?? -1;
    const row = found[value >= 0 && value < named ? value : named];
    const bin = Math.min(BINS - 1, Math.floor(((time - first) / size) * BINS));
    if (!row) return;
    row.count += 1;
    row.bins[bin] = (row.bins[bin] ?? 0) + 1;
  });
  return found.filter(({ count }) => count);
}

// Late events come after later ones: neither end need be at an end. Long lists are no arguments of a function.
export function extremes(values: number[]): [number, number] {
  return values.reduce<[number, number]>(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}

// "usually every 7 days, on Saturdays; a pause of 9 months"
export function rhythm(time: number[]): string {
  const days = [...new Set(time.map((one) => Math.floor(one / DAY)))].sort((a, b) => a - b);
  const gaps = days.slice(1).map((day, at) => day - (days[at] ?? day)).sort((a, b) => a - b);
  if (gaps.length < 4) return "";
  const usual = gaps[gaps.length >> 1] ?? 1;
  const words = [usual === 1 ? "usually every day" : `usually every ${plural(usual, "day")}`];
  const weekdays = days.map((day) => (day + 4) % 7);
  for (let weekday = 0; weekday < 7; weekday++)
    if (weekdays.filter((one) => one === weekday).length > 0.8 * days.length)
      words.push(`on ${["Sundays", "Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays"][weekday] ?? ""}`);
  const longest = gaps[gaps.length - 1] ?? 0;
  if (longest >= 60 && longest > 4 * usual) words.push(`with a pause of ${span(longest * DAY)}`);
  return words.join(", ");
}

export function month(time: number): string {
  return new Date(time * 1000).toLocaleDateString("en", { month: "short", year: "numeric", timeZone: "UTC" });
}

export function summary(history: History, timed: boolean, now: number): string {
  const events = plural(history.count, "event");
  if (!timed || !history.time.length) return events;
  return [`${events}, the last ${ago(now - extremes(history.time)[1])}`, rhythm(history.time)].filter(Boolean).join("; ");
}
