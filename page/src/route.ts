// What is shown, as it is kept in the address: #user=Ada&item=gouda&item=cola&chosen=cola&after=40&with=1f2e

import type { StoryKind } from "./types";

export interface Route {
  user: string;
  items: string[];
  chosen: string;
  story: StoryKind | "";
  // The memory after so many events; null for all of them.
  after: number | null;
  // The first characters of the id of an artifact to compare with.
  other: string;
}

const STORIES: readonly string[] = ["long_term", "short_term", "several", "returned"];
export const MOST_ITEMS = 50;

export function read(hash: string, search = ""): Route {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  if (!given.has("user") && search) {
    // Links of earlier releases.
    const old = new URLSearchParams(search);
    for (const item of (old.get("items") ?? "").split(",")) if (item.trim()) given.append("item", item.trim());
    given.set("user", old.get("user") ?? "");
  }
  const story = given.get("story") ?? "";
  const after = given.get("after") ?? "";
  const other = given.get("with") ?? "";
  return {
    user: (given.get("user") ?? "").slice(0, 256),
    items: [...new Set(given.getAll("item").filter((item) => item && item.length <= 256))].slice(0, MOST_ITEMS),
    chosen: given.get("chosen") ?? "",
    story: STORIES.includes(story) ? (story as StoryKind) : "",
    after: /^\d{1,9}$/.test(after) ? Number(after) : null,
    other: /^[0-9a-f]{1,64}$/.test(other) ? other : "",
  };
}

export function write(route: Route): string {
  const parts = new URLSearchParams();
  if (route.user) parts.set("user", route.user);
  for (const item of route.items) parts.append("item", item);
  if (route.chosen) parts.set("chosen", route.chosen);
  if (route.story) parts.set("story", route.story);
  if (route.after !== null) parts.set("after", String(route.after));
  if (route.other) parts.set("with", route.other);
  const text = parts.toString();
  return text ? `#${text}` : "#";
}
