"""Middleware: what a request must have (host, key, address, a body of some size, time for an answer), and its log."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lifelong.errors import LifelongError, RequestError
from lifelong.online.serving.errors import (
    DeadlineError,
    ForbiddenError,
    TooLargeError,
    UnauthorizedError,
    error_response,
)
from lifelong.online.serving.keys import KeyRing, is_address, scope_of
from lifelong.online.serving.logs import access
from lifelong.online.serving.metrics import Metrics

_TRACE = re.compile(rb"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
"""A `traceparent` header of W3C Trace Context, with the id of its trace."""


class Measure:
    """Counts requests by route and status, and their time by route; logs them where that is asked for.

    Args:
        app: called for each request.
        metrics: has the counters.
        users: whether the log has the address itself, which can hold the id of a user.
    """

    app: ASGIApp
    metrics: Metrics
    users: bool

    def __init__(self, app: ASGIApp, metrics: Metrics, *, users: bool = False) -> None:
        self.app, self.metrics, self.users = app, metrics, users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the app and measure."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # 500 is what the client gets if the app raises before it answers.
        started, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            seconds = time.perf_counter() - started
            # A route's pattern and not the path, which can hold the id of a user.
            route = getattr(scope.get("route"), "path", None)
            labels = ("any", "none") if route is None else (scope["method"], route)
            self.metrics.requests.labels(*labels, str(status)).inc()
            self.metrics.seconds.labels(*labels).observe(seconds)
            if access.isEnabledFor(logging.INFO):
                self._log(scope, route, status, seconds)

    def _log(self, scope: Scope, route: str | None, status: int, seconds: float) -> None:
        milliseconds = round(1e3 * seconds, 3)
        data = {"method": scope["method"], "route": route, "status": status, "milliseconds": milliseconds}
        if self.users:
            data["path"] = scope["path"]
        # The one header that is logged, and only if it is what the standard says: it is anybody's text.
        if named := _TRACE.fullmatch(dict(scope["headers"]).get(b"traceparent", b"")):
            data["trace"] = named[1].decode()
        access.info("request", extra={"data": data})


def given_key(headers: Headers) -> str:
    """The API key of a request, "" if it has none."""
    return headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")


class Gate(ABC):
    """Refuses some requests before they reach a route; plain ASGI.

    Args:
        app: called for requests that pass.
    """

    app: ASGIApp

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    @abstractmethod
    def refusal(self, scope: Scope) -> LifelongError | None:
        """Why a request is refused; None if it passes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on."""
        error = self.refusal(scope) if scope["type"] == "http" else None
        await (self.app if error is None else error_response(error))(scope, receive, send)


class HostGate(Gate):
    """Refuses requests in the name of another host, and those that pages of other sites make.

    A web page can let its own name point to 127.0.0.1 (DNS rebinding); its scripts then reach a service on the machine
    of whoever looks at it, and only the `Host` header shows that. A page can also send simple requests to any address;
    then `Origin` names the page. An address instead of a name is always ours: no page can have it as its name.

    Args:
        app: called for requests that pass.
        hosts: names that are ours, next to localhost; None for any name.
        origins: whether all of `/v1/` is kept from other sites' pages, and not `/v1/admin/` alone.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str] | None, *, origins: bool) -> None:
        super().__init__(app)
        self._prefix = "/v1/" if origins else "/v1/admin/"
        self._hosts = None if hosts is None else {"localhost", *(_name(host) for host in hosts)}

    def refusal(self, scope: Scope) -> ForbiddenError | None:
        """What is wrong with its `Host` or `Origin`."""
        fix = "if the service has this name, start it with --set 'allowed_hosts=[\"NAME\"]'"
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        for host in hosts:
            if not self._ours(host):
                expected = "localhost, an address, or a name of this service"
                return ForbiddenError(f"the request is for the host {_name(host)!r}", expected=expected, fix=fix)
        if not scope["path"].startswith(self._prefix):
            return None
        origin = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"), None)
        if origin is None or self._same_site(origin, hosts):
            return None
        expected = "a page of this service, or no page"
        return ForbiddenError(f"the request comes from a page of {origin!r}", expected=expected, fix=fix)

    def _ours(self, host: str) -> bool:
        if self._hosts is None:
            return True
        name = _name(host)
        return name in self._hosts or name.endswith(".localhost") or is_address(name)

    def _same_site(self, origin: str, hosts: Sequence[str]) -> bool:
        own = origin.partition("://")[2].lower()
        # Behind a proxy the service may be called by another name than the page's.
        return own in (host.lower() for host in hosts) or _name(own) in (self._hosts or set()) - {"localhost"}


def _name(host: str) -> str:
    """The name in a `Host` header, without port.

    >>> _name("Example.org:8000"), _name("[::1]:8000"), _name("::1")
    ('example.org', '::1', '::1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    name, _, port = host.rpartition(":")
    return (name if name and port.isdecimal() and ":" not in name else host).lower().rstrip(".")


class KeyGate(Gate):
    """Refuses requests without an API key of the scope that the address needs.

    Args:
        app: called for requests that pass.
        keys: the keys and their scopes.
    """

    keys: KeyRing

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        super().__init__(app)
        self.keys = keys

    def refusal(self, scope: Scope) -> UnauthorizedError | ForbiddenError | None:
        """What is wrong with its key."""
        needed = scope_of(scope["path"])
        if needed is None:
            return None
        scopes = self.keys.scopes(given_key(Headers(scope=scope)))
        if scopes is None:
            return UnauthorizedError(
                "no valid API key came with the request",
                expected="X-API-Key: KEY or Authorization: Bearer KEY",
                fix="ask the owner for a key",
            )
        if needed in scopes or "admin" in scopes:
            return None
        return ForbiddenError(
            f"this API key is for {', '.join(sorted(scopes))}",
            expected=f"a key with the scope {needed}",
            fix="ask the owner for another key, or add the scope to this one in the file of keys",
        )


class Deadline:
    """Ends requests that take too long, slow bodies included.

    Args:
        app: called for each request.
        seconds: from the request's head to the start of the answer.
    """

    app: ASGIApp
    seconds: float

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app, self.seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 504 if there was no answer in time."""
        # The administration reads artifacts and rewrites files, which may take long.
        if scope["type"] != "http" or scope["path"].startswith("/v1/admin/"):
            await self.app(scope, receive, send)
            return
        try:
            # A client that sends its body slowly, or a store that does not answer, would hold the request for ever.
            async with asyncio.timeout(self.seconds) as limit:

                async def noted(message: Message) -> None:
                    # An answer that has begun is not cut off.
                    limit.reschedule(None)
                    await send(message)

                await self.app(scope, receive, noted)
        except TimeoutError:
            # An answer has begun, so that this is another timeout, and a second answer cannot be sent.
            if limit.when() is None:
                raise
            error = DeadlineError(
                f"the request was not answered within {self.seconds:g} seconds",
                expected="an answer in time",
                fix="send it again; events that have an event_id are not applied twice",
            )
            await error_response(error)(scope, receive, send)


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
        # By the head, so that nothing of it takes RAM. A head may be wrong or missing, so the bytes are counted as
        # well.
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
            # Small ones always pass, so that scores are answered while large bodies fill the limit.
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
        # Not for ever: the rest of a longer body the server discards.
        left = self.limit * _DRAINED
        while left > 0 and (last is None or (last["type"] == "http.request" and last.get("more_body"))):
            last = await receive()
            left -= len(last.get("body", b""))


_FIX = "send it in several requests"


PARAMETERS = 4_000
"""Parameters of an address, at most: to take apart all that fit into a head would hold up the event loop."""


class AddressGate(Gate):
    """Refuses addresses and parameters that are not UTF-8, and too many parameters.

    The server replaces each byte that it cannot read by the same character, so that ids of different users would become
    one.

    Args:
        app: called for requests that pass.
    """

    def refusal(self, scope: Scope) -> RequestError | None:
        """What is wrong with its address."""
        # Counted and not parsed: to parse them is what would take long.
        if (number := scope["query_string"].count(b"&") + 1) > PARAMETERS:
            return TooLargeError(
                f"an address with {number:,} parameters",
                expected=f"at most {PARAMETERS:,}",
                fix="send several requests",
            )
        if all(map(_is_text, (scope.get("raw_path") or b"", scope["query_string"]))):
            return None
        return RequestError(
            "the address of the request is not text in UTF-8",
            expected="ids in UTF-8, percent-encoded",
            fix="encode the id as UTF-8 first: ü is %C3%BC, not %FC",
        )


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
