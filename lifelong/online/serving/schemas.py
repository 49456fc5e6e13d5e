"""Bodies of requests: strict models that refuse unknown keys. Replies, where no dataclass of ours has the fields."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, NotRequired

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    ValidationInfo,
    model_validator,
    with_config,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from lifelong.online.memory.event import LAST_SECOND, MAX_ID

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID)]
Ids = Annotated[list[Id], Field(fail_fast=True)]
Folder = Annotated[str, Field(min_length=1, max_length=4096)]

KEYS = 64
"""Keys of one object, at most; none that is known here has as many."""


def _few_keys(value: Any) -> Any:
    """Refuse an object with very many keys at once: an error for each of a million would take gigabytes."""
    if isinstance(value, dict) and len(value) > KEYS:
        raise PydanticCustomError("too_many_keys", "should have at most {most} keys", {"most": KEYS})
    return value


def _allowed(*kinds: str) -> BeforeValidator:
    """Refuses a list that is too long before any of its entries is validated: of 400,000 that takes seconds.

    The context of the validation is `ServiceSettings.allow`; without one every length is allowed.
    """

    def check(value: Any, info: ValidationInfo) -> Any:
        if info.context is not None and isinstance(value, list):
            for kind in kinds:
                info.context(kind, len(value))
        return value

    return BeforeValidator(check)


def _allowed_together(value: Any, info: ValidationInfo) -> Any:
    """Refuse users who have too many candidates together: their lists alone may each be short enough."""
    if info.context is not None and isinstance(value, list):
        found = [one.get("items") for one in value if isinstance(one, dict)]
        info.context("candidates", sum(len(items) for items in found if isinstance(items, list)))
    return value


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
    Field(
        max_length=KEYS,
        fail_fast=True,
        description="item field -> value; null where it is not known. A candidate's win over the catalogue, an event's"
        " count for an item that it lacks.",
    ),
    BeforeValidator(_few_keys),
]


Profile = Annotated[
    dict[Id, Id | None],
    Field(
        max_length=KEYS,
        fail_fast=True,
        description="user field -> value, of a model trained with profiles; null where not known. It is not kept.",
    ),
    BeforeValidator(_few_keys),
]


_STRICT = ConfigDict(extra="forbid", strict=True)


class _Body(BaseModel):
    model_config: ClassVar[ConfigDict] = _STRICT

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, value: Any) -> Any:
        return _few_keys(value)


class _Reply(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


# A plain dictionary, since making a model of each of thousands of events would take as long as folding them in.
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
        Annotated[Id | None, Field(description="the client's own id; another event with the same id changes nothing")]
    ]


_EVENT: dict[str, JsonValue] = {"user": "u1", "item": "i7", "time": 1_700_000_000, "event_id": "order-4711-line-2"}


class EventsBody(_Body):
    """A batch of events; all of them are written at once, or none."""

    model_config: ClassVar[ConfigDict] = ConfigDict(json_schema_extra={"examples": [{"events": [_EVENT]}]})

    # Of lists with errors the first one is enough, here and below: there may be millions.
    events: Annotated[
        list[Annotated[EventBody, BeforeValidator(_few_keys)]],
        Field(min_length=1, fail_fast=True),
        _allowed("events"),
    ]


class EventsReply(_Reply):
    """How many events had each outcome."""

    applied: int = Field(description="folded into the memories")
    duplicates: int = Field(description="their event_id was known; they changed nothing")
    late: int = Field(description="older than the user's last event")
    refused: int = Field(description="late and not applied")
    no_dedup: int = Field(description="without event_id, so that a repetition would count twice")
    unknown_types: int = Field(description="with an event type that the model has not seen in training")
    backfilled: int = Field(description="from before the moment until which the store was filled; they changed nothing")
    note: str | None = Field(description="what the counts mean for the client, if anything")


class CandidateBody(_Body):
    """An item with fields that come with the request."""

    item: Id
    fields: Values | None = None


Candidate = Annotated[
    Annotated[Id, Tag("id")] | Annotated[CandidateBody, Tag("candidate")],
    Discriminator(lambda value: "id" if isinstance(value, str) else "candidate"),
]

Candidates = Annotated[list[Candidate], Field(min_length=1, fail_fast=True)]


class OneBody(_Body):
    """One user, many candidates."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={"examples": [{"user": "u1", "items": ["i7", "i8"]}]}
    )

    user: Id
    items: Annotated[Candidates, _allowed("candidates")]
    time: Time | None = Field(None, description="moment of the request; now by default")
    profile: Profile | None = None


class ManyBody(_Body):
    """Many users, each with her candidates."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "requests": [
                        {"user": "u1", "items": ["i7"]},
                        {"user": "u2", "items": ["i7", {"item": "new", "fields": {}}]},
                    ]
                }
            ]
        }
    )

    # What is named last is checked first.
    requests: Annotated[
        list[OneBody],
        Field(min_length=1, fail_fast=True),
        BeforeValidator(_allowed_together),
        _allowed("users"),
    ]


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
    known_item: bool = Field(description="false: training did not have it; scored by its hash bucket and fields")
    score: float = Field(description="raw logit; orders the candidates of one user")
    probability: float | None = Field(description="calibrated; null where no base rate is known")
    tasks: dict[str, TaskValueReply] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="each task's answer, of a model with several; score and probability are the first one's",
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
        None, exclude_if=lambda value: value is None, description="the reason for each task, of a model with several"
    )
    scores: list[ValueReply]


class DamagedReply(_Reply):
    """The reply for a user with a damaged memory; the other users of the request get their scores."""

    user: str
    error: ErrorParts


class ManyReply(_Reply):
    """One answer per request, in the same order."""

    results: list[OneReply | DamagedReply]


class ItemBody(_Body):
    """An item and its fields."""

    item: Id
    fields: Values


class ItemsBody(_Body):
    """Items to add, or to change the fields of."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={"examples": [{"items": [{"item": "i9", "fields": {}}]}]}
    )

    items: Annotated[list[ItemBody], Field(min_length=1, fail_fast=True), _allowed("items")]


class ItemsReply(_Reply):
    """What was stored."""

    stored: int = Field(description="items that are in the store now, durably")


class RemovedItemReply(_Reply):
    """Outcome of taking an item's fields away."""

    item: str
    removed: bool = Field(description="false: none had been put online")


class FeaturesReply(_Reply):
    """What the memory says of a user and candidates."""

    user: str
    items: list[str] = Field(description="the candidates, in the order of the request")
    names: list[str] = Field(
        description="of the features: events, seconds_since_last, score, readout_0 ..., counts of the item's fields"
    )
    values: list[list[int | float | None]] = Field(
        description="per candidate the value of each feature, in the order of `names`; null where there is none"
    )


class ErasedReply(_Reply):
    """Outcome of erasing a user."""

    user: str
    erased: bool = Field(description="false: there was nothing")


class ArtifactBody(_Body):
    """An artifact to build memories for, next to those of the others."""

    model_config: ClassVar[ConfigDict] = ConfigDict(json_schema_extra={"examples": [{"path": "/models/new"}]})

    path: Folder = Field(description="its folder, on the machine of the service")
    data: Folder | None = Field(
        None, description="a dataset with each user's first events, if the event log lacks them"
    )
    codec: Literal["fp32", "fp16", "int8"] | None = Field(
        None, description="codec of its memories; the artifact's own by default"
    )


class ToBody(_Body):
    """The artifact to serve."""

    artifact: Id = Field(description="its id, or the first characters of it")


class BackBody(_Body):
    """The artifact that was served before."""

    model_config: ClassVar[ConfigDict] = ConfigDict(json_schema_extra={"examples": [{"back": True}]})

    back: Literal[True]


SwitchBody = Annotated[
    Annotated[ToBody, Tag("one")] | Annotated[BackBody, Tag("many")],
    Discriminator(lambda value: "many" if _has(value, "back") else "one"),
]


OTHER = "id of another artifact that the store holds memories of, or its first characters; the served one if absent"


class ExplainBody(OneBody):
    """One user and the candidates to explain the scores of."""

    items: Annotated[Candidates, _allowed("candidates", "explained")]
    artifact: Id | None = Field(None, description=OTHER)


class ModelReply(_Reply):
    """What the served model reads."""

    artifact: str
    model: str
    title: str
    item_fields: list[str] = Field(description="fields of an item, next to its id")
    number_fields: list[str] = Field(description="those of them that hold numbers")
    user_fields: list[str] = Field(description="fields of a profile")
    event_types: list[str] = Field(description="event types that training has seen; empty if the log has none")
    tasks: list[str]
    time_unit: str = Field(description='"seconds", or "ordinal" for a log without times')
    items: int = Field(description="items of the catalogue")
    event_log: bool = Field(description="whether events are kept for histories and explanations")
    report: bool = Field(description="whether the service shows the report of a comparison at /report")


class StateReply(_Reply):
    """State of the service."""

    status: str
    artifact: str | None = None
    model: str | None = None
    failing: list[str] | None = Field(None, description="background work that fails now; the log says why")
