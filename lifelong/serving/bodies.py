"""Routes of JSON bodies: one that wants them to be called so, and one that reads them faster than FastAPI does.

    body --> JSON or MessagePack --> checked --> endpoint(body, service) --> reply
                      |                 |
                      `-----------------`--> what is no JSON FastAPI reads again, and says what is wrong

FastAPI's own handling takes as long as a score, and it parses large bodies on the event loop's thread, where all other
requests wait.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, cast, get_type_hints

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from msgspec import MsgspecError, msgpack
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from lifelong.serving.addresses import ExactRoute
from lifelong.serving.errors import MediaTypeError
from lifelong.serving.schemas import EventsBody

if TYPE_CHECKING:
    from lifelong.serving.service import Service

PACKED = "application/msgpack", "application/x-msgpack", "application/vnd.msgpack"
"""Content types of MessagePack; replies have the first."""
LARGE = 16_384
"""Bytes of a body that is parsed in a thread, where it holds up no other request."""


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

    def handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function that answers a request."""
        usual = super().handler()
        endpoint: Callable[[Any, Service], Awaitable[object]] = self.endpoint
        body_type = get_type_hints(endpoint, include_extras=True)["body"]
        adapter: TypeAdapter[Any] = TypeAdapter(body_type)
        elsewhere = _parsed_by_the_writer if body_type is EventsBody else _parsed_here

        async def handle(request: Request) -> Response:
            kind, service = request.headers.get("content-type", ""), request.app.state.service
            packed = _is_packed(kind)
            if not packed and not _is_json(kind):
                return await usual(request)
            text, decode = await request.body(), msgpack.decode if packed else json.loads

            def parse() -> Any:
                return adapter.validate_python(decode(text))

            try:
                if len(text) < LARGE:
                    body = parse()
                else:
                    body = await service.aside(lambda: elsewhere(service, text, packed) or parse())
            except (ValueError, RecursionError, MsgspecError) as error:
                if not packed and not isinstance(error, ValidationError):
                    return await usual(request)
                raise _invalid(error) from error
            document = await endpoint(body, service)
            return _packed(document) if _wants_packed(request, packed) else _json(document)

        return handle


def _parsed_by_the_writer(service: Service, text: bytes, packed: bool) -> EventsBody | None:
    """Many events, without holding up scores in this process; None where this one has to look at them."""
    found = None if service.writer is None else service.writer.parse(text, packed)
    return None if found is None else EventsBody.model_construct(events=cast("Any", found))


def _parsed_here(service: Service, text: bytes, packed: bool) -> None:
    """All other bodies."""


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
    return Response(to_json(document), media_type="application/json")


def _packed(document: object) -> Response:
    return Response(msgpack.encode(document), media_type=PACKED[0])
