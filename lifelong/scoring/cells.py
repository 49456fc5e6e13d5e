"""What a counting memory holds, for people: the cells of each field with their values, counts and ages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field, with_config

from lifelong.data.vocabulary import FIRST_BUCKET, Vocabulary
from lifelong.memory.counting import Counting
from lifelong.memory.state import States
from lifelong.scoring.counted import bounds_of, met_of
from lifelong.scoring.explanation import HIGH, LOW
from lifelong.scoring.scorer import Scorer
from lifelong.tally.plan import Precision
from lifelong.tally.spec import KEYS


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
