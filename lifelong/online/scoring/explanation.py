"""What an explanation of a score holds; the service replies with the same fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, with_config

from lifelong.online.scoring.answer import Score
from lifelong.tally.plan import Precision

LOW = "least value that is counted together with this one, of a number such as a price; null for any other value"
PRECISION = (
    "what `times` is: small counts are exact, larger ones about right; less than the truth if the memory has dropped "
    "the value meanwhile, to make room"
)
HIGH = "least value above it that is counted apart, of a number; null if there is none"


@dataclass(frozen=True, slots=True)
class PastEvent:
    """One past event."""

    position: Annotated[int, Field(description="1 is the user's first event")]
    item: Annotated[str, Field(description="empty where only its number is known, and that is no item's own")]
    time: int
    event_type: Annotated[str | None, Field(description="null if the log has none, or it is not known")]
    seconds_ago: Annotated[int | None, Field(description="before the request; null for a log without times")]
    fields: Annotated[Mapping[str, str | None], Field(description="the item's fields; null where not known")]


@dataclass(frozen=True, slots=True)
class RelatedEvent(PastEvent):
    """A past event that has something in common with the candidate."""

    same: Annotated[tuple[str, ...], Field(description="what it has in common: item, category ...")]
    in_last_window: Annotated[bool, Field(description="among the events of the slot's last write")]


@dataclass(frozen=True, slots=True)
class SlotAttention:
    """What one slot gave to one candidate."""

    field: Annotated[str, Field(description="field of the memory that holds the slot")]
    slot: Annotated[int, Field(description="its place there, from 0")]
    attention: Annotated[float, Field(description="its weight in the first hop, 0 while it is empty")]
    related: Annotated[list[RelatedEvent], Field(description="events behind it, the most related first")]


@dataclass(frozen=True, slots=True)
class WeightedEvent(PastEvent):
    """A past event that the model attends to."""

    attention: Annotated[float, Field(description="its weight")]


@dataclass(frozen=True, slots=True)
class OtherEvents:
    """The events with a weight that are not named."""

    events: Annotated[int, Field(description="how many")]
    attention: Annotated[float, Field(description="their weights, summed")]


@dataclass(frozen=True, slots=True)
class CountedValue:
    """What is counted of one value of a candidate."""

    field: Annotated[str, Field(description="its item field")]
    value: Annotated[str | None, Field(description="null where it is not known")]
    state: Annotated[
        Literal["counted", "new", "unknown"],
        Field(
            description="has a cell; has none: never seen, or so long ago that other values took its place; a value "
            "that is not counted"
        ),
    ]
    times: Annotated[
        int,
        Field(
            description="how often the user met it since it got its cell, 0 without one; a number such as a price is "
            "counted together with numbers close to it; see `precision`"
        ),
    ]
    events_ago: Annotated[
        int | None, Field(description="about how many events ago that last was, 1 for the last; null without a cell")
    ]
    precision: Annotated[Precision, Field(description=PRECISION)]
    effect: Annotated[float, Field(description="the score less what it would be without this")]
    low: Annotated[float | None, Field(description=LOW)] = None
    high: Annotated[float | None, Field(description=HIGH)] = None
    logged: Annotated[
        int | None, Field(description="how many of all events of the user have it; null unless all of them are known")
    ] = None
    seconds_ago: Annotated[
        int | None,
        Field(description="since the last event that has it; null where that is not known, or without times"),
    ] = None


@dataclass(frozen=True, slots=True)
class Affinity:
    """How well a value of a candidate fits what the user met, by who else had what."""

    field: Annotated[str, Field(description="its item field")]
    cosine: Annotated[
        float,
        Field(description="of the value's factor and the sum over all events of the user, from -1 to 1; 0 if unknown"),
    ]
    cosine_lately: Annotated[float, Field(description="the same with the sum in which later events weigh more")]
    effect: Annotated[float, Field(description="the score less what it would be with empty sums of this field")]


@dataclass(frozen=True, slots=True)
class Counted:
    """What a memory with counters knows of a candidate."""

    values: Annotated[list[CountedValue], Field(description="one per item field")]
    affinities: Annotated[
        list[Affinity], Field(description="one per item field with factors; empty for a memory without their sums")
    ]
    slots_effect: Annotated[
        float | None,
        Field(description="the score less what it would be with empty slots; null for a memory without slots"),
    ]


@dataclass(slots=True, kw_only=True)
class CandidateExplanation(Score):
    """One candidate's answer and what is behind it."""

    title: Annotated[str | None, Field(description="its name for people; null where there is none but the id")]
    fields: Annotated[Mapping[str, str | None], Field(description="the item's fields; null where not known")]
    slots: Annotated[list[SlotAttention], Field(description="empty unless the model attends to slots")]
    events: Annotated[
        list[WeightedEvent],
        Field(
            description="the events of the largest weights, of either sign; empty unless the model attends to events"
        ),
    ]
    rest: Annotated[OtherEvents | None, Field(description="the others; null unless the model attends to events")]
    counted: Annotated[Counted | None, Field(description="null unless the memory has counters")]
    popularity: Annotated[
        float | None,
        Field(description="what is added to the score in a list over the catalogue; null where nothing is"),
    ]
    from_counts: Annotated[
        float | None,
        Field(description="what is added there for what the user's memory counts; null where nothing is"),
    ]


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot of a user's memory."""

    field: Annotated[str, Field(description="field of the memory that holds it")]
    slot: Annotated[int, Field(description="its place there, from 0")]
    period: Annotated[
        int | None, Field(description="events from one write to the next; null if the model has no periods")
    ]
    rate: Annotated[
        float | None, Field(description="share of the events that wrote it, if the model decides that; else null")
    ]
    written: Annotated[str, Field(description="when it is written, in words")]
    empty: Annotated[bool, Field(description="not written yet")]
    norm: Annotated[float, Field(description="Euclidean length of its vector; 0 for a recent history")]


@dataclass(frozen=True, slots=True)
class CoveredSlot(Slot):
    """One slot and the events that it covers."""

    covers: Annotated[int, Field(description="events folded in, counted from the first")]
    window: Annotated[
        tuple[int, int] | None, Field(description="first and last position of its last write; null while it is empty")
    ]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class Explanation:
    """What is behind the scores of one user's candidates."""

    user: str
    known_user: Annotated[bool, Field(description="false: scored from the empty memory")]
    count: Annotated[int, Field(description="events in the memory")]
    last_time: Annotated[int | None, Field(description="time of the last of them")]
    slots: Annotated[list[CoveredSlot], Field(description="the memory")]
    candidates: Annotated[list[CandidateExplanation], Field(description="one per item, in order")]
    attention_over: Annotated[
        Literal["slots", "events"] | None,
        Field(description="what the candidates' weights are of; null if the model has no attention"),
    ]
    attention_note: Annotated[str, Field(description="the same in words, and whether they are shares of 1")]
    events_from: Annotated[
        str | None, Field(description='"data", "store", "memory", or several with "and"; null if none is known')
    ]
    events_note: Annotated[str, Field(description="where the events come from, in words, and what is missing")]
    recent: Annotated[list[PastEvent], Field(description="the latest events, the latest first")]
    artifact: Annotated[str, Field(description="id of the one that scored")]
