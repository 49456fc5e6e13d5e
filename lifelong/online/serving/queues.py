"""Work that waits for a thread. What waits is bounded in number and in time: more is refused, and not kept waiting.

    request --admitted?--> waits --not too long?--> thread
              |                    `--> 503: it would be computed for nobody
              `--> 503 at once

Without a bound, a service that is asked for more than it can do answers everything too late, and still does when the
rush is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from lifelong.online.serving.errors import OverloadedError

FEW = 8
"""With fewer works that wait, none has waited too long: then the machine is slow, and the service has not too many."""
UNDER_WAY = 32
"""The same of those that are under way, waiting or not."""
FEW_EVENTS = 1_000
"""The same for events: one commit takes them all."""
_WINDOW, _BUSY = 0.1, 8
"""Seconds over which the rate of answers is measured, and requests under way without which it says nothing."""
T = TypeVar("T")


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


class Queue:
    """Work in the order in which it came, for some threads.

    Args:
        threads: how many.
        name: of the threads, after "lifelong-".
        most: works that may wait.
        patience: seconds that a work may wait, where enough wait (`crowded`).
        on_shed: called for each that is refused.
        now: a clock, in seconds.
    """

    most: int
    patience: float
    on_shed: Callable[[], None]

    def __init__(
        self,
        threads: int,
        name: str,
        *,
        most: int,
        patience: float,
        on_shed: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most, self.patience = most, patience
        self.on_shed, self._now = on_shed, now
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"lifelong-{name}")
        # When each of those that wait came; threads take them from the left.
        self._came: deque[float] = deque()
        # Half of the time is for what becomes of it later: other work continues meanwhile.
        self.pace: Pace = Pace(patience / 2, self._few, now)

    def __len__(self) -> int:
        """How many wait."""
        return len(self._came)

    @property
    def full(self) -> bool:
        """Whether a further work would be refused."""
        came = self._came
        if not came:
            return False
        try:
            return len(came) >= self.most or self._late(came[0])
        except IndexError:
            # Another thread has taken the last one.
            return False

    @property
    def crowded(self) -> bool:
        """Whether so much waits that a long wait means too much work, and not a slow machine."""
        return len(self._came) >= FEW

    def _few(self) -> float:
        """Requests under way that are never too many."""
        return UNDER_WAY

    def _late(self, came: float) -> bool:
        return self._now() - came > self.patience and self.crowded

    def admit(self) -> None:
        """Refuse work if there is too much.

        Raises:
            OverloadedError: there is.
        """
        if self.full:
            raise self._shed(f"{len(self):,} requests wait before this one")

    async def run(self, work: Callable[[], T]) -> T:
        """Do a work in a thread, in its turn.

        Raises:
            OverloadedError: too many wait, or it has waited too long; it was not begun.
        """
        self.admit()
        came = self._now()
        self._came.append(came)

        def begin() -> T:
            try:
                self._check(came)
            finally:
                # Not the first one: that may be a request which the event loop answers itself.
                self._leave(came)
            return work()

        future = self._pool.submit(begin)
        future.add_done_callback(lambda done: self._leave(came) if done.cancelled() else None)
        try:
            return await asyncio.wrap_future(future)
        finally:
            # An error knows this frame: if the frame knew the error, too, both would stay, with all that was read.
            del future

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Do a work in its turn that is never refused."""
        return self._pool.submit(work)

    def close(self) -> None:
        """Finish what was accepted."""
        self._pool.shutdown(wait=True)

    def _leave(self, came: float) -> None:
        # Nobody waits for it any more.
        with contextlib.suppress(ValueError):
            self._came.remove(came)

    def _check(self, came: float) -> None:
        if self._late(came):
            waited = self._now() - came
            raise self._shed(f"the request has waited for {waited:.2g} seconds, and was not begun")

    def _shed(self, found: str) -> OverloadedError:
        self.on_shed()
        return overloaded(found)


def overloaded(found: str) -> OverloadedError:
    """The error for a request that is one too many."""
    return OverloadedError(
        f"the service is overloaded: {found}",
        expected="fewer requests at the same time",
        fix="send it again after the seconds of Retry-After; more events or candidates in one request cost less",
    )
