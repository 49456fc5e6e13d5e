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
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from lifelong.serving.errors import OverloadedError

FEW = 8
"""With fewer works that wait, none has waited too long: then the machine is slow, and the service has not too many."""
UNDER_WAY = 128
"""Requests under way at the same time, waiting or not: they take about a tenth of a second together."""
FEW_EVENTS = 1_000
"""The same for events: one commit takes them all."""
T = TypeVar("T")


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
        self.under_way: int = 0
        """Requests whose bodies have come and that are not answered, as the server counts them."""

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

    @property
    def most_under_way(self) -> float:
        """Requests under way, at most."""
        return UNDER_WAY

    @property
    def closed(self) -> bool:
        """Whether a request is refused as soon as its head has come.

        What was let in is not yet in the queue when the heads of others come, so it is counted.
        """
        return self.under_way >= self.most_under_way or self.full

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
