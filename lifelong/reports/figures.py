"""The figures of a report. Each function draws one and writes it as SVG and PNG (see `drawing`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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

_LANES = 7


@dataclass(frozen=True, slots=True)
class Curve:
    """A learning curve: value of a validation metric after so many training examples."""

    examples: Sequence[float]
    value: Sequence[float]


@dataclass(frozen=True, slots=True)
class UserAttention:
    """One user's history, and the attention of some targets over her slots.

    Args:
        user: her name in the figure.
        time_L: UTC seconds of her events (or ordinals), oldest first.
        group_L: what each event is counted under, such as its category.
        periods: of the slots; slot j is written every `periods[j]` events.
        targets: names of the targets.
        attention_CS: first-hop attention; NaN or 0 for empty slots.
        outcomes: for each target a word on what was predicted or what happened; may be empty.
        time_unit: "seconds", or "ordinal" for logs without times.
    """

    user: str
    time_L: npt.NDArray[np.int64]
    group_L: Sequence[str]
    periods: Sequence[int]
    targets: Sequence[str]
    attention_CS: npt.NDArray[np.floating]
    outcomes: Sequence[str] = field(default_factory=tuple)
    time_unit: str = "seconds"


def metric_by_model(results: Sequence[Result], folder: Path, *, metric: str = "auc") -> Figure:
    """Value and 95 % interval of each model, best on top.

    Raises:
        UsageError: no result has a value.
    """
    shown = [(result.title, result.metrics[metric]) for result in results if result.metrics[metric].value is not None]
    if not shown:
        raise UsageError(f"no result has a value of {LABELS[metric]}", expected="at least one")
    shown.sort(key=lambda pair: pair[1].value or 0.0, reverse=metric == "log_loss")

    def draw(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots()
        for place, (_, value) in enumerate(shown):
            drawing.interval_mark(axes, place, value, colour=theme.series[0], paper=theme.paper, horizontal=True)
            at = (value.value or 0.0, place)
            axes.annotate(f"{value.value:.3f}", at, xytext=(0, 7), textcoords="offset points", ha="center")
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
    return drawing.save(f"{metric}-by-model", draw, folder, size=(9.1, 1.2 + 0.5 * len(shown)), words=words)


def metric_by_history(results: Sequence[Result], folder: Path, *, metric: str = "auc") -> Figure:
    """Value per slice of history length, one series per model.

    Raises:
        UsageError: there is no result.
    """
    if not results:
        raise UsageError("no result to draw", expected="at least one")
    slices = [place for place, part in enumerate(results[0].slices) if part.examples]

    def draw(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots()
        step = min(0.16, 0.7 / len(results))
        for series, result in enumerate(results):
            offset = (series - (len(results) - 1) / 2) * step
            look: dict[str, Any] = {"colour": theme.colour(series), "marker": drawing.marker(series)}
            for x, place in enumerate(slices):
                value = result.slices[place].metrics[metric]
                if value.value is not None:
                    drawing.interval_mark(axes, x + offset, value, paper=theme.paper, **look)
            axes.plot([], [], look["marker"], color=look["colour"], markersize=7, label=result.title)
        parts = [results[0].slices[place] for place in slices]
        axes.set_xticks(range(len(slices)), [f"{part.name}\n{part.examples:,} examples" for part in parts])
        axes.set_xlim(-0.6, len(slices) - 0.4)
        axes.tick_params(length=0)
        axes.grid(axis="y", linewidth=0.8)
        if metric in ("auc", "gauc"):
            drawing.chance_line(axes, theme, vertical=False)
        axes.set_xlabel("events of the user before the target")
        axes.set_ylabel(LABELS[metric])
        drawing.legend(axes, len(results))

    spoken = "; ".join(f"{result.title}: {_spoken_slices(result, slices, metric)}" for result in results)
    words = (
        f"{LABELS[metric]} by length of the history",
        "Targets are sorted by how many events the user had before them. Where long memory pays, a model rises above "
        "the others to the right. Bars are 95 % intervals over users.",
        f"{LABELS[metric]} by events before the target. {spoken}.",
    )
    return drawing.save(f"{metric}-by-history", draw, folder, size=(9.1, 4.5), words=words)


def learning_curves(curves: Mapping[str, Curve], folder: Path, *, metric: str = "auc") -> Figure:
    """Validation metric against training examples; the best check of each model is marked.

    Raises:
        UsageError: no curve has a point.
    """
    drawn = {name: curve for name, curve in curves.items() if len(curve.value)}
    if not drawn:
        raise UsageError("no learning curve to draw", expected="at least one validation check")
    choose = np.nanargmax if metric in ("auc", "gauc") else np.nanargmin
    best = {name: int(choose(np.asarray(curve.value, np.float64))) for name, curve in drawn.items()}

    def draw(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots()
        for series, (name, curve) in enumerate(drawn.items()):
            colour, at = theme.colour(series), best[name]
            axes.plot(curve.examples, curve.value, color=colour, linewidth=1.8)
            kept = [curve.examples[at]], [curve.value[at]]
            style: dict[str, Any] = {"color": colour, "markersize": 8, "markeredgecolor": theme.paper}
            axes.plot(*kept, drawing.marker(series), label=name, **style)
        axes.grid(linewidth=0.8)
        axes.tick_params(length=0)
        axes.xaxis.set_major_formatter(drawing.thousands)
        axes.set_xlabel("training examples (positives and negatives)")
        axes.set_ylabel(f"{LABELS[metric]} on validation")
        drawing.legend(axes, len(drawn))

    spoken = "; ".join(
        f"{name}: best {curve.value[best[name]]:.3f} after {curve.examples[best[name]]:,.0f} examples"
        for name, curve in drawn.items()
    )
    words = (
        "Learning curves",
        f"{LABELS[metric]} on the validation split while training; the mark is the check whose weights were kept.",
        f"{LABELS[metric]} on validation against training examples. {spoken}.",
    )
    return drawing.save(f"learning-{metric}", draw, folder, size=(9.1, 4.0), words=words)


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


def attention_timeline(attention: UserAttention, folder: Path) -> Figure:
    """A user's events over time with the writes of each slot below, beside targets' attention over the slots.

    Raises:
        UsageError: the attention does not fit the targets and slots.
    """
    targets, slots = attention.attention_CS.shape
    if (targets, slots) != (len(attention.targets), len(attention.periods)):
        raise UsageError(
            f"attention of shape {attention.attention_CS.shape}",
            expected=f"{len(attention.targets)} targets and {len(attention.periods)} slots",
        )
    lanes = _lanes(attention.group_L)

    def draw(canvas: Canvas, theme: Theme) -> None:
        left, right = canvas.subplots(1, 2, width_ratios=[1.45, 1])
        _draw_timeline(left, theme, attention, lanes)
        _draw_attention(right, theme, attention)

    strongest = [int(np.nanargmax(row)) if np.nansum(row) > 0 else None for row in attention.attention_CS]
    spoken = "; ".join(
        f"{name}: "
        + ("no slot is filled" if at is None else f"most on the slot written {_slot(attention.periods[at])}")
        for name, at in zip(attention.targets, strongest, strict=True)
    )
    words = (
        f"Attention over time scales of user {attention.user}",
        "Left: her events, one row per group of items, and below them when each memory slot was written. Right: how "
        "much each target draws from each slot (first read; a row adds up to 1).",
        f"History of {len(attention.time_L):,} events of user {attention.user}, and attention over {slots} memory "
        f"slots. {spoken}.",
    )
    height = 1.6 + 0.34 * max(len(lanes) + slots + 1, 1.6 * targets)
    return drawing.save("attention", draw, folder, size=(10.4, min(9.0, height)), words=words)


def _lanes(groups: Sequence[str]) -> list[str]:
    """The most frequent groups, and "other" for the rest."""
    counted = [name for name, _ in Counter(groups).most_common()]
    return counted if len(counted) <= _LANES else [*counted[: _LANES - 1], "other"]


def _draw_timeline(axes: Axes, theme: Theme, attention: UserAttention, lanes: Sequence[str]) -> None:
    time_L = np.asarray(attention.time_L, np.int64)
    clock = attention.time_unit == "seconds"
    x: Any = time_L.astype("datetime64[s]") if clock else time_L
    lane_of = {name: -place for place, name in enumerate(lanes)}
    tick: dict[str, Any] = {"linestyle": "none", "marker": "|", "markersize": 9, "markeredgewidth": 1.1, "alpha": 0.75}
    y = [lane_of.get(name, 1 - len(lanes)) for name in attention.group_L]
    axes.plot(x, y, color=theme.series[0], **tick)
    below = [-(len(lanes) + 0.6 + slot) for slot in range(len(attention.periods))]
    for height, period in zip(below, attention.periods, strict=True):
        written = np.arange(1, len(time_L) + 1) % period == 0
        axes.plot(x[written], np.full(int(written.sum()), height), color=theme.series[1], **tick)
    names = [drawing.short(name, 22) for name in lanes] + [_slot(period) for period in attention.periods]
    axes.set_yticks([*lane_of.values(), *below], names)
    axes.axhline(-(len(lanes) - 0.2), color=theme.faint, linewidth=0.8)
    axes.set_ylim(below[-1] - 0.6, 0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_title("events, and writes of each slot")
    axes.set_xlabel(drawing.date_span(time_L) if clock else "place in the history (events)")
    if clock and len(time_L):
        drawing.date_axis(axes)


def _draw_attention(axes: Axes, theme: Theme, attention: UserAttention) -> None:
    from matplotlib.patches import Rectangle

    for (row, slot), weight in np.ndenumerate(np.nan_to_num(np.asarray(attention.attention_CS, np.float64))):
        # Opacity carries the value, so that one drawing fits light and dark paper; the number stands there too.
        look: dict[str, Any] = {"facecolor": theme.series[1], "alpha": 0.06 + 0.6 * float(weight), "linewidth": 0}
        axes.add_patch(Rectangle((slot - 0.46, row - 0.42), 0.92, 0.84, **look))
        axes.text(slot, row, f"{weight:.2f}", ha="center", va="center", fontsize=10)
    labels = [drawing.short(name, 24) for name in attention.targets]
    if attention.outcomes:
        labels = [f"{name}\n{word}" for name, word in zip(labels, attention.outcomes, strict=True)]
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xticks(range(len(attention.periods)), [str(period) for period in attention.periods])
    axes.set(xlim=(-0.5, len(attention.periods) - 0.5), ylim=(len(labels) - 0.5, -0.5))
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title("attention of each target")
    axes.set_xlabel("slot (events between writes)")


def _slot(period: int) -> str:
    return "every event" if period == 1 else f"every {period} events"


def _spoken(name: str, value: Estimate) -> str:
    return f"{name}: not defined" if value.value is None else f"{name}: {value.value:.3f}"


def _spoken_slices(result: Result, slices: Sequence[int], metric: str) -> str:
    parts = [result.slices[place] for place in slices]
    return ", ".join(_spoken(part.name, part.metrics[metric]) for part in parts)
