"""A user's history, and the attention of targets to the slots of her memory, in one figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lifelong.dtypes import IntArray
from lifelong.errors import UsageError
from lifelong.reports import drawing
from lifelong.reports.drawing import Figure, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

_LANES = 7


@dataclass(frozen=True, slots=True)
class UserAttention:
    """One user's history, and the attention of some targets to her slots.

    Args:
        user: her name in the figure.
        time_L: UTC seconds of her events (or ordinals), oldest first.
        group_L: the group of each event, such as its category.
        periods: of the slots; slot j is written every `periods[j]` events.
        targets: names of the targets.
        attention_CS: attention of the first hop; NaN or 0 for empty slots.
        outcomes: for each target a word on what was predicted or what happened; may be empty.
        marked: groups that are highlighted and drawn on top, in this order.
        time_unit: "seconds", or "ordinal" for logs without times.
    """

    user: str
    time_L: IntArray
    group_L: Sequence[str]
    periods: Sequence[int]
    targets: Sequence[str]
    attention_CS: npt.NDArray[np.floating]
    outcomes: Sequence[str] = field(default_factory=tuple)
    marked: Sequence[str] = field(default_factory=tuple)
    time_unit: str = "seconds"


def attention_timeline(attention: UserAttention, folder: Path, *, name: str = "attention") -> Figure:
    """Left: a user's events over time, with the writes of each slot below. Right: targets' attention to the slots.

    Args:
        attention: what to draw.
        folder: where to write.
        name: file stem.

    Raises:
        UsageError: the attention does not fit the targets and slots.
    """
    targets, slots = attention.attention_CS.shape
    if (targets, slots) != (len(attention.targets), len(attention.periods)):
        raise UsageError(
            f"attention of shape {attention.attention_CS.shape}",
            expected=f"{len(attention.targets)} targets and {len(attention.periods)} slots",
            fix="give a row of weights for each target, and in it a weight for each slot",
        )
    lanes = _lanes(attention)

    def draw(canvas: Canvas, theme: Theme) -> None:
        left, right = canvas.subplots(1, 2, width_ratios=[1.45, 1])
        _draw_timeline(left, theme, attention, lanes)
        _draw_attention(right, theme, attention)

    strongest = [int(np.nanargmax(row)) if np.nansum(row) > 0 else None for row in attention.attention_CS]
    spoken = "; ".join(
        f"{name}: "
        + ("no slot is filled" if at is None else f"most on the slot written {slot_name(attention.periods[at])}")
        for name, at in zip(attention.targets, strongest, strict=True)
    )
    standing_out = " (related ones stand out)" if attention.marked else ""
    words = (
        f"Attention over time scales of user {attention.user}",
        f"Left: her events, one row per group of items{standing_out}, and below them when each memory slot was "
        "written. Right: how much each target draws from each slot (first read; a row adds up to 1).",
        f"History of {len(attention.time_L):,} events of user {attention.user}, and attention over {slots} memory "
        f"slots. {spoken}.",
    )
    height = 1.6 + 0.34 * max(len(lanes) + slots + 1, 1.6 * targets)
    return drawing.save(name, draw, folder, size=(10.4, min(9.0, height)), words=words)


def _lanes(attention: UserAttention) -> list[str]:
    """The marked groups, then the most frequent ones, and "other" for the rest."""
    marked = list(attention.marked)
    counted = [*marked, *(name for name, _ in Counter(attention.group_L).most_common() if name not in marked)]
    return counted if len(counted) <= _LANES else [*counted[: _LANES - 1], "other"]


def _draw_timeline(axes: Axes, theme: Theme, attention: UserAttention, lanes: Sequence[str]) -> None:
    time_L = np.asarray(attention.time_L, np.int64)
    clock = attention.time_unit == "seconds"
    x: Any = time_L.astype("datetime64[s]") if clock else time_L
    lane_of = {name: -place for place, name in enumerate(lanes)}
    tick: dict[str, Any] = {"linestyle": "none", "marker": "|", "markersize": 9, "markeredgewidth": 1.1, "alpha": 0.75}
    y = np.array([lane_of.get(name, 1 - len(lanes)) for name in attention.group_L], np.float64)
    stands_out = np.array([name in attention.marked for name in attention.group_L], bool)
    axes.plot(x[~stands_out], y[~stands_out], color=theme.series[0], **tick)
    look: dict[str, Any] = {"markersize": 7, "markeredgecolor": theme.paper, "color": theme.series[2]}
    axes.plot(x[stands_out], y[stands_out], "D", **look)
    below = [-(len(lanes) + 0.6 + slot) for slot in range(len(attention.periods))]
    for height, period in zip(below, attention.periods, strict=True):
        written = np.arange(1, len(time_L) + 1) % period == 0
        axes.plot(x[written], np.full(int(written.sum()), height), color=theme.series[1], **tick)
    names = [drawing.short(name, 22) for name in lanes] + [slot_name(period) for period in attention.periods]
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
        # Opacity shows the value, so that one drawing fits light and dark pages; the number is printed as well.
        look: dict[str, Any] = {"facecolor": theme.series[1], "alpha": 0.06 + 0.6 * float(weight), "linewidth": 0}
        axes.add_patch(Rectangle((slot - 0.46, row - 0.42), 0.92, 0.84, **look))
        axes.text(slot, row, f"{weight:.2f}", ha="center", va="center", fontsize=10)
    labels = [drawing.short(name, 24) for name in attention.targets]
    if attention.outcomes:
        labels = [f"{name}\n{word}" for name, word in zip(labels, attention.outcomes, strict=True)]
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xticks(range(len(attention.periods)), [str(period) for period in attention.periods])
    # A single target does not fill the height.
    pad = max(0.0, 1.5 - len(labels) / 2)
    axes.set(xlim=(-0.5, len(attention.periods) - 0.5), ylim=(len(labels) - 0.5 + pad, -0.5 - pad))
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title("attention of each target")
    axes.set_xlabel("slot (events between writes)")


def slot_name(period: int) -> str:
    """How often a slot is written, in words.

    >>> slot_name(1), slot_name(4)
    ('every event', 'every 4 events')
    """
    return "every event" if period == 1 else f"every {period} events"
