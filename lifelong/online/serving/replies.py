"""Replies, where no dataclass of ours has the fields. They describe: what is sent is made from plain dictionaries."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field


class _Reply(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


class EventsReply(_Reply):
    """How many events had each outcome."""

    applied: int = Field(description="folded into the memories")
    duplicates: int = Field(description="their event_id was known; they changed nothing")
    late: int = Field(description="older than the user's last event")
    refused: int = Field(description="late and not applied")
    no_dedup: int = Field(description="without event_id, so that a repetition would count twice")
    unknown_types: int = Field(description="with an event type that the model has not seen in training")
    backfilled: int = Field(description="from before the moment until which the store was filled; they changed nothing")
    queued: int = Field(
        0, description="in the topic, of a node of several: applied by whoever follows it, here before this answer"
    )
    note: str | None = Field(description="what the counts mean for the client, if anything")


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
    probability: float | None = Field(description="calibrated; null if negatives were drawn and no base rate is known")


class ValueReply(_Reply):
    """One candidate's answer."""

    item: str
    known_item: bool = Field(description="false: training did not have it; scored by its hash bucket and fields")
    score: float = Field(description="raw logit; orders the candidates of one user")
    probability: float | None = Field(description="calibrated; null if negatives were drawn and no base rate is known")
    in_list: float | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="the score with what orders items in a list over the catalogue; only with `for=list`",
    )
    tasks: dict[str, TaskValueReply] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="each task's answer, of a model with several; score and probability are the first one's",
    )


class ScoreReply(_Reply):
    """The scores of one user's candidates, in the order of the request."""

    user: str
    known_user: bool = Field(description="false: scored from the empty memory")
    count: int = Field(description="events in the memory that was read")
    artifact: str = Field(description="id of the artifact that scored: memory and weights are both its own")
    request_id: str | None = Field(description="name of the request in the impressions log; null without one")
    negatives: str = Field(
        description="the rule that drew the negatives of training, which scores tell items from; none for given labels"
    )
    reason: str | None = Field(description="why no candidate has a probability; null where each has one")
    reasons: dict[str, str | None] | None = Field(
        None, exclude_if=lambda value: value is None, description="the reason for each task, of a model with several"
    )
    scores: list[ValueReply]


class DamagedReply(_Reply):
    """The reply for a user with a damaged memory; the other users of the request get their scores."""

    user: str
    error: ErrorParts


class ScoreReplies(_Reply):
    """One answer per request, in the same order."""

    results: list[ScoreReply | DamagedReply]


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


class ForgottenUser(_Reply):
    """What was removed of a user who is to be forgotten."""

    user: str
    erased: bool = Field(description="false: there was nothing in the store")
    impressions: int = Field(description="rows removed from the impressions log")
    dead_letters: int = Field(description="lines removed from the file of dead letters")
    purged: bool = Field(
        description="no byte of the user is left in the store's files; false where a server keeps files of its own, or"
        " something still reads the old ones, which go when it ends"
    )


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
