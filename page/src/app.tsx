import { useCallback, useEffect, useState } from "preact/hooks";
import * as api from "./api";
import { Best } from "./best";
import { Engineers, KeyForm } from "./engineers";
import { useLoaded } from "./hooks";
import type { Loaded } from "./hooks";
import { SHOWN } from "./moves";
import { Failure, Named } from "./parts";
import { column, extremes, month, rows, summary } from "./rhythm";
import { read, write } from "./route";
import type { Route } from "./route";
import { Search } from "./search";
import { Timeline } from "./timeline";
import type { History, Memory, Model } from "./types";
import { Why } from "./why";
import { plural } from "./words";

const CHIPS = 3;

function useRoute(): [Route, (change: Partial<Route>) => void] {
  const [route, setRoute] = useState(() => read(location.hash));
  useEffect(() => {
    const onChange = () => { setRoute(read(location.hash)); };
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
  return [route, change];
}

export function App() {
  const [route, change] = useRoute();
  // Raised when the key changes: what is shown is asked for again.
  const [version, setVersion] = useState(0);
  const again = () => { setVersion((before) => before + 1); };
  const model = useLoaded((signal) => api.model(signal), [version]);
  const first = useLoaded((signal) => api.users("", CHIPS, signal), [version]);
  const user = route.user || first.value?.users[0]?.user || "";
  const past = useLoaded((signal) => (user ? api.history(user, signal) : Promise.resolve(null)), [user, version]);
  // While the history of a user is read, that of the one before is still there.
  const history = past.value?.user === user ? past.value : null;
  const listed = (first.value?.users ?? []).map((one) => one.user);
  const chips = !user || listed.includes(user) ? listed : [user, ...listed].slice(0, CHIPS);
  const choose = (next: string) => { change({ user: next, item: "", after: "" }); };
  const failed = [model, first].find(({ problem }) => problem);
  return (
    <>
      <header>
        <h1>{user ? <>What will <Named>{user}</Named> choose next?</> : "Who will choose what next?"}</h1>
        {user && model.value ? <Sentence history={history} waiting={past.problem === null} user={user} model={model.value} version={version} /> : <p class="soft">{failed ? "" : model.value && first.value ? "No user has an event yet: send some to v1/events, or look at a user of any name." : "Asking the service …"}</p>}
        {model.problem ? <><Failure problem={model.problem} again={model.again} /><KeyForm onKey={again} /></> : null}
        {first.problem && !model.problem ? <Failure problem={first.problem} again={first.again} /> : null}
        <nav class="chips" aria-label="Users">
          {chips.map((one) => <button key={one} type="button" class="chip" aria-pressed={one === user} onClick={() => { choose(one); }}><bdi class="word">{one}</bdi></button>)}
          <Search label="Find a user" placeholder="Find a user …" unknown="a new user" onTake={choose}
            find={(text, signal) => api.users(text, 12, signal).then(({ users }) => users.map((one) => ({ id: one.user, name: one.user, note: plural(one.count, "event") })))} />
        </nav>
      </header>
      <main>
        {user && model.value ? <User key={user} past={{ ...past, value: history }} user={user} model={model.value} route={route} version={version} change={change} /> : null}
        {model.value ? <Engineers user={user} item={route.item} model={model.value} version={version} onKey={again} /> : null}
      </main>
    </>
  );
}

// What is predicted, and from what.
function Sentence({ history, waiting, user, model, version }: { history: History | null; waiting: boolean; user: string; model: Model; version: number }) {
  // Of a user who is not known there is none.
  const known = history?.known_user ?? false;
  const memory = useLoaded((signal) => (known ? api.memory(user, signal) : Promise.resolve(null)), [user, known, version]);
  return <p class="soft">{history ? said(history, memory.value, model) : waiting ? "Reading …" : ""}</p>;
}

function said(history: History, memory: Memory | null, model: Model): string {
  const choices = `${plural(model.items, "item")} to choose from.`;
  if (!history.known_user) return `Nothing is known of this user: what follows holds for anybody new. ${choices}`;
  const since = model.time_unit === "seconds" && history.position[0] === 1 ? ` since ${month(extremes(history.time)[0])}` : "";
  const size = memory ? `, kept in ${(memory.bytes / 1024).toFixed(1)} KiB and updated with each new one` : "";
  return `Predicted from all ${plural(history.count, "event")}${since}${size}. ${choices}`;
}

function User({ past, user, model, route, version, change }: {
  past: Loaded<History>; user: string; model: Model; route: Route; version: number; change: (part: Partial<Route>) => void;
}) {
  const { after } = route;
  const best = useLoaded((signal) => api.top(user, "", signal), [user, version]);
  const supposed = useLoaded((signal) => (after ? api.top(user, after, signal) : Promise.resolve(null)), [user, version, after]);
  const then = after && !supposed.loading ? supposed.value : null;
  const shown = best.value ? (then ?? best.value).items.slice(0, SHOWN) : [];
  const asked = [...new Set([...shown.map(({ item }) => item), ...(route.item ? [route.item] : [])])];
  const explained = useLoaded((signal) => (asked.length ? api.explain(user, asked, signal) : Promise.resolve(null)), [user, version, asked.join("\n")]);
  const chosen = route.item || (best.value?.items[0]?.item ?? "");
  const suppose = (item: string) => { change({ after: item }); };
  return (
    <div class="view">
      <section class="panel rhythm" aria-labelledby="rhythm-title">
        <h2 id="rhythm-title">Their rhythm <span class="soft">{past.value ? summary(past.value, model.time_unit === "seconds", Date.now() / 1000) : ""}</span></h2>
        {past.problem ? <Failure problem={past.problem} again={past.again} /> : null}
        {past.value ? <Rhythm history={past.value} model={model} /> : null}
      </section>
      <section class="panel list" aria-labelledby="list-title">
        {best.problem ? <Failure problem={best.problem} again={best.again} /> : null}
        {supposed.problem ? <Failure problem={supposed.problem} again={supposed.again} /> : null}
        <Best top={best.value} then={then} after={after} explanation={explained.value} chosen={chosen}
          onChoose={(item) => { change({ item }); }} onSuppose={suppose} />
      </section>
      <section class="panel why" aria-labelledby="why-title">
        {explained.problem ? <Failure problem={explained.problem} again={explained.again} /> : null}
        <Why explanation={explained.value} chosen={chosen} user={user} top={best.value} then={then} after={after} onSuppose={suppose} />
      </section>
    </div>
  );
}

function Rhythm({ history, model }: { history: History; model: Model }) {
  const timed = model.time_unit === "seconds";
  const { name, texts } = column(history, model);
  if (!history.time.length) return <p class="soft">No event is known: {history.note}.</p>;
  return <Timeline by={name} rows={rows(history, texts, timed)} ends={timed ? extremes(history.time).map(month) : ["first event", "last event"]} between={timed ? extremes(history.time) : null} />;
}
