// Tables that are sorted by a click on a heading.
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

document.querySelectorAll("table").forEach(makeSortable);
