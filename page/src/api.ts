// Calls of the service. The key stays in this variable: it is in no address and in no storage.

import type { Explanation, History, Item, Memory, MemoryCells, Model, Problem, TopItems, FoundUsers } from "./types";

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

function get<T>(path: string, query: Record<string, string | number>, signal?: AbortSignal): Promise<T> {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== "") parts.set(name, String(value));
  return call<T>(`${path}?${parts.toString()}`, { signal: signal ?? null });
}

const ofUser = (user: string, what: string) => `v1/users/${encodeURIComponent(user)}/${what}`;

export const model = (signal?: AbortSignal) => get<Model>("v1/model", {}, signal);
export const users = (q: string, limit: number, signal?: AbortSignal) => get<FoundUsers>("v1/users", { q, limit }, signal);
export const memory = (user: string, signal?: AbortSignal) => get<Memory>(ofUser(user, "memory"), {}, signal);
export const history = (user: string, signal?: AbortSignal) => get<History>(ofUser(user, "history"), { limit: 20_000 }, signal);
export const top = (user: string, after: string, signal?: AbortSignal) =>
  get<TopItems>(ofUser(user, "top"), { limit: 200, after }, signal);
export const items = (q: string, limit: number, signal?: AbortSignal) =>
  get<{ items: Item[] }>("v1/catalogue", { q, limit }, signal);
export const cells = (user: string, signal?: AbortSignal) => get<MemoryCells>(ofUser(user, "cells"), {}, signal);
export const explain = (user: string, candidates: string[], signal?: AbortSignal) =>
  call<Explanation>("v1/explain", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ user, items: candidates }), signal: signal ?? null,
  });

export async function metrics(signal?: AbortSignal): Promise<string> {
  const response = await fetch("metrics", { signal: signal ?? null });
  if (!response.ok) throw new ServiceError({ found: "The service gives no figures." }, response.status);
  return response.text();
}
