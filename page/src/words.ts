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

export function ago(seconds: number | null): string {
  if (seconds === null) return "";
  return seconds < 0 ? `in ${span(-seconds)}` : `${span(seconds)} ago`;
}

export function plural(number: number, name: string): string {
  return `${number.toLocaleString("en")} ${name}${number === 1 ? "" : "s"}`;
}

export function eventsAgo(number: number | null): string {
  if (number === null) return "–";
  return number === 1 ? "the last event" : `${number.toLocaleString("en")} events ago`;
}

// Small counts are exact, larger ones right on average, and the largest stands for all above it.
export function counted(times: number, precision: Precision): string {
  if (precision === "at_least") return `${times} or more`;
  return precision === "about" ? `about ${times}` : `${times}`;
}

export function signed(value: number, digits = 3): string {
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return `${value < 0 ? "−" : "+"}${text}`;
}

// A number is known as the group of similar numbers that training put it into.
export function shown(value: string | null): string {
  if (value === null) return "–";
  return /^\d+\.\d{5,}$/.test(value) ? `about ${Number(value).toPrecision(3)}` : value;
}

// Numbers close to each other are counted together.
export function range(low: number, high: number | null): string {
  const [first, last] = [low, high].map((end) => end?.toLocaleString("en", { maximumSignificantDigits: 3 }));
  return last === undefined ? `${first} or more` : `${first}–${last}`;
}

export interface Counted {
  value: string | null;
  low: number | null;
  high: number | null;
}

// What a cell counts: a value, or numbers from one to another.
export function cellWords({ value, low, high }: Counted): string {
  return low === null ? shown(value) : range(low, high);
}

// A candidate's own value, as `lifelong score --explain` prints it.
export function ownWords(one: Counted): string {
  return one.low === null ? shown(one.value) : `${shown(one.value)} (counted as ${cellWords(one)})`;
}

export function date(time: number, unit: string): string {
  if (unit !== "seconds") return `at ${time}`;
  return new Date(time * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short", timeZone: "UTC" });
}

export function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

export function fieldWords(fields: Record<string, string | null>): string {
  return Object.entries(fields)
    .filter(([, value]) => value !== null)
    .map(([, value]) => shown(value))
    .join(" · ");
}
