"""Bodies of requests and replies, without holding up the event loop: large ones are read and written in threads.

    request --address?--> ShortRoutes --> JSON --> checked --> endpoint(body, service) --> reply
                `------> FastAPI: addresses with parameters, pages, small bodies of the operator

FastAPI's own handling takes as long as a score, its search for a route a tenth of that, and it reads bodies and writes
replies on the event loop's thread, where all other requests wait.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast, get_type_hints

import msgspec
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from msgspec import MsgspecError
from pydantic import TypeAdapter, ValidationError
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from lifelong.online.serving.errors import ANSWERED, MediaTypeError, TooLargeError, answer_to
from lifelong.online.serving.guards import ExactRoute
from lifelong.online.serving.schemas import EventsBody

if TYPE_CHECKING:
    from lifelong.online.serving.service import Service

LARGE = 16_384
"""Bytes of a body that is parsed in a thread, where it holds up no other request."""
OPERATORS = 65_536
"""Bytes of a body that FastAPI reads on the event loop: two paths of 4,096 characters, escaped, fit in."""
_PIECE = 262_144
"""Bytes of a long reply that are given to the server at a time."""


class JsonRoute(ExactRoute):
    """A route with a small body, if it takes one, that must be declared as JSON.

    A page of another site can send other kinds of bodies to any address without being asked for permission.
    """

    def handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function that answers a request."""
        usual = super().handler()
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

    def handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function that answers a request."""
        self.answer = _short_answer(self.endpoint)
        return self.answer


def _short_answer(
    endpoint: Callable[[Any, Service], Awaitable[bytes]],
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    body_type = get_type_hints(endpoint, include_extras=True)["body"]
    adapter: TypeAdapter[Any] = TypeAdapter(body_type)
    elsewhere = _parsed_by_the_writer if body_type is EventsBody else _parsed_here

    async def answer(request: Request) -> Response:
        _check_json(request)
        service, text = request.app.state.service, await request.body()

        def parse() -> Any:
            return adapter.validate_python(msgspec.json.decode(text), context=service.settings.allow)

        try:
            if len(text) < LARGE:
                body = parse()
            else:
                body = await service.aside(lambda: elsewhere(service, text) or parse())
        except (ValueError, RecursionError, MsgspecError) as error:
            raise _invalid(error) from error
        return Response(await endpoint(body, service), media_type="application/json")

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


async def sent(service: Service, work: Callable[[Any], object], artifact: str | None = None) -> Response:
    """What a reader finds out from a scorer, as JSON that is written in the reader's thread.

    Args:
        service: it has the readers.
        work: gives the document, dataclasses included, from the scorer.
        artifact: see `Service.asked`.
    """
    text = await service.asked(lambda scorer: msgspec.json.encode(work(scorer)), artifact)
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
    found = None if service.writer is None else service.writer.parse(text)
    return None if found is None else EventsBody.model_construct(events=cast("Any", found))


def _parsed_here(service: Service, text: bytes) -> None:
    """All other bodies."""


def _invalid(error: Exception) -> RequestValidationError:
    """What is wrong with a body."""
    if isinstance(error, ValidationError):
        details = [{**detail, "loc": ("body", *detail["loc"])} for detail in error.errors(include_url=False)]
        return RequestValidationError(details)
    return RequestValidationError([{"type": "json_invalid", "loc": ("body",), "ctx": {"error": str(error)}}])
