"""Bodies of requests: strict models that refuse unknown keys, and how a body is read and answered.

    request --address?--> ShortRoutes --> JSON --> checked --> endpoint(body, service) --> reply
                `------> FastAPI: addresses with parameters, pages, small bodies of the operator

FastAPI's own handling takes as long as a score, its search for a route a tenth of that, and it reads bodies and writes
replies on the event loop's thread, where all other requests wait. Here large ones are read and written in threads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NotRequired, cast, get_type_hints

import msgspec
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from msgspec import MsgspecError
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
    with_config,
)
from pydantic_core import PydanticCustomError
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import TypedDict

from lifelong.dataset.times import seconds_of
from lifelong.errors import UsageError
from lifelong.online.memory.event import LAST_SECOND, MAX_ID
from lifelong.online.serving.errors import ANSWERED, MediaTypeError, TooLargeError, answer_to
from lifelong.online.serving.event_bodies import KEYS

if TYPE_CHECKING:
    from lifelong.online.serving.service import Service

LARGE = 16_384
"""Bytes of a body that is parsed in a thread, where it holds up no other request."""
OPERATORS = 65_536
"""Bytes of a body that FastAPI reads on the event loop: two paths of 4,096 characters, escaped, fit in."""
_PIECE = 262_144
"""Bytes of a long reply that are given to the server at a time."""

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID)]
Ids = Annotated[list[Id], Field(fail_fast=True)]


def few_keys(value: Any) -> Any:
    """Refuse an object with very many keys at once: an error for each of a million would take gigabytes."""
    if isinstance(value, dict) and len(value) > KEYS:
        raise PydanticCustomError("too_many_keys", "should have at most {most} keys", {"most": KEYS})
    return value


def _allowed(*kinds: str) -> BeforeValidator:
    """Refuses a list that is too long before any of its entries is validated: of 400,000 that takes seconds.

    The context of the validation is `Service.allow`; without one every length is allowed.
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
        lists = [request.get("items") for request in value if isinstance(request, dict)]
        info.context("candidates", sum(len(items) for items in lists if isinstance(items, list)))
    return value


def _seconds(value: Any) -> Any:
    """UTC seconds of an ISO 8601 text. JSON has one kind of number: 1700000000.0 is the whole number 1700000000."""
    # Parameters of an address are texts, also where they are numbers.
    if isinstance(value, str) and not value.isdecimal():
        try:
            return seconds_of(value)
        except UsageError:
            raise PydanticCustomError("no_time", "is no time") from None
    return int(value) if isinstance(value, float) and value.is_integer() else value


Time = Annotated[
    int,
    Field(
        ge=0,
        le=LAST_SECOND,
        description="UTC seconds (or the ordinal of a log without times); also as text of ISO 8601, such as"
        " 2025-12-01T00:00:00Z, which is UTC without a zone",
    ),
    BeforeValidator(_seconds),
]
Values = Annotated[
    dict[Id, Id | None],
    Field(
        max_length=KEYS,
        fail_fast=True,
        description="item field -> value; null where it is not known. A candidate's win over the catalogue, an event's"
        " count for an item that it lacks.",
    ),
    BeforeValidator(few_keys),
]
Profile = Annotated[
    dict[Id, Id | None],
    Field(
        max_length=KEYS,
        fail_fast=True,
        description="user field -> value, of a model trained with profiles; null where not known. It is not kept.",
    ),
    BeforeValidator(few_keys),
]


_STRICT = ConfigDict(extra="forbid", strict=True)


class StrictBody(BaseModel):
    """A body without unknown keys, and with few."""

    model_config: ClassVar[ConfigDict] = _STRICT

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, value: Any) -> Any:
        return few_keys(value)


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


class EventsBody(StrictBody):
    """A batch of events; all of them are written at once, or none."""

    model_config: ClassVar[ConfigDict] = ConfigDict(json_schema_extra={"examples": [{"events": [_EVENT]}]})

    # Of lists with errors the first one is enough, here and below: there may be millions.
    events: Annotated[
        list[Annotated[EventBody, BeforeValidator(few_keys)]],
        Field(min_length=1, fail_fast=True),
        _allowed("events"),
    ]


class CandidateBody(StrictBody):
    """An item with fields that come with the request."""

    item: Id
    fields: Values | None = None


Candidate = Annotated[
    Annotated[Id, Tag("id")] | Annotated[CandidateBody, Tag("candidate")],
    Discriminator(lambda value: "id" if isinstance(value, str) else "candidate"),
]

Candidates = Annotated[list[Candidate], Field(min_length=1, fail_fast=True)]


Purpose = Literal["list"] | None
"""What scores are for, if it is said."""


class ScoreRequestBody(StrictBody):
    """One user, many candidates."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={"examples": [{"user": "u1", "items": ["i7", "i8"]}]}
    )

    user: Id
    items: Annotated[Candidates, _allowed("candidates")]
    time: Time | None = Field(None, description="moment of the request; now by default")
    profile: Profile | None = None


class ScoreRequestsBody(StrictBody):
    """Many users, each with candidates."""

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
        list[ScoreRequestBody],
        Field(min_length=1, fail_fast=True),
        BeforeValidator(_allowed_together),
        _allowed("users"),
    ]


ScoreBody = Annotated[
    Annotated[ScoreRequestBody, Tag("one")] | Annotated[ScoreRequestsBody, Tag("many")],
    Discriminator(lambda value: "many" if has_key(value, "requests") else "one"),
]


def has_key(value: Any, key: str) -> bool:
    """Whether a body, parsed or checked, has a key: which of two models it is."""
    return key in value if isinstance(value, dict) else hasattr(value, key)


class ItemBody(StrictBody):
    """An item and its fields."""

    item: Id
    fields: Values


class ItemsBody(StrictBody):
    """Items to add, or to change the fields of."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={"examples": [{"items": [{"item": "i9", "fields": {}}]}]}
    )

    items: Annotated[list[ItemBody], Field(min_length=1, fail_fast=True), _allowed("items")]


class ExplainBody(ScoreRequestBody):
    """One user and the candidates to explain the scores of."""

    items: Annotated[Candidates, _allowed("candidates", "explained")]


class ExactRoute(APIRoute):
    """A route whose address ends where the pattern does.

    Patterns of routes also match before one last line break: `/v1/users/u/memory%0a` would be an address of user `u`.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a request is for this route."""
        # A break at the end of an id is a part of it.
        if scope["path"].endswith("\n") and not self.path.endswith("}"):
            return Match.NONE, {}
        return super().matches(scope)


class JsonRoute(ExactRoute):
    """A route with a small body, if it takes one, that must be declared as JSON.

    A page of another site can send other kinds of bodies to any address without being asked for permission.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function that answers a request."""
        usual = super().get_route_handler()
        if self.body_field is None:
            return usual

        async def handle(request: Request) -> Response:
            _check_json(request)
            if len(text := await request.body()) > OPERATORS:
                raise TooLargeError(
                    f"a body of {len(text):,} bytes", expected=f"at most {OPERATORS:,} bytes", fix="give shorter paths"
                )
            return await usual(request)

        return handle


def _check_json(request: Request) -> None:
    """Refuse a body that is not said to be JSON.

    Raises:
        MediaTypeError: it is not.
    """
    if not _is_json(kind := request.headers.get("content-type", "")):
        raise MediaTypeError(
            f"a body with {f'the Content-Type {kind[:100]!r}' if kind else 'no Content-Type'}",
            expected="application/json",
            fix="send the header Content-Type: application/json",
        )


def _is_json(kind: str) -> bool:
    """Whether a content type is JSON.

    >>> _is_json("application/json; charset=utf-8"), _is_json("application/problem+json"), _is_json("text/plain")
    (True, True, False)
    """
    name = kind.partition(";")[0].strip().lower()
    return name == "application/json" or (name.startswith("application/") and name.endswith("+json"))


class ShortRoute(ExactRoute):
    """A route of an endpoint that takes `body` and `service`, and returns a document in JSON."""

    answer: Callable[[Request], Coroutine[Any, Any, Response]]
    """Answers a request without FastAPI; see `ShortRoutes`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function that answers a request."""
        self.answer = _short_answer(self.endpoint)
        return self.answer


def _short_answer(
    endpoint: Callable[..., Awaitable[bytes]],
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    hints = get_type_hints(endpoint, include_extras=True)
    body_type = hints["body"]
    # Once for each route: building it takes far longer than validating a body.
    adapter: TypeAdapter[Any] = TypeAdapter(body_type)
    purposes: TypeAdapter[Any] | None = TypeAdapter(Purpose) if "purpose" in hints else None

    async def answer(request: Request) -> Response:
        _check_json(request)
        service, text = request.app.state.service, await request.body()
        large = len(text) >= LARGE

        def parse() -> Any:
            # A small body costs less to parse than to send to another process.
            parsed = _parsed_by_the_writer(service, text) if large and body_type is EventsBody else None
            return parsed or adapter.validate_python(msgspec.json.decode(text), context=service.allow)

        try:
            # A small body is parsed before a thread would even have it.
            body = await service.aside(parse) if large else parse()
        except (ValueError, RecursionError, MsgspecError) as error:
            raise _invalid(error) from error
        # Parsed only where there is one: an address seldom has parameters.
        if purposes is None or not request.scope["query_string"]:
            return Response(await endpoint(body, service), media_type="application/json")
        try:
            purpose = purposes.validate_python(request.query_params.get("for"))
        except ValidationError as error:
            raise _invalid(error, "query", "for") from error
        return Response(await endpoint(body, service, purpose), media_type="application/json")

    return answer


class ShortRoutes:
    """Answers requests to some addresses without FastAPI's search for their route. Plain ASGI.

    Args:
        app: called for all other requests.
        routes: those that are a `ShortRoute` are meant; each has an address of its own, without parameters.
    """

    app: ASGIApp

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self.app = app
        short = [route for route in routes if isinstance(route, ShortRoute)]
        self._routes = {(method, route.path): route for route in short for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on."""
        route = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        # Metrics, log and spans have its pattern.
        scope["route"] = route
        try:
            response = await route.answer(request)
        except ANSWERED as error:
            response = await answer_to(request, error)
        await response(scope, receive, send)


async def sent(service: Service, work: Callable[[Any], object]) -> Response:
    """What a reader finds out from a scorer, as JSON that is written in the reader's thread.

    Args:
        service: it has the readers.
        work: gives the document, dataclasses included, from the scorer.
    """
    text = await service.asked(lambda scorer: msgspec.json.encode(work(scorer)))
    return Response(text, media_type="application/json")


def in_pieces(text: bytes) -> Response:
    """A long document in JSON: the server is given a piece when it has sent the one before."""

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(text), _PIECE):
            yield text[at : at + _PIECE]

    return StreamingResponse(pieces(), media_type="application/json", headers={"content-length": str(len(text))})


def encoded_list(entries: Iterable[object]) -> msgspec.Raw:
    """A list as JSON, one entry after another: other threads run between two of them, which they do not within one."""
    return msgspec.Raw(b"[" + b",".join(map(msgspec.json.encode, entries)) + b"]")


def _parsed_by_the_writer(service: Service, text: bytes) -> EventsBody | None:
    """Many events, without holding up scores in this process; None where this one has to look at them."""
    parsed = None if service.writer is None or service.topic is not None else service.writer.parse(text)
    return None if parsed is None else EventsBody.model_construct(events=cast("Any", parsed))


def _invalid(error: Exception, *where: str) -> RequestValidationError:
    """What is wrong with a body, or with another part of a request."""
    if isinstance(error, ValidationError):
        details = [
            {**detail, "loc": (*(where or ("body",)), *detail["loc"])} for detail in error.errors(include_url=False)
        ]
        return RequestValidationError(details)
    return RequestValidationError([{"type": "json_invalid", "loc": ("body",), "ctx": {"error": str(error)}}])
