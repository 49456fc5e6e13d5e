"""What every request passes: the check of API keys, the limit of a body's size, and the metrics. Plain ASGI."""

from __future__ import annotations

import math
import time
from collections import OrderedDict

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lifelong.online.serving.errors import TooLargeError, TooManyError, UnauthorizedError, error_response
from lifelong.online.serving.guards import Buckets, address_of, given_key
from lifelong.online.serving.keys import KeyRing
from lifelong.online.serving.metrics import Metrics

_DRAINED = 8
"""How many times its limit of a body is read and discarded: the client gets the refusal, not a closed connection."""

_SMALL = 16_384
"""Bytes up to which a body is accepted however many large ones there are."""

_WRONG_BURST, _WRONG_RATE, _CALLERS = 20.0, 0.1, 10_000
"""Wrong keys that an address may try at once, and then per second; callers with a right key that are remembered."""
_GUESSING = TooManyError(
    "too many wrong API keys from this address",
    expected=f"at most {_WRONG_BURST:g} at once, then one every {1 / _WRONG_RATE:g} seconds",
    fix="wait as long as Retry-After says, and send a key from the owner of the service",
)


class KeyGate:
    """Refuses requests to `/v1/` without an API key, `X-API-Key: KEY` or `Authorization: Bearer KEY`.

    Args:
        app: called for requests that pass.
        keys: the keys; those with the scope `admin` open `/v1/admin/`, and all of them the rest of `/v1/`.
    """

    app: ASGIApp
    keys: KeyRing

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self.app, self.keys = app, keys
        self._wrong = Buckets(_WRONG_RATE, _WRONG_BURST)
        # Who has come with a right key, and is not locked out by wrong ones of the same address.
        self._right: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or pass on."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        admin = scope["path"].startswith("/v1/admin/")
        if self.keys.open and not admin:
            await self.app(scope, receive, send)
            return
        caller = address_of(scope), given_key(Headers(scope=scope))
        if caller not in self._right and (wait := self._wrong.wait(caller[0])):
            await error_response(_GUESSING, headers={"retry-after": str(math.ceil(wait))})(scope, receive, send)
            return
        scopes = self.keys.scopes(caller[1])
        if scopes is not None and (not admin or "admin" in scopes):
            self._right[caller] = None
            if len(self._right) > _CALLERS:
                self._right.popitem(last=False)
            await self.app(scope, receive, send)
            return
        if caller[1] and scopes is None:
            self._wrong.take(caller[0])
        found = f"no valid {'admin' if admin else 'API'} key came with the request"
        error = UnauthorizedError(
            found, expected="X-API-Key: KEY or Authorization: Bearer KEY", fix="ask the owner for a key"
        )
        await error_response(error)(scope, receive, send)


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
