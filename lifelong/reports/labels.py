"""Names next to points, none over another: each takes the first free place around its point."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lifelong.reports import drawing
from lifelong.reports.drawing import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas
    from matplotlib.transforms import Bbox

_LONGEST = 22
_LEADER = 14.0
"""Points between a name and its point from which a thin line joins them."""


def place_labels(
    canvas: Canvas, axes: Axes, points: Mapping[str, tuple[float, float]], bold: Collection[str], theme: Theme
) -> None:
    """Write each point's name at a free place near it.

    Args:
        canvas: its layout is final except for the labels.
        axes: where the points were drawn.
        points: name -> data coordinates.
        bold: names in bold; they are placed first.
        theme: colours.
    """
    canvas.draw_without_rendering()
    unit = canvas.dpi / 72
    where = {name: tuple(axes.transData.transform(point)) for name, point in points.items()}
    taken: list[Bbox] = [_around(x, y, 5 * unit, 5 * unit) for x, y in where.values()]
    limits = axes.get_window_extent()
    for name in sorted(points, key=lambda name: (name not in bold, -where[name][1])):
        text: dict[str, Any] = {"fontsize": 9, "fontweight": "bold" if name in bold else "normal"}
        size = _size(canvas, axes, drawing.short(name, _LONGEST), text)
        dx, dy, box = _free_place(where[name], size, taken, limits, unit)
        taken.append(box)
        if max(abs(dx) - size[0] / unit / 2, abs(dy) - size[1] / unit / 2) > _LEADER:
            text["arrowprops"] = {"arrowstyle": "-", "color": theme.ink, "alpha": 0.35, "linewidth": 0.6, "shrinkB": 4}
        # Names must keep their places when the layout is computed again.
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
    point: tuple[float, ...], size: tuple[float, float], taken: list[Bbox], limits: Bbox, unit: float
) -> tuple[float, float, Bbox]:
    """Offset in points, and box, of the candidate place that covers least."""
    best: tuple[float, float, float, Bbox] | None = None
    for dx, dy in _offsets(size[0] / unit, size[1] / unit):
        box = _around(point[0] + dx * unit, point[1] + dy * unit, size[0] / 2, size[1] / 2)
        covered = sum(_overlap(box, other) for other in taken) + 4 * (box.width * box.height - _overlap(box, limits))
        if best is None or covered < best[0]:
            best = (covered, dx, dy, box)
        if covered == 0:
            break
    assert best is not None
    return best[1:]


def _offsets(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Candidate places: right, left, above, below, then wider and wider rings."""
    near_x, near_y = width / 2 + 7, height / 2 + 6
    yield from ((near_x, 0.0), (-near_x, 0.0), (0.0, near_y), (0.0, -near_y))
    for ring in range(1, 9):
        for step in range(16):
            angle = 2 * math.pi * step / 16
            yield near_x * math.cos(angle) + 9 * ring * math.cos(angle), (near_y + 9 * ring) * math.sin(angle)


def _size(canvas: Canvas, axes: Axes, text: str, look: Mapping[str, Any]) -> tuple[float, float]:
    """Width and height of a text in pixels, with a margin."""
    drawn = axes.text(0, 0, text, **look)
    extent = drawn.get_window_extent(canvas.canvas.get_renderer())  # type: ignore[attr-defined]
    drawn.remove()
    return extent.width + 4, extent.height + 2


def _around(x: float, y: float, half_width: float, half_height: float) -> Bbox:
    from matplotlib.transforms import Bbox

    return Bbox.from_extents(x - half_width, y - half_height, x + half_width, y + half_height)


def _overlap(first: Bbox, second: Bbox) -> float:
    from matplotlib.transforms import Bbox

    common = Bbox.intersection(first, second)
    return 0.0 if common is None else common.width * common.height
