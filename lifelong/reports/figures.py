"""Figures as files: SVG (follows a light or dark page) and PNG (white).

Every figure is drawn with placeholder colours, one per role (ink, faint lines, series 1 to 8). In the SVG they become
CSS variables with a light and a dark value, in the PNG the light value. The series colours are Okabe and Ito's, which
people with any common colour blindness tell apart; markers differ too.
"""

from __future__ import annotations

import datetime
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lifelong.errors import UsageError, require
from lifelong.evaluation import metrics
from lifelong.evaluation.metrics import Sample
from lifelong.evaluation.results import Estimate, Result
from lifelong.reports.tables import LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

INK, FAINT, PAPER = "#0a0b01", "#0a0b02", "#0a0b03"
SERIES = tuple(f"#0a0b1{place}" for place in range(8))
MARKERS = "osD^vPX*"
PALETTE: dict[str, tuple[str, str, str]] = {
    INK: ("ink", "#24292f", "#e6e8eb"),
    FAINT: ("faint", "#d5dae0", "#3d444d"),
    PAPER: ("paper", "#ffffff", "#14181d"),
    SERIES[0]: ("s1", "#0072b2", "#5bb4ee"),
    SERIES[1]: ("s2", "#d55e00", "#ff8f3f"),
    SERIES[2]: ("s3", "#009e73", "#35cfa0"),
    SERIES[3]: ("s4", "#b0527f", "#e79cc4"),
    SERIES[4]: ("s5", "#b58300", "#f0c244"),
    SERIES[5]: ("s6", "#4a5fb5", "#9fb0ff"),
    SERIES[6]: ("s7", "#7a4f24", "#d0a47a"),
    SERIES[7]: ("s8", "#5f6b76", "#aab4bf"),
}
"""Placeholder -> CSS variable, light value, dark value."""
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 11.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": FAINT,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "lifelong",
}
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn figure.

    Args:
        name: file stem.
        svg: path of the SVG file.
        png: path of the PNG file.
        title: heading.
        caption: what it shows and how to read it.
        alt: what a person who does not see it should know.
    """

    name: str
    svg: Path
    png: Path
    title: str
    caption: str
    alt: str


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
        time_L: UTC seconds of her events, oldest first.
        group_L: what each event is counted under, such as its category.
        periods: of the slots; slot j is written every `periods[j]` events.
        targets: names of the targets.
        attention_CS: first-hop attention; NaN or 0 for empty slots.
        outcomes: for each target a word on what happened or what was predicted; may be empty.
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
    """Value and 95 % interval of each model, best on top."""
    shown = [(result.title, result.metrics[metric]) for result in results if result.metrics[metric].value is not None]
    if not shown:
        raise UsageError(f"no result has a value of {LABELS[metric]}", expected="at least one")
    shown.sort(key=lambda pair: pair[1].value or 0.0)

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for place, (_, value) in enumerate(shown):
            _interval_mark(axes, place, value, colour=SERIES[0], horizontal=True)
            axes.annotate(
                f"{value.value:.3f}",
                (value.value or 0.0, place),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
            )
        axes.set_yticks(range(len(shown)), [name for name, _ in shown])
        axes.set_ylim(-0.6, len(shown) - 0.3)
        axes.tick_params(length=0)
        axes.grid(axis="x", linewidth=0.8)
        axes.spines["left"].set_visible(False)
        if metric in ("auc", "gauc"):
            _chance_line(axes, vertical=True)
        axes.set_xlabel(f"{LABELS[metric]} (point and 95 % interval over users)")

    values = "; ".join(_spoken(name, value) for name, value in reversed(shown))
    return _save(
        f"{metric}-by-model",
        draw,
        folder,
        size=(7.2, 1.1 + 0.55 * len(shown)),
        words=(
            f"{LABELS[metric]} of each model",
            "Dots are the value on all examples, bars the 95 % interval over resampled users; bars that overlap do not "
            "yet mean that two models are equal: the paired difference in the table decides.",
            f"{LABELS[metric]} per model. {values}.",
        ),
    )


def metric_by_history(results: Sequence[Result], folder: Path, *, metric: str = "auc") -> Figure:
    """Value per slice of history length, one series per model."""
    if not results:
        raise UsageError("no result to draw", expected="at least one")
    slices = [place for place, part in enumerate(results[0].slices) if part.examples]

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        step = min(0.16, 0.7 / len(results))
        for series, result in enumerate(results):
            offset = (series - (len(results) - 1) / 2) * step
            for x, place in enumerate(slices):
                value = result.slices[place].metrics[metric]
                if value.value is not None:
                    _interval_mark(axes, x + offset, value, colour=_colour(series), marker=_marker(series))
            axes.plot([], [], _marker(series), color=_colour(series), label=result.title)
        labels = [f"{results[0].slices[p].name}\n{results[0].slices[p].examples:,} examples" for p in slices]
        axes.set_xticks(range(len(slices)), labels)
        axes.set_xlim(-0.6, len(slices) - 0.4)
        axes.tick_params(length=0)
        axes.grid(axis="y", linewidth=0.8)
        if metric in ("auc", "gauc"):
            _chance_line(axes, vertical=False)
        axes.set_xlabel("events of the user before the target")
        axes.set_ylabel(LABELS[metric])
        _legend(axes, len(results))

    spoken = "; ".join(
        f"{result.title}: "
        + ", ".join(_spoken(result.slices[place].name, result.slices[place].metrics[metric]) for place in slices)
        for result in results
    )
    return _save(
        f"{metric}-by-history",
        draw,
        folder,
        size=(8.4, 4.4),
        words=(
            f"{LABELS[metric]} by length of the history",
            "Targets are sorted by how many events the user had before them. If long memory pays, a model rises above "
            "the others to the right. Bars are 95 % intervals over users.",
            f"{LABELS[metric]} by events before the target. {spoken}.",
        ),
    )


def learning_curves(curves: Mapping[str, Curve], folder: Path, *, metric: str = "auc") -> Figure:
    """Validation metric against training examples; the best check of each model is marked."""
    drawn = {name: curve for name, curve in curves.items() if len(curve.value)}
    if not drawn:
        raise UsageError("no learning curve to draw", expected="at least one validation check")
    choose = np.nanargmax if metric in ("auc", "gauc") else np.nanargmin
    best = {name: int(choose(np.asarray(curve.value, np.float64))) for name, curve in drawn.items()}

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for series, (name, curve) in enumerate(drawn.items()):
            colour, at = _colour(series), best[name]
            axes.plot(curve.examples, curve.value, color=colour, linewidth=1.8, label=name)
            axes.plot(
                [curve.examples[at]],
                [curve.value[at]],
                _marker(series),
                color=colour,
                markersize=8,
                markeredgecolor=PAPER,
            )
        axes.grid(linewidth=0.8)
        axes.tick_params(length=0)
        axes.xaxis.set_major_formatter(_thousands)
        axes.set_xlabel("training examples (positives and negatives)")
        axes.set_ylabel(f"{LABELS[metric]} on validation")
        _legend(axes, len(drawn))

    spoken = "; ".join(
        f"{name}: best {curve.value[best[name]]:.3f} after {curve.examples[best[name]]:,.0f} examples"
        for name, curve in drawn.items()
    )
    return _save(
        f"learning-{metric}",
        draw,
        folder,
        size=(7.2, 3.8),
        words=(
            "Learning curves",
            f"{LABELS[metric]} on the validation split while training; the mark is the check whose weights were kept.",
            f"{LABELS[metric]} on validation against training examples. {spoken}.",
        ),
    )


def calibration(samples: Mapping[str, Sample], folder: Path, *, kind: str = "score") -> Figure:
    """Predicted against observed share of positives, in bins of equal mass."""
    drawn = {name: calibration_points(sample) for name, sample in samples.items() if len(sample)}
    if not drawn:
        raise UsageError("no examples to draw a calibration plot from", expected="at least one")
    top = min(1.0, 1.05 * max(float(max(x.max(), y.max())) for x, y in drawn.values()))

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        axes.plot([0, top], [0, top], color=INK, linewidth=1, linestyle=(0, (4, 3)), label="perfect")
        for series, (name, (predicted, observed)) in enumerate(drawn.items()):
            axes.plot(
                predicted,
                observed,
                marker=_marker(series),
                color=_colour(series),
                linewidth=1.2,
                markersize=5.5,
                markeredgecolor=PAPER,
                label=name,
            )
        axes.set_aspect("equal")
        axes.set_xlim(0, top)
        axes.set_ylim(0, top)
        axes.grid(linewidth=0.8)
        axes.tick_params(length=0)
        axes.set_xlabel("predicted probability (mean of the bin)")
        axes.set_ylabel("observed share of positives")
        _legend(axes, len(drawn) + 1)

    meaning = " Negatives are sampled here, so the share is that of the sample and not a rate of response."
    spoken = "; ".join(f"{name}: calibration error {metrics.ece(s.label, s.logit):.3f}" for name, s in samples.items())
    return _save(
        "calibration",
        draw,
        folder,
        size=(5.4, 5.6),
        words=(
            "Calibration",
            f"Each mark is one of {metrics.CALIBRATION_BINS} bins with equally many examples; on the dashed line, what "
            f"is predicted is what happens.{meaning if kind == 'score' else ''}",
            f"Predicted against observed share of positives. {spoken}.",
        ),
    )


def calibration_points(sample: Sample) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean prediction and mean label of each bin that is not empty."""
    probability = metrics.sigmoid(sample.logit)
    place = metrics.calibration_bin(probability)
    count = np.bincount(place)
    full = count > 0
    predicted = np.bincount(place, weights=probability)[full] / count[full]
    return predicted, np.bincount(place, weights=sample.label)[full] / count[full]


def attention_timeline(attention: UserAttention, folder: Path) -> Figure:
    """A user's events over time with the writes of each slot below, beside targets' attention over the slots."""
    lanes = _lanes(attention.group_L)
    targets, slots = attention.attention_CS.shape
    if targets != len(attention.targets) or slots != len(attention.periods):
        raise UsageError(
            f"attention of shape {attention.attention_CS.shape}",
            expected=f"{len(attention.targets)} targets and {len(attention.periods)} slots",
        )

    def draw(canvas: Canvas) -> None:
        left, right = canvas.subplots(1, 2, width_ratios=[1.45, 1])
        _draw_timeline(left, attention, lanes)
        _draw_attention(right, attention)

    strongest = [int(np.nanargmax(row)) if np.nansum(row) > 0 else None for row in attention.attention_CS]
    spoken = "; ".join(
        f"{name}: " + ("no slot is filled" if at is None else f"most on the slot of {_slot(attention.periods[at])}")
        for name, at in zip(attention.targets, strongest, strict=True)
    )
    height = 1.6 + 0.32 * max(len(lanes) + slots + 1, 1.6 * targets)
    return _save(
        "attention",
        draw,
        folder,
        size=(11.5, min(9.0, height)),
        words=(
            f"Attention over time scales of user {attention.user}",
            "Left: her events, one row per group of items, and below them when each memory slot was written. Right: how "
            "much each target draws from each slot (first hop; rows add up to 1).",
            f"History of {len(attention.time_L):,} events of user {attention.user}, and attention over "
            f"{slots} memory slots. {spoken}.",
        ),
    )


def _lanes(groups: Sequence[str], most: int = 7) -> list[str]:
    """The most frequent groups, and "other" for the rest."""
    counted = [name for name, _ in Counter(groups).most_common()]
    return counted if len(counted) <= most else [*counted[: most - 1], "other"]


def _draw_timeline(axes: Axes, attention: UserAttention, lanes: Sequence[str]) -> None:
    time_L = np.asarray(attention.time_L, np.int64)
    x: Any = time_L
    if attention.time_unit == "seconds":
        x = time_L.astype("datetime64[s]")
    lane_of = {name: place for place, name in enumerate(lanes)}
    last = len(lanes) - 1
    y = np.array([lane_of.get(name, last) for name in attention.group_L], np.float64)
    axes.plot(x, -y, linestyle="none", marker="|", markersize=9, markeredgewidth=1.1, color=SERIES[0], alpha=0.75)
    number_L = np.arange(1, len(time_L) + 1)
    below = len(lanes) + 0.6
    for slot, period in enumerate(attention.periods):
        written = number_L % period == 0
        axes.plot(
            x[written], np.full(int(written.sum()), -(below + slot)), linestyle="none", marker="|", markersize=7,
            markeredgewidth=1.1, color=SERIES[1], alpha=0.75,
        )  # fmt: skip
    rows = [-float(place) for place in range(len(lanes))] + [-(below + s) for s in range(len(attention.periods))]
    axes.set_yticks(rows, [_short(name, 22) for name in lanes] + [_slot(period) for period in attention.periods])
    axes.axhline(-(len(lanes) - 0.2), color=FAINT, linewidth=0.8)
    axes.set_ylim(-(below + len(attention.periods) - 0.4), 0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_title("events, and writes of each slot")
    axes.set_xlabel(_span(time_L) if attention.time_unit == "seconds" else "place in the history (events)")
    if attention.time_unit == "seconds" and len(time_L):
        _date_axis(axes)


def _draw_attention(axes: Axes, attention: UserAttention) -> None:
    from matplotlib.patches import Rectangle

    weight_CS = np.nan_to_num(np.asarray(attention.attention_CS, np.float64))
    for row, weights in enumerate(weight_CS):
        for slot, weight in enumerate(weights):
            # Opacity carries the value, so that one drawing fits light and dark paper; the number is written too.
            axes.add_patch(
                Rectangle(
                    (slot - 0.46, row - 0.42), 0.92, 0.84, facecolor=SERIES[1], alpha=0.06 + 0.6 * float(weight), lw=0
                )
            )
            axes.text(slot, row, f"{weight:.2f}", ha="center", va="center", fontsize=10)
    labels = [_short(name, 24) for name in attention.targets]
    if attention.outcomes:
        labels = [f"{name}\n{word}" for name, word in zip(labels, attention.outcomes, strict=True)]
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xticks(range(len(attention.periods)), [str(period) for period in attention.periods])
    axes.set_xlim(-0.5, len(attention.periods) - 0.5)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title("attention of each target")
    axes.set_xlabel("slot: written every .. events")


def _save(
    name: str, draw: Callable[[Canvas], None], folder: Path, *, size: tuple[float, float], words: tuple[str, str, str]
) -> Figure:
    """Draw once, write both files."""
    matplotlib = require("matplotlib", extra="report", purpose="drawing figures")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE):
        canvas = Canvas(figsize=size, layout="constrained")
        FigureCanvasAgg(canvas)
        draw(canvas)
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": "lifelong"})
        svg, png = folder / f"{name}.svg", folder / f"{name}.png"
        svg.write_text(_themed(buffer.getvalue()))
        _recolour(canvas)
        canvas.savefig(png, format="png", dpi=160, facecolor="#ffffff")
    title, caption, alt = words
    return Figure(name, svg, png, title, caption, alt)


def _themed(svg: str) -> str:
    """Placeholder colours -> CSS variables; a standalone file follows the reader's light or dark setting."""
    for placeholder, (variable, light, _) in PALETTE.items():
        svg = svg.replace(placeholder, f"var(--{variable}, {light})")
    svg = re.sub(r"font: ([\d.]+px|bold [\d.]+px|[\w ]*[\d.]+px) [^;\"]+", rf"font: \1 {_FONTS}", svg)
    return svg.replace("<defs>", f"<style>{css_variables('svg')}</style>\n <defs>", 1)


def css_variables(selector: str) -> str:
    """CSS that gives the figures' colours their light and dark values."""
    light = "".join(f"--{variable}:{value};" for variable, value, _ in PALETTE.values())
    dark = "".join(f"--{variable}:{value};" for variable, _, value in PALETTE.values())
    return f"{selector}{{{light}}}@media (prefers-color-scheme: dark){{{selector}{{{dark}}}}}"


def _recolour(canvas: Canvas) -> None:
    """Give every placeholder its light value, for the PNG."""
    from matplotlib.colors import to_hex

    light = {placeholder: value for placeholder, (_, value, _) in PALETTE.items()}
    for artist in canvas.findobj():
        for name in ("color", "facecolor", "edgecolor", "markeredgecolor", "markerfacecolor"):
            setter, getter = getattr(artist, f"set_{name}", None), getattr(artist, f"get_{name}", None)
            if setter is None or getter is None:
                continue
            value = getter()
            if isinstance(value, str | tuple) and value != "none" and to_hex(value) in light:
                opacity = artist.get_alpha()
                setter(light[to_hex(value)])
                artist.set_alpha(opacity)
    for axes in canvas.axes:
        axes.tick_params(labelcolor=light[INK], color=light[FAINT])
        axes.tick_params(axis="both", grid_color=light[FAINT])


def _interval_mark(
    axes: Axes, place: float, value: Estimate, *, colour: str, marker: str = "o", horizontal: bool = False
) -> None:
    middle = value.value or 0.0
    low, high = (middle if end is None else end for end in (value.low, value.high))
    bar, dot = ([low, high], [place, place]), ([middle], [place])
    axes.plot(*(bar if horizontal else bar[::-1]), color=colour, linewidth=2.4, alpha=0.55, solid_capstyle="butt")
    axes.plot(*(dot if horizontal else dot[::-1]), marker, color=colour, markersize=7, markeredgecolor=PAPER)


def _chance_line(axes: Axes, *, vertical: bool) -> None:
    """A dashed line at .5, where it lies near the data; it always is in sight, so that small differences stay small."""
    line = axes.axvline if vertical else axes.axhline
    line(0.5, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    if vertical:
        axes.annotate("chance", (0.5, 1), xycoords=("data", "axes fraction"), xytext=(4, -2), textcoords="offset points", va="top", fontsize=9)  # fmt: skip
    else:
        axes.annotate("chance", (1, 0.5), xycoords=("axes fraction", "data"), xytext=(-2, 3), textcoords="offset points", ha="right", fontsize=9)  # fmt: skip


def _legend(axes: Axes, entries: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(4, entries), handletextpad=0.4, columnspacing=1.4)


def _colour(series: int) -> str:
    return SERIES[series % len(SERIES)]


def _marker(series: int) -> str:
    return MARKERS[series % len(MARKERS)]


def _thousands(value: float, _: int | None = None) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if value >= 1e3 else f"{value:g}"


def _date_axis(axes: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _span(time_L: npt.NDArray[np.int64]) -> str:
    if not len(time_L):
        return "time (UTC)"
    first, last = (datetime.datetime.fromtimestamp(int(t), datetime.UTC).date() for t in (time_L[0], time_L[-1]))
    return f"time (UTC), {first} to {last}"


def _slot(period: int) -> str:
    return "every event" if period == 1 else f"every {period} events"


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1].rstrip() + "…"


def _spoken(name: str, value: Estimate) -> str:
    if value.value is None or math.isnan(value.value):
        return f"{name}: not defined"
    return f"{name}: {value.value:.3f}"
