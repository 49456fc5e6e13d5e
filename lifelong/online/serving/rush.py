"""A rush: more requests than can be answered in time. They are refused as early as possible.

head of a request --Rush--> body, middleware (Shed first) --> route
`--> 503, nothing of it is read or parsed
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lifelong.online.serving.errors import OverloadedError, error_response

_TURN, _FEW = 0.05, 32
"""Seconds that a turn of the event loop should take, and requests that never make it late."""
_WINDOW, _BUSY = 0.1, 8
"""Seconds over which the rate of answers is measured, and requests under way without which it says nothing."""


class Pace:
    """How many requests are under way, and how many may be if each is to be answered in time.

    By Little's law those under way are answers a second times the seconds of each. So when requests take longer than
    they should, fewer are let in; where they take less, more may be.

    >>> second = 0.0
    >>> pace = Pace(0.5, few=lambda: 2.0, now=lambda: second)
    >>> for _ in range(20):
    ...     pace.begin()
    >>> for _ in range(10):
    ...     pace.end()
    >>> pace.full
    False
    >>> second = 1.0  # ten answers a second, so five in half of one, and ten are under way
    >>> pace.full
    True

    Args:
        seconds: from a complete request to its answer.
        few: this many are let in however long they take.
        now: a clock, in seconds.
    """

    seconds: float
    under_way: int

    def __init__(self, seconds: float, few: Callable[[], float], now: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self.under_way = seconds, 0
        self._few, self._now, self._most = few, now, math.inf
        self._answered, self._since = 0, 0.0

    @property
    def full(self) -> bool:
        """Whether a further request would be answered too late."""
        if self.under_way <= self._few():
            return False
        self._measure()
        return self.under_way > self._most

    def begin(self) -> None:
        """A request has come, its body too: what is still on its way to us says nothing about our work."""
        self.under_way += 1
        if self.under_way == _BUSY:
            self._answered, self._since = 0, self._now()

    def end(self) -> None:
        """It was answered, or nobody waits for it any more."""
        self._answered += 1
        self._measure()
        self.under_way -= 1

    def _measure(self) -> None:
        now = self._now()
        took = now - self._since
        if self.under_way >= _BUSY and took >= _WINDOW:
            self._most = self.seconds * self._answered / took
            self._answered, self._since = 0, now


class Rush:
    """Says which requests the event loop would begin too late, or a queue refuse, before anything of them is done.

    What the loop does at once, scores among it, has no thread to wait for. So its turns are measured: a turn begins
    with a request, and ends when the loop has begun all that had come until then, and has given their short scores.
    After a long one as many requests are let in as the loop can do in time, as far as the turn before says.

    A pause of the process makes a turn long, too. A client that waits for each answer before it sends the next request
    has at most two in one turn, and a few are never refused.

    Args:
        full: whether there is no room for a request to a path of `/v1/`.
        patience: seconds that the event loop may be late.
        on_shed: called for each request that is refused because the loop is late.
        pace_of: counts the requests to a path of `/v1/` that are under way; None to count none.
        now: a clock, in seconds.
    """

    full: Callable[[str], bool]
    patience: float

    def __init__(
        self,
        full: Callable[[str], bool],
        patience: float,
        on_shed: Callable[[], None] = lambda: None,
        pace_of: Callable[[str], Pace] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.full, self.patience, self._on_shed, self._pace_of, self._now = full, patience, on_shed, pace_of, now
        # When the turn began, and what came and was done since.
        self._since: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._let_in = self._begun = 0
        self._most: float = math.inf
        self.refusing: bool = False
        """Whether the last request that came was refused."""
        # Made once, since all get the same.
        self.refusal: JSONResponse = error_response(overloaded("requests wait too long for their turn"))

    def refuses(self, path: str) -> bool:
        """Whether a request is refused as soon as its head has come.

        Args:
            path: its address.
        """
        if _rushed(path):
            self.refusing = self._refuses(path)
            return self.refusing
        return False

    def _refuses(self, path: str) -> bool:
        self._begin_turn()
        if self._let_in >= self._most or (self._let_in > _FEW and self._late()):
            self._on_shed()
            return True
        self._let_in += 1
        return self.full(path)

    def pace_of(self, path: str) -> Pace | None:
        """Where a request that was let in is counted until it is answered, if anywhere."""
        return self._pace_of(path) if self._pace_of is not None and _rushed(path) else None

    def came_too_late(self) -> bool:
        """Whether the loop has begun a request too late."""
        self._begin_turn()
        # With few requests it is the machine that is late, and not the service that has too many of them.
        if self._begun > _FEW and self._late():
            self._on_shed()
            return True
        self._begun += 1
        return False

    def _late(self) -> bool:
        return self._since is not None and self._now() - self._since > self.patience + _TURN

    def _begin_turn(self) -> None:
        # The turn of another loop, which has been closed, has no end.
        if self._since is None or self._loop is not asyncio.get_running_loop():
            self._loop = asyncio.get_running_loop()
            self._since, self._let_in, self._begun = self._now(), 0, 0
            # What comes now is begun next time, and scored the time after. This function is called before that: so the
            # turn ends one time later.
            self._loop.call_soon(self._loop.call_soon, self._loop.call_soon, self._end_turn)

    def _end_turn(self) -> None:
        if self._since is None:
            return
        took, self._since = self._now() - self._since, None
        self._most = math.inf
        if took > 2 * _TURN:
            self._most = max(_FEW, self._begun * (self.patience + _TURN) / took)


def _rushed(path: str) -> bool:
    """Whether requests to an address may be refused because there are too many."""
    return path.startswith("/v1/") and not path.startswith("/v1/admin/")


class Shed:
    """Refuses requests while there is more to do than can be done in time, before their bodies are read.

    The first middleware: what is refused has to cost next to nothing, or refusing takes the time of the others. Our own
    server has asked before that, when a request's head had come (`lifelong.online.serving.connections`).

    Args:
        app: called for requests that pass.
        rush: says which ones are refused.
    """

    app: ASGIApp
    rush: Rush

    def __init__(self, app: ASGIApp, rush: Rush) -> None:
        self.app, self.rush = app, rush

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 503 or pass on."""
        if scope["type"] == "http" and _rushed(scope["path"]) and self._refused(scope):
            await self.rush.refusal(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _refused(self, scope: Scope) -> bool:
        asked = "connections" in scope.get("state", {})
        return self.rush.came_too_late() or (not asked and self.rush.refuses(scope["path"]))


def overloaded(found: str) -> OverloadedError:
    """The error for a request that is one too many."""
    return OverloadedError(
        f"the service is overloaded: {found}",
        expected="fewer requests at the same time",
        fix="send it again after the seconds of Retry-After; more events or candidates in one request cost less",
    )
