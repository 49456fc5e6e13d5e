import { useState } from "preact/hooks";
import { Effect, Named, Scroll } from "./parts";
import type { Candidate, PastEvent } from "./types";
import { ago, date, plural, signed } from "./words";

const FEW = 5;

// What single past events do to a score: each is left out, and the memory folded again without it.
export function Effects({ events, item, all, unit, selected, onSelect }: {
  events: Candidate["event_effects"]; item: string; all: number; unit: string; selected: number; onSelect: (position: number) => void;
}) {
  const [open, setOpen] = useState(false);
  const most = Math.abs(events[0]?.effect ?? 0);
  const of = all > events.length ? `the latest ${events.length} of these ${all.toLocaleString("en")} events` : `these ${plural(events.length, "event")}`;
  return (
    <>
      <Scroll label="Effects of single events">
        <table class="effects">
          <caption>What each of {of} alone does to the score of <Named>{item}</Named>: the score less that of a memory without it</caption>
          <thead><tr><th scope="col">Event</th><th scope="col">When</th><th scope="col" class="number">Effect</th><th scope="col" class="wide extra"><span class="hidden">as a bar</span></th></tr></thead>
          <tbody>
            {(open ? events : events.slice(0, FEW)).map((event) => (
              <tr key={event.position} class={event.position === selected ? "chosen" : ""}>
                <th scope="row">
                  <button type="button" class="link" aria-pressed={event.position === selected} onClick={() => { onSelect(event.position); }}>
                    No. {event.position.toLocaleString("en")} <Named>{event.item || "unknown item"}</Named>
                  </button>
                </th>
                <td>{when(event, unit)}</td>
                <td class="number">{signed(event.effect)}</td>
                <td class="wide extra"><Effect value={event.effect} most={most} /></td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {events.length > FEW ? (
        <button type="button" class="quiet" aria-expanded={open} onClick={() => { setOpen(!open); }}>
          {open ? "Show fewer" : `Show all ${plural(events.length, "event")}`}<span class="hidden"> with their effects</span>
        </button>
      ) : null}
    </>
  );
}

function when(event: PastEvent, unit: string): string {
  return event.seconds_ago === null ? date(event.time, unit) : ago(event.seconds_ago);
}
