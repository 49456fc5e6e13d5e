// What the service answers; only the parts that the page shows. The fields are those of /openapi.json.

export interface Problem {
  found: string;
  expected?: string;
  fix?: string;
}

export interface Model {
  artifact: string;
  title: string;
  item_fields: string[];
  number_fields: string[];
  event_types: string[];
  time_unit: string;
  items: number;
  report: boolean;
}

export interface FoundUsers {
  users: { user: string; count: number; last_time: number | null }[];
}

export interface Memory {
  bytes: number;
}

// A column with each text once; -1 where there is none.
export interface Texts {
  values: string[];
  index: number[];
}

export interface History {
  user: string;
  known_user: boolean;
  count: number;
  position: number[];
  time: number[];
  items: Texts;
  types: Texts;
  fields: Record<string, Texts>;
  note: string;
}

export type Precision = "exact" | "about" | "at_least";

interface Count {
  value: string | null;
  times: number;
  events_ago: number | null;
  precision: Precision;
  // Of a number: the least value that is counted here, and the least above it that is not.
  low: number | null;
  high: number | null;
}

export interface MemoryCells {
  fields: { field: string; size: number; used: number; cells: Count[] }[];
}

export interface Item {
  item: string;
  title: string | null;
  fields: Record<string, string | null>;
}

export interface RankedItem extends Item {
  score: number;
  popularity: number | null;
  from_counts: number | null;
  probability: number | null;
  rank: number;
}

export interface TopItems {
  known_user: boolean;
  items: RankedItem[];
  order: string;
  scored: number;
  catalogue: number;
}

export interface CountedValue extends Count {
  field: string;
  state: "counted" | "new" | "unknown";
  effect: number;
  // The true number, where all events are known.
  logged: number | null;
  seconds_ago: number | null;
}

export interface PastEvent {
  item: string;
  seconds_ago: number | null;
}

export interface Candidate extends Item {
  score: number;
  slots: { slot: number; attention: number; related: PastEvent[] }[];
  events: (PastEvent & { attention: number })[];
  counted: {
    values: CountedValue[];
    affinities: { field: string; effect: number }[];
    slots_effect: number | null;
  } | null;
}

export interface Explanation {
  slots: { slot: number; written: string }[];
  candidates: Candidate[];
  attention_note: string;
  events_note: string;
}
