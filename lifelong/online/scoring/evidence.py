"""What is behind a score: the events that a memory was made of, what it counts of a candidate, and each part's effect.

The events are those of a prepared dataset, the store's event log, or a stored recent history. Where several know an
event, the log is taken, which knows most of it, then the dataset. A recent history knows only numbers: an item that has
no number of its own has no name there.

    memory --without the cells, or the sums, of one field--> score again --difference--> that part's effect

Effects are differences between scores of one model, not shares: fields act together, so effects need not sum to
anything.

Shapes: N events, C candidates, F item fields, G fields with factors, X parts of a memory that are left out in turn: the
cells of each field, the sums of each field with factors, the slots.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lifelong.dataset.catalogue import FIRST_ROW
from lifelong.dataset.folder import Dataset
from lifelong.dataset.vocabulary import NumberVocabulary, Vocabulary
from lifelong.dtypes import FloatArray, IntArray
from lifelong.online.memory.event import LoggedEvent, decode_event
from lifelong.online.memory.state import Counting, States, unroll
from lifelong.online.scoring.answer import Score, ScoreRequest
from lifelong.online.scoring.explanation import Affinity, Counted, CountedValue
from lifelong.online.scoring.scorer import Scorer
from lifelong.tally.plan import Precision, middle_age, precision
from lifelong.tally.spec import AGES, COUNTS, NO_KEY

_PRECISIONS = {times: precision(times) for times in COUNTS}
"""Of each count that a cell can have."""
_MIDDLES = {age: middle_age(age) for age in AGES}
"""Of each age that a cell can have: the middle of its step."""


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of the events that were folded into a memory, oldest first.

    Args:
        position_N: int64, 1 is the user's first event.
        items: item ids; empty where not known.
        time_N: int64, UTC seconds or the ordinal of a log without times.
        types: event types; None where not known.
        number_NF: int64, item field numbers, followed by their keys.
        fields: what came with the events themselves; None where nothing did.
        source: "data", "store", "memory", or several with "and"; None if nothing is known.
        note: where the events come from, in words, and what is missing.
    """

    position_N: IntArray
    items: list[str]
    time_N: IntArray
    types: list[str | None]
    number_NF: IntArray
    fields: list[Mapping[str, str | None] | None]
    source: str | None
    note: str


def past_of(scorer: Scorer, user: str, states: States, *, dataset: Dataset | None, last: int | None = None) -> Past:
    """What is known of one user's past; of a recent history at least all that it holds.

    Args:
        scorer: artifact and store.
        user: her id.
        states: her memory alone, of `count` events.
        dataset: its first `count` events of the user are taken for those of the memory, where the log lacks them.
        last: how many of the latest events are read; all if None.
    """
    count = int(states.count_B[0])
    skipped = 0 if last is None else max(0, count - last)
    from_data = _from_dataset(dataset, user, skipped, count) if dataset is not None else {}
    from_store = _from_store(scorer, user, skipped, count)
    logged = {**from_data, **from_store}
    from_memory = {at: row for at, row in _from_memory(scorer, states).items() if at not in logged}
    every = {**logged, **from_memory}
    # By position: the three sources know other events, in any order.
    rows = {at: every[at] for at in sorted(every)}
    events_of = {"data": from_data, "store": from_store, "memory": from_memory}
    sources = [name for name in events_of if events_of[name]]
    events = list(rows.values())
    items, fields = [row.item for row in events], [row.fields for row in events]
    return Past(
        position_N=np.fromiter(rows, np.int64, len(rows)),
        items=items,
        time_N=np.array([row.time for row in events], np.int64),
        types=[row.event_type for row in events],
        number_NF=scorer.online_items.numbers(items, fields),
        fields=fields,
        source=" and ".join(sources) or None,
        note=_note(count - skipped, len(rows), sources, asked_data=dataset is not None),
    )


def _from_dataset(dataset: Dataset, user: str, skipped: int, count: int) -> dict[int, LoggedEvent]:
    """The user's first `count` events in a dataset without the first `skipped` of them, by position."""
    index = int(dataset.users.find([user])[0])
    if index < 0:
        return {}
    rows = dataset.histories.of(index)
    events = map(dataset.event, range(rows.start + skipped, min(rows.stop, rows.start + count)))
    # Positions begin at 1: the first that is read follows those that are skipped.
    return {position: LoggedEvent(*event) for position, event in enumerate(events, start=skipped + 1)}


def _from_store(scorer: Scorer, user: str, skipped: int, count: int) -> dict[int, LoggedEvent]:
    """The user's first `count` events in the store's log except the first `skipped`, by position, as far as known."""
    stored = scorer.store.logs([(user, skipped)])[0]
    log = {position: decode_event(value) for position, value in stored if position <= count}
    # A user's events are of few items: each is looked up once.
    items = list({event.item for event in log.values()})
    rows = scorer.artifact.catalogue.rows(items).tolist()
    in_catalogue = {item for item, row in zip(items, rows, strict=True) if row >= FIRST_ROW}
    # As the memory has it: see `MemoryWriter`.
    return {
        position: replace(event, fields=None) if event.fields and event.item in in_catalogue else event
        for position, event in log.items()
    }


def _from_memory(scorer: Scorer, states: States) -> dict[int, LoggedEvent]:
    """The events that a recent history holds, by position; none for a memory of another kind."""
    schema, vocabularies = scorer.schema, scorer.artifact.vocabularies
    types = scorer.artifact.event_types if schema.event_types else None
    count = int(states.count_B[0])
    stored = scorer.runtime.stored(count)
    if not stored:
        return {}
    recent, events = unroll(states), {}
    # The stored events are the last ones of `count`: the first of them is at position count - stored + 1.
    for at in range(stored):
        number = dict(zip(schema.history_fields, recent.number_BLF[0, at].tolist(), strict=True))
        values = {name: vocabularies[name].value_of(number[name]) for name in schema.item_fields}
        item = values.pop("item") or ""
        event_type = None if types is None else types.value_of(number["event_type"])
        events[count - stored + 1 + at] = LoggedEvent(item, int(recent.time_BL[0, at]), event_type, values)
    return events


def _note(count: int, found: int, sources: list[str], *, asked_data: bool) -> str:
    """Where the events come from, and what is missing, in words."""
    if not count:
        return "the memory has no events yet"
    if not found:
        fix = "" if asked_data else "; a prepared dataset (--data, in Python data=) would give them"
        return f"none of the {count} events behind this memory is known{fix}"
    words = {"data": "the dataset", "store": "the store's event log", "memory": "the stored recent history"}
    where = " and ".join(words[name] for name in sources)
    missing = f"; {count - found} of {count} are not known" if found < count else ""
    return f"events from {where}{missing}"


def counted_of(
    scorer: Scorer,
    states: States,
    number_CF: IntArray,
    text_FC: Mapping[str, Sequence[str | None]],
    scores: Sequence[Score],
    request: ScoreRequest,
    time: int,
) -> list[Counted | None]:
    """What the memory knows of each candidate; None for each where it has no counters.

    Args:
        scorer: artifact and store.
        states: the memory of one user.
        number_CF: numbers of the candidates' item fields, followed by their keys.
        text_FC: item field -> the candidates' values, for people.
        scores: the candidates' scores from this memory.
        request: the request that was answered.
        time: its moment, UTC seconds.
    """
    counting = scorer.runtime.counting
    if counting is None or not len(scores):
        return [None] * len(scores)
    parts = _Parts(scorer, counting, states)
    without_CX = parts.without(number_CF, request, time)
    met_CFX, kind_CF, cosine_CGX = (part[0] for part in counting.look(states, number_CF[None]))
    texts = zip(*text_FC.values(), strict=True)
    return [
        parts.counted(number_F, met_FX, kind_F, cosine_GX, text_F, [score.score - float(other) for other in without_X])
        for number_F, met_FX, kind_F, cosine_GX, text_F, score, without_X in zip(
            number_CF, met_CFX, kind_CF, cosine_CGX, texts, scores, without_CX, strict=True
        )
    ]


NEVER: tuple[int, None, Precision] = 0, None, "exact"
"""In place of `met_of` where there is no cell."""


def met_of(times: int, age: int) -> tuple[int, int, Precision]:
    """What a cell says to people: how often, about how many events ago (1 for the last), and how exact the count is.

    Args:
        times: its count.
        age: the least age of its step, in events.
    """
    # Age 0 is the last event, which people call one event ago.
    return times, 1 + _MIDDLES[age], _PRECISIONS[times]


def bounds_of(number: int, vocabulary: Vocabulary) -> tuple[float | None, float | None]:
    """`low` and `high` of what is counted with a number of a field; None, None where its values are no quantities."""
    bounds = vocabulary.bounds_of(number) if isinstance(vocabulary, NumberVocabulary) else None
    return bounds or (None, None)


def _slices(sizes: Sequence[int]) -> list[slice]:
    """Where parts of some sizes lie that follow each other."""
    return [slice(int(start), int(end)) for start, end in itertools.pairwise(np.cumsum([0, *sizes]))]


class _Parts:
    """The cells and sums of one user's memory, and what each did to a score."""

    def __init__(self, scorer: Scorer, counting: Counting, states: States) -> None:
        self.scorer, self.states, self.plan = scorer, states, counting.plan
        self.has_slots = "slot" in states.fields
        # The cells of all fields lie one after another, and so do the sums.
        self.cells_F, self.sums_G = _slices(self.plan.cells_F), _slices(self.plan.widths_G)

    def counted(
        self,
        number_F: IntArray,
        met_FX: FloatArray,
        kind_F: IntArray,
        cosine_GX: FloatArray,
        text_F: Sequence[str | None],
        effect_X: Sequence[float],
    ) -> Counted:
        """What is known of one candidate with these values, from the effects in the order of `without`."""
        fields = len(self.cells_F)
        last = fields + len(self.sums_G)
        return Counted(
            values=[
                self.value(field, number_F, int(kind_F[field]), met_FX[field], text_F[field], effect)
                for field, effect in enumerate(effect_X[:fields])
            ],
            affinities=[
                self.affinity(field, cosine_GX[field], effect) for field, effect in enumerate(effect_X[fields:last])
            ],
            slots_effect=effect_X[last] if self.has_slots else None,
        )

    def affinity(self, field: int, cosine_X: FloatArray, effect: float) -> Affinity:
        """How well a field's value fits the sums of its factors."""
        cosine, lately = map(float, cosine_X)
        # Without a factor or a sum the memory says nothing: a difference between the scores is a rounding error.
        return Affinity(self.scorer.schema.item_fields[field], cosine, lately, effect if cosine or lately else 0.0)

    def value(
        self, field: int, number_F: IntArray, kind: int, met_X: FloatArray, text: str | None, effect: float
    ) -> CountedValue:
        """What is known of one field's value, by its number and its key."""
        name = self.scorer.schema.item_fields[field]
        if number_F[len(self.cells_F) + field] == NO_KEY:
            return CountedValue(name, text, "unknown", *NEVER, 0.0)
        bounds = bounds_of(int(number_F[field]), self.scorer.artifact.vocabularies[name])
        if kind > 0:
            return CountedValue(name, text, "counted", *met_of(int(met_X[0]), int(met_X[1])), effect, *bounds)
        # Of a value without a cell the memory says nothing: a difference between the scores is a rounding error.
        return CountedValue(name, text, "new", *NEVER, 0.0, *bounds)

    def without(self, number_CF: IntArray, request: ScoreRequest, time: int) -> npt.NDArray[Any]:
        """Scores of the candidates without the cells of each field, the sums of each, and slots: `[C, X]`."""
        candidates, fields = len(number_CF), len(self.cells_F)
        last = fields + len(self.sums_G)
        variants = last + self.has_slots
        # One copy of the memory for each candidate and variant: variant v of candidate c is copy c * variants + v. All
        # of them are scored in one pass, each for its one candidate.
        states = self.states.take(np.zeros(candidates * variants, np.int64))
        for candidate in range(candidates):
            for field in range(fields):
                copy = candidate * variants + field
                states.fields["cell"][copy, self.cells_F[field]] = 0
            for copy, part in enumerate(self.sums_G, candidate * variants + fields):
                states.fields["sums"][copy, :, part] = 0
            if self.has_slots:
                states.fields["slot"][candidate * variants + last] = 0
        time_B = np.full(len(states), time, np.int64)
        fields_C = request.fields or [None] * candidates
        of_one = [
            replace(request, items=[item], fields=[given])
            for item, given in zip(request.items, fields_C, strict=True)
            for _ in range(variants)
        ]
        context_BCF = self.scorer.context(of_one, time_B, states.last_time_B)
        number_BCF = np.repeat(number_CF, variants, axis=0)[:, None]
        logit_BCT = self.scorer.runtime.score(states, number_BCF, context_BCF, time_B)[0]
        return logit_BCT[:, 0, 0].reshape(candidates, variants)
