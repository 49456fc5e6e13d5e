import { Fragment } from "preact";
import { useMemo } from "preact/hooks";
import * as api from "./api";
import type { Moment } from "./api";
import { useLoaded } from "./hooks";
import { Effect, Failure, Named, Said, Scroll } from "./parts";
import { latest } from "./reasons";
import type { Reason } from "./reasons";
import type { Candidate, History, Model, PastEvent, Problem } from "./types";
import { ago, date, plural, signed } from "./words";

const PAUSE = 300;
// As many as the service leaves out for one request.
const MOST = 20;

export interface Artifact {
  // Empty for the one that is served.
  id: string;
  name: string;
  // Events that its memory of the user has.
  count: number;
}

// What single events do to a score, by one artifact.
export interface ByArtifact {
  name: string;
  events: Candidate["event_effects"];
  problem: Problem | null;
  loading: boolean;
}

const NONE: ByArtifact["events"] = [];

// What single past events do to a score: each is left out, and the memory folded again without it.
export function useEffects({ history, model, candidate, moment, reason, held, artifact }: {
  history: History; model: Model; candidate: Candidate | null; moment: Moment | null; reason: Reason | null; held: number; artifact: Artifact | null;
}): ByArtifact | null {
  const id = artifact?.id ?? "";
  const most = artifact ? Math.min(held, artifact.count) : 0;
  const positions = useMemo(() => (reason && most <= model.replayed ? latest(history, reason, most, MOST) : []), [history, reason, most, model]);
  const { value, problem, loading } = useLoaded(
    (signal) => (candidate && artifact && positions.length ? api.explain(history.user, [candidate.item], { moment, leave_out: positions, artifact: id }, signal) : Promise.resolve(null)),
    [history, candidate?.item, positions.join(), moment?.time, id], PAUSE,
  );
  const answered = loading ? null : (value?.candidates[0] ?? null);
  // One array while nothing changes: what is drawn depends on it.
  const events = answered?.item === candidate?.item ? (answered?.event_effects ?? NONE) : NONE;
  if (!artifact) return null;
  // A memory that is behind may have none of the events that are marked.
  if (!positions.length && most < held) return { name: artifact.name, events: NONE, problem: { found: `The memory of ${artifact.name} has ${plural(artifact.count, "event")}, and none of those that are marked.` }, loading: false };
  return positions.length ? { name: artifact.name, events, problem, loading } : null;
}

// Closed, it is one line: the memory and the candidates come first.
export function Effects({ by, item, all, unit, selected, open, onOpen, onSelect }: {
  by: ByArtifact[]; item: string; all: number; unit: string; selected: number; open: boolean;
  onOpen: (open: boolean) => void; onSelect: (position: number) => void;
}) {
  const first = by.find(({ events }) => events.length)?.events ?? [];
  const top = first[0];
  const failed = by.filter(({ problem }) => problem);
  if (!top && !failed.length) return null;
  const effect = by.map(({ events }) => new Map(events.map((event) => [event.position, event.effect])));
  const most = by.map(({ events }) => Math.abs(events[0]?.effect ?? 0));
  const of = all > first.length ? `the latest ${first.length} of these ${all.toLocaleString("en")} events` : `these ${plural(first.length, "event")}`;
  const several = by.length > 1;
  return (
    <details class="single" open={open} onToggle={(event) => { if (event.currentTarget.open !== open) onOpen(event.currentTarget.open); }}>
      <summary>Effects of single events{top ? <>: No. {top.position.toLocaleString("en")} alone {signed(top.effect)}</> : " are not known"}</summary>
      {failed.map(({ name, problem }) => (problem ? (
        <div key={name}>
          {several ? <p class="small">By {name}:</p> : null}
          <Failure problem={problem} />
        </div>
      ) : null))}
      {top ? (
        <Scroll label="Effects of single events">
          <table class="effects">
            <caption>What each of {of} alone does to the score of <Named>{item}</Named>: the score less that of a memory without it</caption>
            <thead><tr>
              <th scope="col">Event</th><th scope="col">When</th>
              {by.map(({ name }) => <Fragment key={name}><th scope="col" class="number">{several ? `Effect by ${name}` : "Effect"}</th><th scope="col" class="wide extra"><span class="hidden">as a bar</span></th></Fragment>)}
            </tr></thead>
            <tbody>
              {first.map((event) => (
                <tr key={event.position} class={event.position === selected ? "chosen" : ""}>
                  <th scope="row">
                    <button type="button" class="link" aria-pressed={event.position === selected} onClick={() => { onSelect(event.position); }}>
                      No. {event.position.toLocaleString("en")} <Named>{event.item || "unknown item"}</Named>
                    </button>
                  </th>
                  <td>{when(event, unit)}</td>
                  {by.map(({ name }, at) => {
                    const value = effect[at]?.get(event.position);
                    return (
                      <Fragment key={name}>
                        <td class="number">{value === undefined ? "–" : signed(value)}</td>
                        <td class="wide extra">{value === undefined ? null : <Effect value={value} most={most[at] ?? 0} />}</td>
                      </Fragment>
                    );
                  })}
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      ) : null}
    </details>
  );
}

// What is said while the effects are awaited, or where there cannot be any.
export function EffectsNote({ by, few, most }: { by: ByArtifact[]; few: boolean; most: number }) {
  const failed = by.find(({ problem }) => problem)?.problem;
  const words = !few ? `Effects of single events are computed for memories of up to ${plural(most, "event")}.`
    : by.some(({ loading }) => loading) ? "Computing what each of them alone does …" : "";
  return <p class="small soft note" role="status">{failed && few ? <>Effects of single events are not known: <Said>{failed.found}</Said>.</> : words}</p>;
}

function when(event: PastEvent, unit: string): string {
  return event.seconds_ago === null ? date(event.time, unit) : ago(event.seconds_ago);
}
