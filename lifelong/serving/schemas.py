"""What the service takes and gives: strict models, unknown keys refused, with examples for the OpenAPI page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, with_config
from typing_extensions import TypedDict

from lifelong.memory.updater import LAST_SECOND

Id = Annotated[str, Field(min_length=1, max_length=256)]
Folder = Annotated[str, Field(min_length=1, max_length=4096)]


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 1700000000.0 is the whole number 1700000000."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Time = Annotated[
    int,
    Field(ge=0, le=LAST_SECOND, description="UTC seconds (or the ordinal of a log without times)"),
    BeforeValidator(_whole),
]
Values = Annotated[
    dict[Id, Id | None],
    Field(max_length=64, description="item field -> value; null where it is not known. They win over the catalogue."),
]


Profile = Annotated[
    dict[Id, Id | None],
    Field(
        max_length=64,
        description="user field -> value, of a model trained with profiles; null where not known. It is not kept.",
    ),
]


def _example(value: Any) -> Callable[[dict[str, Any]], None]:
    def add(schema: dict[str, Any]) -> None:
        schema["examples"] = [value]

    return add


_STRICT = ConfigDict(extra="forbid", strict=True)


class _Body(BaseModel):
    model_config = _STRICT


class _Reply(BaseModel):
    """Made from what the service returns, attribute by attribute."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)


# A plain dictionary, since a model for each of thousands of events would take as long as folding them in.
@with_config(_STRICT)
class EventBody(TypedDict):
    """One thing a user did to one item."""

    user: Id
    item: Id
    time: Time
    event_type: NotRequired[
        Annotated[Id | None, Field(description="click, buy ...; only where the model knows event types")]
    ]
    fields: NotRequired[Values | None]
    event_id: NotRequired[
        Annotated[Id | None, Field(description="the client's own id; a second event with it changes nothing")]
    ]


_EVENT = {"user": "u1", "item": "i7", "time": 1_700_000_000, "event_id": "order-4711-line-2"}


class EventsBody(_Body):
    """A batch of events; all of them are written at once, or none."""

    model_config = ConfigDict(json_schema_extra=_example({"events": [_EVENT]}))

    events: list[EventBody] = Field(min_length=1)


class EventsReply(_Reply):
    """How many events had which outcome."""

    applied: int = Field(description="folded into the memories")
    duplicates: int = Field(description="known by their event_id; changed nothing")
    late: int = Field(description="older than the user's last event")
    refused: int = Field(description="late and not applied")
    no_dedup: int = Field(description="came without event_id, so that a repetition would count twice")
    unknown_types: int = Field(description="with an event type that the model has not seen in training")
    note: str | None = Field(description="what the counts mean for the client, if there is something to say")


class CandidateBody(_Body):
    """An item with fields that come with the request."""

    item: Id
    fields: Values | None = None


Candidate = Annotated[
    Annotated[Id, Tag("id")] | Annotated[CandidateBody, Tag("candidate")],
    Discriminator(lambda value: "id" if isinstance(value, str) else "candidate"),
]


class OneBody(_Body):
    """One user, many candidates."""

    model_config = ConfigDict(json_schema_extra=_example({"user": "u1", "items": ["i7", "i8"]}))

    user: Id
    items: list[Candidate] = Field(min_length=1)
    time: Time | None = Field(None, description="moment of the request; now if left out")
    profile: Profile | None = None


class ManyBody(_Body):
    """Many users, each with her candidates."""

    model_config = ConfigDict(
        json_schema_extra=_example(
            {
                "requests": [
                    {"user": "u1", "items": ["i7"]},
                    {"user": "u2", "items": ["i7", {"item": "new", "fields": {}}]},
                ]
            }
        )
    )

    requests: list[OneBody] = Field(min_length=1)


ScoreBody = Annotated[
    Annotated[OneBody, Tag("one")] | Annotated[ManyBody, Tag("many")],
    Discriminator(lambda value: "many" if _has(value, "requests") else "one"),
]


def _has(value: Any, key: str) -> bool:
    return key in value if isinstance(value, dict) else hasattr(value, key)


class ErrorParts(_Reply):
    """What was found, what was expected, what to do."""

    type: str
    found: str
    expected: str
    fix: str


class ErrorReply(_Reply):
    """Every error has this shape."""

    error: ErrorParts


class TaskValueReply(_Reply):
    """One candidate's answer for one task."""

    score: float = Field(description="raw logit")
    probability: float | None = Field(description="calibrated; null where no base rate is known")


class ValueReply(_Reply):
    """One candidate's answer."""

    item: str
    score: float = Field(description="raw logit; orders the candidates of one user")
    probability: float | None = Field(description="calibrated; null where no base rate is known")
    tasks: dict[str, TaskValueReply] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="the same for each task, of a model with several; the values beside it are of the first",
    )


class OneReply(_Reply):
    """The scores of one user's candidates, in the order of the request."""

    user: str
    known_user: bool = Field(description="false: scored from the empty memory")
    count: int = Field(description="events in the memory that was read")
    artifact: str = Field(description="id of the artifact that scored: memory and weights are both its own")
    request_id: str | None = Field(description="name of the request in the impressions log; null without one")
    reason: str | None = Field(description="why no candidate has a probability; null where each has one")
    reasons: dict[str, str | None] | None = Field(
        None, exclude_if=lambda value: value is None, description="the same for each task, of a model with several"
    )
    scores: list[ValueReply]


class DamagedReply(_Reply):
    """Instead of the scores of a user whose stored memory is damaged; the other users have theirs."""

    user: str
    error: ErrorParts


class ManyReply(_Reply):
    """One answer per request, in the same order."""

    results: list[OneReply | DamagedReply]


class TaskScoreReply(TaskValueReply):
    """The same of an explanation."""

    reason: str | None = Field(description="why there is no probability")


class ScoreReply(_Reply):
    """One candidate's answer of an explanation."""

    item: str
    score: float = Field(description="raw logit; orders the candidates of one user")
    probability: float | None = Field(description="calibrated; null where no base rate is known")
    reason: str | None = Field(description="why there is no probability")
    tasks: dict[str, TaskScoreReply] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="the same for each task, of a model with several; the values beside it are of the first",
    )


class ItemBody(_Body):
    """An item and its fields."""

    item: Id
    fields: Values


class ItemsBody(_Body):
    """Items to add, or whose fields change."""

    model_config = ConfigDict(json_schema_extra=_example({"items": [{"item": "i9", "fields": {}}]}))

    items: list[ItemBody] = Field(min_length=1)


class ItemsReply(_Reply):
    """What was kept."""

    stored: int = Field(description="items that are durably in the store")


class SlotReply(_Reply):
    """One slot of a memory."""

    field: str
    slot: int
    period: int | None = Field(description="written every so many events; null if the model has no periods")
    rate: float | None = Field(
        description="share of her events that wrote it, if the model decides that itself; else null"
    )
    written: str
    empty: bool
    norm: float = Field(description="Euclidean length of the slot's vector")


class MemoryReply(_Reply):
    """What is kept of a user."""

    user: str
    count: int
    last_time: int | None
    bytes: int
    slots: list[SlotReply]
    artifact: str


class ErasedReply(_Reply):
    """Outcome of an erasure."""

    user: str
    erased: bool = Field(description="false: there was nothing")


class ArtifactBody(_Body):
    """An artifact whose memories are to be built beside the others."""

    model_config = ConfigDict(json_schema_extra=_example({"path": "/models/new"}))

    path: Folder = Field(description="its folder, on the machine of the service")
    data: Folder | None = Field(
        None, description="a dataset with each user's first events, where the event log lacks them"
    )
    codec: Literal["fp32", "fp16", "int8"] | None = Field(None, description="of its memories; its own if left out")


class ToBody(_Body):
    """The artifact that is to be served."""

    artifact: Id = Field(description="its id, or how it begins")


class BackBody(_Body):
    """The artifact that was served before."""

    model_config = ConfigDict(json_schema_extra=_example({"back": True}))

    back: Literal[True]


SwitchBody = Annotated[
    Annotated[ToBody, Tag("one")] | Annotated[BackBody, Tag("many")],
    Discriminator(lambda value: "many" if _has(value, "back") else "one"),
]


class MemberReply(_Reply):
    """One artifact whose memories the store holds."""

    id: str
    model: str | None = Field(description="null where it is not open in this process")
    path: str
    codec: str
    phase: str = Field(description="ready: can be served; building; behind: catches up without being waited for")
    served: bool
    built: int = Field(description="users built by this process")
    looked: int = Field(description="users looked at in this pass of its build")
    running: bool = Field(description="whether this process is building it")
    error: str | None = Field(description="why its build has stopped")


class MembersReply(_Reply):
    """All of them."""

    served: str
    previous: str | None = Field(description="the way back")
    artifacts: list[MemberReply]


class ForgottenReply(_Reply):
    """What became of a user who is to be forgotten."""

    user: str
    erased: bool = Field(description="false: there was nothing in the store")
    impressions: int = Field(description="rows taken out of the impressions log")
    purged: bool = Field(
        description="no byte of her is left in the store's files; false where a server keeps files of its own"
    )


class ExplainBody(OneBody):
    """Which time scales and events stand behind a score."""


class SeenReply(_Reply):
    """One past event."""

    position: int = Field(description="1 is the user's first event")
    item: str = Field(description="empty where only its number is known, and that is no item's own")
    time: int
    event_type: str | None
    seconds_ago: int | None
    fields: dict[str, str | None]


class RelatedReply(SeenReply):
    """A past event that has something in common with the candidate."""

    same: list[str] = Field(description="what it has in common: item, category ...")
    in_last_window: bool = Field(description="among the events of the slot's last write")


class SlotAttentionReply(_Reply):
    """What one slot gave to one candidate."""

    field: str
    slot: int
    attention: float
    related: list[RelatedReply]


class WeighedReply(SeenReply):
    """A past event that the model attends to."""

    attention: float = Field(description="its weight")


class RestReply(_Reply):
    """The events with a weight that are not named."""

    events: int = Field(description="how many")
    attention: float = Field(description="their weights, summed")


class CountedValueReply(_Reply):
    """What is counted of one value of a candidate."""

    field: str
    value: str | None
    state: Literal["counted", "faded", "new", "unknown"] = Field(
        description="has a cell; had one, by all signs; never seen; a value that is not counted"
    )
    times: int = Field(description="how often the user met it, 0 without a cell; counting stops at 127")
    events_ago: int | None = Field(description="about how many events ago she last did; null without a cell")
    effect: float = Field(description="the score less what it would be without this")


class CountedReply(_Reply):
    """What a memory with counters knows of a candidate."""

    values: list[CountedValueReply]
    slots_effect: float | None = Field(description="the score less what it would be with empty slots")


class CandidateReply(ScoreReply):
    """One candidate's answer and what stands behind it."""

    slots: list[SlotAttentionReply] = Field(description="empty unless the model attends to slots")
    events: list[WeighedReply] = Field(
        description="the events of the largest weights, whatever their sign; empty unless the model attends to events"
    )
    rest: RestReply | None = Field(description="the other events; null unless the model attends to events")
    counted: CountedReply | None = Field(description="null unless the memory has counters")


class CoveredSlotReply(SlotReply):
    """One slot and the events that it covers."""

    covers: int = Field(description="events folded in, counted from the first")
    window: tuple[int, int] | None = Field(description="first and last position of its last write")


class ExplainReply(_Reply):
    """An explanation."""

    user: str
    known_user: bool
    count: int
    last_time: int | None
    slots: list[CoveredSlotReply]
    candidates: list[CandidateReply]
    attention_over: Literal["slots", "events"] | None = Field(description="what the candidates' weights are of")
    attention_note: str = Field(description="the same in words, and whether they are shares of 1")
    events_from: str | None
    events_note: str
    recent: list[SeenReply]
    artifact: str


class StateReply(_Reply):
    """State of the process."""

    status: str
    artifact: str | None = None
    model: str | None = None
