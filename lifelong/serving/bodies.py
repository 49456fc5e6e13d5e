"""Routes of JSON bodies: one that wants them to be called so, and one that reads them faster than FastAPI does.

    request --address?--> ShortRoutes --> JSON or MessagePack --> checked --> endpoint(body, service) --> reply
                |                                  |
                `------> FastAPI <-----------------`-- no JSON: FastAPI reads it again, and says what is wrong

FastAPI's own handling takes as long as a score, its search for a route a tenth of that, and it parses large bodies on
the event loop's thread, where all other requests wait.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast, get_type_hints

import msgspec
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from msgspec import MsgspecError, msgpack
from pydantic import TypeAdapter, ValidationError
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lifelong.serving.addresses import ExactRoute
from lifelong.serving.errors import ANSWERED, MediaTypeError, answer_to
from lifelong.serving.schemas import EventsBody

if TYPE_CHECKING:
    from lifelong.serving.service import Service

PACKED = "application/msgpack", "application/x-msgpack", "application/vnd.msgpack"
"""Content types of MessagePack; replies have the first."""
LARGE = 16_384
"""Bytes of a body that is parsed in a thread, where it holds up no other request."""
ShortAnswer: TypeAlias = Callable[[Request, bool], Awaitable[Response | None]]
"""Answers a request whose body is MessagePack (or JSON); None where FastAPI has to look at the body."""


class JsonRoute(ExactRoute):
    """A route with a body, if it takes one, that must be declared as JSON.

    A page of another site can send other kinds of bodies to any address without being asked for permission.
    """

    taken = "application/json"
    """What its bodies may be called."""

    def handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function that answers a request."""
        usual = super().handler()
        if self.body_field is None:
            return usual

        async def handle(request: Request) -> Response:
            kind = request.headers.get("content-type", "")
            if not _is_json(kind):
                raise MediaTypeError(
                    f"a body with {f'the Content-Type {kind[:100]!r}' if kind else 'no Content-Type'}",
                    expected=self.taken,
                    fix="send the header Content-Type: application/json",
                )
            return await usual(request)

        return handle


def _is_json(kind: str) -> bool:
    """Whether a content type is JSON.

    >>> _is_json("application/json; charset=utf-8"), _is_json("application/problem+json"), _is_json("text/plain")
    (True, True, False)
    """
    name = kind.partition(";")[0].strip().lower()
    return name == "application/json" or (name.startswith("application/") and name.endswith("+json"))


class ShortRoute(JsonRoute):
    """A route of an endpoint that takes `body` and `service` and returns a document, in JSON or MessagePack.

    The body is what its content type says. The reply is MessagePack if `Accept` says so, or if the body was and
    `Accept` does not ask for JSON; errors are JSON always.
    """

    taken = "application/json or application/msgpack"
    answer: ShortAnswer
    """What it does without FastAPI; see `ShortRoutes`."""

    def handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function that answers a request."""
        usual = super().handler()
        self.answer = _short_answer(self.endpoint)

        async def handle(request: Request) -> Response:
            packed = _is_packed_or_json(request)
            answer = None if packed is None else await self.answer(request, packed)
            return await usual(request) if answer is None else answer

        return handle


def _short_answer(endpoint: Callable[[Any, Service], Awaitable[object]]) -> ShortAnswer:
    body_type = get_type_hints(endpoint, include_extras=True)["body"]
    adapter: TypeAdapter[Any] = TypeAdapter(body_type)
    elsewhere = _parsed_by_the_writer if body_type is EventsBody else _parsed_here

    async def answer(request: Request, packed: bool) -> Response | None:
        service, text = request.app.state.service, await request.body()
        decode = msgpack.decode if packed else json.loads

        def parse() -> Any:
            return adapter.validate_python(decode(text))

        try:
            if len(text) < LARGE:
                body = parse()
            else:
                body = await service.aside(lambda: elsewhere(service, text, packed) or parse())
        except (ValueError, RecursionError, MsgspecError) as error:
            if not packed and not isinstance(error, ValidationError):
                return None
            raise _invalid(error) from error
        document = await endpoint(body, service)
        return _packed(document) if _wants_packed(request, packed) else _json(document)

    return answer


class ShortRoutes:
    """Answers requests to some addresses without FastAPI's search for their route. Plain ASGI.

    Args:
        app: called for all other requests, and for bodies that FastAPI has to look at.
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
        request = None if route is None else Request(scope, receive)
        packed = None if request is None else _is_packed_or_json(request)
        if route is None or request is None or packed is None:
            await self.app(scope, receive, send)
            return
        # Metrics, log and spans have its pattern.
        scope["route"] = route
        try:
            response = await route.answer(request, packed)
        except ANSWERED as error:
            response = await answer_to(request, error)
        if response is None:
            await self.app(scope, _repeated(await request.body(), receive), send)
        else:
            await response(scope, receive, send)


def _repeated(body: bytes, receive: Receive) -> Receive:
    """What `receive` gave and will give, for another reader of a body that was read."""
    messages = iter([{"type": "http.request", "body": body}])

    async def again() -> Message:
        return next(messages, None) or await receive()

    return again


def _parsed_by_the_writer(service: Service, text: bytes, packed: bool) -> EventsBody | None:
    """Many events, without holding up scores in this process; None where this one has to look at them."""
    found = None if service.writer is None else service.writer.parse(text, packed)
    return None if found is None else EventsBody.model_construct(events=cast("Any", found))


def _parsed_here(service: Service, text: bytes, packed: bool) -> None:
    """All other bodies."""


def _is_packed_or_json(request: Request) -> bool | None:
    """Whether a body is said to be MessagePack; None where it is said to be neither that nor JSON."""
    kind = request.headers.get("content-type", "")
    packed = _is_packed(kind)
    return packed if packed or _is_json(kind) else None


def _is_packed(kind: str) -> bool:
    """Whether a content type is MessagePack.

    >>> _is_packed("application/msgpack"), _is_packed("application/x-msgpack; v=1"), _is_packed("application/json")
    (True, True, False)
    """
    return kind.partition(";")[0].strip().lower() in PACKED


def _wants_packed(request: Request, packed: bool) -> bool:
    accepted = request.headers.get("accept")
    if accepted is None:
        return packed
    kinds = [kind.strip() for kind in accepted.split(",")]
    return any(map(_is_packed, kinds)) or (packed and not any(map(_is_json, kinds)))


def _invalid(error: Exception) -> RequestValidationError:
    """What is wrong with a body that FastAPI cannot read."""
    if isinstance(error, ValidationError):
        details = [{**detail, "loc": ("body", *detail["loc"])} for detail in error.errors(include_url=False)]
        return RequestValidationError(details)
    return RequestValidationError([{"type": "msgpack_invalid", "loc": ("body",), "ctx": {"error": str(error)}}])


def _json(document: object) -> Response:
    return Response(msgspec.json.encode(document), media_type="application/json")


def _packed(document: object) -> Response:
    return Response(msgpack.encode(document), media_type=PACKED[0])
