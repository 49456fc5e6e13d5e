"""The figures of a comparison. Each function draws one and writes it as SVG and PNG (see `drawing`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifelong.offline.evaluation.compare import ComparisonRow
from lifelong.offline.evaluation.results import Estimate, Result
from lifelong.offline.reports import drawing
from lifelong.offline.reports.drawing import LIGHT, Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CROWD = 8
"""With more series than this, only the best are coloured."""
BEST = 6
"""Number of series that are coloured then."""
_GREY = LIGHT.series[7]


_Point = tuple[float, Estimate]
"""Where a value of a series is drawn, and the value."""


def metric_by_model(results: Sequence[Result] | Sequence[ComparisonRow], folder: Path) -> Figure:
    """AUC and 95 % interval of each model, best on top; of rows of a comparison the means over seeds."""
    given = sorted((of.metrics["auc"].value, of.title, of.metrics["auc"]) for of in results if _known(of.metrics))
    path = folder / "auc-by-model.svg"
    with drawing.drawn(path, (9.1, 1.2 + 0.3 * len(given))) as canvas:
        axes = canvas.subplots()
        for place, (value, _, auc) in enumerate(given):
            _mark(axes, (place, auc), horizontal=True, color=LIGHT.series[0])
            axes.annotate(f"{value:.3f}", (auc.high or value, place), (6, 0), textcoords="offset points", va="center")
        drawing.name_rows(axes, [title for _, title, _ in given])
        drawing.chance_line(axes, vertical=True)
        drawing.finish(axes, grid="x", x="AUC (95 % interval)")
    caption = "Bars that overlap do not mean that two models are equal: the paired difference decides."
    return Figure(path, "AUC of each model", caption)


def metric_by_history(results: Sequence[Result], folder: Path, *, always: Collection[str] = ()) -> Figure:
    """AUC per slice of history length, one series per model; of many models the best are coloured, the rest grey.

    Args:
        results: one per model.
        folder: where to write.
        always: titles of models that are coloured however good they are.
    """
    # All results are of the same examples, so that the slices of the first one are those of all.
    places = [place for place, part in enumerate(results[0].slices) if part.examples]
    lines = {
        result.title: [(x, result.slices[place].metrics["auc"]) for x, place in enumerate(places)] for result in results
    }
    chosen = standing_out({result.title: result.metrics["auc"].value for result in results}, always)
    parts = [results[0].slices[place] for place in places]
    path = folder / "auc-by-history.svg"
    with drawing.drawn(path, (9.1, 4.5)) as canvas:
        axes = canvas.subplots()
        _series(axes, lines, chosen, apart=0.08)
        _classes(axes, [f"{part.name}\n{part.examples:,} examples" for part in parts])
        drawing.chance_line(axes, vertical=False)
        drawing.finish(axes, grid="y", x="events of the user before the target", y="AUC")
    caption = "Where long memory pays, a model rises above the others to the right. Bars are 95 % intervals over users."
    return Figure(path, "AUC by length of the history", caption)


def learning_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]], folder: Path, *, always: Collection[str] = ()
) -> Figure:
    """Validation AUC against training examples.

    Args:
        curves: title -> (training examples, AUC) of each validation, of which there is at least one.
        folder: where to write.
        always: titles that are coloured however good they are.
    """
    lines = {title: [(examples, Estimate(value=value)) for examples, value in curve] for title, curve in curves.items()}
    chosen = standing_out({title: max(auc for _, auc in curve) for title, curve in curves.items()}, always)
    path = folder / "learning-auc.svg"
    with drawing.drawn(path, (9.1, 4.2)) as canvas:
        from matplotlib.ticker import EngFormatter

        axes = canvas.subplots()
        _series(axes, lines, chosen, size=4)
        axes.xaxis.set_major_formatter(EngFormatter())
        drawing.finish(axes, x="training examples (positives and negatives)", y="AUC on validation")
    caption = "AUC on the validation split while training; the weights of the highest point are kept."
    return Figure(path, "Learning curves", caption)


def quality_against(points: Mapping[str, tuple[float, float]], folder: Path, *, name: str, cost: str) -> Figure:
    """AUC against a cost on a logarithmic axis, one labelled point per model; the best trades are joined.

    Args:
        points: title -> (cost, AUC); costs above 0.
        folder: where to write.
        name: file stem.
        cost: name of the cost, with its unit.
    """
    front, path = best_trades(points), folder / f"{name}.svg"
    with drawing.drawn(path, (9.1, 5.6)) as canvas:
        from adjustText import adjust_text
        from matplotlib.ticker import LogLocator, NullLocator

        axes = canvas.subplots()
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.plot(*zip(*(points[title] for title in front), strict=True), color=LIGHT.series[0], lw=1.2, alpha=0.6)
        for title, (x, y) in points.items():
            colour, shape = (LIGHT.series[0], "o") if title in front else (_GREY, "s")
            axes.plot([x], [y], shape, color=colour, markersize=7, markeredgecolor=LIGHT.paper)
        axes.margins(x=0.16, y=0.12)
        drawing.finish(axes, x=f"{cost} (logarithmic)", y="AUC")
        names = [
            axes.text(x, y, drawing.short(title, 22), fontsize=9, weight="bold" if title in front else "normal")
            for title, (x, y) in points.items()
        ]
        # Places are found in pixels: the layout must be final.
        canvas.draw_without_rendering()
        canvas.set_layout_engine("none")
        line = {"arrowstyle": "-", "color": LIGHT.ink, "alpha": 0.35, "lw": 0.6}
        # Steps and no seconds: the same points give the same figure on a slow machine.
        limits: dict[str, Any] = {"iter_lim": 500, "max_move": None, "min_arrow_len": 10}
        force = (0.3, 0.6)
        adjust_text(names, ax=axes, expand=(1.2, 1.8), force_text=force, force_static=force, arrowprops=line, **limits)
    caption = (
        "Further left is cheaper, further up is better. Round points, joined by the line, are the best trades: no "
        "model is both cheaper and better. A model without this cost is not drawn."
    )
    return Figure(path, f"AUC against {cost}", caption)


def best_trades(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Titles of the points that no other point beats in both cost and quality, the cheapest first.

    >>> best_trades({"a": (1.0, 0.6), "b": (2.0, 0.7), "c": (3.0, 0.65)})
    ['a', 'b']
    """
    front: list[str] = []
    for title, (_, quality) in sorted(points.items(), key=lambda of: (of[1][0], -of[1][1])):
        if not front or quality > points[front[-1]][1]:
            front.append(title)
    return front


def standing_out(values: Mapping[str, float | None], always: Collection[str] = ()) -> set[str]:
    """Names of the series that are coloured: all of a few, else the best and those in `always`."""
    if len(values) <= CROWD:
        return set(values)
    scored = [(-value, name) for name, value in values.items() if value is not None]
    return {name for _, name in sorted(scored)[:BEST]} | (set(values) & set(always))


def slot_name(period: int) -> str:
    """How often a slot is written, in words.

    >>> slot_name(1), slot_name(4)
    ('every event', 'every 4 events')
    """
    return "every event" if period == 1 else f"every {period} events"


def _known(metrics: Mapping[str, Estimate]) -> bool:
    return metrics["auc"].value is not None


def _mark(axes: Axes, point: _Point, *, horizontal: bool = False, size: float = 7, color: str, **look: Any) -> None:
    """A dot with its 95 % interval as a bar."""
    place, of = point
    middle, low, high = of.value or 0.0, of.low, of.high
    bar = None if low is None or high is None else [[middle - low], [high - middle]]
    x, y, way = (middle, place, "xerr") if horizontal else (place, middle, "yerr")
    dot: dict[str, Any] = {"marker": "o", "markersize": size, "markeredgecolor": LIGHT.paper, "markeredgewidth": 0.7}
    dot |= {"color": color, "ecolor": (color, 0.55), "elinewidth": 2.4, "linestyle": "none", **look, way: bar}
    axes.errorbar(x, y, **dot)


def _classes(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)


def _series(
    axes: Axes,
    lines: Mapping[str, Sequence[_Point]],
    chosen: Collection[str],
    *,
    apart: float = 0.0,
    size: float = 7,
) -> None:
    """A line with marks for each chosen series, so far apart that marks do not cover each other; the rest in grey."""
    defined = {name: [(x, point) for x, point in of if point.value is not None] for name, of in lines.items()}
    rest, grey = [name for name in defined if name not in chosen], {"color": _GREY, "alpha": 0.4, "linewidth": 1}
    for name in rest:
        _line(axes, defined[name], **grey)
    for series, name in enumerate(name for name in defined if name in chosen):
        # Seven places side by side, the fourth in the middle; an eighth series begins again at the left.
        look, shift = drawing.look(series), apart * (series % 7 - 3)
        moved = [(x + shift, of) for x, of in defined[name]]
        _line(axes, moved, color=look["color"], linewidth=1.4, alpha=0.6)
        for at in moved:
            _mark(axes, at, size=size, **look)
        # An empty series for the legend: marks are drawn one by one, and each would have an entry.
        axes.plot([], [], label=name, linestyle="none", **look)
    if rest:
        _line(axes, [], label=f"{len(rest)} other model{'s' if len(rest) > 1 else ''}", **grey)
    drawing.legend(axes)


def _line(axes: Axes, points: Sequence[_Point], **look: Any) -> None:
    axes.plot([x for x, _ in points], [of.value or 0.0 for _, of in points], **look)
