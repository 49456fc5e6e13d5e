import * as api from "./api";
import { largest, moves, number, rise } from "./moves";
import { Effect, Named, nameOf } from "./parts";
import { partsOf, reason } from "./reasons";
import { Search } from "./search";
import type { Candidate, Explanation, RankedItem, TopItems } from "./types";

const PARTS = 5;
const MOVES = 5;
const OFFERED = 3;

export function Why({ explanation, chosen, user, top, then, after, onSuppose }: {
  explanation: Explanation | null; chosen: string; user: string; top: TopItems | null; then: TopItems | null; after: string; onSuppose: (item: string) => void;
}) {
  const candidate = explanation?.candidates.find(({ item }) => item === chosen) ?? null;
  return (
    <>
      <h2 id="why-title">{candidate ? <>Why <Named>{nameOf(candidate)}</Named>?</> : "Why?"}</h2>
      {candidate && explanation ? <Reasons candidate={candidate} explanation={explanation} /> : null}
      <div class="try">
        <h3>What if <Named>{user}</Named> now chooses …</h3>
        <div class="chips">
          {offers(top).map((one) => <button key={one.item} type="button" class="chip" aria-pressed={one.item === after} onClick={() => { onSuppose(one.item === after ? "" : one.item); }}><bdi class="word">{nameOf(one)}</bdi></button>)}
          <Search label="Another item" placeholder="another item …" unknown="not in the catalogue" onTake={onSuppose}
            find={(text, signal) => api.items(text, 12, signal).then(({ items }) => items.map((one) => ({ id: one.item, name: nameOf(one), note: note(one.title ? one.item : "", one.fields) })))} />
        </div>
        <div aria-live="polite">{then && top ? <Outcome top={top} then={then} after={after} /> : <p class="soft small">The list moves; nothing is stored.</p>}</div>
      </div>
    </>
  );
}

const note = (id: string, fields: Record<string, string | null>) => [id, ...Object.values(fields)].filter(Boolean).join(" · ");

function Reasons({ candidate, explanation }: { candidate: Candidate; explanation: Explanation }) {
  const parts = partsOf(candidate).slice(0, PARTS);
  const most = Math.max(...parts.map(({ effect }) => Math.abs(effect)), 1e-9);
  if (!parts.length) return <p>{reason(candidate) || `${explanation.attention_note}.`}</p>;
  return (
    <ul class="parts" aria-label="What raises and lowers it, the strongest first">
      {parts.map(({ words, effect }) => (
        <li key={words}><span>{words}<span class="hidden">{effect < 0 ? " lowers it" : " raises it"}</span></span><Effect value={effect} most={most} /></li>
      ))}
    </ul>
  );
}

// Items to try: from the list's middle and its end, where an event changes more than at its top.
function offers(top: TopItems | null): RankedItem[] {
  const items = top?.items ?? [];
  const places = [0, items.length >> 1, items.length - 1].slice(0, OFFERED);
  return places.flatMap((at) => items[at] ?? []).filter((one, at, all) => all.indexOf(one) === at);
}

function Outcome({ top, then, after }: { top: TopItems; then: TopItems; after: string }) {
  const found = largest(moves(top.items, then.items), after, MOVES);
  return (
    <>
      <ul class="moves">
        {found.map((move) => (
          <li key={move.now.item}><bdi class="word">{nameOf(move.now)}</bdi> <b class={rise(move) < 0 ? "down" : "up"}>{move.before ? number(move.before) : ""} → {number(move.now)}</b></li>
        ))}
      </ul>
      <p class="soft small">{found.length ? "" : "Nothing changes visibly. "}Nothing is stored.</p>
    </>
  );
}
