"""What every request passes: the limit of a body's size, and the metrics. Plain ASGI."""

from __future__ import annotations

import time

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lifelong.online.serving.errors import TooLargeError, error_response
from lifelong.online.serving.metrics import Metrics

_DRAINED = 8
"""How many times its limit of a body is read and discarded: the client gets the refusal, not a closed connection."""

_SMALL = 16_384
"""Bytes up to which a body is accepted however many large ones there are."""


class BodyLimit:
    """Refuses bodies over a number of bytes, by their head or while they are read.

    Args:
        app: called for requests that pass.
        limit: bytes of one body.
        together: bytes of all bodies that are read or worked on at the same time, small ones not counted; None for no
            limit.
    """

    app: ASGIApp
    limit: int
    together: int | None

    def __init__(self, app: ASGIApp, limit: int, together: int | None = None) -> None:
        self.app, self.limit, self.together, self._held = app, limit, together, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413 or 503, or pass on."""
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
            size = len(message.get("body", b""))
            read += size
            # Those of a request are given back when it ends: what a body is parsed to is as large as the body.
            self._held += size
            if read > self.limit:
                await self._drain(receive, message)
                raise HTTPException(413, f"a body over {self.limit:,} bytes")
            if self.together is not None and self._held > self.together and read > _SMALL:
                raise HTTPException(503, f"bodies of {self.together:,} bytes are being read")
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            self._held -= read

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
    """Counts requests by route and status, and their time by route."""

    app: ASGIApp
    metrics: Metrics

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the app and measure."""
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
