// The numbers of /metrics in words, group by group: what the page says of the service.

import { difference, has, middle, quantileOf, total, shares, values } from "./metrics";
import type { Sample } from "./metrics";
import { ago, percent, plural, signed } from "./words";

export interface Figure {
  label: string;
  value: string;
  // Something that wants to be looked into.
  bad?: boolean;
}

export interface Group {
  title: string;
  figures: Figure[];
  note: string;
}

export interface Reading {
  // Seconds of a clock that only goes forward.
  at: number;
  samples: Sample[];
}

// What was counted between two readings of one run of the service.
export interface Lately {
  seconds: number;
  samples: Sample[];
}

export const LONGEST = 300;
// Fewer scores than these say nothing about a shift.
const ENOUGH = 200;
const MOVED = 0.25;

// Kept readings: of the last minutes, and of this run of the service only, since a new one counts from 0 again.
export function kept(before: Reading[], next: Reading): Reading[] {
  const last = before.at(-1);
  const restarted = last !== undefined && difference(last.samples, next.samples).some(({ name, value }) => name === "lifelong_requests_total" && value < 0);
  return restarted ? [next] : [...before.filter(({ at }) => next.at - at <= LONGEST), next];
}

export function lately(readings: Reading[]): Lately | null {
  const first = readings[0];
  const last = readings.at(-1);
  if (!first || !last || last.at <= first.at) return null;
  return { seconds: last.at - first.at, samples: difference(first.samples, last.samples) };
}

export function groups(now: Sample[], recent: Lately | null, clock: number): Group[] {
  return [running(now, clock), load(now, recent), written(now, recent), scores(now, recent), topic(now), store(now)];
}

function running(now: Sample[], clock: number): Group {
  const builds = values(now, "lifelong_build_info").filter(({ value }) => value === 1);
  const named = (label: string) => [...new Set(builds.map(({ labels }) => labels[label] ?? ""))].join(" and ");
  const started = values(now, "process_start_time_seconds").map(({ value }) => value);
  const memory = values(now, "process_resident_memory_bytes").map(({ value }) => bytes(value));
  return {
    title: "What runs",
    note: builds.length ? "" : "The service gives no version.",
    figures: [
      ...figure("lifelong", named("version")),
      ...figure("Python", named("python")),
      ...figure("Served artifact", builds.length ? `${named("artifact")} (${named("model")})` : ""),
      ...figure("Changes of the artifact list", has(now, "lifelong_artifact_list_epoch") ? count(Math.max(...values(now, "lifelong_artifact_list_epoch").map(({ value }) => value))) : ""),
      ...figure("Processes", started.length ? count(started.length) : ""),
      ...figure("Started", started.length ? ago(clock - Math.min(...started)) : ""),
      ...figure("RAM of each process", memory.join(", ")),
    ],
  };
}

function load(now: Sample[], recent: Lately | null): Group {
  const shed = total(now, "lifelong_shed_requests_total");
  const shedLately = recent ? total(recent.samples, "lifelong_shed_requests_total") : 0;
  const failed = now.filter(({ name, labels }) => name === "lifelong_requests_total" && labels.status?.startsWith("5")).reduce((sum, { value }) => sum + value, 0);
  return {
    title: "Load",
    note: "",
    figures: [
      { label: "Requests a second", value: rate(recent, "lifelong_requests_total") },
      { label: "Waiting to read", value: count(total(now, "lifelong_waiting_requests", { queue: "reads" })) },
      { label: "Waiting to write", value: count(total(now, "lifelong_waiting_requests", { queue: "writes" })) },
      { label: "Refused under load", value: shed ? `${count(shed)}, ${count(shedLately)} lately` : "none", bad: shedLately > 0 },
      { label: "Answered with 5xx", value: failed ? count(failed) : "none", bad: failed > shed },
    ],
  };
}

const OUTCOMES: [string, string][] = [
  ["duplicates", "Known already"], ["late", "Late"], ["refused", "Refused as late"], ["no_dedup", "Without event_id"],
  ["unknown_types", "Of unknown type"], ["backfilled", "Before the backfill"],
];

function written(now: Sample[], recent: Lately | null): Group {
  const commits = total(now, "lifelong_write_seconds_count");
  const others = OUTCOMES.map(([outcome, label]) => ({ label, value: total(now, "lifelong_events_total", { outcome }) }));
  return {
    title: "Events",
    note: commits ? "" : "No event was written by requests since the start.",
    figures: commits ? [
      { label: "Folded in", value: count(total(now, "lifelong_events_total", { outcome: "applied" })) },
      { label: "Folded in, a second", value: rate(recent, "lifelong_events_total", { outcome: "applied" }) },
      ...others.filter(({ value }) => value).map(({ label, value }) => ({ label, value: count(value) })),
      { label: "Half of the writes within", value: within(quantileOf(now, "lifelong_write_seconds", 0.5)) },
      { label: "99 % of the writes within", value: within(quantileOf(now, "lifelong_write_seconds", 0.99)) },
    ] : [],
  };
}

// The mean scores of requests: what a change of data or of requests moves while the artifact stays the same.
function scores(now: Sample[], recent: Lately | null): Group {
  const served = values(now, "lifelong_build_info")[0]?.labels.artifact ?? "";
  const all = total(now, "lifelong_candidates_total");
  const at = { artifact: served };
  const since = middle(now, "lifelong_scores", at);
  const ever = total(now, "lifelong_scores_count", at);
  const few = recent ? total(recent.samples, "lifelong_scores_count", at) : 0;
  if (!all || since === null) return { title: "Scores", figures: [], note: "Nothing was scored since the start." };
  const drift = recent && few >= ENOUGH && ever - few >= ENOUGH ? shift(now, recent.samples, at) : null;
  const latelyMiddle = recent && few >= ENOUGH ? middle(recent.samples, "lifelong_scores", at) : null;
  const unknown = total(now, "lifelong_unknown_items_total") / all;
  return {
    title: "Scores",
    note: drift === null
      ? `Whether scores drift is not known yet: that takes ${ENOUGH} requests while this is open, and ${ENOUGH} before.`
      : "Drift compares the mean scores of the requests of the last minutes with those of before: 0 % means alike, 100 % nothing in common.",
    figures: [
      { label: "Candidates scored", value: count(all) },
      { label: "Candidates a second", value: rate(recent, "lifelong_candidates_total") },
      { label: "Of items unknown to the model", value: percent(unknown), bad: unknown > 0.2 },
      { label: "Requests of users without a memory", value: percent(total(now, "lifelong_unknown_users_total") / Math.max(total(now, "lifelong_scores_count"), 1)) },
      { label: "Middle score since the start", value: signed(since, 2) },
      ...(latelyMiddle === null ? [] : [{ label: "Middle score lately", value: signed(latelyMiddle, 2) }]),
      ...(drift === null ? [] : [{ label: "Drift of scores", value: percent(drift), bad: drift > MOVED }]),
    ],
  };
}

// Share of the scores that lie elsewhere than before: half the sum of the differences between both histograms.
export function shift(now: Sample[], recent: Sample[], labels: Record<string, string>): number {
  const then = shares(difference(recent, now), "lifelong_scores", labels);
  const after = shares(recent, "lifelong_scores", labels);
  return after.reduce((sum, share, at) => sum + Math.abs(share - (then[at] ?? 0)), 0) / 2;
}

function topic(now: Sample[]): Group {
  const up = values(now, "lifelong_stream_up");
  if (!up.length) return { title: "Topic", figures: [], note: "This service follows no topic." };
  const behind = total(now, "lifelong_stream_lag");
  const parts = values(now, "lifelong_stream_lag").length;
  const stopped = up.some(({ value }) => value === 0);
  const lost = total(now, "lifelong_stream_lost_total");
  const bad = total(now, "lifelong_stream_events_total", { outcome: "bad" });
  return {
    title: "Topic",
    note: parts ? "" : "The lag is not known yet: no partition was read.",
    figures: [
      { label: "Followed", value: stopped ? "no: the log says why" : "yes", bad: stopped },
      ...figure("Behind", parts ? `${plural(behind, "message")} in ${plural(parts, "partition")}` : ""),
      { label: "Folded in", value: count(total(now, "lifelong_stream_events_total", { outcome: "applied" })) },
      { label: "No events", value: bad ? plural(bad, "message") : "none", bad: bad > 0 },
      { label: "Deleted before they were read", value: lost ? plural(lost, "message") : "none", bad: lost > 0 },
    ],
  };
}

function store(now: Sample[]): Group {
  if (!has(now, "lifelong_store_bytes"))
    return { title: "Store", figures: [], note: "This store gives no figures: it is in RAM, or a server that has figures of its own." };
  const of = (name: string) => total(now, `lifelong_store_${name}`);
  const stopped = of("writes_stopped") > 0;
  const limit = of("write_limit_bytes");
  const running_ = of("compactions");
  return {
    title: "Store",
    note: "",
    figures: [
      { label: "Tables on the disk", value: bytes(of("bytes")) },
      { label: "Not yet in tables", value: bytes(of("memtable_bytes")) },
      { label: "Records, estimated", value: count(of("records")) },
      { label: "Tables not yet compacted", value: count(of("level0_files")) },
      { label: "Compactions", value: running_ ? `${count(running_)} running` : "none running" },
      { label: "Yet to be compacted", value: bytes(of("compaction_bytes")) },
      { label: "Writes", value: stopped ? "stopped: they wait for compactions" : limit ? `slowed down to ${bytes(limit)} a second` : "not slowed down", bad: stopped || limit > 0 },
      { label: "Failed flushes and compactions", value: of("background_errors") ? count(of("background_errors")) : "none", bad: of("background_errors") > 0 },
    ],
  };
}

export function within(seconds: number | null): string {
  if (seconds === null) return "no data";
  if (seconds === Infinity) return "more than 5 s";
  return seconds < 1 ? `${Number((seconds * 1000).toPrecision(3))} ms` : `${seconds} s`;
}

function figure(label: string, value: string): Figure[] {
  return value ? [{ label, value }] : [];
}

function rate(recent: Lately | null, name: string, labels: Record<string, string> = {}): string {
  return recent ? perSecond(total(recent.samples, name, labels) / recent.seconds) : "reading …";
}

export function perSecond(value: number): string {
  return value >= 100 ? count(Math.round(value)) : value.toFixed(1);
}

function count(value: number): string {
  return value.toLocaleString("en");
}

export function bytes(value: number): string {
  const power = Math.min(Math.max(Math.floor(Math.log10(Math.max(value, 1)) / 3), 0), 4);
  const shown = value / 1000 ** power;
  return `${power ? shown.toFixed(1) : shown} ${["bytes", "kB", "MB", "GB", "TB"][power] ?? ""}`;
}
