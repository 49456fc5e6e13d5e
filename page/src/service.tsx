import { useEffect, useState } from "preact/hooks";
import * as api from "./api";
import { artifactName } from "./compare";
import { LONGEST, groups, kept, lately, perSecond, within } from "./figures";
import type { Group, Lately, Reading } from "./figures";
import { problemOf } from "./hooks";
import { parse, quantileOf, routes, total } from "./metrics";
import type { Sample } from "./metrics";
import { Failure, Scroll } from "./parts";
import type { ListedArtifact, Problem } from "./types";
import { plural } from "./words";

const EVERY = 5_000;
const SOON = 1_000;

// Asks only while it is open.
export function ServiceView({ artifacts, open, onOpen }: { artifacts: ListedArtifact[]; open: boolean; onOpen: (open: boolean) => void }) {
  const [readings, setReadings] = useState<Reading[]>([]);
  const [problem, setProblem] = useState<Problem | null>(null);
  useEffect(() => {
    if (!open) return;
    let timer = 0;
    let ended = false;
    const look = (next: number) => {
      api.metrics().then(
        (text) => { setProblem(null); setReadings((before) => kept(before, { at: performance.now() / 1000, samples: parse(text) })); },
        (error: unknown) => { setProblem(problemOf(error)); },
      ).finally(() => { if (!ended) timer = setTimeout(() => { look(EVERY); }, next); });
    };
    look(SOON);
    return () => {
      ended = true;
      clearTimeout(timer);
    };
  }, [open]);
  const last = readings.at(-1);
  const recent = lately(readings);
  return (
    <details class="panel service" open={open} onToggle={(event) => { if (event.currentTarget.open !== open) onOpen(event.currentTarget.open); }}>
      <summary>Service: load, latency, drift, topic, store, versions</summary>
      {problem ? <Failure problem={problem} /> : null}
      {last ? (
        <>
          <p class="small soft">Asked every {EVERY / 1000} seconds. “Lately” is {recent ? `the last ${plural(Math.round(recent.seconds), "second")}` : "not known yet"}; it grows to {LONGEST / 60} minutes.</p>
          {groups(last.samples, recent, Date.now() / 1000).map((group) => <Figures key={group.title} group={group} />)}
          <Artifacts artifacts={artifacts} />
          <Requests now={last.samples} recent={recent} />
        </>
      ) : problem ? null : <p class="soft">Reading …</p>}
    </details>
  );
}

function Figures({ group: { title, figures, note } }: { group: Group }) {
  return (
    <section aria-label={title}>
      <h3>{title}</h3>
      {figures.length ? (
        <dl class="figures">
          {figures.map(({ label, value, bad }) => <div key={label}><dt>{label}</dt><dd class={bad ? "bad" : ""}>{value}{bad ? <span class="hidden"> (look into it)</span> : null}</dd></div>)}
        </dl>
      ) : null}
      {note ? <p class="small soft">{note}</p> : null}
    </section>
  );
}

function Artifacts({ artifacts }: { artifacts: ListedArtifact[] }) {
  if (!artifacts.length) return null;
  return (
    <section aria-label="Artifacts">
      <h3>Artifacts with memories in the store</h3>
      <ul class="small">
        {artifacts.map((one) => <li key={one.id}>{artifactName(one)}: {one.served ? "served" : one.phase}</li>)}
      </ul>
    </section>
  );
}

function Requests({ now, recent }: { now: Sample[]; recent: Lately | null }) {
  const [all, setAll] = useState(true);
  const samples = all ? now : (recent?.samples ?? []);
  const found = routes(now);
  return (
    <section aria-label="Requests">
      <div class="head">
        <h3>Requests by endpoint</h3>
        <label class="inline">Counted
          <select value={all ? "all" : "lately"} onChange={(event) => { setAll(event.currentTarget.value === "all"); }}>
            <option value="all">since the start</option>
            <option value="lately">lately</option>
          </select>
        </label>
      </div>
      {found.length ? (
        <Scroll label="Requests by endpoint">
          <table>
            <thead><tr><th scope="col">Endpoint</th><th scope="col" class="number">Requests</th><th scope="col" class="number">A second, lately</th><th scope="col" class="number">Half within</th><th scope="col" class="number">99 % within</th></tr></thead>
            <tbody>
              {found.map((route) => (
                <tr key={route}>
                  <th scope="row">{route.replace(":text", "")}</th>
                  <td class="number">{total(samples, "lifelong_requests_total", { route }).toLocaleString("en")}</td>
                  <td class="number">{recent ? perSecond(total(recent.samples, "lifelong_requests_total", { route }) / recent.seconds) : "–"}</td>
                  <td class="number">{within(quantileOf(samples, "lifelong_request_seconds", 0.5, { route }))}</td>
                  <td class="number">{within(quantileOf(samples, "lifelong_request_seconds", 0.99, { route }))}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      ) : <p class="small soft">No request was answered yet.</p>}
      {found.length ? <p class="small soft">{plural(found.length, "endpoint")} of /v1/ with requests since the start. Times are upper ends of the buckets that /metrics counts in.</p> : null}
    </section>
  );
}
