// Tables that are sorted by a click on a heading, and the value of the mark next to the pointer in figures.
// The page is complete without this script; it is a part of the page, and its hash is in the page's policy.
"use strict";

const letters = new Intl.Collator("en", { numeric: true });
const WAYS = { none: "ascending", ascending: "descending", descending: "none" };

/** A number where the cell has one, else its text. */
function valueOf(row, column) {
  const cell = row.cells[column];
  return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
}

/** Numbers come first both ways, so that cells without a value stay at the end. */
function compare(one, other, sign) {
  if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1;
  return sign * (typeof one === "number" ? one - other : letters.compare(one, other));
}

function makeSortable(table) {
  const body = table.tBodies[0];
  const written = [...body.rows].filter((row) => !("fixed" in row.dataset));
  if (written.length < 2) return;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const way = WAYS[head.getAttribute("aria-sort") ?? "none"];
      for (const other of heads) other.removeAttribute("aria-sort");
      if (way !== "none") head.setAttribute("aria-sort", way);
      const sign = way === "ascending" ? 1 : -1;
      const ordered = [...written];
      if (way !== "none") ordered.sort((a, b) => compare(valueOf(a, column), valueOf(b, column), sign));
      body.append(...ordered);
    });
  });
}

const NEAR = 24; // CSS pixels from the pointer
const bubble = document.createElement("div");
bubble.className = "tip";
bubble.setAttribute("role", "status");
document.body.append(bubble);
let shown = null;

function show(mark, text) {
  shown?.classList.remove("at");
  shown = mark;
  bubble.textContent = text ?? "";
  if (mark === null) return;
  mark.classList.add("at");
  const box = mark.getBoundingClientRect();
  const left = box.x + box.width / 2 - bubble.offsetWidth / 2;
  const room = document.documentElement.clientWidth - bubble.offsetWidth - 8;
  const above = box.y - bubble.offsetHeight - 8;
  bubble.style.left = `${Math.max(8, Math.min(left, room)) + scrollX}px`;
  bubble.style.top = `${(above < 0 ? box.bottom + 8 : above) + scrollY}px`;
}

function nearest(marks, event) {
  let found = null, least = NEAR;
  for (const mark of marks) {
    const box = mark.getBoundingClientRect();
    const far = Math.hypot(box.x + box.width / 2 - event.clientX, box.y + box.height / 2 - event.clientY);
    if (far < least) [found, least] = [mark, far];
  }
  return found;
}

/** Pointer, or arrow keys where the figure has the focus, from mark to mark; Escape hides the value. */
function makeReadable(figure) {
  const texts = new Map();
  for (const title of figure.querySelectorAll("g > title")) {
    texts.set(title.parentNode, title.textContent);
    title.remove(); // else the browser shows it too
  }
  const marks = [...texts.keys()];
  if (marks.length === 0) return;
  const go = (mark) => show(mark, texts.get(mark));
  figure.addEventListener("pointermove", (event) => go(nearest(marks, event)));
  figure.addEventListener("pointerdown", (event) => go(nearest(marks, event)));
  figure.addEventListener("pointerleave", () => show(null));
  figure.addEventListener("blur", () => show(null));
  figure.addEventListener("scroll", () => texts.has(shown) && go(shown));
  figure.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") show(null);
    if (step === undefined) return;
    event.preventDefault();
    const at = marks.indexOf(shown);
    const mark = at < 0 ? marks.at(step < 0 ? -1 : 0) : marks.at((at + step) % marks.length);
    mark.scrollIntoView({ block: "nearest", inline: "nearest" });
    go(mark);
  });
}

document.querySelectorAll("table").forEach(makeSortable);
document.querySelectorAll("figure .scroll").forEach(makeReadable);
