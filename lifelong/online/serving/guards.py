"""What a request must have: a key of the right scope, a name of this service, an answer in time. Plain ASGI."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lifelong.online.serving.errors import DeadlineError, ForbiddenError, UnauthorizedError, error_response
from lifelong.online.serving.keys import KeyRing, scope_of

_HOSTS = 1_024
"""Names in `Host` headers of which it is remembered whether they are addresses."""


def given_key(headers: Headers) -> str:
    """The API key of a request, "" if it has none."""
    return headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")


class HostGate:
    """Refuses requests in the name of another host, and those that pages of other sites make.

    A web page can let its own name point to 127.0.0.1 (DNS rebinding); its scripts then reach a service on the machine
    of whoever looks at it, and only the `Host` header shows that. A page can also send simple requests to any address;
    then `Origin` names the page. An address instead of a name is always ours: no page can have it as its name.

    Args:
        app: called for requests that pass.
        hosts: names that are ours, next to localhost; None for any name.
        origins: whether all of `/v1/` is kept from other sites' pages, and not `/v1/admin/` alone.
    """

    app: ASGIApp

    def __init__(self, app: ASGIApp, hosts: Sequence[str] | None, *, origins: bool) -> None:
        self.app, self._prefix = app, "/v1/" if origins else "/v1/admin/"
        self._hosts = None if hosts is None else {"localhost", *(_name(host) for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 or pass on."""
        error = self._refusal(scope) if scope["type"] == "http" else None
        if error is None:
            await self.app(scope, receive, send)
        else:
            await error_response(error)(scope, receive, send)

    def _refusal(self, scope: Scope) -> ForbiddenError | None:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        for host in hosts:
            if not self._ours(host):
                return ForbiddenError(
                    f"the request is for the host {_name(host)!r}",
                    expected="localhost, an address, or a name of this service",
                    fix="if the service has this name, start it with --set 'allowed_hosts=[\"NAME\"]'",
                )
        if not scope["path"].startswith(self._prefix):
            return None
        origin = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"), None)
        if origin is None or self._same_site(origin, hosts):
            return None
        return ForbiddenError(
            f"the request comes from a page of {origin!r}",
            expected="a page of this service, or no page",
            fix="if the service has this name, start it with --set 'allowed_hosts=[\"NAME\"]'",
        )

    def _ours(self, host: str) -> bool:
        if self._hosts is None:
            return True
        name = _name(host)
        return name in self._hosts or name.endswith(".localhost") or _is_address(name)

    def _same_site(self, origin: str, hosts: Sequence[str]) -> bool:
        place = origin.partition("://")[2].lower()
        # Behind a proxy the service may be called by another name than the page's.
        return place in (host.lower() for host in hosts) or _name(place) in (self._hosts or set()) - {"localhost"}


def _name(host: str) -> str:
    """The name in a `Host` header, without port.

    >>> _name("Example.org:8000"), _name("[::1]:8000"), _name("::1")
    ('example.org', '::1', '::1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    name, _, port = host.rpartition(":")
    return (name if name and port.isdecimal() and ":" not in name else host).lower().rstrip(".")


@functools.lru_cache(_HOSTS)
def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class KeyGate:
    """Refuses requests without an API key of the scope that the address needs.

    Args:
        app: called for requests that pass.
        keys: the keys and their scopes.
    """

    app: ASGIApp
    keys: KeyRing

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self.app, self.keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or 403, or pass on."""
        needed = scope_of(scope["path"]) if scope["type"] == "http" else None
        if needed is None:
            await self.app(scope, receive, send)
        elif (scopes := self.keys.scopes(given_key(Headers(scope=scope)))) is None:
            missing = UnauthorizedError(
                "no valid API key came with the request",
                expected="X-API-Key: KEY or Authorization: Bearer KEY",
                fix="ask the owner for a key",
            )
            await error_response(missing)(scope, receive, send)
        elif needed in scopes or "admin" in scopes:
            await self.app(scope, receive, send)
        else:
            error = ForbiddenError(
                f"this API key is for {', '.join(sorted(scopes))}",
                expected=f"a key with the scope {needed}",
                fix="ask the owner for another key, or add the scope to this one in the file of keys",
            )
            await error_response(error)(scope, receive, send)


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
            async with asyncio.timeout(self.seconds) as limit:

                async def noted(message: Message) -> None:
                    # An answer that has begun is not cut off.
                    limit.reschedule(None)
                    await send(message)

                await self.app(scope, receive, noted)
        except TimeoutError:
            if limit.when() is None:
                raise
            error = DeadlineError(
                f"the request was not answered within {self.seconds:g} seconds",
                expected="an answer in time",
                fix="send it again; events that have an event_id are not applied twice",
            )
            await error_response(error)(scope, receive, send)
