"""Work that waits for a thread, bounded in number and in time; requests that wait are answered together.

    request --room?--> waits --before its deadline?--> thread
              |                `--> 503: it would be computed for nobody
              `--> 503 at once

    events of many requests --all that wait--> one fold, one commit, one wait for the disk --> an outcome for each
    scores of many requests --all that have come--> one call of the graphs --> an answer for each

Without a bound, a service that is asked for more than it can do answers everything too late, and still does when the
rush is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from lifelong.online.memory.event import EventTable
from lifelong.online.memory.updater import Applied, Updater
from lifelong.online.serving.errors import OverloadedError
from lifelong.online.serving.writer import ParsedEvents, Rows

# A commit that takes long makes everybody behind it wait, and a very small one pays for the disk with few events.
_TURN, _LEAST = 0.1, 200
"""Seconds that one commit of several requests should take, and events that it takes in any case."""
_TOGETHER = 1_024
"""Candidates of several requests that are scored by one call, at most: meanwhile nothing else is begun."""
T = TypeVar("T")
A = TypeVar("A")
Q = TypeVar("Q")
F = TypeVar("F", bound=asyncio.Future[Any] | Future[Any])


@dataclass(slots=True)
class _Waiting(Generic[Q, F]):
    """A request that waits: what it asks, how large that is, since when, and where the outcome goes."""

    request: Q
    size: int
    came: float
    outcome: F


class Queue:
    """Work in the order in which it came, for some threads.

    Args:
        threads: how many.
        name: of the threads, after "lifelong-".
        most: works that may wait.
        patience: seconds that a work may wait.
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
        # When each of those that wait came.
        self._came: deque[float] = deque()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._came)

    def admit(self) -> None:
        """Refuse work if too much waits: without this bound all would be answered, too late.

        Raises:
            OverloadedError: too much waits.
        """
        # Before the work is put down anywhere, so that a refusal costs next to nothing in the middle of a rush.
        if len(self) >= self.most:
            raise self._shed(f"{len(self):,} requests wait before this one")

    async def run(self, work: Callable[[], T]) -> T:
        """Do a work in a thread, in its turn.

        Raises:
            OverloadedError: too many wait, or it has waited too long; it was not begun.
        """
        self.admit()
        came = self._now()
        # Before the pool has it: a thread may begin at once, and has to find the time that it takes out.
        self._came.append(came)

        def begin() -> T:
            # Not the first one: that may be a request which the event loop answers itself.
            self._leave(came)
            self._check(came)
            return work()

        # The deadline is checked in the thread, when its turn has come: only then is it known how long it has waited.
        future = self._pool.submit(begin)
        # Work that is cancelled before it begins never runs `begin`, and nobody else would take its time out.
        future.add_done_callback(lambda done: self._leave(came) if done.cancelled() else None)
        try:
            # The event loop answers others until a thread is done with it.
            return await asyncio.wrap_future(future)
        finally:
            # An error knows this frame: if the frame knew the error, too, both would stay, with all that was read.
            del future

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Do a work in its turn that is never refused."""
        return self._pool.submit(work)

    def close(self) -> None:
        """Finish what was accepted."""
        # What waits has been accepted: its clients are still there.
        self._pool.shutdown(wait=True)

    def _leave(self, came: float) -> None:
        # Nobody waits for it any more.
        with contextlib.suppress(ValueError):
            self._came.remove(came)

    def _check(self, came: float) -> None:
        """Refuse what has waited past its deadline: whoever asked has given up, and others wait for the thread."""
        if (waited := self._now() - came) > self.patience:
            raise self._shed(f"the request has waited for {waited:.2g} seconds, and was not begun")

    def _taken(self, waiting: deque[_Waiting[Q, F]], most: int, wanted: Callable[[F], bool]) -> list[_Waiting[Q, F]]:
        """The next of those that wait, whose sizes are `most` together, without those that have waited too long.

        Args:
            waiting: in the order in which they came.
            most: the first one is taken whatever its size, or a request above the bound would wait for ever.
            wanted: whether somebody still waits for an outcome, which is set in any case if so.
        """
        taken, size = list[_Waiting[Q, F]](), 0
        # In the order in which they came, since a user's events may be in several.
        while waiting and (not taken or size + waiting[0].size <= most):
            first = waiting.popleft()
            try:
                if wanted(first.outcome):
                    self._check(first.came)
                    taken.append(first)
                    size += first.size
            except OverloadedError as error:
                first.outcome.set_exception(error)
            finally:
                self._leave(first.came)
        return taken

    def _shed(self, reason: str) -> OverloadedError:
        self.on_shed()
        return OverloadedError(
            f"the service is overloaded: {reason}",
            expected="fewer requests at the same time",
            fix="send it again after the seconds of Retry-After; more events or candidates in one request cost less",
        )


class Reads(Queue, Generic[Q, A]):
    """The queue of reads. Short requests that come while others are answered are answered with one call.

    Part of the cost of a call does not depend on how many users it is for, with `tally` about half of the time of one
    request. So a request costs less when more come, and short waits do not add up. Nobody waits for others to come.

    Args:
        answer: gives the answers to several requests, in the thread of the event loop.
        on_call: called with the number of requests of each such call.
        queue: see `Queue`.
    """

    def __init__(
        self,
        threads: int,
        *,
        answer: Callable[[Sequence[Q]], Sequence[A]],
        on_call: Callable[[int], object] = lambda requests: None,
        **queue: Any,
    ) -> None:
        super().__init__(threads, "read", **queue)
        self._answer, self._on_call = answer, on_call
        self._asked: deque[_Waiting[Q, asyncio.Future[A | None]]] = deque()

    async def together(self, request: Q, size: int) -> A | None:
        """Answer a request, with all others that have come until the event loop's next turn.

        Args:
            request: what is asked.
            size: its candidates.

        Returns:
            None if a call with this request failed: it has to be asked alone, which says whose fault that was.

        Raises:
            OverloadedError: too many wait, or it has waited too long; it was not begun.
        """
        self.admit()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[A | None] = loop.create_future()
        asked = _Waiting(request, size, self._now(), outcome)
        self._came.append(asked.came)
        self._asked.append(asked)
        # What has come with this request is begun before that. One more turn than needed where an earlier one takes
        # this request too: it then finds nothing.
        loop.call_soon(self._answer_asked)
        return await outcome

    def _answer_asked(self) -> None:
        """Answer all requests that wait, as many as one call may have."""
        # Nobody waits for it any more if it is done.
        taken = self._taken(self._asked, _TOGETHER, lambda outcome: not outcome.done())
        if not taken:
            return
        self._on_call(len(taken))
        try:
            # One bad request must not fail its neighbours: after an error each is asked again alone.
            answers: Sequence[A | None] = self._answer([asked.request for asked in taken])
        except Exception:
            answers = [None] * len(taken)
        for asked, answer in zip(taken, answers, strict=True):
            # Who has hung up meanwhile has cancelled it.
            if not asked.outcome.done():
                asked.outcome.set_result(answer)


class Writes(Queue):
    """The queue of writes, for one thread. Events of all requests that wait are written with one commit.

    Args:
        updater: folds them in.
        most_events: of one commit that holds more than one request; fewer if those would take long.
        fold: does that in its place, with the events of several requests; see `Updater.apply_parts`.
        on_commit: called with the number of requests and the seconds of each commit.
        queue: see `Queue`.
    """

    fold_parts: Callable[[Sequence[Any]], Sequence[Applied | Exception]]
    """Folds the events of several requests in."""

    def __init__(
        self,
        updater: Updater,
        *,
        most_events: int,
        fold: Callable[[Sequence[Any]], Sequence[Applied | Exception]] | None = None,
        on_commit: Callable[[int, float], None] = lambda requests, seconds: None,
        **queue: Any,
    ) -> None:
        # One thread: the events of a user are folded in the order in which they came, and two commits never overlap.
        super().__init__(1, "write", **queue)
        self._updater, self._most_events, self._on_commit = updater, most_events, on_commit
        self.fold_parts = fold or self._fold_rows
        self._batches: deque[_Waiting[Rows | ParsedEvents, Future[Applied]]] = deque()
        self._event_seconds = 0.0

    async def fold(self, rows: Rows | ParsedEvents) -> Applied:
        """Fold the events of a request in; the answer comes when they are on the disk.

        Args:
            rows: what a `UserEvent` holds, by name, checked; or those that wait in the process that folds them in.

        Raises:
            OverloadedError: too many wait, or they have waited too long; nothing of them was kept.
            RequestError: an event is not valid; nothing of them was kept, and other requests are not concerned.
            StoreUnavailableError: the error says what was kept, if anything.
        """
        self.admit()
        batch = _Waiting(rows, len(rows), self._now(), Future[Applied]())
        self._came.append(batch.came)
        # Before the thread is woken, which looks at this list and at nothing else.
        self._batches.append(batch)
        # One more turn than needed where an earlier one takes this batch too: it then finds nothing.
        self._pool.submit(self._fold_waiting)
        # Not before the commit that holds them: after a 200 the events are on the disk.
        return await asyncio.wrap_future(batch.outcome)

    def _fold_waiting(self) -> None:
        """Fold in all events that wait, as many as one commit may have."""
        # The bound follows the measured speed, so that a slow disk or model gives shorter commits. 1e-9: nothing is
        # measured before the first commit.
        most = min(self._most_events, max(_LEAST, int(_TURN / max(self._event_seconds, 1e-9))))
        # Claimed, a client can no longer cancel it: an outcome could not be set on a cancelled future, and the events
        # would be written all the same.
        taken = self._taken(self._batches, most, Future.set_running_or_notify_cancel)
        if not taken:
            return
        started = time.perf_counter()
        parts = [batch.request for batch in taken]
        events = sum(batch.size for batch in taken)
        try:
            # A failed commit is an outcome for each request: an error that left this thread would leave all of them
            # waiting.
            outcomes: Sequence[Applied | Exception] = self.fold_parts(parts)
        except Exception as error:
            outcomes = [error] * len(taken)
        seconds = time.perf_counter() - started
        # A moving average, in which a commit of few events weighs little: most of its time is the wait for the disk.
        self._event_seconds += (seconds / events - self._event_seconds) * min(1.0, events / _LEAST)
        self._on_commit(len(taken), seconds)
        for batch, outcome in zip(taken, outcomes, strict=True):
            if isinstance(outcome, Exception):
                batch.outcome.set_exception(outcome)
            else:
                batch.outcome.set_result(outcome)

    def _fold_rows(self, parts: Sequence[Rows]) -> list[Applied | Exception]:
        rows = [row for batch in parts for row in batch]
        return self._updater.apply_parts(EventTable.of_rows(rows), list(map(len, parts)))
