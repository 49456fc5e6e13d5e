"""Which counters, slots and past events are behind a score.

A model that reads the recent history says on which of its events the weights fall. A model with a memory says on which
slots, and the events that are named with a slot are those that it was made of.

After n events, a slot with period t was last written by the event at position w = floor(n / t) * t. That write took in
the t events up to w; through the slot's earlier state it covers everything up to w. So the related events of that
window are named first, then earlier ones.
"""

from __future__ import annotations

import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lifelong.dtypes import BoolArray, Float32Array, IntArray
from lifelong.online.memory.state import States
from lifelong.online.scoring.answer import ScoreRequest
from lifelong.online.scoring.evidence import Past, counted_of, past_of
from lifelong.online.scoring.explanation import (
    CandidateExplanation,
    Counted,
    CoveredSlot,
    Explanation,
    OtherEvents,
    PastEvent,
    RelatedEvent,
    SlotAttention,
    WeightedEvent,
)
from lifelong.tally.spec import NO_KEY

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from lifelong.dataset.folder import Dataset
    from lifelong.online.scoring.answer import Answer
    from lifelong.online.scoring.scorer import Scorer

RELATED = 5
"""How many related events are named for a slot."""
WEIGHTED = 10
"""How many events are named with their weight; the others are summed."""
EXPLAINED = 10_000
"""How many of a user's latest events are looked at: all of a very long history would take seconds per request."""
RECENT = 20
"""How many of the latest events are shown."""

_WRITES = ("rate", "age")
"""Fields of a memory that say how its slots were written."""
LONGEST_AGE = 1024
"""Events of an age of 1."""


def explain(scorer: Scorer, request: ScoreRequest, *, dataset: Dataset | None = None) -> Explanation:
    """Explain the scores of one user's candidates.

    Of a longer history the latest `EXPLAINED` events are looked at, and all that the memory keeps; the note says so.

    Args:
        scorer: artifact and store.
        request: the user and the candidates.
        dataset: where past events are looked up that the store's event log does not hold.

    Raises:
        RequestError: a field that came with a candidate is not an item field, or one of a profile no user field.
    """
    moment = int(clock.time()) if request.time is None else request.time
    request = replace(request, time=moment)
    states, known = scorer.states([request.user])
    answer = scorer.answer_from(states, known, [request], attention=True)[0]
    slots = slots_of(scorer, states, 0)
    # All that a recent history holds, however long: weights are of each of its events.
    last = max(EXPLAINED, scorer.runtime.stored(answer.count))
    past = past_of(scorer, request.user, states, dataset=dataset, last=last)
    number_CF = scorer.online_items.numbers(request.items, request.fields)
    shown = _Shown(scorer, past, moment)
    text_FC = {
        name: scorer.online_items.texts(name, request.items, number_CF[:, column], request.fields)
        for column, name in enumerate(scorer.schema.item_fields)
    }
    counted = counted_of(scorer, states, number_CF, text_FC, answer.scores, request, moment)
    added = scorer.added_in_lists(states, request.items)
    titles = scorer.artifact.catalogue.titles_of(request.items)
    return Explanation(
        user=answer.user,
        known_user=answer.known_user,
        count=answer.count,
        last_time=answer.last_time,
        slots=slots,
        candidates=[
            CandidateExplanation(
                **_values(score),
                **_attended(scorer, answer, place, slots, shown, number_CF[place]),
                title=titles[place],
                fields={name: values[place] for name, values in text_FC.items() if name != "item"},
                counted=of_counts and shown.with_true_counts(of_counts, score.item, number_CF[place], answer.count),
                **added.of(place),
            )
            for place, (score, of_counts) in enumerate(zip(answer.scores, counted, strict=True))
        ],
        attention_over=scorer.runtime.attends_to,
        attention_note=_attention_note(scorer, answer.count),
        events_from=past.source,
        events_note=past.note if answer.count <= last else f"{past.note}; looked at are the latest {last:,}",
        # From the last event backwards.
        recent=[shown.event(at) for at in range(len(past.items) - 1, -1, -1)[:RECENT]],
        artifact=answer.artifact,
    )


class _Shown:
    """Past events as they are shown."""

    def __init__(self, scorer: Scorer, past: Past, moment: int) -> None:
        self.past, self.moment = past, moment
        self.seconds = scorer.schema.time_unit == "seconds"
        self.online_items, self.fields = scorer.online_items, scorer.schema.item_fields

    def event(self, at: int) -> PastEvent:
        """The event at one place of the past."""
        past, time = self.past, int(self.past.time_N[at])
        return PastEvent(
            position=int(past.position_N[at]),
            item=past.items[at],
            time=time,
            event_type=past.types[at],
            seconds_ago=self.moment - time if self.seconds else None,
            fields=self.values(at),
        )

    def values(self, at: int) -> dict[str, str | None]:
        """Field -> value of the item of one event, for all fields but its id; None where the value is not known."""
        past = self.past
        return {
            name: self.online_items.texts(
                name, [past.items[at]], past.number_NF[at, column : column + 1], [past.fields[at]]
            )[0]
            for column, name in enumerate(self.fields)
            if column
        }

    def with_true_counts(self, counted: Counted, item: str, number_F: IntArray, count: int) -> Counted:
        """What a memory counts, with what the events themselves say, as far as they are known.

        Args:
            counted: of one candidate.
            item: its id.
            number_F: its numbers.
            count: events in the memory.
        """
        values, whole = [], len(self.past.items) == count
        for value, same_N in zip(counted.values, self.same(item, number_F).T, strict=True):
            at = max(np.flatnonzero(same_N), default=-1)
            # Of later events that are not known, one may have the value, too.
            sure = at >= 0 and len(same_N) - at == 1 + count - int(self.past.position_N[at])
            ago = self.moment - int(self.past.time_N[at]) if sure and self.seconds else None
            known = whole and value.state != "unknown"
            values.append(replace(value, logged=int(same_N.sum()) if known else None, seconds_ago=ago))
        return replace(counted, values=values)

    def same(self, item: str, number_F: IntArray) -> BoolArray:
        """For each event and item field: whether its value is the candidate's; two missing ones are not equal."""
        # By key, which follow the numbers: unknown values share numbers.
        key_NF, key_F = self.past.number_NF[:, len(self.fields) :], number_F[len(self.fields) :]
        same_NF: BoolArray = (key_NF == key_F) & (key_F != NO_KEY)
        # The item has its id, known to the model or not.
        same_NF[:, 0] = [past == item for past in self.past.items]
        return same_NF


def _values(of: DataclassInstance) -> dict[str, Any]:
    """Field -> value, as `dataclasses.asdict` gives it, but values that are dataclasses stay what they are."""
    return {field.name: getattr(of, field.name) for field in fields(of)}


def _attended(
    scorer: Scorer,
    answer: Answer,
    place: int,
    slots: Sequence[CoveredSlot],
    shown: _Shown,
    number_F: IntArray,
) -> dict[str, Any]:
    """What the attention for one candidate fell on: fields of a `CandidateExplanation`."""
    if answer.attention_CS is None:
        return {"slots": [], "events": [], "rest": None}
    weights = answer.attention_CS[place]
    if scorer.runtime.attends_to == "events":
        events, rest = _weighted(weights, scorer.runtime.stored(answer.count), shown)
        return {"slots": [], "events": events, "rest": rest}
    same_NF = shown.same(answer.scores[place].item, number_F)
    # The first field of a memory is the one that is read; others decide when and what is written.
    read = [slot for slot in slots if slot.field == slots[0].field]
    parts = [
        SlotAttention(slot.field, slot.slot, float(weight), _related(slot, shown, same_NF))
        for slot, weight in zip(read, weights, strict=True)
    ]
    return {"slots": parts, "events": [], "rest": None}


def _weighted(weight_L: Float32Array, stored: int, shown: _Shown) -> tuple[list[WeightedEvent], OtherEvents]:
    """The events of the largest weights, and the others.

    Args:
        weight_L: of the stored events, the oldest first, and of padding.
        stored: how many events are stored: the last ones that are known of the user.
        shown: her past.
    """
    weight_L = weight_L[:stored]
    # Largest first: the last key counts most, and of equal weights the later event comes first. Events without a weight
    # are at the end of the order and cut off.
    order = np.lexsort((np.arange(stored), np.abs(weight_L)))[::-1][: np.count_nonzero(weight_L)]
    # Weight 0 is that of the oldest stored event; events before it may be known, from a log, but are not read.
    first = len(shown.past.items) - stored
    named, others = order[:WEIGHTED].tolist(), order[WEIGHTED:]
    events = [WeightedEvent(**_values(shown.event(first + at)), attention=float(weight_L[at])) for at in named]
    return events, OtherEvents(len(others), float(weight_L[others].sum()))


def _attention_note(scorer: Scorer, count: int) -> str:
    """What the candidates' weights belong to, in words."""
    runtime = scorer.runtime
    if runtime.attends_to is None:
        return f"{scorer.artifact.config.title} has no attention: it does not say which events are behind a score"
    if runtime.attends_to == "slots":
        return "the weights are over the slots, and sum to 1 unless all slots are empty"
    stored = runtime.stored(count)
    if runtime.free_weights:
        return (
            f"the weights are over the user's last {stored:,} events, and free: of any size and sign, not shares of 1"
        )
    return (
        f"the weights are over the user's last {stored:,} events, and sum to 1 unless the model looked at none of them"
    )


def _related(slot: CoveredSlot, shown: _Shown, same_NF: BoolArray) -> list[RelatedEvent]:
    """The most related events that a slot covers.

    Those of its last window come first, then those of the same item, those with more fields in common, later ones.
    """
    if slot.window is None:
        return []
    position_N = shown.past.position_N
    inside_N = position_N >= slot.window[0]
    chosen = np.flatnonzero(same_NF.any(1) & (position_N <= slot.covers))
    # The last key of a lexsort counts most; reversed, since the largest comes first.
    order = np.lexsort((position_N[chosen], same_NF[chosen].sum(1), same_NF[chosen, 0], inside_N[chosen]))[::-1]
    return [
        RelatedEvent(
            **_values(shown.event(at)),
            same=tuple(name for name, is_same in zip(shown.fields, same_NF[at], strict=True) if is_same),
            in_last_window=bool(inside_N[at]),
        )
        for at in chosen[order][:RELATED].tolist()
    ]


def slots_of(scorer: Scorer, states: States, place: int) -> list[CoveredSlot]:
    """The slots of one user.

    Args:
        scorer: of the model of the memory.
        states: memories of some users.
        place: which of them.
    """
    count, slots = int(states.count_B[place]), []
    if not scorer.runtime.steady:
        return [_slot("history", 0, covers=count)]
    if {"slot", *_WRITES} <= states.fields.keys():
        return _dynamic(states, place)
    for part in scorer.runtime.layout:
        if part.dtype != "float32" or part.name == "sums":
            # Counters are no vectors (see `lifelong.online.scoring.evidence`), and sums of fixed factors are no slots.
            continue
        vectors = states.fields[part.name][place]
        rows = vectors if len(part.shape) > 1 else vectors[None]
        periods = _periods(scorer.artifact.config.settings, len(rows))
        for at, (row, period) in enumerate(zip(rows, periods, strict=True)):
            # Events after the last full period wait for the slot's next write.
            covers = count // (period or 1) * (period or 1)
            slots.append(_slot(part.name, at, covers=covers, norm=float(np.linalg.norm(row)), period=period))
    return slots


def _dynamic(states: States, place: int) -> list[CoveredSlot]:
    """Slots of a model that decides when it writes, and keeps of each how often and when it last did."""
    count = int(states.count_B[place])
    columns = (states.fields[name][place] for name in ("slot", *_WRITES))
    return [
        _slot(
            "slot",
            at,
            covers=max(0, count - round(float(age) * LONGEST_AGE)),
            norm=float(np.linalg.norm(row)),
            rate=float(rate),
        )
        for at, (row, rate, age) in enumerate(zip(*columns, strict=True))
    ]


def _slot(
    field: str, at: int, *, covers: int, norm: float = 0.0, period: int | None = None, rate: float | None = None
) -> CoveredSlot:
    empty = covers == 0 if rate is None else rate == 0
    # A write takes in the events since the one before it: as many as the period says, or as many as at this rate lie
    # between two writes on average.
    size = period or (round(1 / rate) if rate else 1)
    window = None if empty else (max(1, covers - size + 1), covers)
    return CoveredSlot(field, at, period, rate, _written(period, rate), empty, norm, covers, window)


def _written(period: int | None, rate: float | None) -> str:
    if rate is not None and rate < 1:
        return f"at {rate:.0%} of the events"
    return "at every event" if period in (None, 1) else f"every {period} events"


def _periods(model: Mapping[str, object], rows: int) -> Sequence[int | None]:
    """Period of each slot, where the model's settings name them."""
    periods = model.get("periods")
    if isinstance(periods, Sequence) and len(periods) == rows:
        return [int(period) for period in periods]
    return [None] * rows
