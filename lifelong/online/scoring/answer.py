"""What is asked of a scorer, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from lifelong.dataset.times import seconds_of
from lifelong.dtypes import Float32Array, FloatArray
from lifelong.errors import UsageError
from lifelong.online.memory.event import MAX_ID, check_user

Fields = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """One user and her candidates.

        >>> request = ScoreRequest("u1", ["i1", "i2"], time=1_700_000_000)

    Args:
        user: her id; need not be known.
        items: item ids; need not be known.
        time: moment of the request, UTC seconds; a datetime or an ISO 8601 text becomes these; now if None.
        fields: per item the fields that came with the request, or None.
        profile: what is known of the user apart from her events: user field -> value, None where it is not known. No
            store keeps it.
        for_list: whether the answer also says what orders the candidates in a list over the catalogue.
    """

    user: str
    items: Sequence[str]
    time: int | None = None
    fields: Sequence[Fields | None] | None = None
    profile: Fields | None = None
    for_list: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no request, as far as one look at each part shows it.

        Raises:
            UsageError: the user is no id, the items are no list, or the time is no number.
        """
        if not isinstance(self.user, str):
            raise UsageError(f"a user of type {type(self.user).__name__}: {self.user!r}", expected=_USER, fix=_TEXT)
        # The check by itself would cost each request a call.
        if not 0 < len(self.user) <= MAX_ID:
            check_user(self.user)
        # A text is a sequence, too: each of its letters would be a candidate.
        if isinstance(self.items, str | bytes | Mapping) or not hasattr(self.items, "__len__"):
            raise UsageError(f"items = {self.items!r}", expected="a list of item ids", fix=_ITEMS)
        if (time := checked_time(self.time)) is not self.time:
            object.__setattr__(self, "time", time)
        if self.fields is not None and (isinstance(self.fields, str | Mapping) or not hasattr(self.fields, "__len__")):
            raise UsageError(
                f"fields = {self.fields!r}", expected="for each item: item field -> value, or None", fix=_FIELDS
            )
        if self.profile is not None and not isinstance(self.profile, Mapping):
            raise UsageError(
                f"profile = {self.profile!r}", expected="user field -> value", fix='profile={"age": "35-44"}'
            )


_USER, _ITEMS = "the id of a user, a text", 'scorer.score("u1", ["i1", "i2"])'
_TEXT = "give it as text: str(user)"
_REQUEST = 'ScoreRequest("u1", ["i1", "i2"])'
_FIELDS = 'fields=[{"category": "fruit"}, None] for two items'


def checked_time(time: object) -> int | None:
    """The moment of a request in UTC seconds; None for now.

    Raises:
        UsageError: it is no time, or one that no moment is.
    """
    seconds = time if time is None or type(time) is int else seconds_of(time)
    # A larger one would overflow where times are subtracted.
    if seconds is None or -(2**62) < seconds < 2**62:
        return seconds
    raise UsageError(f"time = {time!r}", expected="UTC seconds; None for now", fix="give the moment of the request")


def checked_requests(requests: Sequence[ScoreRequest]) -> None:
    """Look at every part of requests that could not be scored.

    Raises:
        UsageError: they are no requests; says which part of which one is wrong.
    """
    if isinstance(requests, str) or not isinstance(requests, Sequence):
        raise UsageError(
            f"requests of type {type(requests).__name__}", expected="a list of ScoreRequest", fix=f"[{_REQUEST}]"
        )
    for place, request in enumerate(requests):
        if not isinstance(request, ScoreRequest):
            raise UsageError(
                f"request {place} is of type {type(request).__name__}", expected="a ScoreRequest", fix=_REQUEST
            )
        for item in request.items:
            if not isinstance(item, str):
                raise UsageError(
                    f"request {place} has the item {item!r}",
                    expected="ids, each a text",
                    fix="give each as text: [str(item) for item in items]",
                )
        if request.fields is not None and len(request.fields) != len(request.items):
            found = f"request {place} has fields of {len(request.fields)} items, and {len(request.items)} items"
            raise UsageError(found, expected="for each item its fields, or None", fix=_FIELDS)
        for of in (*(request.fields or ()), request.profile):
            if not (of is None or isinstance(of, Mapping)) or not all(map(_is_value, (of or {}).items())):
                raise UsageError(
                    f"request {place} has the fields {of!r}",
                    expected="field -> text, or None",
                    fix='give numbers as text, as in {"price": "3.10"}',
                )


def _is_value(pair: tuple[object, object]) -> bool:
    name, value = pair
    return isinstance(name, str) and (value is None or isinstance(value, str))


@dataclass(slots=True)
class TaskScore:
    """One candidate's answer for one of several tasks."""

    score: Annotated[float, Field(description="raw logit")]
    probability: Annotated[
        float | None, Field(description="calibrated; null if negatives were drawn and no base rate is known")
    ]
    reason: Annotated[str | None, Field(description="why there is no probability")]


# Not frozen: to make a hundred frozen ones takes .1 ms, as long as to read the memory.
@dataclass(slots=True)
class Score:
    """One candidate's answer; of several tasks, score, probability and reason are the first one's."""

    item: str
    score: Annotated[float, Field(description="raw logit; orders the candidates of one user")]
    probability: Annotated[
        float | None, Field(description="calibrated; null if negatives were drawn and no base rate is known")
    ]
    reason: Annotated[str | None, Field(description="why there is no probability")]
    tasks: Annotated[
        Mapping[str, TaskScore] | None,
        Field(exclude_if=lambda value: value is None, description="each task's answer, of a model with several"),
    ] = None
    known_item: Annotated[
        bool, Field(description="false: training did not have the item; scored by its hash bucket and fields")
    ] = True


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request.

    Args:
        user: her id.
        known_user: False where the empty memory was read.
        count: events in the memory that was read.
        last_time: time of the last of them, None without events.
        scores: one per candidate, in order.
        artifact: id of the one that scored; memory and weights are both its own.
        attention_CS: first-hop attention over the slots, or over the events of a recent history and the padding after
            them; None if the model has none, or none was asked for.
        unknown_items: candidates that training did not know.
        request_id: under which the request is in the impressions log; None where there is none.
        negatives: the rule that drew the negatives of training, which scores tell items from; "none" for given labels.
        in_list_C: what orders the candidates in a list over the catalogue; None if it was not asked for.
    """

    user: str
    known_user: bool
    count: int
    last_time: int | None
    scores: list[Score]
    artifact: str
    attention_CS: Float32Array | None
    unknown_items: int = 0
    request_id: str | None = None
    negatives: str = "none"
    in_list_C: FloatArray | None = None
