"""Where the areas of a page lie and which colours they have, and what is wrong with a layout whatever the fonts are.

No pictures are compared: other fonts and other versions of Chromium draw other pixels. Left edges and widths of areas
come from the style alone, as do colours, and are kept in `tests/assets/page_layout.json`; a test that runs with
`WRITE_LAYOUT=1` writes them anew. Texts and heights are looked at in relation to each other: nothing overlaps, is cut
off, leaves its panel, or is too small to be pressed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

LAYOUT = Path(__file__).parents[1] / "assets" / "page_layout.json"

_AREAS = """() => {
  const body = getComputedStyle(document.body), found = [["body", body.backgroundColor, body.color].join(" | ")];
  let last = null;
  for (const element of document.querySelectorAll("header, main, .panel, .lanes")) {
    const box = element.getBoundingClientRect(), style = getComputedStyle(element);
    if (!box.width || !box.height) continue;
    const name = element.querySelector(":scope > h2, :scope > .head > h2")?.id;
    const beside = last && box.top < last.bottom - 1 && box.left >= last.right - 1;
    last = box;
    const line = [
      element.tagName.toLowerCase() + (name ? `#${name}` : ""), Math.round(box.left), Math.round(box.width),
      beside ? "beside" : "below", style.backgroundColor, style.color,
    ].join(" | ");
    // Many alike, as the endpoints are, are one.
    if (line !== found.at(-1)) found.push(line);
  }
  return found;
}"""

_FAULTS = """() => {
  const faults = [], root = document.documentElement, wide = root.scrollWidth - root.clientWidth;
  if (wide > 1) faults.push(`the page is ${wide} px too wide`);
  const text = (one) => (one.textContent || one.placeholder || "").trim().slice(0, 30);
  const name = (one) => `${one.tagName.toLowerCase()} “${text(one)}”`;
  const control = (one) => one.matches("input, select, button, textarea");
  const words = (one) => [...one.childNodes].filter((node) => node.nodeType === 3 && node.data.trim());
  const looks = { opacityProperty: true, visibilityProperty: true };
  const seen = (one) => one.checkVisibility(looks) && !one.closest(".hidden, .skip");
  // What scrolls or is cut off ends at the edge of its box.
  const clip = (box, one) => {
    let { left, right, top, bottom } = box;
    for (let up = one; up; up = up.parentElement) {
      if (getComputedStyle(up).overflowX === "visible" || getComputedStyle(up).display === "inline") continue;
      const edge = up.getBoundingClientRect();
      [left, right] = [Math.max(left, edge.left), Math.min(right, edge.right)];
      [top, bottom] = [Math.max(top, edge.top), Math.min(bottom, edge.bottom)];
    }
    return { left, right, top, bottom };
  };
  // Boxes of the lines, since a text that wraps need not fill its box.
  const lines = (one) => {
    const range = document.createRange();
    const of = control(one) ? [one.getBoundingClientRect()] : words(one).flatMap((node) => {
      range.selectNodeContents(node);
      return [...range.getClientRects()];
    });
    return of.map((box) => clip(box, one)).filter((box) => box.right > box.left && box.bottom > box.top);
  };
  const all = [...document.body.querySelectorAll("*")].filter((one) => seen(one));
  const telling = all.filter((one) => control(one) || words(one).length);
  const boxes = telling.map((one) => [one, lines(one)]);
  boxes.forEach(([one, of], at) => {
    const style = getComputedStyle(one), cut = one.scrollWidth > one.clientWidth + 1 && style.display !== "inline";
    if (cut && ["hidden", "clip"].includes(style.overflowX) && style.textOverflow !== "ellipsis" && !control(one))
      faults.push(`${name(one)} is cut off`);
    const pressed = one.matches("button, select, input:not([type=radio], [type=range])");
    if (pressed && Math.min(one.offsetWidth, one.offsetHeight) < 24)
      faults.push(`${name(one)} is too small to be pressed`);
    const panel = one.closest(".panel")?.getBoundingClientRect();
    if (panel && of.some((box) => box.right > panel.right + 1 || box.left < panel.left - 1))
      faults.push(`${name(one)} leaves its panel`);
    for (const [other, theirs] of boxes.slice(at + 1)) {
      // An open list lies above the page.
      if (one.contains(other) || other.contains(one) || other.closest(".combo ul")) continue;
      const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 3
        && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 8;
      if (of.some((a) => theirs.some((b) => meet(a, b)))) faults.push(`${name(one)} and ${name(other)} overlap`);
    }
  });
  return faults;
}"""


def areas_of(page: Any) -> list[str]:
    """Name, left edge, width, place relative to the area before, and colours of each area."""
    return list(page.evaluate(_AREAS))


def faults_of(page: Any) -> list[str]:
    """What is wrong with a layout, in words."""
    return list(page.evaluate(_FAULTS))


def style(page: Any, rule: str) -> None:
    """Add a rule to the page's style; its policy forbids new styles, and not this."""
    page.evaluate("(rule) => { const [of] = document.styleSheets; of.insertRule(rule, of.cssRules.length); }", rule)


def unstyle(page: Any) -> None:
    """Take the rule away that was added last."""
    page.evaluate("() => { const [of] = document.styleSheets; of.deleteRule(of.cssRules.length - 1); }")


def kept(name: str, found: list[str]) -> list[str]:
    """The areas of a view as they are kept; what was found, where they are written anew."""
    views: dict[str, list[str]] = json.loads(LAYOUT.read_text()) if LAYOUT.exists() else {}
    if os.environ.get("WRITE_LAYOUT"):
        views[name] = found
        LAYOUT.write_text(json.dumps(dict(sorted(views.items())), indent=1, ensure_ascii=False) + "\n")
    return views[name]
