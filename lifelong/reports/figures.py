"""The figures of a report. Each function draws one and writes it as SVG and PNG (see `drawing`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lifelong.errors import UsageError
from lifelong.evaluation.compare import ComparisonRow
from lifelong.evaluation.results import Estimate, Result
from lifelong.reports import drawing
from lifelong.reports.drawing import Figure, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


CROWD = 8
"""With more series than this, only the best are coloured."""
BEST = 6
"""Number of series that are coloured then."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A learning curve: value of a validation metric after this many training examples."""

    examples: Sequence[float]
    value: Sequence[float]


def metric_by_model(results: Sequence[Result] | Sequence[ComparisonRow], folder: Path) -> Figure:
    """AUC and 95 % interval of each model, best on top; of rows of a comparison the means over seeds.

    Raises:
        UsageError: no result has a value.
    """
    shown = [(result.title, result.metrics["auc"]) for result in results if result.metrics["auc"].value is not None]
    if not shown:
        raise UsageError("no result has an AUC", expected="at least one", fix="measure on examples of both labels")
    shown.sort(key=lambda pair: pair[1].value or 0.0)
    several = any(isinstance(of, ComparisonRow) and of.seeds > 1 for of in results)
    dots, over = ("means over seeds", "users and seeds") if several else ("the value on all examples", "users")
    crowded = len(shown) > CROWD

    def draw(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots()
        for place, (name, value) in enumerate(shown):
            drawing.interval_mark(axes, place, value, name, colour=theme.series[0], paper=theme.paper, horizontal=True)
            # Where rows are close, the number is written next to the bar.
            end = value.high if value.high is not None else value.value
            at, where = ((end, place), (6, 0)) if crowded else ((value.value, place), (0, 7))
            look: dict[str, Any] = {"ha": "left", "va": "center"} if crowded else {"ha": "center"}
            axes.annotate(f"{value.value:.3f}", at, xytext=where, textcoords="offset points", **look)
        drawing.name_rows(axes, [name for name, _ in shown], longest=28)
        drawing.chance_line(axes, theme, vertical=True)
        drawing.finish(axes, grid="x", x=f"AUC ({'mean' if several else 'value'} and 95 % interval over {over})")

    spoken = "; ".join(_spoken(name, value) for name, value in reversed(shown))
    words = (
        "AUC of each model",
        f"Dots are {dots}, bars the 95 % interval over {over}. Bars that overlap do not "
        "mean that two models are equal: the paired difference decides.",
        f"AUC per model. {spoken}.",
    )
    height = 1.2 + (0.27 if crowded else 0.5) * len(shown)
    return drawing.save("auc-by-model", draw, folder, size=(9.1, height), words=words)


def metric_by_history(results: Sequence[Result], folder: Path, *, always: Collection[str] = ()) -> Figure:
    """AUC per slice of history length, one series per model; of many models the best are coloured, the rest grey.

    Args:
        results: one per model.
        folder: where to write.
        always: titles of models that are coloured however good they are.

    Raises:
        UsageError: there is no result.
    """
    if not results:
        raise UsageError(
            "no result to draw", expected="at least one", fix="give what evaluate(artifact, dataset) returns"
        )
    slices = [place for place, part in enumerate(results[0].slices) if part.examples]
    chosen = standing_out({result.title: result.metrics["auc"].value for result in results}, always)
    front = [result for result in results if result.title in chosen]
    back = [result for result in results if result.title not in chosen]

    def draw(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots()
        step = min(0.16, 0.7 / len(front))
        _grey_marks(axes, theme, [[result.slices[place].metrics["auc"].value for place in slices] for result in back])
        for series, result in enumerate(front):
            offset = (series - (len(front) - 1) / 2) * step
            look: dict[str, Any] = {"colour": theme.colour(series), "marker": drawing.marker(series)}
            for x, place in enumerate(slices):
                part = result.slices[place]
                value, name = part.metrics["auc"], f"{result.title}, {part.name} events"
                if value.value is not None:
                    drawing.interval_mark(axes, x + offset, value, name, paper=theme.paper, **look)
            axes.plot([], [], look["marker"], color=look["colour"], markersize=7, label=result.title)
        axes.plot([], [], label=others(back), **drawing.background(theme))
        parts = [results[0].slices[place] for place in slices]
        axes.set_xticks(range(len(slices)), [f"{part.name}\n{part.examples:,} examples" for part in parts])
        axes.set_xlim(-0.6, len(slices) - 0.4)
        drawing.chance_line(axes, theme, vertical=False)
        drawing.finish(axes, grid="y", x="events of the user before the target", y="AUC")
        drawing.legend(axes, len(front) + bool(back))

    spoken = "; ".join(f"{result.title}: {_spoken_slices(result, slices)}" for result in front)
    words = (
        "AUC by length of the history",
        "Targets are sorted by how many events the user had before them. Where long memory pays, a model rises above "
        f"the others to the right. Bars are 95 % intervals over users.{crowd_note(back)}",
        f"AUC by events before the target. {spoken}.{crowd_note(back)}",
    )
    return drawing.save("auc-by-history", draw, folder, size=(9.1, 4.5), words=words)


def learning_curves(curves: Mapping[str, Curve], folder: Path, *, always: Collection[str] = ()) -> Figure:
    """Validation AUC against training examples; the best check of each coloured model is marked.

    Args:
        curves: title -> curve.
        folder: where to write.
        always: titles that are coloured however good they are.

    Raises:
        UsageError: no curve has a point.
    """
    drawn = {name: curve for name, curve in curves.items() if len(curve.value)}
    if not drawn:
        raise UsageError(
            "no learning curve to draw",
            expected="at least one validation check",
            fix="give the curves of models that are trained in steps: those fitted at once have none",
        )
    best = {name: int(np.nanargmax(np.asarray(curve.value, np.float64))) for name, curve in drawn.items()}
    chosen = standing_out({name: drawn[name].value[at] for name, at in best.items()}, always)
    back = [name for name in drawn if name not in chosen]

    def draw(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots()
        grey = drawing.background(theme)
        for name in back:
            axes.plot(drawn[name].examples, drawn[name].value, **grey)
            _checks(axes, name, drawn[name], color=grey["color"], alpha=grey["alpha"])
        for series, name in enumerate(name for name in drawn if name in chosen):
            curve, colour, at = drawn[name], theme.colour(series), best[name]
            axes.plot(curve.examples, curve.value, color=colour, linewidth=1.8)
            _checks(axes, name, curve, color=colour)
            kept = [curve.examples[at]], [curve.value[at]]
            style: dict[str, Any] = {"color": colour, "markersize": 8, "markeredgecolor": theme.paper}
            axes.plot(*kept, drawing.marker(series), label=name, **style)
        axes.plot([], [], label=others(back), **grey)
        axes.xaxis.set_major_formatter(drawing.thousands)
        drawing.finish(axes, x="training examples (positives and negatives)", y="AUC on validation")
        drawing.legend(axes, len(chosen) + bool(back))

    spoken = "; ".join(
        f"{name}: best {curve.value[best[name]]:.3f} after {curve.examples[best[name]]:,.0f} examples"
        for name, curve in drawn.items()
    )
    words = (
        "Learning curves",
        f"AUC on the validation split while training; the mark is the check with the kept weights.{crowd_note(back)}",
        f"AUC on validation against training examples. {spoken}.",
    )
    return drawing.save("learning-auc", draw, folder, size=(9.1, 4.0 + 0.2 * bool(back)), words=words)


def _checks(axes: Axes, name: str, curve: Curve, **look: Any) -> None:
    """A small dot for each check of a learning curve, with its value for the page."""
    for examples, value in zip(curve.examples, curve.value, strict=True):
        said = f"{name}, {examples:,.0f} examples: {value:.4f}"
        axes.plot([examples], [value], "o", markersize=3, markeredgewidth=0, gid=drawing.tip(examples, said), **look)


def standing_out(values: Mapping[str, float | None], always: Collection[str] = ()) -> set[str]:
    """Names of the series that are coloured: all of a few, else the best and those in `always`."""
    if len(values) <= CROWD:
        return set(values)
    known = [(-value, name) for name, value in values.items() if value is not None]
    return {name for _, name in sorted(known)[:BEST]} | (set(values) & set(always))


def _grey_marks(axes: Axes, theme: Theme, value_MX: Sequence[Sequence[float | None]]) -> None:
    """A short grey line per model and place."""
    for values in value_MX:
        for x, value in enumerate(values):
            if value is not None:
                axes.plot([x - 0.42, x + 0.42], [value, value], **drawing.background(theme))


def others(rest: Sequence[object]) -> str:
    """Legend of the models that are not coloured; none where all are."""
    return f"{len(rest)} other model{'s' if len(rest) > 1 else ''}" if rest else "_nolegend_"


def crowd_note(rest: Sequence[object]) -> str:
    """A sentence on the models that are not coloured; empty if all are."""
    return f" The best models are coloured, {others(rest)} drawn in grey; the tables name them." if rest else ""


def _spoken(name: str, value: Estimate) -> str:
    return f"{name}: not defined" if value.value is None else f"{name}: {value.value:.3f}"


def _spoken_slices(result: Result, slices: Sequence[int]) -> str:
    parts = [result.slices[place] for place in slices]
    return ", ".join(_spoken(part.name, part.metrics["auc"]) for part in parts)
