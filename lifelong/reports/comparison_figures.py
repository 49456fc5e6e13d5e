"""The figures of a comparison: sweep over recent events, ablations, quality against cost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifelong.errors import UsageError
from lifelong.evaluation.compare import AblationRow, Comparison, SweepPoint
from lifelong.evaluation.results import Estimate
from lifelong.reports import drawing
from lifelong.reports.comparison_tables import events_name, sweep_ticks
from lifelong.reports.drawing import Figure, Theme
from lifelong.reports.figures import crowd_note, others, standing_out
from lifelong.reports.labels import place_labels
from lifelong.reports.tables import brief

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


def sweep(comparison: Comparison, folder: Path, *, sentence: str, always: Collection[str] = ()) -> Figure:
    """AUC against the number of most recent events that a model sees, with 95 % intervals.

    Args:
        comparison: with a sweep.
        folder: where to write.
        sentence: what the figure shows, for its caption.
        always: models that are coloured however good they are.

    Raises:
        UsageError: no point has a value.
    """
    ticks, of_model = sweep_ticks(comparison), _sweep_lines(comparison)
    if not of_model:
        raise UsageError("no sweep to draw", expected="at least one point", fix="compare with sweep=(20, 100, None)")
    # Models are ranked by their last points, which are those of all events.
    chosen = standing_out({model: of[-1].metrics["auc"].value for model, of in of_model.items()}, always)
    back = [model for model in of_model if model not in chosen]
    front = [model for model in of_model if model in chosen]

    def draw(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots()
        grey = drawing.background(theme)
        for model in back:
            at = [ticks.index(point.events) for point in of_model[model]]
            values = [point.metrics["auc"].value or 0.0 for point in of_model[model]]
            axes.plot(at, values, **grey)
        for series, model in enumerate(front):
            _draw_sweep(axes, theme, series, of_model[model], ticks)
        axes.plot([], [], label=others(back), **grey)
        axes.set_xticks(range(len(ticks)), [events_name(events) for events in ticks])
        axes.set_xlim(-0.5, len(ticks) - 0.5)
        drawing.finish(axes, grid="y", x="most recent events given to the model", y="AUC")
        drawing.legend(axes, len(front) + bool(back))

    spoken = "; ".join(
        f"{point.title} with {events_name(point.events)}: {brief(point.metrics['auc'])}"
        for model in front
        for point in of_model[model]
    )
    words = (
        "AUC against the number of most recent events",
        f"{sentence} Bars are 95 % intervals over users; steps are not to scale.{crowd_note(back)}",
        f"AUC by number of most recent events. {spoken}.",
    )
    return drawing.save("auc-by-events", draw, folder, size=(9.1, 4.6), words=words)


def _sweep_lines(comparison: Comparison) -> dict[str, list[SweepPoint]]:
    """Model -> its points that have a value, by number of events."""
    ticks, lines = sweep_ticks(comparison), dict[str, list[SweepPoint]]()
    for point in sorted(comparison.sweep, key=lambda of: ticks.index(of.events)):
        if "auc" in point.metrics and point.metrics["auc"].value is not None:
            lines.setdefault(point.model, []).append(point)
    return {model: lines[model] for model in dict.fromkeys(of.model for of in comparison.sweep) if model in lines}


def _draw_sweep(
    axes: Axes, theme: Theme, series: int, points: Sequence[SweepPoint], ticks: Sequence[int | None]
) -> None:
    colour, marker = theme.colour(series), drawing.marker(series)
    at = [ticks.index(point.events) + 0.06 * (series % 7 - 3) for point in points]
    axes.plot(at, [point.metrics["auc"].value or 0.0 for point in points], color=colour, linewidth=1.2, alpha=0.6)
    for place, point in zip(at, points, strict=True):
        name = f"{point.title}, {events_name(point.events)} events"
        drawing.interval_mark(axes, place, point.metrics["auc"], name, colour=colour, paper=theme.paper, marker=marker)
    axes.plot([], [], marker, color=colour, markersize=7, label=points[0].title)


def ablations(rows: Sequence[AblationRow], folder: Path) -> Figure:
    """The difference of each variant to the base, with its 95 % interval.

    Raises:
        UsageError: no variant has a difference.
    """
    shown = [(row.name, row.difference) for row in rows if row.difference is not None]
    estimates = [
        (name, Estimate(value=of.value, low=of.low, high=of.high), of.p_value)
        for name, of in shown
        if of.value is not None
    ][::-1]
    if not estimates:
        raise UsageError(
            "no ablation to draw",
            expected="at least one variant with a difference",
            fix="lifelong compare DATA --ablations hpmn --out REPORT measures them",
        )
    base = next((row for row in rows if row.difference is None), None)

    def draw(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots()
        axes.axvline(0, color=theme.ink, linewidth=1, linestyle=(0, (4, 3)))
        for place, (name, value, p) in enumerate(estimates):
            # An interval that includes 0 is drawn in grey.
            sure = p is not None and p < 0.05
            colour = theme.series[0 if sure else 7]
            drawing.interval_mark(axes, place, value, name, colour=colour, paper=theme.paper, horizontal=True)
            low = value.value if value.low is None else value.low
            look: dict[str, Any] = {"ha": "right", "va": "center", "textcoords": "offset points"}
            axes.annotate(f"{value.value:+.4f}".replace("-", "−"), (low, place), xytext=(-6, 0), **look)
        axes.margins(x=0.18)
        drawing.name_rows(axes, [name for name, _, _ in estimates], longest=34)
        drawing.finish(axes, grid="x", x="AUC of the variant minus AUC of the base (95 % interval over users)")

    spoken = "; ".join(f"{name}: {value.value:+.4f}" for name, value, _ in reversed(estimates))
    known = base is not None and base.metrics["auc"].value is not None
    base_words = f" The base has AUC {base.metrics['auc'].value:.4f}." if base is not None and known else ""
    words = (
        "Ablations",
        "Each row changes what its name says and leaves the rest. Left of the dashed line a variant is worse than the "
        f"base; grey where p is not below 0.05.{base_words}",
        f"Difference of AUC to the base. {spoken}.",
    )
    return drawing.save("ablations", draw, folder, size=(9.1, 1.2 + 0.42 * len(estimates)), words=words)


def quality_against(
    points: Mapping[str, tuple[float, float]], folder: Path, *, name: str, cost: str, left_out: Sequence[str] = ()
) -> Figure:
    """AUC against a cost on a logarithmic axis, one labelled point per model; the best trades are joined.

    Args:
        points: title -> (cost, AUC); costs above 0.
        folder: where to write.
        name: file stem.
        cost: name of the cost, with its unit.
        left_out: titles of models without this cost.

    Raises:
        UsageError: there is no point.
    """
    if not points:
        raise UsageError(
            f"nothing to draw against {cost}",
            expected="at least one model with this cost",
            fix="compare a model that can be served, too: lifelong models says which",
        )
    front = best_trades(points)

    def draw(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots()
        drawing.log_axis(axes)
        axes.plot(
            *zip(*(points[title] for title in front), strict=True), color=theme.series[0], linewidth=1.2, alpha=0.6
        )
        for title, (x, y) in points.items():
            at_front = title in front
            look: dict[str, Any] = {"markersize": 8 if at_front else 6.5, "markeredgecolor": theme.paper}
            look |= {
                "color": theme.series[0 if at_front else 7],
                "gid": drawing.tip(x, f"{title}: {x:,.4g}, AUC {y:.4f}"),
            }
            axes.plot([x], [y], "o" if at_front else "s", **look)
        axes.margins(x=0.16, y=0.12)
        drawing.finish(axes, x=f"{cost} (logarithmic)", y="AUC")
        place_labels(canvas, axes, points, front, theme)

    spoken = "; ".join(
        f"{title}: {x:.3g}, AUC {y:.3f}" for title, (x, y) in sorted(points.items(), key=lambda of: of[1])
    )
    without = f" Not drawn, because it has none or it was not measured: {', '.join(left_out)}." if left_out else ""
    words = (
        f"AUC against {cost}",
        "Further left is cheaper, further up is better. Round points, joined by the line, are the best trades: no "
        f"model is both cheaper and better.{without}",
        f"AUC against {cost}. {spoken}.",
    )
    return drawing.save(name, draw, folder, size=(9.1, 5.6), words=words)


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
