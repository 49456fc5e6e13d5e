"""Draws which package imports which: `docs/rooms.svg`.

    PYTHONPATH=tests python -m support.rooms > docs/rooms.svg      writes it anew

A box stands above all that it imports, so every arrow goes down. An arrow that follows from two others is left out.
What every package may use (errors, config and other single files) is left out as well.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from html import escape
from itertools import pairwise
from statistics import fmean

from support.imports import PACKAGE, ROOT, Graph, import_graph

HALVES = ("offline", "online")

WIDTH = 400
ROW = 64
BOX_HEIGHT = 30
# Letters of 13 px are about 7.4 px wide; 12 px are free on both sides.
LETTER, PADDING = 7.4, 24
BEND_WIDTH = 14

STYLE = """
text { font: 13px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; text-anchor: middle; fill: #1d2433 }
.room rect { fill: #fff0d6; stroke: #b36b00 } .other rect { fill: #eef3fb; stroke: #4a6fa5 }
path { fill: none; stroke: #70778a; stroke-width: 1.4 } marker path { fill: #70778a; stroke: none }
@media (prefers-color-scheme: dark) {
  text { fill: #e8eaf0 } .room rect { fill: #4a3510; stroke: #e0a23c } .other rect { fill: #26344d; stroke: #7f9fd0 }
  path { stroke: #a3aabb } marker path { fill: #a3aabb }
}
"""


@dataclass(frozen=True)
class Bend:
    """Where a long arrow passes a row."""

    source: str
    target: str
    row: int


Node = str | Bend
Rows = list[list[Node]]


def room_graph(modules: Graph) -> Graph:
    """Box -> the boxes that it imports."""
    graph: Graph = {}
    for module, targets in modules.items():
        if box := _box(module):
            graph.setdefault(box, set()).update(
                other for target in targets if (other := _box(target)) not in (None, box)
            )
    return graph


def without_shortcuts(graph: Graph) -> Graph:
    """The graph less each edge for which there is also a longer way."""
    below: Graph = {}
    for box in TopologicalSorter(graph).static_order():
        below[box] = set(graph[box]).union(*(below[target] for target in graph[box]))
    return {box: targets - set().union(*(below[target] for target in targets)) for box, targets in graph.items()}


def draw(modules: Graph) -> str:
    """The picture as SVG."""
    graph = without_shortcuts(room_graph(modules))
    rows = _rows(graph)
    _untangle(rows, graph)
    places = _places(rows)
    height = len(rows) * ROW - (ROW - BOX_HEIGHT) + 4
    boxes = [_drawn_box(node, *places[node]) for row in rows for node in row if isinstance(node, str)]
    arrows = [_drawn_arrow([places[node] for node in way]) for way in _ways(graph, rows)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            'aria-label="Packages of lifelong: each imports only those below it">',
            f"<style>{STYLE}</style>",
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0L10 5L0 10z"/></marker></defs>',
            *arrows,
            *boxes,
            "</svg>\n",
        ]
    )


def _box(module: str) -> str | None:
    first, *below = module.removeprefix(f"{PACKAGE}.").split(".")
    # A file of a half's own, as what every room of it may use, has no box.
    path = (first, *below[:1]) if first in HALVES else (first,)
    return path[-1] if (ROOT / PACKAGE).joinpath(*path).is_dir() and path[-1] not in HALVES else None


def _rows(graph: Graph) -> Rows:
    """From the top: boxes, each as low as what it imports allows, and the bends of arrows that pass a row."""
    level: dict[str, int] = {}
    for box in TopologicalSorter({box: sorted(graph[box]) for box in sorted(graph)}).static_order():
        level[box] = 1 + max((level[target] for target in graph[box]), default=-1)
    top = max(level.values())
    rows: Rows = [[] for _ in range(top + 1)]
    for box in sorted(graph):
        rows[top - level[box]].append(box)
        for target in sorted(graph[box]):
            for row in range(top - level[box] + 1, top - level[target]):
                rows[row].append(Bend(box, target, row))
    return rows


def _ways(graph: Graph, rows: Rows) -> list[list[Node]]:
    """Of each arrow: its box, its bends from above to below, the box that it points at."""
    bends = [node for row in rows for node in row if isinstance(node, Bend)]
    return [
        [box, *(bend for bend in bends if (bend.source, bend.target) == (box, target)), target]
        for box in sorted(graph)
        for target in sorted(graph[box])
    ]


def _untangle(rows: Rows, graph: Graph) -> None:
    """Orders each row by the mean place of its neighbours, down and up again, so that few arrows cross."""
    neighbours: dict[Node, list[Node]] = {node: [] for row in rows for node in row}
    for way in _ways(graph, rows):
        for above, below in pairwise(way):
            neighbours[above].append(below)
            neighbours[below].append(above)
    for _ in range(12):
        for row in [*rows, *reversed(rows)]:
            places = _places(rows)
            row.sort(key=lambda node: fmean(places[other][0] for other in neighbours[node]))


def _places(rows: Rows) -> Mapping[Node, tuple[float, float]]:
    """Centre of each node; the nodes of a row share its width."""
    places: dict[Node, tuple[float, float]] = {}
    for number, row in enumerate(rows):
        widths = [_width(node) for node in row]
        free = (WIDTH - sum(widths)) / (len(row) + 1)
        left = free
        for node, width in zip(row, widths, strict=True):
            places[node] = (left + width / 2, number * ROW + BOX_HEIGHT / 2 + 2)
            left += width + free
    return places


def _width(node: Node) -> float:
    return len(node) * LETTER + PADDING if isinstance(node, str) else BEND_WIDTH


def _drawn_box(name: str, x: float, y: float) -> str:
    width = _width(name)
    kind = "room" if (ROOT / PACKAGE / "online" / name).is_dir() else "other"
    return (
        f'<g class="{kind}"><rect x="{x - width / 2:.1f}" y="{y - BOX_HEIGHT / 2:.1f}" width="{width:.1f}" '
        f'height="{BOX_HEIGHT}" rx="6"/><text x="{x:.1f}" y="{y + 4.5:.1f}">{escape(name)}</text></g>'
    )


def _drawn_arrow(way: list[tuple[float, float]]) -> str:
    """From the lower edge of the first box to the upper edge of the last one, upright where it passes a row."""
    half = BOX_HEIGHT / 2
    path = f"M{way[0][0]:.1f} {way[0][1] + half:.1f}"
    for (x, y), (next_x, next_y) in pairwise(way):
        middle = (y + next_y) / 2
        path += f"V{y + half:.1f}C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {next_y - half:.1f}"
    return f'<path d="{path}" marker-end="url(#head)"/>'


if __name__ == "__main__":
    sys.stdout.write(draw(import_graph()))
