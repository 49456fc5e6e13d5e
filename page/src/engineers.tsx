import { useState } from "preact/hooks";
import * as api from "./api";
import { useLoaded } from "./hooks";
import { Failure, Scroll } from "./parts";
import type { Candidate, Explanation, MemoryCells, Model, TopItems } from "./types";
import { cellWords, eventsAgo, plural, signed, times } from "./words";

const CELLS = 8;
const RANKED = 10;
// What is shown of /metrics: names of sums that mean something without their labels.
const FIGURES = ["lifelong_requests_total", "lifelong_candidates_total", "lifelong_events_total", "lifelong_waiting_requests", "lifelong_store_bytes", "process_resident_memory_bytes"];

export function Engineers({ user, item, model, version, onKey }: {
  user: string; item: string; model: Model; version: number; onKey: () => void;
}) {
  const [open, setOpen] = useState(false);
  return (
    <details class="panel engineers" onToggle={(event) => { setOpen(event.currentTarget.open); }}>
      <summary>For engineers: scores, the memory cell by cell, attention, this request by curl, the service’s figures</summary>
      {open ? (
        <>
          <p>Model <strong>{model.title}</strong>, artifact {model.artifact.slice(0, 12)}. <a href="docs">Endpoints</a>{model.report ? <>, <a href="report">report</a></> : null}, <a href="metrics">metrics</a>.</p>
          {user ? <Inside key={user} user={user} item={item} version={version} /> : null}
          <Figures version={version} />
          <KeyForm onKey={onKey} />
        </>
      ) : null}
    </details>
  );
}

export function KeyForm({ onKey }: { onKey: () => void }) {
  const [key, setKey] = useState("");
  return (
    <form class="key" onSubmit={(event) => { event.preventDefault(); api.setKey(key); onKey(); }}>
      <label>API key <input type="password" value={key} autocomplete="off" onInput={(event) => { setKey(event.currentTarget.value); }} /></label>
      <button type="submit">Use</button>
    </form>
  );
}

function Inside({ user, item, version }: { user: string; item: string; version: number }) {
  const found = useLoaded(async (signal) => {
    const began = performance.now();
    const top = await api.top(user, "", signal);
    const took = performance.now() - began;
    const asked = top.items.slice(0, RANKED).map((one) => one.item);
    const explanation = asked.length ? await api.explain(user, [...new Set([...asked, ...(item ? [item] : [])])], signal) : null;
    return { top, took, explanation, cells: await api.cells(user, signal) };
  }, [user, item, version]);
  if (found.problem) return <Failure problem={found.problem} again={found.again} />;
  if (!found.value) return <p class="soft">Reading …</p>;
  const { top, took, explanation, cells } = found.value;
  const address = `${location.origin}${location.pathname}v1/users/${encodeURIComponent(user)}/top?limit=${RANKED}`;
  const chosen = explanation?.candidates.find((one) => one.item === item) ?? explanation?.candidates[0];
  return (
    <>
      <p>The list above came in {took.toFixed(1)} ms ({plural(top.scored, "item")} scored of {top.catalogue.toLocaleString("en")}). The same by curl:</p>
      <Scroll label="The request by curl"><pre><code>curl '{address.replaceAll("'", "%27")}'</code></pre></Scroll>
      <Scores top={top} />
      {explanation && chosen ? <Attention explanation={explanation} candidate={chosen} /> : null}
      <div class="cells">{cells.fields.map((one) => <Cells key={one.field} {...one} />)}</div>
    </>
  );
}

function Scores({ top }: { top: TopItems }) {
  return (
    <>
      <h3>Scores</h3>
      <Scroll label="Scores">
        <table>
          <thead><tr><th scope="col">Item</th><th scope="col" class="number">Score (logit)</th><th scope="col" class="number">Popularity</th><th scope="col" class="number">Counts</th></tr></thead>
          <tbody>
            {top.items.slice(0, RANKED).map((one) => (
              <tr key={one.item}><th scope="row"><bdi class="word">{one.item}</bdi></th>
                {[one.score, one.popularity, one.from_counts].map((value, at) => <td key={at} class="number">{value === null ? "–" : signed(value)}</td>)}
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      <p class="small soft">Ordered {top.order}.</p>
    </>
  );
}

function Attention({ explanation, candidate }: { explanation: Explanation; candidate: Candidate }) {
  const weights: [string, number][] = candidate.slots.length
    ? candidate.slots.map(({ slot, attention }, at) => [`slot ${slot + 1}, ${explanation.slots[at]?.written ?? ""}`, attention])
    : candidate.events.map(({ item, attention }) => [item || "unknown item", attention]);
  if (!weights.length) return null;
  return (
    <>
      <h3>Attention for <bdi class="word">{candidate.item}</bdi></h3>
      <ul>{weights.map(([name, weight], at) => <li key={at}><bdi class="word">{name}</bdi>: {Number(weight.toPrecision(3))}</li>)}</ul>
      <p class="small soft">Shown are {explanation.attention_note}; {explanation.events_note}.</p>
    </>
  );
}

function Cells({ field, used, size, cells }: MemoryCells["fields"][number]) {
  const [all, setAll] = useState(false);
  return (
    <section aria-label={`Cells of ${field}`}>
      <h3>{field}: {used.toLocaleString("en")} of {plural(size, "cell")}</h3>
      <Scroll label={`Cells of ${field}`}>
        <table>
          <thead><tr><th scope="col">Value</th><th scope="col">Met</th><th scope="col">Last</th></tr></thead>
          <tbody>
            {(all ? cells : cells.slice(0, CELLS)).map((cell, at) => (
              <tr key={at}><th scope="row"><bdi class="word">{cellWords(cell)}</bdi></th><td>{times(cell)}</td><td>{cell.events_ago === null ? "" : eventsAgo(cell.events_ago)}</td></tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {cells.length > CELLS ? <button type="button" aria-expanded={all} onClick={() => { setAll(!all); }}>{all ? "Show fewer" : `Show all ${cells.length}`}<span class="hidden"> cells of {field}</span></button> : null}
    </section>
  );
}

// The sum of all samples of a name in the text of /metrics; null where there is none.
export function total(text: string, name: string): number | null {
  const found = text.split("\n").filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`));
  return found.length ? found.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0) : null;
}

function Figures({ version }: { version: number }) {
  const text = useLoaded((signal) => api.metrics(signal), [version]);
  if (text.problem) return <Failure problem={text.problem} again={text.again} />;
  return (
    <>
      <h3>Service</h3>
      <dl class="figures">
        {FIGURES.map((name) => [name, total(text.value ?? "", name)] as const).filter(([, sum]) => sum !== null).map(([name, sum]) => (
          <div key={name}><dt>{name.replace(/^lifelong_|_total$/g, "").replaceAll("_", " ")}</dt><dd>{sum?.toLocaleString("en")}</dd></div>
        ))}
      </dl>
    </>
  );
}
