// Numbers and times as people read them.

import type { Precision } from "./types";

const SIZES: [string, number][] = [
  ["year", 31_557_600],
  ["month", 2_629_800],
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];

export function span(seconds: number): string {
  for (const [name, size] of SIZES) {
    const number = Math.floor(seconds / size);
    if (number >= 1) return plural(number, name);
  }
  return plural(Math.max(0, Math.floor(seconds)), "second");
}

export function ago(seconds: number): string {
  return seconds < 0 ? `in ${span(-seconds)}` : `${span(seconds)} ago`;
}

export function plural(number: number, name: string): string {
  return `${number.toLocaleString("en")} ${name}${number === 1 ? "" : "s"}`;
}

// The memory knows an age of one or two events exactly, and older ones in steps.
export function eventsAgo(number: number): string {
  if (number === 1) return "the last event";
  return `${number > 2 ? "about " : ""}${number.toLocaleString("en")} events ago`;
}

// Small counts are exact, larger ones right on average, and the largest stands for all above it.
export function counted(times: number, precision: Precision): string {
  if (precision === "at_least") return `${times} or more`;
  return precision === "about" ? `about ${times}` : times.toLocaleString("en");
}

// "once", "58 times", "about 10 times", "28 or more times"; the true number where all events are known.
export function times({ times: kept, precision, logged }: { times: number; precision: Precision; logged?: number | null }): string {
  const known = logged ?? null;
  const words = known === null ? counted(kept, precision) : counted(known, "exact");
  return words === "1" ? "once" : `${words} times`;
}

export function signed(value: number, digits = 3): string {
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return `${value < 0 ? "−" : "+"}${text}`;
}

// A number is known as the group of similar numbers that training put it into: numbers close to each other are counted together.
export function cellWords({ value, low, high }: { value: string | null; low: number | null; high: number | null }): string {
  if (low === null) return value ?? "several rare values";
  const [first, last] = [low, high].map((end) => end?.toLocaleString("en", { maximumSignificantDigits: 3 }));
  return last === undefined ? `${first} or more` : `${first}–${last}`;
}

export function percent(share: number): string {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)} %`;
}
