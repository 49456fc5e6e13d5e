"""What surrounds every request: API keys, the limit of a body's size, and the measuring. Plain ASGI."""

from __future__ import annotations

import hmac
import time
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lifelong.serving.errors import TooLargeError, UnauthorizedError, error_response
from lifelong.serving.metrics import Metrics

_DRAINED = 8
"""How many times the limit is read and thrown away, so that a client hears the refusal and not a closed connection."""


class KeyGate:
    """Lets only requests with an API key to `/v1/`: `X-API-Key: KEY` or `Authorization: Bearer KEY`.

    Args:
        app: behind it.
        keys: that open `/v1/`; None where all may use it.
        admin_keys: that open `/v1/admin/` too.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str] | None, admin_keys: Sequence[str] = ()) -> None:
        self.app, self.admin_keys = app, [key.encode() for key in admin_keys]
        self.keys = None if keys is None else [*(key.encode() for key in keys), *self.admin_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or pass on."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        admin = scope["path"].startswith("/v1/admin/")
        keys = self.admin_keys if admin else self.keys
        if keys is None or self._allowed(Headers(scope=scope), keys):
            await self.app(scope, receive, send)
            return
        found = f"no valid {'admin' if admin else 'API'} key came with the request"
        error = UnauthorizedError(
            found, expected="X-API-Key: KEY or Authorization: Bearer KEY", fix="ask the owner for a key"
        )
        await error_response(error)(scope, receive, send)

    def _allowed(self, headers: Headers, keys: Sequence[bytes]) -> bool:
        given = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        # Every key is compared, so that the time tells nothing.
        matches = [hmac.compare_digest(given.encode("latin-1"), key) for key in keys]
        return any(matches)


class BodyLimit:
    """Refuses bodies over a number of bytes, said by their head or found while reading."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413 or pass on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        if length.isdigit() and int(length) > self.limit:
            await self._drain(receive)
            error = TooLargeError(f"a body of {int(length):,} bytes", expected=self._expected, fix=_FIX)
            await error_response(error)(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.limit:
                await self._drain(receive, message)
                raise HTTPException(413, f"a body over {self.limit:,} bytes")
            return message

        await self.app(scope, counted, send)

    @property
    def _expected(self) -> str:
        return f"at most {self.limit:,} bytes"

    async def _drain(self, receive: Receive, last: Message | None = None) -> None:
        left = self.limit * _DRAINED
        while left > 0 and (last is None or (last["type"] == "http.request" and last.get("more_body"))):
            last = await receive()
            left -= len(last.get("body", b""))


_FIX = "send it in several requests"


class Measure:
    """Counts requests and their time by route and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on and measure."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            # A route's pattern and not the path: user ids must not become labels.
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if route != "none" else "any"
            self.metrics.requests.labels(method, route, str(status)).inc()
            self.metrics.seconds.labels(method, route).observe(time.perf_counter() - started)
