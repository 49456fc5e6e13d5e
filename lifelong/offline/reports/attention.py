"""Attention over the slots of a memory: with one user's history, and case studies that are chosen by a rule.

The rule of the case studies looks at targets that got a response and that the model scores above the median; n slots
are filled, and the slowest of them is written every T events:

    old       the slowest filled slot gets the most attention, and every related event is more than T events old
    recent    the fastest slot gets the most attention, and every related event is among the last T
    both      related events on both sides of T, and each of the two slots gets more than an even share, 1 / n

Of the targets that qualify, the one with the most attention to the deciding slot is shown (for both: to the lesser of
the two slots); no user is shown twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lifelong.dataset.folder import Dataset
from lifelong.dtypes import BoolArray, FloatArray, IntArray
from lifelong.offline.evaluation.attention import (
    SAME_CATEGORY,
    SAME_ITEM,
    ReadAttention,
    category_field,
    relation,
)
from lifelong.offline.reports import drawing
from lifelong.offline.reports.drawing import LIGHT, Figure
from lifelong.offline.reports.figures import slot_name
from lifelong.offline.reports.page import Section
from lifelong.offline.reports.tables import Cell, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = {"old": "old events", "recent": "recent events", "both": "old and recent events"}


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


@dataclass(frozen=True, slots=True)
class Case:
    """What was found for one kind of explanation.

    Args:
        kind: old, recent or both.
        place: place of the case in the examples that were read; None if none qualifies.
        by_slots: number of targets that meet the rule's condition on attention.
        by_events: number of targets that meet its condition on related events.
        qualifying: number of targets that meet both.
        examined: number of targets with a response and a score above the median.
    """

    kind: str
    place: int | None
    by_slots: int
    by_events: int
    qualifying: int
    examined: int


def find_cases(read: ReadAttention) -> list[Case]:
    """Apply the rule to what was read; one case per kind, in the order old, recent, both."""
    positive_N = np.asarray(read.examples.label_NT[:, 0]) >= 0.5
    filled_N = read.filled
    # With a single slot, the slowest is also the fastest.
    examined_N = positive_N & (filled_N >= 2)
    if len(read.logit_N):
        examined_N &= read.logit_N > np.median(read.logit_N)
    slow_N = np.maximum(filled_N - 1, 0)
    slowest_N = read.attention_NS[np.arange(len(slow_N)), slow_N]
    fastest_N, strongest_N = read.attention_NS[:, 0], read.attention_NS.argmax(1)
    period_N, related_N = np.asarray(read.periods)[slow_N], read.count_N > 0
    even_N = 1 / np.maximum(filled_N, 1)
    rules = {
        "old": (strongest_N == slow_N, related_N & (read.latest_N > period_N), slowest_N),
        "recent": (strongest_N == 0, related_N & (read.oldest_N <= period_N), fastest_N),
        "both": (
            (slowest_N > even_N) & (fastest_N > even_N),
            related_N & (read.latest_N <= period_N) & (read.oldest_N > period_N),
            np.minimum(slowest_N, fastest_N),
        ),
    }
    cases: list[Case] = []
    taken = np.zeros(len(slow_N), bool)
    user_N = np.asarray(read.examples.user_N)
    for kind, (by_slots_N, by_events_N, strength_N) in rules.items():
        whole_N = examined_N & by_slots_N & by_events_N
        place = _strongest(whole_N & ~taken, strength_N)
        if place is not None:
            taken |= user_N == user_N[place]
        counted = [int((examined_N & of).sum()) for of in (by_slots_N, by_events_N, whole_N)]
        cases.append(Case(kind, place, counted[0], counted[1], counted[2], int(examined_N.sum())))
    return cases


def attention_timeline(attention: UserAttention, path: Path) -> Figure:
    """Left: a user's events over time, with the writes of each slot below. Right: targets' attention to the slots.

    Args:
        attention: what to draw.
        path: of the SVG file.
    """
    targets, slots = attention.attention_CS.shape
    # The marked groups on top.
    lanes = [*attention.marked, *sorted({*attention.group_L} - {*attention.marked})]
    height = 1.6 + 0.34 * max(len(lanes) + slots + 1, 1.6 * targets)
    with drawing.drawn(path, (10.4, min(9.0, height))) as canvas:
        left, right = canvas.subplots(1, 2, width_ratios=[1.45, 1])
        _draw_timeline(left, attention, lanes)
        _draw_attention(right, attention)
    caption = (
        "Left: her events, one row per group of items, and below them when each memory slot was written. Right: how "
        "much each target draws from each slot (first read; a row adds up to 1)."
    )
    return Figure(path, f"Attention over time scales of user {attention.user}", caption)


def cases_section(read: ReadAttention, dataset: Dataset, folder: Path, *, title: str) -> Section:
    """The rule, what was found, and one figure per case.

    Args:
        read: attention of the first seed.
        dataset: with the histories.
        folder: of the figures.
        title: the model's name.
    """
    cases, field = find_cases(read), category_field(dataset)
    rule = (
        f"Found by a rule, not chosen by hand, in {cases[0].examined:,} test targets that got a response and that "
        f"{title} (first seed) scores above the median. Related events have the item of the target"
        f"{'' if field is None else f' or its {field}'}; T is the period of the slowest filled slot. Old: that slot "
        "gets the most attention, and all related events are more than T events old. Recent: the fastest slot gets "
        "the most, and all are among the last T. Both: related events on both sides, each of these slots with more "
        "than an even share. The clearest target of each kind is drawn. Attention says what the model read, not what "
        "made the user respond."
    )
    rows: list[list[Cell]] = [[KINDS[of.kind], of.by_slots, of.by_events, of.qualifying] for of in cases]
    table = Table(["explained by", "attention fits", "related events fit", "both fit"], rows, name="cases")
    drawn = [_figure(case, read, dataset, folder) for case in cases if case.place is not None]
    return Section("Case studies", [rule], [table], drawn)


def item_label(dataset: Dataset, item: str, field: str | None) -> str:
    """An item as a person reads it: the value of one of its fields, and its id.

    Args:
        dataset: with the vocabularies.
        item: id.
        field: of the items; None, or "item" itself, for the id alone.
    """
    if field in (None, "item"):
        return item
    number = int(dataset.catalogue.numbers([item])[0, dataset.schema.item_fields.index(field)])
    value = dataset.vocabularies[field].value_of(number)
    return f"{value} ({item})" if value else item


def _strongest(chosen_N: BoolArray, strength_N: FloatArray) -> int | None:
    return int(np.argmax(np.where(chosen_N, strength_N, -1.0))) if chosen_N.any() else None


def _figure(case: Case, read: ReadAttention, dataset: Dataset, folder: Path) -> Figure:
    assert case.place is not None
    examples, at = read.examples, case.place
    user, row = int(examples.user_N[at]), int(examples.row_N[at])
    start = dataset.histories.of(user).start
    field = category_field(dataset)
    names = {SAME_ITEM: "same item", SAME_CATEGORY: f"same {field}", 0: "other events"}
    count, latest, oldest = (int(of[at]) for of in (read.count_N, read.latest_N, read.oldest_N))
    attention = UserAttention(
        user=f"{dataset.users.id_at(user)} (explained by {KINDS[case.kind]})",
        time_L=np.asarray(dataset.histories.time_N[start : start + int(examples.position_N[at])]),
        group_L=[names[int(of)] for of in relation(dataset, examples, at)],
        periods=read.periods,
        targets=[item_label(dataset, dataset.catalogue.id_of(row) or "unknown item", field)],
        attention_CS=read.attention_NS[at : at + 1],
        outcomes=[f"{count:,} related, {f'{latest:,} to ' if latest != oldest else ''}{oldest:,} events ago"],
        marked=[names[SAME_ITEM], *([] if field is None else [names[SAME_CATEGORY]])],
        time_unit=dataset.schema.time_unit,
    )
    return attention_timeline(attention, folder / f"case-{case.kind}.svg")


def _draw_timeline(axes: Axes, attention: UserAttention, lanes: Sequence[str]) -> None:
    time_L = np.asarray(attention.time_L, np.int64)
    clock = attention.time_unit == "seconds"
    x: Any = time_L.astype("datetime64[s]") if clock else time_L
    lane_of = {name: -place for place, name in enumerate(lanes)}
    tick: dict[str, Any] = {"linestyle": "none", "marker": "|", "markersize": 9, "markeredgewidth": 1.1, "alpha": 0.75}
    y = np.array([lane_of[name] for name in attention.group_L], np.float64)
    stands_out = np.array([name in attention.marked for name in attention.group_L], bool)
    axes.plot(x[~stands_out], y[~stands_out], color=LIGHT.series[0], **tick)
    look: dict[str, Any] = {"markersize": 7, "markeredgecolor": LIGHT.paper, "color": LIGHT.series[2]}
    axes.plot(x[stands_out], y[stands_out], "D", **look)
    below = [-(len(lanes) + 0.6 + slot) for slot in range(len(attention.periods))]
    for height, period in zip(below, attention.periods, strict=True):
        written = np.arange(1, len(time_L) + 1) % period == 0
        axes.plot(x[written], np.full(int(written.sum()), height), color=LIGHT.series[1], **tick)
    names = [drawing.short(name, 22) for name in lanes] + [slot_name(period) for period in attention.periods]
    axes.set_yticks([*lane_of.values(), *below], names)
    axes.axhline(-(len(lanes) - 0.2), color=LIGHT.faint, linewidth=0.8)
    axes.set_ylim(below[-1] - 0.6, 0.6)
    axes.tick_params(axis="x", labelsize=9)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_title("events, and writes of each slot")
    axes.set_xlabel("time (UTC)" if clock else "place in the history (events)")


def _draw_attention(axes: Axes, attention: UserAttention) -> None:
    from matplotlib.patches import Rectangle

    for (row, slot), weight in np.ndenumerate(np.nan_to_num(np.asarray(attention.attention_CS, np.float64))):
        # Opacity shows the value, so that one drawing fits light and dark pages; the number is printed as well.
        look: dict[str, Any] = {"facecolor": LIGHT.series[1], "alpha": 0.06 + 0.6 * float(weight), "linewidth": 0}
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
