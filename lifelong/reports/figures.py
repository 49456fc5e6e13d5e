"""The figures of a report. Each function draws one and writes it as SVG and PNG (see `drawing`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lifelong.errors import UsageError
from lifelong.evaluation import metrics
from lifelong.evaluation.metrics import Sample
from lifelong.evaluation.results import Estimate, Result
from lifelong.reports import drawing
from lifelong.reports.drawing import Figure, Theme
from lifelong.reports.tables import LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


CROWD = 8
"""Series from which on only the best are coloured."""
BEST = 6
"""How many those are."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A learning curve: value of a validation metric after so many training examples."""

    examples: Sequence[float]
    value: Sequence[float]


def metric_by_model(results: Sequence[Result], folder: Path, *, metric: str = "auc") -> Figure:
    """Value and 95 % interval of each model, best on top.

    Raises:
        UsageError: no result has a value.
    """
    shown = [(result.title, result.metrics[metric]) for result in results if result.metrics[metric].value is not None]
    if not shown:
        raise UsageError(f"no result has a value of {LABELS[metric]}", expected="at least one")
    shown.sort(key=lambda pair: pair[1].value or 0.0, reverse=metric == "log_loss")
    crowded = len(shown) > CROWD

    def draw(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots()
        for place, (_, value) in enumerate(shown):
            drawing.interval_mark(axes, place, value, colour=theme.series[0], paper=theme.paper, horizontal=True)
            # Beside the bar where rows are close.
            end = value.high if value.high is not None else value.value
            at, where = ((end, place), (6, 0)) if crowded else ((value.value, place), (0, 7))
            look: dict[str, Any] = {"ha": "left", "va": "center"} if crowded else {"ha": "center"}
            axes.annotate(f"{value.value:.3f}", at, xytext=where, textcoords="offset points", **look)
        axes.set_yticks(range(len(shown)), [drawing.short(name, 28) for name, _ in shown])
        axes.set_ylim(-0.6, len(shown) - 0.3)
        axes.tick_params(length=0)
        axes.grid(axis="x", linewidth=0.8)
        axes.spines["left"].set_visible(False)
        if metric in ("auc", "gauc"):
            drawing.chance_line(axes, theme, vertical=True)
        axes.set_xlabel(f"{LABELS[metric]} (value and 95 % interval over users)")

    spoken = "; ".join(_spoken(name, value) for name, value in reversed(shown))
    words = (
        f"{LABELS[metric]} of each model",
        "Dots are the value on all examples, bars the 95 % interval over resampled users. Bars that overlap do not "
        "mean that two models are equal: the paired difference decides.",
        f"{LABELS[metric]} per model. {spoken}.",
    )
    height = 1.2 + (0.27 if crowded else 0.5) * len(shown)
    return drawing.save(f"{metric}-by-model", draw, folder, size=(9.1, height), words=words)


def metric_by_history(
    results: Sequence[Result], folder: Path, *, metric: str = "auc", always: Collection[str] = ()
) -> Figure:
    """Value per slice of history length, one series per model; of many models the best are coloured, the rest grey.

    Args:
        results: one per model.
        folder: where to write.
        metric: what is drawn.
        always: titles of models that are coloured however good they are.

    Raises:
        UsageError: there is no result.
    """
    if not results:
        raise UsageError("no result to draw", expected="at least one")
    slices = [place for place, part in enumerate(results[0].slices) if part.examples]
    chosen = standing_out({result.title: result.metrics[metric].value for result in results}, metric, always)
    front = [result for result in results if result.title in chosen]
    back = [result for result in results if result.title not in chosen]

    def draw(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots()
        step = min(0.16, 0.7 / len(front))
        _grey_marks(axes, theme, [[result.slices[place].metrics[metric].value for place in slices] for result in back])
        for series, result in enumerate(front):
            offset = (series - (len(front) - 1) / 2) * step
            look: dict[str, Any] = {"colour": theme.colour(series), "marker": drawing.marker(series)}
            for x, place in enumerate(slices):
                value = result.slices[place].metrics[metric]
                if value.value is not None:
                    drawing.interval_mark(axes, x + offset, value, paper=theme.paper, **look)
            axes.plot([], [], look["marker"], color=look["colour"], markersize=7, label=result.title)
        axes.plot([], [], label=others(back), **drawing.background(theme))
        parts = [results[0].slices[place] for place in slices]
        axes.set_xticks(range(len(slices)), [f"{part.name}\n{part.examples:,} examples" for part in parts])
        axes.set_xlim(-0.6, len(slices) - 0.4)
        axes.tick_params(length=0)
        axes.grid(axis="y", linewidth=0.8)
        if metric in ("auc", "gauc"):
            drawing.chance_line(axes, theme, vertical=False)
        axes.set_xlabel("events of the user before the target")
        axes.set_ylabel(LABELS[metric])
        drawing.legend(axes, len(front) + bool(back))

    spoken = "; ".join(f"{result.title}: {_spoken_slices(result, slices, metric)}" for result in front)
    words = (
        f"{LABELS[metric]} by length of the history",
        "Targets are sorted by how many events the user had before them. Where long memory pays, a model rises above "
        f"the others to the right. Bars are 95 % intervals over users.{crowd_note(back)}",
        f"{LABELS[metric]} by events before the target. {spoken}.{crowd_note(back)}",
    )
    return drawing.save(f"{metric}-by-history", draw, folder, size=(9.1, 4.5), words=words)


def learning_curves(
    curves: Mapping[str, Curve], folder: Path, *, metric: str = "auc", always: Collection[str] = ()
) -> Figure:
    """Validation metric against training examples; the best check of each coloured model is marked.

    Args:
        curves: title -> curve.
        folder: where to write.
        metric: what the values are.
        always: titles that are coloured however good they are.

    Raises:
        UsageError: no curve has a point.
    """
    drawn = {name: curve for name, curve in curves.items() if len(curve.value)}
    if not drawn:
        raise UsageError("no learning curve to draw", expected="at least one validation check")
    choose = np.nanargmax if metric in ("auc", "gauc") else np.nanargmin
    best = {name: int(choose(np.asarray(curve.value, np.float64))) for name, curve in drawn.items()}
    chosen = standing_out({name: drawn[name].value[at] for name, at in best.items()}, metric, always)
    back = [name for name in drawn if name not in chosen]

    def draw(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots()
        grey = drawing.background(theme)
        for name in back:
            axes.plot(drawn[name].examples, drawn[name].value, **grey)
        for series, name in enumerate(name for name in drawn if name in chosen):
            curve, colour, at = drawn[name], theme.colour(series), best[name]
            axes.plot(curve.examples, curve.value, color=colour, linewidth=1.8)
            kept = [curve.examples[at]], [curve.value[at]]
            style: dict[str, Any] = {"color": colour, "markersize": 8, "markeredgecolor": theme.paper}
            axes.plot(*kept, drawing.marker(series), label=name, **style)
        axes.plot([], [], label=others(back), **grey)
        axes.grid(linewidth=0.8)
        axes.tick_params(length=0)
        axes.xaxis.set_major_formatter(drawing.thousands)
        axes.set_xlabel("training examples (positives and negatives)")
        axes.set_ylabel(f"{LABELS[metric]} on validation")
        drawing.legend(axes, len(chosen) + bool(back))

    spoken = "; ".join(
        f"{name}: best {curve.value[best[name]]:.3f} after {curve.examples[best[name]]:,.0f} examples"
        for name, curve in drawn.items()
    )
    words = (
        "Learning curves",
        f"{LABELS[metric]} on the validation split while training; the mark is the check whose weights were kept."
        f"{crowd_note(back)}",
        f"{LABELS[metric]} on validation against training examples. {spoken}.",
    )
    return drawing.save(f"learning-{metric}", draw, folder, size=(9.1, 4.0 + 0.2 * bool(back)), words=words)


def standing_out(values: Mapping[str, float | None], metric: str = "auc", always: Collection[str] = ()) -> set[str]:
    """Which of many series are coloured: all of a few, else the best and those that always are."""
    if len(values) <= CROWD:
        return set(values)
    sign = -1.0 if metric in ("auc", "gauc") else 1.0
    known = [(sign * value, name) for name, value in values.items() if value is not None]
    return {name for _, name in sorted(known)[:BEST]} | (set(values) & set(always))


def _grey_marks(axes: Axes, theme: Theme, value_MX: Sequence[Sequence[float | None]]) -> None:
    """A short grey line per model and place."""
    for values in value_MX:
        for x, value in enumerate(values):
            if value is not None:
                axes.plot([x - 0.42, x + 0.42], [value, value], **drawing.background(theme))


def others(rest: Sequence[object]) -> str:
    """The models that are not coloured, in a legend; nothing where all are."""
    return f"{len(rest)} other model{'s' if len(rest) > 1 else ''}" if rest else "_nolegend_"


def crowd_note(rest: Sequence[object]) -> str:
    """A sentence on the models that are not coloured; empty if all are."""
    return f" The best models are coloured, {others(rest)} drawn in grey; the tables name them." if rest else ""


def calibration(samples: Mapping[str, Sample], folder: Path, *, kind: str = "score") -> Figure:
    """Predicted against observed share of positives, in bins of equal mass.

    Raises:
        UsageError: no sample has an example.
    """
    drawn = {name: calibration_points(sample) for name, sample in samples.items() if len(sample)}
    if not drawn:
        raise UsageError("no examples to draw a calibration plot from", expected="at least one")
    top = min(1.0, 1.05 * max(float(max(x.max(), y.max())) for x, y in drawn.values()))

    def draw(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots()
        axes.plot([0, top], [0, top], color=theme.ink, linewidth=1, linestyle=(0, (4, 3)), label="perfect")
        for series, (name, (predicted, observed)) in enumerate(drawn.items()):
            style: dict[str, Any] = {"linewidth": 1.2, "markersize": 5.5, "markeredgecolor": theme.paper, "label": name}
            axes.plot(predicted, observed, marker=drawing.marker(series), color=theme.colour(series), **style)
        axes.set_aspect("equal")
        axes.set(xlim=(0, top), ylim=(0, top))
        axes.grid(linewidth=0.8)
        axes.tick_params(length=0)
        axes.set_xlabel("predicted probability (mean of the bin)")
        axes.set_ylabel("observed share of positives")
        drawing.legend(axes, 2)

    errors = {name: metrics.ece(samples[name].label, samples[name].logit) for name in drawn}
    meaning = " Negatives were sampled, so the share is that of the sample and not a rate of response."
    words = (
        "Calibration",
        f"Each mark is one of {metrics.CALIBRATION_BINS} bins with equally many examples; on the dashed line, what is "
        f"predicted is what happens.{meaning if kind == 'score' else ''}",
        "Predicted against observed share of positives. "
        + "; ".join(f"{name}: calibration error {error:.3f}" for name, error in errors.items())
        + ".",
    )
    return drawing.save("calibration", draw, folder, size=(5.8, 6.0), words=words)


def calibration_points(sample: Sample) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean prediction and mean label of each bin that is not empty."""
    probability = metrics.sigmoid(sample.logit)
    place = metrics.calibration_bin(probability)
    count = np.bincount(place)
    full = count > 0
    predicted = np.bincount(place, weights=probability)[full] / count[full]
    return predicted, np.bincount(place, weights=sample.label)[full] / count[full]


def _spoken(name: str, value: Estimate) -> str:
    return f"{name}: not defined" if value.value is None else f"{name}: {value.value:.3f}"


def _spoken_slices(result: Result, slices: Sequence[int], metric: str) -> str:
    parts = [result.slices[place] for place in slices]
    return ", ".join(_spoken(part.name, part.metrics[metric]) for part in parts)
