// What the service answers; only the parts that the page shows. The fields are those of /openapi.json.

export interface Problem {
  found: string;
  expected?: string;
  fix?: string;
}

export interface Model {
  artifact: string;
  model: string;
  title: string;
  item_fields: string[];
  number_fields: string[];
  user_fields: string[];
  event_types: string[];
  tasks: string[];
  time_unit: string;
  items: number;
  event_log: boolean;
  report: boolean;
}

export interface ListedArtifact {
  id: string;
  title: string | null;
  phase: "ready" | "building" | "behind";
  served: boolean;
}

export type StoryKind = "long_term" | "short_term" | "several" | "returned";

export interface ListedUser {
  user: string;
  count: number;
  last_time: number | null;
  recent: boolean;
  story: { kind: StoryKind; words: string } | null;
}

export interface FoundUsers {
  users: ListedUser[];
  looked_at: number;
  complete: boolean;
}

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

export interface Cell {
  value: string | null;
  times: number;
  events_ago: number;
  precision: Precision;
  // Of a number: the least value that is counted here, and the least above it that is not.
  low: number | null;
  high: number | null;
}

export interface FieldCells {
  field: string;
  size: number;
  used: number;
  cells: Cell[];
}

export interface MemoryCells {
  user: string;
  known_user: boolean;
  count: number;
  fields: FieldCells[];
}

export interface ListedItem {
  item: string;
  fields: Record<string, string | null>;
}

export interface FoundItems {
  items: ListedItem[];
  catalogue: number;
}

export interface TopItems {
  items: (ListedItem & { score: number; popularity: number | null; from_counts: number | null; rank: number })[];
  order: string;
  scored: number;
  catalogue: number;
}

export interface PastEvent {
  position: number;
  item: string;
  time: number;
  event_type: string | null;
  seconds_ago: number | null;
  fields: Record<string, string | null>;
}

export type Precision = "exact" | "about" | "at_least";

export interface CountedValue {
  field: string;
  value: string | null;
  state: "counted" | "new" | "unknown";
  times: number;
  events_ago: number | null;
  precision: Precision;
  effect: number;
  low: number | null;
  high: number | null;
}

export interface Affinity {
  field: string;
  cosine: number;
  cosine_lately: number;
  effect: number;
}

export interface Candidate {
  item: string;
  known_item: boolean;
  score: number;
  probability: number | null;
  reason: string | null;
  fields: Record<string, string | null>;
  slots: { field: string; slot: number; attention: number; related: (PastEvent & { same: string[] })[] }[];
  events: (PastEvent & { attention: number })[];
  rest: { events: number; attention: number } | null;
  counted: { values: CountedValue[]; affinities: Affinity[]; slots_effect: number | null } | null;
  popularity: number | null;
  from_counts: number | null;
}

export interface Slot {
  field: string;
  slot: number;
  period: number | null;
  rate: number | null;
  written: string;
  empty: boolean;
  norm: number;
  covers: number;
  window: [number, number] | null;
}

export interface Explanation {
  user: string;
  known_user: boolean;
  count: number;
  last_time: number | null;
  slots: Slot[];
  candidates: Candidate[];
  attention_over: "slots" | "events" | null;
  attention_note: string;
  events_note: string;
  recent: PastEvent[];
  artifact: string;
}

export interface EventsReply {
  applied: number;
  duplicates: number;
  late: number;
  refused: number;
  note: string | null;
}
