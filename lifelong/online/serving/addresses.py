"""Addresses of requests: text in UTF-8 that names a route to its last character, so that one id is one user."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from lifelong.errors import RequestError
from lifelong.online.serving.errors import TooLargeError, error_response

PARAMETERS = 4_000
"""Parameters of an address, at most: to take apart all that fit into a head would hold up the event loop."""


class AddressGate:
    """Refuses addresses and parameters that are not UTF-8, and too many parameters.

    The server replaces each byte that it cannot read by the same character, so that ids of different users would become
    one.

    Args:
        app: called for requests that pass.
    """

    app: ASGIApp

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413, 422 or pass on."""
        if scope["type"] == "http" and (number := scope["query_string"].count(b"&") + 1) > PARAMETERS:
            too_many = TooLargeError(
                f"an address with {number:,} parameters",
                expected=f"at most {PARAMETERS:,}",
                fix="send several requests",
            )
            await error_response(too_many)(scope, receive, send)
        elif scope["type"] == "http" and not all(map(_is_text, (scope.get("raw_path") or b"", scope["query_string"]))):
            error = RequestError(
                "the address of the request is not text in UTF-8",
                expected="ids in UTF-8, percent-encoded",
                fix="encode the id as UTF-8 first: ü is %C3%BC, not %FC",
            )
            await error_response(error)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _is_text(encoded: bytes) -> bool:
    """Whether a percent-encoded part of an address is UTF-8.

    >>> _is_text(b"/v1/users/%C3%BC/memory"), _is_text(b"/v1/users/%FC/memory")
    (True, False)
    """
    if b"%" not in encoded and encoded.isascii():
        return True
    try:
        unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        return False
    return True


class ExactRoute(APIRoute):
    """A route whose address ends where the pattern does.

    Patterns of routes also match before one last line break: `/v1/users/u/memory%0a` would be an address of user `u`.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function that answers a request."""
        handler = self.handler()
        if self.path.endswith("}"):
            # The break is the end of an id.
            return handler

        async def handle(request: Request) -> Response:
            if request.scope["path"].endswith("\n"):
                raise HTTPException(404)
            return await handler(request)

        return handle

    def handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function that answers a request to the exact address."""
        return super().get_route_handler()
