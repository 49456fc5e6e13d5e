"""Names beside points so that no two cover each other: each takes the first free place around its point."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lifelong.reports import drawing
from lifelong.reports.drawing import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

Box = tuple[float, float, float, float]
"""left, bottom, right, top."""
_LONGEST = 22
_LEADER = 14.0
"""Points between a name and its point from which a thin line joins them."""


def place_labels(
    canvas: Canvas, axes: Axes, points: Mapping[str, tuple[float, float]], bold: Collection[str], theme: Theme
) -> None:
    """Write each point's name at a free place near it.

    Args:
        canvas: whose layout is final but for the labels.
        axes: where the points were drawn.
        points: name -> data coordinates.
        bold: names that stand out; they choose first.
        theme: colours.
    """
    canvas.draw_without_rendering()
    unit = canvas.dpi / 72
    where = {name: tuple(axes.transData.transform(point)) for name, point in points.items()}
    taken: list[Box] = [_around(x, y, 5 * unit, 5 * unit) for x, y in where.values()]
    frame = axes.get_window_extent()
    limits = (frame.x0, frame.y0, frame.x1, frame.y1)
    for name in sorted(points, key=lambda name: (name not in bold, -where[name][1])):
        text: dict[str, Any] = {"fontsize": 9, "fontweight": "bold" if name in bold else "normal"}
        size = _size(canvas, axes, drawing.short(name, _LONGEST), text)
        dx, dy, box = _free_place(where[name], size, taken, limits, unit)
        taken.append(box)
        if max(abs(dx) - size[0] / unit / 2, abs(dy) - size[1] / unit / 2) > _LEADER:
            text["arrowprops"] = {"arrowstyle": "-", "color": theme.ink, "alpha": 0.35, "linewidth": 0.6, "shrinkB": 4}
        # The names keep their places when the layout is computed again.
        axes.annotate(
            drawing.short(name, _LONGEST),
            points[name],
            xytext=(dx, dy),
            textcoords="offset points",
            ha="center",
            va="center",
            **text,
        ).set_in_layout(False)


def _free_place(
    point: tuple[float, ...], size: tuple[float, float], taken: list[Box], limits: Box, unit: float
) -> tuple[float, float, Box]:
    """Offset in points and box of the candidate that covers least."""
    best: tuple[float, float, float, Box] | None = None
    for dx, dy in _offsets(size[0] / unit, size[1] / unit):
        box = _around(point[0] + dx * unit, point[1] + dy * unit, size[0] / 2, size[1] / 2)
        covered = sum(_overlap(box, other) for other in taken) + 4 * _outside(box, limits)
        if best is None or covered < best[0]:
            best = (covered, dx, dy, box)
        if covered == 0:
            break
    assert best is not None
    return best[1:]


def _offsets(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Right, left, above, below, then wider and wider rings."""
    near_x, near_y = width / 2 + 7, height / 2 + 6
    yield from ((near_x, 0.0), (-near_x, 0.0), (0.0, near_y), (0.0, -near_y))
    for ring in range(1, 9):
        for step in range(16):
            angle = 2 * math.pi * step / 16
            yield near_x * math.cos(angle) + 9 * ring * math.cos(angle), (near_y + 9 * ring) * math.sin(angle)


def _size(canvas: Canvas, axes: Axes, text: str, look: Mapping[str, Any]) -> tuple[float, float]:
    """Width and height in pixels, with a margin."""
    drawn = axes.text(0, 0, text, **look)
    extent = drawn.get_window_extent(canvas.canvas.get_renderer())  # type: ignore[attr-defined]
    drawn.remove()
    return extent.width + 4, extent.height + 2


def _around(x: float, y: float, half_width: float, half_height: float) -> Box:
    return (x - half_width, y - half_height, x + half_width, y + half_height)


def _overlap(first: Box, second: Box) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)


def _outside(box: Box, limits: Box) -> float:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return area - _overlap(box, limits)
