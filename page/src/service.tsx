import { useEffect, useState } from "preact/hooks";
import * as api from "./api";
import { problemOf } from "./hooks";
import { difference, parse, quantile, routes, total } from "./metrics";
import type { Sample } from "./metrics";
import { Failure, Scroll } from "./parts";
import type { Problem } from "./types";

const EVERY = 5_000;

interface Reading {
  at: number;
  samples: Sample[];
}

// Asks only while it is open.
export function ServiceView() {
  const [open, setOpen] = useState(false);
  const [readings, setReadings] = useState<Reading[]>([]);
  const [problem, setProblem] = useState<Problem | null>(null);
  useEffect(() => {
    if (!open) return;
    const look = () => {
      api.metrics().then(
        (text) => { setProblem(null); setReadings((before) => [...before.slice(-1), { at: performance.now(), samples: parse(text) }]); },
        (error: unknown) => { setProblem(problemOf(error)); },
      );
    };
    look();
    const timer = setInterval(look, EVERY);
    return () => { clearInterval(timer); };
  }, [open]);
  const last = readings.at(-1);
  return (
    <details class="panel" onToggle={(event) => { setOpen(event.currentTarget.open); }}>
      <summary>Service: rates, latency, refusals, store</summary>
      {problem ? <Failure problem={problem} /> : null}
      {last ? <Figures before={readings.length > 1 ? (readings[0] ?? null) : null} after={last} /> : null}
    </details>
  );
}

function Figures({ before, after }: { before: Reading | null; after: Reading }) {
  const { samples } = after;
  const lately = before ? difference(before.samples, samples) : [];
  const seconds = before ? (after.at - before.at) / 1000 : 1;
  const bytes = total(samples, "lifelong_store_bytes");
  return (
    <>
      <dl class="figures">
        <div><dt>Events folded in</dt><dd>{total(samples, "lifelong_events_total", { outcome: "applied" }).toLocaleString("en")}</dd></div>
        <div><dt>Candidates scored</dt><dd>{total(samples, "lifelong_candidates_total").toLocaleString("en")}</dd></div>
        <div><dt>Refused under load</dt><dd>{total(samples, "lifelong_shed_requests_total").toLocaleString("en")}</dd></div>
        {bytes ? <div><dt>Store</dt><dd>{(bytes / 1e6).toFixed(1)} MB</dd></div> : null}
      </dl>
      <Scroll label={"Requests by endpoint"}>
        <table>
          <thead><tr><th scope="col">Endpoint</th><th scope="col" class="number">Requests</th><th scope="col" class="number">a second now</th><th scope="col" class="number">Half within</th><th scope="col" class="number">99 % within</th></tr></thead>
          <tbody>
            {routes(samples).map((route) => (
              <tr key={route}>
                <th scope="row">{route.replace(":text", "")}</th>
                <td class="number">{total(samples, "lifelong_requests_total", { route }).toLocaleString("en")}</td>
                <td class="number">{before ? (total(lately, "lifelong_requests_total", { route }) / seconds).toFixed(1) : "–"}</td>
                <td class="number">{within(quantile(samples, route, 0.5))}</td><td class="number">{within(quantile(samples, route, 0.99))}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </>
  );
}

function within(seconds: number | null): string {
  if (seconds === null) return "–";
  if (seconds === Infinity) return "over the largest bucket";
  return seconds < 1 ? `${Number((seconds * 1000).toPrecision(3))} ms` : `${seconds} s`;
}
