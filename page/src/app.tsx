import { useCallback, useEffect, useState } from "preact/hooks";
import * as api from "./api";
import { Candidates, Search, Why } from "./candidates";
import { asListed, byScore, ordered } from "./changes";
import type { Snapshot } from "./changes";
import { BothWhy, Choice, Comparison, Second, TwoCandidates, artifactName } from "./compare";
import { useLoaded } from "./hooks";
import { Memory } from "./memory";
import { Failure, Named, Panel, Scroll } from "./parts";
import { MOST_ITEMS, read, write } from "./route";
import type { Route } from "./route";
import { ServiceView } from "./service";
import { Timeline } from "./timeline";
import type { History, ListedArtifact, Model, PastEvent, TopItems } from "./types";
import { Users } from "./users";
import { ago, date, fieldWords, plural } from "./words";
import { Write } from "./write";

const BEST = 10;
const MOST_EVENTS = 20_000;

// The third is raised when an address arrives that the page has not written itself: by a link, or by going back.
function useRoute(): [Route, (change: Partial<Route>) => void, number] {
  const [route, setRoute] = useState(() => read(location.hash));
  const [arrivals, setArrivals] = useState(0);
  useEffect(() => {
    const onChange = () => {
      setRoute(read(location.hash));
      setArrivals((before) => before + 1);
    };
    window.addEventListener("hashchange", onChange);
    return () => { window.removeEventListener("hashchange", onChange); };
  }, []);
  const change = useCallback((part: Partial<Route>) => {
    setRoute((before) => {
      const after = { ...before, ...part };
      if (write(after) === write(before)) return before;
      const address = location.pathname + write(after);
      // A new user is a new entry of the browser's history; the rest refines it.
      if (after.user !== before.user) history.pushState(null, "", address);
      else history.replaceState(null, "", address);
      return after;
    });
  }, []);
  return [route, change, arrivals];
}

export function App() {
  const [route, change, arrivals] = useRoute();
  // Raised when the key changes or an event was written: what is shown is asked for again.
  const [version, setVersion] = useState(0);
  const again = () => { setVersion((before) => before + 1); };
  const model = useLoaded((signal) => api.model(signal), [version]);
  const artifacts = useLoaded((signal) => api.artifacts(signal), [version]);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>Skip to the memory</a>
      <header>
        <div>
          <h1>Memory explorer</h1>
          <p class="soft">
            {model.value ? <>Model <strong>{model.value.title}</strong>, artifact {model.value.artifact.slice(0, 12)}, {plural(model.value.items, "item")}. </> : model.problem ? null : "Asking the service … "}
            <a href="docs">Endpoints</a>{model.value?.report ? <> · <a href="report">Report</a></> : null}
          </p>
        </div>
        <KeyForm needed={model.problem !== null} onKey={again} />
      </header>
      {model.problem ? <Failure problem={model.problem} again={again} /> : null}
      <div class="layout">
        <Users chosen={route.user} story={route.story} text={route.text} version={version}
          onUser={(user) => { change({ user, view: null, event: 0 }); }} onStory={(story) => { change({ story }); }} onText={(text) => { change({ text }); }} />
        <main id="main" tabIndex={-1}>
          {!model.value ? null : route.user ? (
            <UserView key={`${arrivals} ${route.user}`} route={route} model={model.value} artifacts={artifacts.value ?? []} version={version} change={change} again={again} />
          ) : (
            <section class="panel"><p>Choose a user to see her history, what her memory keeps of it, and how it scores items.</p></section>
          )}
          <ServiceView artifacts={artifacts.value ?? []} open={route.service} onOpen={(service) => { change({ service }); }} />
        </main>
      </div>
    </>
  );
}

function KeyForm({ needed, onKey }: { needed: boolean; onKey: () => void }) {
  const [key, setKey] = useState("");
  return (
    <form class="key" onSubmit={(event) => { event.preventDefault(); api.setKey(key); onKey(); }}>
      <label>API key{needed ? "" : " (optional)"}
        <input type="password" value={key} autocomplete="off" onInput={(event) => { setKey(event.currentTarget.value); }} />
      </label>
      <button type="submit">Use</button>
    </form>
  );
}

function UserView({ route, model, artifacts, version, change, again }: {
  route: Route; model: Model; artifacts: ListedArtifact[]; version: number; change: (part: Partial<Route>) => void; again: () => void;
}) {
  const { user, items } = route;
  const own = items.length > 0;
  const history = useLoaded((signal) => api.history(user, MOST_EVENTS, signal), [user, version]);
  const cells = useLoaded((signal) => api.cells(user, "", signal), [user, version]);
  const best = useLoaded((signal) => (own ? Promise.resolve(null) : api.top(user, BEST, signal)), [user, own, version]);
  const asked = own ? items : (best.value?.items.map(({ item }) => item) ?? []);
  const question = [user, version, asked.join("\n")];
  const ask = (artifact: string, signal: AbortSignal) => (asked.length ? api.explain(user, asked, artifact, signal) : Promise.resolve(null));
  const explained = useLoaded((signal) => ask("", signal), question);
  const other = artifacts.find(({ id, served }) => route.other && !served && id.startsWith(route.other)) ?? null;
  const secondAnswer = useLoaded((signal) => (other ? ask(other.id, signal) : Promise.resolve(null)), [...question, other?.id]);
  const secondCells = useLoaded((signal) => (other ? api.cells(user, other.id, signal) : Promise.resolve(null)), [user, version, other?.id]);
  const explanation = explained.value;
  const theirs = other ? secondAnswer.value : null;
  const names: [string, string] = [artifactName({ title: model.title, id: model.artifact }), other ? artifactName(other) : ""];
  // What was chosen by hand is ordered by its scores.
  const order = own ? byScore : asListed;
  const ranked = explanation ? ordered(explanation, order) : [];
  const candidate = ranked.find(({ item }) => item === route.chosen) ?? ranked[0] ?? null;
  const second = ranked.find(({ item }) => item === route.second && item !== candidate?.item) ?? null;
  const snapshot: Snapshot | null = explanation ? { explanation, cells: cells.value } : null;

  const choose = (item: string) => { change({ chosen: item }); };
  const add = (item: string) => { change({ items: [...(own ? items : asked), item].slice(-MOST_ITEMS), chosen: item }); };
  const remove = (item: string) => { change({ items: items.filter((one) => one !== item), chosen: route.chosen === item ? "" : route.chosen }); };
  const read = async (): Promise<Snapshot> => {
    const [now, counters] = await Promise.all([api.explain(user, asked), api.cells(user)]);
    return { explanation: now, cells: counters };
  };
  const known = explanation?.known_user ?? history.value?.known_user;

  const memory = (
    <Panel id="memory-title" title="What her memory holds">
      {[cells, ...(theirs ? [secondCells] : [])].map(({ problem, again: retry }, at) => (problem ? <Failure key={at} problem={problem} again={retry} /> : null))}
      {theirs ? (
        <div class="columns even">
          <div class="side"><h3>{names[0]}</h3><Memory explanation={explanation} cells={cells.value} candidate={candidate} name={names[0]} /></div>
          <div class="side"><h3>{names[1]}</h3><Memory explanation={theirs} cells={secondCells.value} candidate={theirs.candidates.find(({ item }) => item === candidate?.item) ?? null} name={names[1]} /></div>
        </div>
      ) : <Memory explanation={explanation} cells={cells.value} candidate={candidate} />}
    </Panel>
  );
  const candidates = (
    <Panel id="candidates-title" title={own ? "Candidates" : `Best ${BEST} of the catalogue`}
      aside={own ? <button type="button" onClick={() => { change({ items: [], chosen: "" }); }}>Show the best</button> : null}>
      <div class="choices">
        <Search taken={asked} label="Add an item" onItem={add} />
        {artifacts.some(({ served }) => !served) ? <Choice artifacts={artifacts} other={other} onOther={(id) => { change({ other: id }); }} /> : null}
      </div>
      <p class="hidden" role="status">{candidate ? <><Named>{candidate.item}</Named>: score {candidate.score.toFixed(3)}, rank {ranked.indexOf(candidate) + 1} of {ranked.length}</> : null}</p>
      {[best, explained, ...(other ? [secondAnswer] : [])].map(({ problem, again: retry }, at) => (problem ? <Failure key={at} problem={problem} again={retry} /> : null))}
      {explanation && theirs ? <Comparison mine={explanation} theirs={theirs} names={names} chosen={candidate?.item ?? ""} order={order} onChoose={choose} />
        : explanation ? <Candidates explanation={explanation} chosen={candidate?.item ?? ""} own={own} order={order} onChoose={choose} onRemove={remove} /> : null}
      {!own && best.value ? <Listed top={best.value} /> : null}
    </Panel>
  );
  const why = explanation && candidate ? (
    <Panel id="why-title" title={<>Why <Named>{candidate.item}</Named>?</>} aside={ranked.length > 1 ? <Second ranked={ranked} first={candidate.item} second={second?.item ?? ""} onSecond={(item) => { change({ second: item }); }} /> : null}>
      {theirs ? [candidate, ...(second ? [second] : [])].map((one) => (
        <section key={one.item} aria-label={one.item}>
          {second ? <h3><bdi class="word">{one.item}</bdi></h3> : null}
          <BothWhy mine={explanation} theirs={theirs} names={names} item={one.item} />
        </section>
      )) : second ? <TwoCandidates explanation={explanation} ranked={ranked} pair={[candidate, second]} /> : <Why explanation={explanation} candidate={candidate} />}
    </Panel>
  ) : null;

  return (
    <>
      <section class="panel" aria-labelledby="user-title">
        <div class="head">
          <h2 id="user-title" class="user"><bdi class="word">{user}</bdi></h2>
          <p class="soft">{known === false ? "No memory is stored for this user: items are scored with an empty one." : history.value ? summary(history.value, model) : history.problem ? "Her history could not be read." : "Reading …"}</p>
        </div>
        {history.problem ? <Failure problem={history.problem} again={history.again} /> : null}
        {history.value && known !== false ? (
          <Timeline history={history.value} model={model} candidate={candidate} shown={route} onShown={change}>
            {explanation?.recent.length ? <Latest events={explanation.recent} unit={model.time_unit} /> : null}
          </Timeline>
        ) : null}
      </section>
      {/* The same elements in both layouts: what has the focus keeps it. */}
      <div class={theirs || second ? "three below" : "three"}>
        <div class="held">{memory}</div><div class="list">{candidates}</div><div class="why">{why}</div>
      </div>
      <Panel id="write-title" title="Write an event and see what changes">
        <Write user={user} model={model} snapshot={snapshot} order={order} read={read} onWritten={again} />
      </Panel>
    </>
  );
}

// How the list over the catalogue is ordered, and what it leaves out.
function Listed({ top }: { top: TopItems }) {
  const popular = top.items.some(({ popularity }) => popularity !== null);
  return (
    <p class="small soft">
      Ordered {top.order}.
      {top.scored < top.catalogue ? ` Of ${plural(top.catalogue, "item")} the ${popular ? "most popular" : "first"} ${top.scored.toLocaleString("en")} were scored.` : ""}
    </p>
  );
}

function Latest({ events, unit }: { events: PastEvent[]; unit: string }) {
  return (
    <details>
      <summary>The latest events as a table</summary>
      <Scroll label="The latest events">
        <table class="latest">
          <thead><tr><th scope="col" class="number">No.</th><th scope="col">Item</th><th scope="col">Type</th><th scope="col">When</th><th scope="col">Fields</th></tr></thead>
          <tbody>
            {events.map((event) => (
              <tr key={event.position}>
                <td class="number">{event.position}</td><th scope="row"><bdi class="word">{event.item || "unknown item"}</bdi></th><td>{event.event_type ?? "–"}</td>
                <td>{event.seconds_ago === null ? date(event.time, unit) : ago(event.seconds_ago)}</td><td><bdi class="word">{fieldWords(event.fields) || "–"}</bdi></td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </details>
  );
}

function summary(history: History, model: Model): string {
  // Late events come after later ones.
  const last = Math.max(...history.time.slice(-1000));
  const when = !history.time.length || model.time_unit !== "seconds" ? "" : `; the last on ${date(last, model.time_unit)} UTC, ${ago(Date.now() / 1000 - last)}`;
  return `${plural(history.count, "event")} in her memory${when}.`;
}
