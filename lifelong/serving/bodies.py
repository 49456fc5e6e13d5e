"""JSON bodies on the short way to their endpoint.

    body --> JSON --> checked --> endpoint(body, service) --> response
               |         |
               `---------`--> whatever is wrong, FastAPI finds it again and words it

For a request that takes a millisecond FastAPI's own way is too long, and it reads large bodies on the event loop's
thread, where every other request waits for them.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, get_type_hints

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

if TYPE_CHECKING:
    from lifelong.serving.service import Service

LARGE = 16_384
"""Bytes of a body from which on it is read in a thread."""


class ShortRoute(APIRoute):
    """A route of an endpoint that takes `body` and `service` and gives a response."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        usual = super().get_route_handler()
        endpoint: Callable[[Any, Service], Awaitable[Response]] = self.endpoint
        adapter: TypeAdapter[Any] = TypeAdapter(get_type_hints(endpoint, include_extras=True)["body"])

        def parse(text: bytes) -> Any:
            return adapter.validate_python(json.loads(text))

        async def handle(request: Request) -> Response:
            if request.headers.get("content-type") != "application/json":
                return await usual(request)
            text, service = await request.body(), request.app.state.service
            try:
                body = parse(text) if len(text) < LARGE else await service.aside(lambda: parse(text))
            except (ValueError, RecursionError):
                return await usual(request)
            return await endpoint(body, service)

        return handle
