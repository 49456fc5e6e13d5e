"""Case studies chosen by a rule: users with a target that is explained by old events, by recent ones, or by both.

The rule is fixed in advance and printed on the page. It looks at targets that got a response and that the model scores
above the median; n slots are filled, and the slowest of them is written every T events:

    old       the slowest filled slot gets the most attention, and every related event is more than T events old
    recent    the fastest slot gets the most attention, and every related event is among the last T
    both      related events on both sides of T, and each of the two slots gets more than an even share, 1 / n

Of the targets that qualify, the one with the most attention to the deciding slot is shown (for both: to the lesser of
the two slots); no user is shown twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lifelong.data.dataset import Dataset
from lifelong.dtypes import BoolArray, FloatArray
from lifelong.evaluation.attention import SAME_CATEGORY, SAME_ITEM, ReadAttention, category_field, relation
from lifelong.reports.dataset import item_label
from lifelong.reports.drawing import Figure
from lifelong.reports.sections import Section
from lifelong.reports.timeline import UserAttention, attention_timeline

KINDS = {"old": "old events", "recent": "recent events", "both": "old and recent events"}


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


def cases_section(read: ReadAttention, dataset: Dataset, folder: Path, *, title: str) -> Section:
    """The rule, what was found, and one figure per case.

    Args:
        read: attention of the first seed.
        dataset: with the histories.
        folder: of the figures.
        title: the model's name.
    """
    cases = find_cases(read)
    figures = [_figure(case, read, dataset, folder) for case in cases if case.place is not None]
    return Section(
        "Case studies", [_rule(dataset, title, cases[0].examined), *(_found(case) for case in cases)], figures=figures
    )


def _strongest(chosen_N: BoolArray, strength_N: FloatArray) -> int | None:
    return int(np.argmax(np.where(chosen_N, strength_N, -1.0))) if chosen_N.any() else None


def _rule(dataset: Dataset, title: str, examined: int) -> str:
    field = category_field(dataset)
    related = "the same item" if field is None else f"the same item or the same {field}"
    return (
        f"Found by a rule, not chosen by hand. Examined: {examined:,} test targets of randomly drawn users that got a "
        f"response and that {title} (first seed) scores above the median of all targets read. An event is related if "
        f"it has {related} as the target; T is the period of the slowest slot that is filled. Explained by old events: "
        "that slot gets the most attention and all related events are more than T events old. By recent ones: the "
        "fastest slot gets the most and all related events are among the last T. By both: related events on both "
        "sides of T, and each of these two slots gets more than an even share. The clearest target of each kind is "
        "shown. Attention says what the model read, not what made the user respond."
    )


def _found(case: Case) -> str:
    kind = KINDS[case.kind]
    halves = (
        f"the attention fits in {case.by_slots:,} of {case.examined:,} targets, the related events in "
        f"{case.by_events:,}, both at once in {case.qualifying:,}"
    )
    if case.place is None:
        none = "no target qualifies" if not case.qualifying else "no other user than those shown qualifies"
        return f"Explained by {kind}: {none} ({halves})."
    return f"Explained by {kind}: {halves}; the clearest is drawn."


def _figure(case: Case, read: ReadAttention, dataset: Dataset, folder: Path) -> Figure:
    assert case.place is not None
    examples, at = read.examples, case.place
    user, row = int(examples.user_N[at]), int(examples.row_N[at])
    start = dataset.histories.of(user).start
    field = category_field(dataset)
    names = {SAME_ITEM: "same item", SAME_CATEGORY: f"same {field}", 0: "other events"}
    attention = UserAttention(
        user=f"{dataset.users.id_at(user)} (explained by {KINDS[case.kind]})",
        time_L=np.asarray(dataset.histories.time_N[start : start + int(examples.position_N[at])]),
        group_L=[names[int(of)] for of in relation(dataset, examples, at)],
        periods=read.periods,
        targets=[item_label(dataset, dataset.catalogue.id_of(row) or "unknown item", field)],
        attention_CS=read.attention_NS[at : at + 1],
        outcomes=[_age_words(read, at)],
        marked=_lanes(names, field),
        time_unit=dataset.schema.time_unit,
    )
    return attention_timeline(attention, folder, name=f"case-{case.kind}")


def _lanes(names: dict[int, str], field: str | None) -> Sequence[str]:
    return [names[SAME_ITEM]] if field is None else [names[SAME_ITEM], names[SAME_CATEGORY]]


def _age_words(read: ReadAttention, at: int) -> str:
    count, latest, oldest = (int(of[at]) for of in (read.count_N, read.latest_N, read.oldest_N))
    ages = f"{latest:,}" if latest == oldest else f"{latest:,} to {oldest:,}"
    return f"{count:,} related, {ages} events ago"
