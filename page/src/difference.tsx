import { useState } from "preact/hooks";
import { cellChanges, scoreChanges, slotChanges } from "./changes";
import type { Order, Snapshot } from "./changes";
import { Scroll } from "./parts";
import { cellWords, plural, signed } from "./words";

const FEW = 12;

// What differs between two states of one user: counters, slots, scores and ranks.
export function Difference({ before, after, chosen, order }: {
  before: Snapshot; after: Snapshot; chosen: string; order: Order;
}) {
  const [all, setAll] = useState(false);
  const cells = cellChanges(before.cells, after.cells).sort((a, b) => Math.abs(b.after - b.before) - Math.abs(a.after - a.before));
  const slots = slotChanges(before.explanation, after.explanation);
  const scores = scoreChanges(before.explanation, after.explanation, order);
  return (
    <>
      {cells.length ? (
        <ul class="small" aria-label="Counters that changed">
          {(all ? cells : cells.slice(0, FEW)).map((cell) => (
            <li key={`${cell.field} ${cell.value}`}>{cell.field} <bdi class="word">{cellWords(cell)}</bdi>: {cell.before} → {cell.after}{cell.after ? "" : " (lost its cell)"}{cell.before ? "" : " (a new cell)"}</li>
          ))}
        </ul>
      ) : null}
      {cells.length > FEW ? (
        <button type="button" class="quiet" aria-expanded={all} onClick={() => { setAll(!all); }}>
          {all ? "Show fewer" : `Show all ${plural(cells.length, "counter")} that changed`}
        </button>
      ) : null}
      {slots.length ? <p class="small">Slots that were written: {slots.map((slot) => `${slot.name} (length ${slot.before.toPrecision(3)} → ${slot.after.toPrecision(3)})`).join(", ")}.</p> : null}
      <Scroll label="Scores before and after">
        <table>
          <thead><tr><th scope="col">Candidate</th><th scope="col" class="number">Score before</th><th scope="col" class="number">after</th><th scope="col" class="number">Change</th><th scope="col">Rank</th></tr></thead>
          <tbody>
            {scores.map((change) => (
              <tr key={change.item} class={change.item === chosen ? "chosen" : ""}>
                <th scope="row"><bdi class="word">{change.item}</bdi></th><td class="number">{change.before.toFixed(3)}</td><td class="number">{change.after.toFixed(3)}</td>
                <td class="number">{signed(change.after - change.before)}</td>
                <td class="rank">{change.rankBefore === change.rankAfter ? change.rankAfter : `${change.rankBefore} → ${change.rankAfter}`}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </>
  );
}
