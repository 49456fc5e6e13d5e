import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { Moment } from "./api";
import type { History, Model } from "./types";
import { date, plural } from "./words";

const PAUSE = 200;

// The moment after so many events. Its time is that of the last of them, and of the first event before there is one.
export function momentOf(after: number | null, history: History | null): Moment | null {
  if (after === null || !history || after >= history.count) return null;
  const at = history.position.indexOf(Math.max(after, 1));
  const time = history.time[at];
  return time === undefined ? { after_events: after } : { after_events: after, time };
}

export function momentWords(moment: Moment, history: History, model: Model): string {
  const when = moment.time === undefined ? "" : `, ${date(moment.time, model.time_unit)}`;
  return moment.after_events ? `after event ${moment.after_events.toLocaleString("en")} of ${history.count.toLocaleString("en")}${when}` : "before the first event";
}

// A slider over her events. What it moves is asked for when it rests.
export function Moments({ history, model, after, onAfter }: {
  history: History; model: Model; after: number | null; onAfter: (after: number | null) => void;
}) {
  const last = Math.min(history.count, model.replayed);
  const [value, setValue] = useState(after ?? last);
  const known = useRef({ after, last });
  useEffect(() => {
    // What the slider itself has asked for comes back late: it may have moved on.
    if (known.current.after === after && known.current.last === last) return;
    known.current = { after, last };
    setValue(Math.min(after ?? last, last));
  }, [after, last]);
  const ask = (wanted: number | null) => {
    known.current.after = wanted;
    onAfter(wanted);
  };
  useEffect(() => {
    const wanted = value >= history.count ? null : value;
    if (wanted === after || (after === null && value === last)) return;
    const timer = setTimeout(() => { ask(wanted); }, PAUSE);
    return () => { clearTimeout(timer); };
  }, [value]);
  const id = useId();
  const moment = momentOf(value, history);
  const words = moment ? momentWords(moment, history, model) : `now, after all ${plural(history.count, "event")}`;
  const step = (by: number) => { setValue((before) => Math.min(Math.max(before + by, 0), last)); };
  return (
    <div class="moments">
      <label for={id}>Her memory at an earlier moment</label>
      <div class="slider">
        <button type="button" onClick={() => { step(-1); }} disabled={value <= 0} aria-label="One event earlier">−</button>
        <input id={id} type="range" min={0} max={last} step={1} value={value} aria-valuetext={words}
          onInput={(event) => { setValue(event.currentTarget.valueAsNumber); }} />
        <button type="button" onClick={() => { step(1); }} disabled={value >= last} aria-label="One event later">+</button>
        <button type="button" onClick={() => { setValue(last); ask(null); }} disabled={after === null}>Now</button>
      </div>
      <p class="small">{words.charAt(0).toUpperCase() + words.slice(1)}.{last < history.count ? ` The service replays up to ${plural(model.replayed, "event")}.` : ""}</p>
    </div>
  );
}
