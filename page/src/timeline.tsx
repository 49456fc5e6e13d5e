import { Fragment } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { ComponentChildren } from "preact";
import { AXIS, LANE, colours, draw } from "./draw";
import { columnOf, columns, lanes } from "./lanes";
import { Named, Said } from "./parts";
import { reasonOf } from "./reasons";
import type { Route } from "./route";
import { gaps, moved, nearest, numberTicks, timeTicks, whole, zoomed } from "./scale";
import type { View } from "./scale";
import type { Candidate, History, Model } from "./types";
import { ago, date, fieldWords, plural, shown, span } from "./words";

const KEYS = "Left and right arrows go from event to event, Shift and arrows move the view, plus and minus zoom, 0 shows all, Home and End go to the first and last event.";

// How the history is drawn, as the address keeps it.
export type Shown = Pick<Route, "rows" | "byNumber" | "view" | "event">;
const PAUSE = 300;

// Below the drawing, `children` are in the row of what can be opened.
export function Timeline({ history, model, candidate, shown: { rows: rowsBy, byNumber, view: firstView, event }, onShown, children }: {
  history: History; model: Model; candidate: Candidate | null; shown: Shown; onShown: (shown: Partial<Shown>) => void; children?: ComponentChildren;
}) {
  const names = useMemo(() => columns(history, model.number_fields), [history, model]);
  const timed = model.time_unit === "seconds";
  const byTime = timed && !byNumber;
  const x = useMemo(() => ascending(byTime ? history.time : history.position), [history, byTime]);
  const all = useMemo(() => whole(x), [x]);
  const [view, setView] = useState<View>(() => fitting(firstView, all));
  const [selected, setSelected] = useState(() => (event ? history.position.indexOf(event) : -1));
  const box = useRef<HTMLCanvasElement>(null);
  const used = names.includes(rowsBy) ? rowsBy : (names[0] ?? "item");
  const rows = useMemo(() => lanes(columnOf(history, used)), [history, used]);
  const pauses = useMemo(() => (byTime ? gaps(x) : []), [x, byTime]);
  const reason = useMemo(() => reasonOf(history, candidate), [history, candidate]);
  const marked = useMemo(() => (reason ? x.filter((_, place) => reason.holds(place)) : null), [reason, x]);
  // The first drawing is that of the address; other events, or another axis, begin with all of them.
  const drawn = useRef({ all, history });
  useLayoutEffect(() => {
    if (drawn.current.all !== all) setView(all);
    if (drawn.current.history !== history) setSelected(-1);
    drawn.current = { all, history };
  }, [all, history]);
  useEffect(() => {
    const timer = setTimeout(() => { onShown({ view: view === all ? null : view, event: history.position[selected] ?? 0 }); }, PAUSE);
    return () => { clearTimeout(timer); };
  }, [view, selected]);

  const height = (rows.labels.length + (marked ? 1 : 0)) * LANE + AXIS;
  useLayoutEffect(() => {
    const canvas = box.current;
    if (!canvas) return;
    let frame = 0;
    const paint = () => {
      frame = 0;
      const most = canvas.clientWidth / 110;
      const ticks = byTime ? timeTicks(view, most) : numberTicks(view, most);
      const gapLabel = ({ from, to }: View) => (timed ? `${span(to - from)} without an event` : "no event");
      draw(canvas, { x, lanes: rows, gaps: pauses, gapLabel, ticks, view, marked, selected }, colours(canvas));
    };
    const soon = () => { if (!frame) frame = requestAnimationFrame(paint); };
    const watch = new ResizeObserver(soon);
    watch.observe(canvas);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", soon);
    soon();
    return () => {
      watch.disconnect();
      scheme.removeEventListener("change", soon);
      cancelAnimationFrame(frame);
    };
  }, [x, rows, pauses, view, marked, selected, byTime, timed]);

  const least = Math.min(all.to - all.from, byTime ? 3_600 : 5);
  const zoom = (factor: number, around?: number) => {
    setView((before) => zoomed(before, factor, around ?? (selected >= 0 ? (x[selected] ?? 0) : (before.from + before.to) / 2), all, least));
  };
  const pan = (share: number) => { setView((before) => moved(before, share * (before.to - before.from), all)); };
  const select = (at: number) => {
    const place = Math.min(Math.max(at, 0), x.length - 1);
    setSelected(place);
    const where = x[place] ?? 0;
    setView((before) => where >= before.from && where <= before.to ? before
      : moved({ from: where - (before.to - before.from) / 2, to: where + (before.to - before.from) / 2 }, 0, all));
  };
  const near = () => nearest(x, (view.from + view.to) / 2);

  const onKeyDown = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
    if (step && event.shiftKey) pan(step * 0.2);
    else if (step) select(selected < 0 ? near() : selected + step);
    else if (event.key === "PageUp" || event.key === "PageDown") pan(event.key === "PageUp" ? -0.8 : 0.8);
    else if (event.key === "+" || event.key === "=") zoom(0.5);
    else if (event.key === "-") zoom(2);
    else if (event.key === "0") setView(all);
    else if (event.key === "Home") select(0);
    else if (event.key === "End") select(x.length - 1);
    else return;
    event.preventDefault();
  };
  const pointers = usePointers(box, view, setView, all, least, (at) => { select(nearest(x, at)); });

  if (!x.length) return <p class="soft">No event is known: {history.note}.</p>;
  return (
    <>
      <div class="tools">
        <label class="inline">Rows by
          <select value={used} onChange={(change) => { onShown({ rows: change.currentTarget.value }); }}>
            {names.map((name) => <option key={name} value={name}>{name}</option>)}
          </select>
        </label>
        {timed ? (
          <label class="inline">Along
            <select value={byTime ? "time" : "number"} onChange={(change) => { onShown({ byNumber: change.currentTarget.value === "number" }); }}>
              <option value="time">time</option>
              <option value="number">number of the event</option>
            </select>
          </label>
        ) : null}
        <span class="buttons" role="group" aria-label="View">
          <button type="button" onClick={() => { pan(-0.5); }} aria-label="Earlier">←</button>
          <button type="button" onClick={() => { pan(0.5); }} aria-label="Later">→</button>
          <button type="button" onClick={() => { zoom(0.5); }} aria-label="Zoom in">+</button>
          <button type="button" onClick={() => { zoom(2); }} aria-label="Zoom out">−</button>
          <button type="button" onClick={() => { setView(all); }}>All</button>
        </span>
      </div>
      <div class="drawing">
        <ol class="lanes" aria-label={`Rows: values of ${used}, with their events`}>
          {marked ? <li class="mark"><span class="swatch" aria-hidden="true">▲</span><bdi title={reason?.label}>{reason?.label}</bdi> <span class="soft">{marked.length}</span></li> : null}
          {rows.labels.map((label, at) => (
            <li key={label}><span class={`swatch lane-${at}`} aria-hidden="true" /><bdi title={label}>{shown(label)}</bdi> <span class="soft">{rows.counts[at]?.toLocaleString("en")}</span></li>
          ))}
        </ol>
        <canvas ref={box} style={{ height: `${height}px` }} tabIndex={0} role="application" aria-describedby="timeline-keys"
          aria-label={`History of ${history.user}: ${plural(x.length, "event")}`} onKeyDown={onKeyDown} {...pointers} />
      </div>
      {/* What is closed describes nothing to a screen reader. */}
      <p class="hidden" id="timeline-keys">{KEYS}</p>
      <p class="selected" aria-live="polite">{selected >= 0 && selected < x.length ? <EventWords history={history} at={selected} unit={model.time_unit} /> : `${plural(x.length, "event")}; select one in the timeline.`}</p>
      {reason ? <p class="small">▲ {reason.before}<Named>{reason.item}</Named>{reason.after}</p> : null}
      <div class="more">
        {children}
        <details>
          <summary>Keys and source</summary>
          <p class="small soft">{KEYS} With a pointer: drag, pinch, or Ctrl and wheel.</p>
          <p class="small soft">Drawn are {plural(x.length, "event")} of {history.count.toLocaleString("en")}: <Said>{history.note}</Said>.</p>
        </details>
      </div>
    </>
  );
}

function EventWords({ history, at, unit }: { history: History; at: number; unit: string }) {
  const fields: Record<string, string | null> = {};
  for (const [name, texts] of Object.entries(history.fields)) fields[name] = texts.values[texts.index[at] ?? -1] ?? null;
  const time = history.time[at] ?? 0;
  const words = [
    `No. ${(history.position[at] ?? 0).toLocaleString("en")}`,
    history.items.values[history.items.index[at] ?? -1] ?? "unknown item",
    history.types.values[history.types.index[at] ?? -1] ?? "",
    fieldWords(fields),
    date(time, unit),
    unit === "seconds" ? ago(Date.now() / 1000 - time) : "",
  ];
  return <>{words.filter(Boolean).map((text, place) => <Fragment key={place}>{place ? " · " : ""}<Named>{text}</Named></Fragment>)}</>;
}

// Late events were folded in behind later ones: a drawing wants them in ascending order.
function ascending(values: number[]): Float64Array {
  const found = Float64Array.from(values);
  let largest = -Infinity;
  for (let at = 0; at < found.length; at++) {
    largest = Math.max(largest, found[at] ?? 0);
    found[at] = largest;
  }
  return found;
}

function fitting(wanted: View | null, all: View): View {
  return wanted && wanted.to - wanted.from < all.to - all.from ? moved(wanted, 0, all) : all;
}

// Drag, pinch and wheel.
function usePointers(
  box: { current: HTMLCanvasElement | null }, view: View, setView: (next: View) => void, all: View, least: number, tap: (at: number) => void,
) {
  const down = useRef(new Map<number, number>());
  const start = useRef<{ view: View; x: number; apart: number; far: boolean } | null>(null);
  const width = () => box.current?.clientWidth ?? 1;
  const left = () => box.current?.getBoundingClientRect().left ?? 0;
  const middle = () => [...down.current.values()].reduce((sum, x) => sum + x, 0) / Math.max(down.current.size, 1);
  const apart = () => {
    const [a, b] = [...down.current.values()];
    return a === undefined || b === undefined ? 0 : Math.max(Math.abs(a - b), 10);
  };
  const begin = (far: boolean) => { start.current = { view, x: middle(), apart: apart(), far }; };
  const latest = useRef({ view, all, least });
  latest.current = { view, all, least };
  useEffect(() => {
    const canvas = box.current;
    if (!canvas) return;
    // Not passive, since it keeps the page from scrolling; a plain wheel scrolls it.
    const onWheel = (event: WheelEvent) => {
      const now = latest.current;
      const size = now.view.to - now.view.from;
      if (event.ctrlKey || event.metaKey) {
        const around = now.view.from + ((event.clientX - left()) / width()) * size;
        setView(zoomed(now.view, Math.exp(event.deltaY * 0.005), around, now.all, now.least));
      } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        setView(moved(now.view, ((event.deltaX || event.deltaY) / width()) * size, now.all));
      } else return;
      event.preventDefault();
    };
    canvas.addEventListener("wheel", onWheel, { passive: false });
    return () => { canvas.removeEventListener("wheel", onWheel); };
  }, []);
  const end = (event: PointerEvent) => {
    const was = start.current;
    const single = down.current.size === 1;
    down.current.delete(event.pointerId);
    if (event.type === "pointerup" && single && was && !was.far)
      tap(view.from + ((event.clientX - left()) / width()) * (view.to - view.from));
    if (down.current.size) begin(true);
    else start.current = null;
  };
  return {
    onPointerDown: (event: PointerEvent) => {
      if (event.button) return;
      box.current?.setPointerCapture(event.pointerId);
      down.current.set(event.pointerId, event.clientX);
      begin(down.current.size > 1);
    },
    onPointerMove: (event: PointerEvent) => {
      const was = start.current;
      if (!was || !down.current.has(event.pointerId)) return;
      down.current.set(event.pointerId, event.clientX);
      const shift = middle() - was.x;
      if (!was.far && Math.abs(shift) < 4 && down.current.size === 1) return;
      was.far = true;
      const size = was.view.to - was.view.from;
      const around = was.view.from + ((was.x - left()) / width()) * size;
      const scaled = was.apart && down.current.size > 1 ? zoomed(was.view, was.apart / apart(), around, all, least) : was.view;
      setView(moved(scaled, (-shift / width()) * (scaled.to - scaled.from), all));
    },
    onPointerUp: end,
    onPointerCancel: end,
  };
}
