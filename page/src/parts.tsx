import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Item, Problem } from "./types";

// A name in a sentence. It may be written from right to left, which must not turn the words around it.
export function Named({ children }: { children: ComponentChildren }) {
  return <bdi class="word">{children}</bdi>;
}

export const nameOf = ({ item, title }: Pick<Item, "item" | "title">) => title ?? item;

// A sentence of the service, which puts names in quotes.
export function Said({ children }: { children: string }) {
  return <>{children.split(/('[^']*'|"[^"]*")/).map((part, at) => (at % 2 ? <bdi key={at}>{part}</bdi> : part))}</>;
}

export function Failure({ problem, again }: { problem: Problem; again?: () => void }) {
  return (
    <div class="problem" role="alert">
      <p><Said>{problem.found}</Said></p>
      {problem.expected ? <p>Expected: <Said>{problem.expected}</Said></p> : null}
      {problem.fix ? <p>To do: <Said>{problem.fix}</Said></p> : null}
      {again ? <button type="button" onClick={again}>Try again</button> : null}
    </div>
  );
}

// A bar next to a number that says the same, so it is hidden from screen readers.
export function Bar({ share }: { share: number }) {
  return <span class="bar" aria-hidden="true"><span style={{ width: `${Math.min(100, Math.max(0, share * 100))}%` }} /></span>;
}

// An effect to the right (raises the score) or to the left of the middle (lowers it).
export function Effect({ value, most }: { value: number; most: number }) {
  const width = `${most ? (Math.min(1, Math.abs(value) / most) * 50).toFixed(1) : 0}%`;
  const side = value < 0 ? { right: "50%", width } : { left: "50%", width };
  return <span class="effect" aria-hidden="true"><span class={value < 0 ? "down" : "up"} style={side} /></span>;
}

// A wide table in a narrow place: it can be scrolled, by keyboard too, but is no stop of the Tab key where it fits.
export function Scroll({ label, children }: { label: string; children: ComponentChildren }) {
  const box = useRef<HTMLDivElement>(null);
  const [wide, setWide] = useState(false);
  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const watch = new ResizeObserver(() => { setWide(element.scrollWidth > element.clientWidth + 1); });
    watch.observe(element);
    // Its table may become wider while the box stays as it is.
    if (element.firstElementChild) watch.observe(element.firstElementChild);
    return () => { watch.disconnect(); };
  }, []);
  const stop = wide ? { tabIndex: 0, role: "group" as const, "aria-label": label } : {};
  return <div ref={box} class="scroll" {...stop}>{children}</div>;
}
