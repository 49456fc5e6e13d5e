"""What a counting memory holds, for people; what it knows of a candidate; and what each part did to its score.

    memory --without the cells, or the sums, of one field--> score again --difference--> that part's effect

Effects are differences between scores of one model, not shares: fields act together, so effects need not sum to
anything.

Shapes: C candidates, F item fields, G fields with factors, X parts of a memory that are left out in turn: the cells of
each field, the sums of each field with factors, the slots.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, with_config

from lifelong.artifact.list_order import log_popularity
from lifelong.dataset.vocabulary import FIRST_BUCKET, NumberVocabulary, Vocabulary
from lifelong.dtypes import FloatArray, IntArray
from lifelong.online.memory.state import Counting, States
from lifelong.online.scoring.answer import Score, ScoreRequest
from lifelong.online.scoring.explanation import HIGH, LOW, Affinity, Counted, CountedValue
from lifelong.online.scoring.scorer import Scorer
from lifelong.tally.plan import Precision, middle_age, precision
from lifelong.tally.spec import FIRST, KEYS


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
        number_CF: numbers of the candidates' item fields.
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


class Met(NamedTuple):
    """How often and how long ago a cell counted its value."""

    times: int
    events_ago: int
    """About; 1 for the last event."""
    precision: Precision
    """Of `times`."""


NEVER: tuple[int, None, Precision] = 0, None, "exact"
"""In place of a `Met` where there is no cell."""


def met_of(times: int, age: int) -> Met:
    """What a cell's count and age, the least of its step, say to people."""
    # Age 0 is the last event, which people call one event ago.
    return Met(times, 1 + middle_age(age), precision(times))


def bounds_of(number: int, vocabulary: Vocabulary) -> tuple[float | None, float | None]:
    """`low` and `high` of what is counted with a number of a field; None, None where its values are no quantities."""
    found = vocabulary.bounds_of(number) if isinstance(vocabulary, NumberVocabulary) else None
    return found or (None, None)


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
        fields, last = len(number_F), len(number_F) + len(self.sums_G)
        return Counted(
            values=[
                self.value(field, int(number_F[field]), int(kind_F[field]), met_FX[field], text_F[field], effect)
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
        self, field: int, number: int, kind: int, met_X: FloatArray, text: str | None, effect: float
    ) -> CountedValue:
        """What is known of one number of a field, which stands for a value."""
        name = self.scorer.schema.item_fields[field]
        if number < FIRST:
            return CountedValue(name, text, "unknown", *NEVER, 0.0)
        bounds = bounds_of(number, self.scorer.artifact.vocabularies[name])
        if kind > 0:
            return CountedValue(name, text, "counted", *met_of(int(met_X[0]), int(met_X[1])), effect, *bounds)
        # Of a value without a cell the memory says nothing: a difference between the scores is a rounding error.
        return CountedValue(name, text, "new", *NEVER, 0.0, *bounds)

    def without(self, number_CF: IntArray, request: ScoreRequest, time: int) -> npt.NDArray[Any]:
        """Scores of the candidates without the cells of each field, the sums of each, and slots: `[C, X]`."""
        candidates, fields = number_CF.shape
        last = fields + len(self.sums_G)
        variants = last + self.has_slots
        # One copy of the memory for each candidate and variant: variant v of candidate c is copy c * variants + v. All
        # of them are scored in one pass, each for its one candidate.
        states = self.states.take(np.zeros(candidates * variants, np.int64))
        for candidate in range(candidates):
            for field in range(fields):
                place = candidate * variants + field
                states.fields["cell"][place, self.cells_F[field]] = 0
            for place, part in enumerate(self.sums_G, candidate * variants + fields):
                states.fields["sums"][place, :, part] = 0
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


@dataclass(frozen=True, slots=True)
class Cell:
    """One counter of a memory."""

    value: Annotated[str | None, Field(description="null where several values share the counter, such as rare ones")]
    times: Annotated[int, Field(description="how often she met it, see `precision`")]
    events_ago: Annotated[int, Field(description="about how many events ago she last did, 1 for the last")]
    precision: Annotated[
        Precision, Field(description="what `times` is: small counts are exact, larger ones about right")
    ]
    low: Annotated[float | None, Field(description=LOW)] = None
    high: Annotated[float | None, Field(description=HIGH)] = None


@dataclass(frozen=True, slots=True)
class FieldCells:
    """The counters of one item field."""

    field: str
    size: Annotated[int, Field(description="cells there are; when all are taken, a new value displaces another one")]
    used: Annotated[int, Field(description="cells that hold a value")]
    cells: Annotated[list[Cell], Field(description="those in use, the most often met first")]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class MemoryCells:
    """The counters of one user's memory."""

    user: str
    known_user: Annotated[bool, Field(description="false: nothing is kept of her")]
    count: Annotated[int, Field(description="events in her memory")]
    fields: Annotated[list[FieldCells], Field(description="one per item field; empty for a memory without counters")]
    artifact: Annotated[str, Field(description="id of the artifact that the memory belongs to")]


def cells_of(scorer: Scorer, user: str) -> MemoryCells:
    """The cells of one user's memory; none are in use where she is not known.

    Args:
        scorer: artifact and store.
        user: her id.

    Raises:
        StoreCorruptError: the stored memory is damaged.
    """
    artifact = scorer.artifact
    states, known = scorer.states([user])
    count = int(states.count_B[0])
    counting = scorer.runtime.counting
    if counting is None:
        return MemoryCells(user, known[0], count, [], artifact.id)
    found = [
        _field_cells(name, field, counting, states, artifact.vocabularies[name])
        for field, name in enumerate(scorer.schema.item_fields)
    ]
    return MemoryCells(user, known[0], count, found, artifact.id)


def _field_cells(name: str, field: int, counting: Counting, states: States, vocabulary: Vocabulary) -> FieldCells:
    shown = [
        Cell(_value_of(key, vocabulary), *met_of(times, age), *bounds_of(key + FIRST_BUCKET, vocabulary))
        for key, times, age in zip(*(part.tolist() for part in counting.kept(states, 0, field)), strict=True)
    ]
    shown.sort(key=lambda cell: (-cell.times, cell.events_ago))
    return FieldCells(name, counting.plan.cells_F[field], len(shown), shown)


def _value_of(key: int, vocabulary: Vocabulary) -> str | None:
    """The value of a key: a key stands for one number unless there are more numbers than keys."""
    return vocabulary.value_of(key + FIRST_BUCKET) if vocabulary.size <= KEYS + FIRST_BUCKET else None


@dataclass(frozen=True, slots=True)
class AddedInLists:
    """What is added to the scores of C items to order them in a list over the catalogue.

    Args:
        popularity_C: by their popularity; None where the scores alone order them.
        counts_C: by what the user's memory counts of them; None where nothing is.
    """

    popularity_C: FloatArray | None = None
    counts_C: FloatArray | None = None

    def to(self, score_C: FloatArray) -> FloatArray:
        """What orders the items, from their scores."""
        return sum((part for part in (self.popularity_C, self.counts_C) if part is not None), score_C)

    def of(self, at: int) -> dict[str, Any]:
        """The parts of one item."""
        parts = {"popularity": self.popularity_C, "from_counts": self.counts_C}
        return {name: None if part_C is None else float(part_C[at]) for name, part_C in parts.items()}


def added_in_lists(scorer: Scorer, states: States, items: Sequence[str]) -> AddedInLists:
    """What is added to the scores of items to order them.

    Args:
        scorer: of a model that is served: all of these learn from drawn negatives, where such are drawn.
        states: the memory of one user.
        items: ids; one that the catalogue lacks was never drawn.
    """
    artifact = scorer.artifact
    if artifact.drawn is None:
        return AddedInLists()
    popularity_C, order = log_popularity(artifact.drawn[artifact.catalogue.rows(items)]), artifact.config.list_order
    if order is None or (counting := scorer.runtime.counting) is None:
        return AddedInLists(popularity_C)
    (number_CFX,) = counting.look(states, scorer.online_items.numbers(items)[None]).number_BCFX
    return AddedInLists(order.popularity * popularity_C, order.of_counts(number_CFX))
