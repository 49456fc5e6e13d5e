"""What keeps a service from being overrun: scopes of keys, a rate for each caller, a deadline. Plain ASGI."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lifelong.serving.errors import DeadlineError, ForbiddenError, TooManyError, error_response
from lifelong.serving.keys import scope_of

_CALLERS = 10_000
"""Callers whose rate is remembered; the ones longest away are forgotten."""


def given_key(headers: Headers) -> str:
    """The key that came with a request, "" if none did."""
    return headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")


class ScopeGate:
    """Lets a key only where its scopes allow; stands behind the gate that knows the keys.

    Args:
        app: behind it.
        keys: key -> its scopes.
    """

    def __init__(self, app: ASGIApp, keys: Mapping[str, frozenset[str]]) -> None:
        # A header comes as latin-1; a key of the file may be any text.
        self.app, self.keys = app, {key.encode().decode("latin-1"): scopes for key, scopes in keys.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 or pass on."""
        needed = scope_of(scope["path"]) if scope["type"] == "http" else None
        allowed = self.keys.get(given_key(Headers(scope=scope)), frozenset()) if needed else frozenset()
        if needed is None or needed in allowed or "admin" in allowed:
            await self.app(scope, receive, send)
            return
        error = ForbiddenError(
            f"this API key is for {', '.join(sorted(allowed)) or 'nothing here'}",
            expected=f"a key with the scope {needed}",
            fix="ask the owner for another key, or add the scope behind this one in the file of keys",
        )
        await error_response(error)(scope, receive, send)


class RateLimit:
    """Lets each caller make so many requests a second to `/v1/`.

    Args:
        app: behind it.
        rate: requests a second, in the long run.
        keyed: whether a caller is a key, which was checked before, and not an address.
        burst: requests at once; those of a second if None.
        now: gives seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        rate: float,
        *,
        keyed: bool = False,
        burst: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app, self.rate, self.burst, self._keyed, self._now = app, rate, max(1.0, burst or rate), keyed, now
        # Caller -> (requests left, as of when).
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 429 or pass on."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        wait = self._take(given_key(Headers(scope=scope)) if self._keyed else (scope.get("client") or ("",))[0])
        if not wait:
            await self.app(scope, receive, send)
            return
        error = TooManyError(
            f"more than {self.rate:g} requests a second from one caller",
            expected=f"at most {self.rate:g} a second",
            fix="wait as long as Retry-After says, and send more events or candidates in one request",
        )
        await error_response(error, headers={"retry-after": str(math.ceil(wait))})(scope, receive, send)

    def _take(self, caller: str) -> float:
        """Take one request; 0, or seconds until there is one."""
        now = self._now()
        left, since = self._left.get(caller, (self.burst, now))
        left = min(self.burst, left + (now - since) * self.rate)
        self._left[caller] = (max(left - 1, 0.0) if left >= 1 else left, now)
        self._left.move_to_end(caller)
        if len(self._left) > _CALLERS:
            self._left.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / self.rate


class Deadline:
    """Ends requests that take too long, slow bodies included.

    Args:
        app: behind it.
        seconds: from the request's head to the start of the answer.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app, self.seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 504 where nothing was answered in time."""
        # The administration reads artifacts and rewrites files, which takes as long as it takes.
        if scope["type"] != "http" or scope["path"].startswith("/v1/admin/"):
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self.seconds) as limit:

                async def noted(message: Message) -> None:
                    # Once it is under way, an answer is not cut off.
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
