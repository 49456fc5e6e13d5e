// What is shown, as it is kept in the address: #user=Ada&item=gouda&item=cola&chosen=cola&second=gouda&with=1f2e

import type { View } from "./scale";
import type { StoryKind } from "./types";

export interface Route {
  user: string;
  items: string[];
  chosen: string;
  story: StoryKind | "";
  // The first characters of the id of an artifact to compare with.
  other: string;
  // A candidate that is shown next to the chosen one.
  second: string;
  // What users are looked for by.
  text: string;
  // Whether the view of the service is open.
  service: boolean;
  // What the drawing of the history shows.
  rows: string;
  byNumber: boolean;
  view: View | null;
  // The position of the event that is selected; 0 for none.
  event: number;
}

const STORIES: readonly string[] = ["long_term", "short_term", "several", "returned"];
export const MOST_ITEMS = 50;

export function read(hash: string): Route {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const story = given.get("story") ?? "";
  const other = given.get("with") ?? "";
  const event = given.get("event") ?? "";
  return {
    // As it is, however long: a part of an id is another user.
    user: given.get("user") ?? "",
    items: [...new Set(given.getAll("item").filter((item) => item && item.length <= 256))].slice(0, MOST_ITEMS),
    chosen: given.get("chosen") ?? "",
    story: STORIES.includes(story) ? (story as StoryKind) : "",
    other: /^[0-9a-f]{1,64}$/.test(other) ? other : "",
    second: given.get("second") ?? "",
    text: (given.get("find") ?? "").slice(0, 256),
    service: given.get("service") === "open",
    rows: given.get("rows") ?? "",
    byNumber: given.get("along") === "number",
    view: viewOf(given.get("view") ?? ""),
    event: /^\d{1,9}$/.test(event) ? Number(event) : 0,
  };
}

// "1700000000..1700086400"
function viewOf(text: string): View | null {
  const [from, to] = text.split("..").map(Number);
  return from !== undefined && to !== undefined && Number.isFinite(from) && Number.isFinite(to) && from < to ? { from, to } : null;
}

export function write(route: Route): string {
  const parts = new URLSearchParams();
  if (route.user) parts.set("user", route.user);
  for (const item of route.items) parts.append("item", item);
  if (route.chosen) parts.set("chosen", route.chosen);
  if (route.story) parts.set("story", route.story);
  if (route.other) parts.set("with", route.other);
  if (route.second) parts.set("second", route.second);
  if (route.text) parts.set("find", route.text);
  if (route.rows) parts.set("rows", route.rows);
  if (route.byNumber) parts.set("along", "number");
  if (route.view) parts.set("view", `${Math.round(route.view.from * 100) / 100}..${Math.round(route.view.to * 100) / 100}`);
  if (route.event) parts.set("event", String(route.event));
  if (route.service) parts.set("service", "open");
  const text = parts.toString();
  return text ? `#${text}` : "#";
}
