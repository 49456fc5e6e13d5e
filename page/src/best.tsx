import { SHOWN, moves, number, rise, value } from "./moves";
import type { Move } from "./moves";
import { Bar, Named, nameOf } from "./parts";
import { reason } from "./reasons";
import type { Explanation, TopItems } from "./types";

// The ten likeliest items by name, one number each, and a line of reasons; with what became of them after an event.
export function Best({ top, then, after, explanation, chosen, onChoose, onSuppose }: {
  top: TopItems | null; then: TopItems | null; after: string; explanation: Explanation | null; chosen: string;
  onChoose: (item: string) => void; onSuppose: (item: string) => void;
}) {
  const all = top ? moves(top.items, (then ?? top).items) : [];
  const shown = all.slice(0, SHOWN);
  const reasons = new Map(explanation?.candidates.map((one) => [one.item, reason(one)]));
  const supposed = all.find(({ now }) => now.item === after)?.now;
  const best = shown[0]?.now;
  return (
    <>
      <div class="head">
        <h2 id="list-title">{then ? <>Most likely, had they just chosen <Named>{supposed ? nameOf(supposed) : after}</Named></> : "Most likely now"}</h2>
        {then ? <button type="button" class="undo" onClick={() => { onSuppose(""); }}>Undo</button>
          : <span class="small soft">{!best ? "" : best.probability === null ? "bars: next to the first one" : "chance that each is chosen"}</span>}
      </div>
      <ol class={then ? "best moved" : "best"}>
        {shown.map((move) => (
          <li key={move.now.item} class={move.now.item === chosen ? "chosen" : ""}>
            <span class="rank soft">{move.now.rank}</span>
            <button type="button" class="item" aria-pressed={move.now.item === chosen} onClick={() => { onChoose(move.now.item); }}>
              <bdi class="word name">{nameOf(move.now)}</bdi>
              <span class="small soft reason">{reasons.get(move.now.item) ?? "…"}</span>
            </button>
            <Bar share={move.now.probability ?? Math.exp(value(move.now) - (best ? value(best) : 0))} />
            <Number move={move} moved={then !== null} />
            <button type="button" class="what" aria-label={`What if they now choose ${nameOf(move.now)}?`} onClick={() => { onSuppose(move.now.item); }}>What if?</button>
          </li>
        ))}
      </ol>
    </>
  );
}

// Its rank, where there is no probability, is already in front of the name.
function Number({ move, moved }: { move: Move; moved: boolean }) {
  const up = rise(move);
  const changed = moved && (!move.before || number(move.before) !== number(move.now));
  return (
    <span class="number">
      {changed ? <span class={`was ${up > 0 ? "up" : "down"}`}>{move.before ? number(move.before) : "far below"} {up > 0 ? "▲" : "▼"} </span> : null}
      {move.now.probability === null ? null : <strong>{number(move.now)}</strong>}
    </span>
  );
}
