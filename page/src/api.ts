// Calls of the service. The key stays in this variable: it is in no address and in no storage.

import type {
  EventsReply, Explanation, FoundItems, FoundUsers, History, ListedArtifact, MemoryCells, Model, Problem, TopItems,
} from "./types";

let key = "";

export function setKey(value: string): void {
  key = value;
}

export class ServiceError extends Error {
  constructor(readonly problem: Problem, readonly status: number) {
    super(problem.found);
  }
}

async function call<T>(path: string, options: RequestInit = {}): Promise<T> {
  const headers = new Headers(options.headers);
  if (key) headers.set("X-API-Key", key);
  let response: Response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ServiceError({ found: "The service does not answer.", fix: "see whether it runs" }, 0);
  }
  const body = (await response.json().catch(() => ({}))) as unknown;
  if (!response.ok) {
    const given = (body as { error?: Problem }).error;
    throw new ServiceError(given ?? { found: `The service answered ${response.status}.` }, response.status);
  }
  return body as T;
}

function send<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  const headers = { "Content-Type": "application/json" };
  return call<T>(path, { method: "POST", headers, body: JSON.stringify(body), signal: signal ?? null });
}

function get<T>(path: string, query: Record<string, string | number>, signal?: AbortSignal): Promise<T> {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== "") parts.set(name, String(value));
  return call<T>(`${path}?${parts.toString()}`, { signal: signal ?? null });
}

const ofUser = (user: string, what: string) => `v1/users/${encodeURIComponent(user)}/${what}`;

export const model = (signal?: AbortSignal) => get<Model>("v1/model", {}, signal);
export const users = (q: string, story: string, limit: number, signal?: AbortSignal) =>
  get<FoundUsers>("v1/users", { q, story, limit }, signal);
export const history = (user: string, limit: number, signal?: AbortSignal) =>
  get<History>(ofUser(user, "history"), { limit }, signal);
export const top = (user: string, limit: number, signal?: AbortSignal) => get<TopItems>(ofUser(user, "top"), { limit }, signal);
export const items = (q: string, limit: number, signal?: AbortSignal) =>
  get<FoundItems>("v1/catalogue", { q, limit }, signal);
export const explain = (user: string, candidates: string[], artifact = "", signal?: AbortSignal) =>
  send<Explanation>("v1/explain", { user, items: candidates, ...(artifact ? { artifact } : {}) }, signal);
export const artifacts = (signal?: AbortSignal) => get<ListedArtifact[]>("v1/artifacts", {}, signal);
export const addEvent = (event: Record<string, unknown>) => send<EventsReply>("v1/events", { events: [event] });

export const cells = (user: string, artifact = "", signal?: AbortSignal) => get<MemoryCells>(ofUser(user, "cells"), { artifact }, signal);

export async function metrics(): Promise<string> {
  const response = await fetch("metrics").catch(() => null);
  if (!response?.ok) throw new ServiceError({ found: "The service gives no figures.", fix: "see whether it runs" }, response?.status ?? 0);
  return response.text();
}
