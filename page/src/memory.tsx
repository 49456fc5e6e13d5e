import { useState } from "preact/hooks";
import { Bar, Scroll } from "./parts";
import type { Candidate, Explanation, FieldCells, MemoryCells, Slot } from "./types";
import { cellWords, counted, eventsAgo, percent, plural } from "./words";

const FEW = 8;

// A name keeps two memories on one page apart.
export function Memory({ explanation, cells, candidate, name = "" }: {
  explanation: Explanation | null; cells: MemoryCells | null; candidate: Candidate | null; name?: string;
}) {
  const fields = cells?.fields ?? [];
  return (
    <>
      {!fields.length && !explanation?.slots.length ? <p class="soft">No part of this memory can be shown.</p> : null}
      {fields.map((field) => <Counters key={field.field} field={field} candidate={candidate} name={name} />)}
      {explanation?.slots.length ? <Slots explanation={explanation} candidate={candidate} name={name} /> : null}
    </>
  );
}

function Counters({ field, candidate, name }: { field: FieldCells; candidate: Candidate | null; name: string }) {
  const [all, setAll] = useState(false);
  const most = field.cells[0]?.times ?? 1;
  const full = field.used === field.size;
  const listed = all ? field.cells : field.cells.slice(0, FEW);
  const wanted = candidate?.counted?.values.find(({ field: name }) => name === field.field);
  const label = name ? `${field.field}, ${name}` : field.field;
  return (
    <section class="counters" aria-label={label}>
      <div class="head">
        <h3>{field.field}</h3>
        <span class="small">{field.used.toLocaleString("en")} of {plural(field.size, "cell")} {full ? <strong class="tag">full</strong> : "in use"}</span>
      </div>
      <Bar share={field.size ? field.used / field.size : 0} tone={full ? "full" : ""} />
      {field.cells.length ? (
        <Scroll label={`Values of ${label}`}>
          <table>
            <thead><tr><th scope="col">Value</th><th scope="col" class="number">Met</th><th scope="col" class="wide extra"><span class="hidden">as a bar</span></th><th scope="col">Last</th></tr></thead>
            <tbody>
              {listed.map((cell, at) => (
                <tr key={at} class={cell.value !== null && wanted && (cell.low === null ? cell.value === wanted.value : cell.low === wanted.low) ? "chosen" : ""}>
                  <th scope="row"><bdi class="word">{cell.value === null ? "several rare values" : cellWords(cell)}</bdi></th>
                  <td class="number">{counted(cell.times, cell.precision)}</td>
                  <td class="wide extra"><Bar share={cell.times / most} /></td>
                  <td class="ago">{eventsAgo(cell.events_ago)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      ) : null}
      {field.cells.some(({ low }) => low !== null) ? <p class="small soft">Numbers close to each other share a cell, which counts all of its range.</p> : null}
      {field.cells.length > FEW ? (
        <button type="button" class="quiet" aria-expanded={all} onClick={() => { setAll(!all); }}>
          {all ? "Show fewer" : `Show all ${field.cells.length}`}<span class="hidden"> of {field.field}</span>
        </button>
      ) : null}
    </section>
  );
}

// The events that a slot summed up when it was written last.
function reach({ window }: Slot): string {
  if (window === null) return "–";
  const [from, to] = window;
  return to === from ? `event ${to.toLocaleString("en")}` : `events ${from.toLocaleString("en")}–${to.toLocaleString("en")}`;
}

function Slots({ explanation, candidate, name }: { explanation: Explanation; candidate: Candidate | null; name: string }) {
  const attends = explanation.attention_over === "slots" && candidate !== null;
  const most = Math.max(...explanation.slots.map((slot) => slot.norm), 1e-9);
  return (
    <section class="counters" aria-label={name ? `Slots, ${name}` : "Slots"}>
      <div class="head"><h3>Slots: vectors of several time scales</h3></div>
      <Scroll label={name ? `Table of slots, ${name}` : "Table of slots"}>
        <table>
          <thead><tr><th scope="col">Slot</th><th scope="col">Written</th><th scope="col">Events</th><th scope="col" class="wide">Length</th>{attends ? <th scope="col" class="wide">Attention</th> : null}</tr></thead>
          <tbody>
            {explanation.slots.map((slot, at) => {
              const weight = candidate?.slots[at]?.attention ?? 0;
              return (
                <tr key={at}>
                  <th scope="row">{slot.slot + 1}</th>
                  <td>{slot.written}<br /><span class="small soft">{slot.window === null ? "still empty" : slot.window[1] === explanation.count ? "by the last event" : `last ${eventsAgo(explanation.count - slot.window[1] + 1)}`}</span></td>
                  <td>{reach(slot)}</td>
                  <td class="wide"><Bar share={slot.norm / most} /><span class="number">{slot.norm.toPrecision(3)}</span></td>
                  {attends ? <td class="wide"><Bar share={Math.abs(weight)} /><span class="number">{Number(weight.toPrecision(3))}</span></td> : null}
                </tr>
              );
            })}
          </tbody>
        </table>
      </Scroll>
      {explanation.slots.some((slot) => slot.period !== null) ? <p class="small soft">A slot sums up the events of its last write and, through its earlier value, less and less of all before them.</p> : null}
    </section>
  );
}
