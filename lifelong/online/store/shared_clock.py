"""A clock that the processes which share a server keep in it together; no system clock, which can be set, is read."""

from __future__ import annotations

import time
from collections.abc import Callable


class SharedSeconds:
    """A count of seconds that several processes keep in one place and advance together, never faster than time passes.

    Whoever has seen the same count for a while adds that while, unless another process was faster. A process that was
    idle for a day may thus add more than has passed since another one wrote, so it adds `MOST` at most. That happens
    once: whoever adds next has seen the count after that. While no process looks, the count stands still.

    Args:
        exchange: puts its second argument in the place of its first one, if that is the count; gives the count.
        passed: a clock in seconds that nobody sets.

    Example:
        >>> place, moment = [100], [5.0]
        >>> def exchange(seen: int, later: int) -> int:
        ...     place[0] = later if place[0] == seen else place[0]
        ...     return place[0]
        >>> one, other = (SharedSeconds(exchange, passed=lambda: moment[0]) for _ in range(2))
        >>> one.now(), other.now()
        (100, 100)
        >>> moment[0] += 90
        >>> one.now(), other.now(), place
        (190, 190, [190])
    """

    TURN = 60
    """Seconds for which a count is taken to be the present one; each look at it costs a trip to a server."""
    MOST = 1800
    """Seconds that are added at once, at most."""

    def __init__(self, exchange: Callable[[int, int], int], *, passed: Callable[[], float] = time.monotonic) -> None:
        self._exchange, self._passed = exchange, passed
        # One pair, so that no thread takes the count of one moment for that of another.
        self._seen = self._look(0, 0)

    def _look(self, seen: int, later: int) -> tuple[int, float]:
        # The moment after the answer: the count may have been put there just before it.
        return self._exchange(seen, later), self._passed()

    def now(self) -> int:
        """The count now, as far as a look at it in the last `TURN` seconds tells."""
        count, since = self._seen
        # Whole seconds, rounded down: together the processes must not be faster than time.
        passed = int(self._passed() - since)
        if passed < self.TURN:
            return count
        looked = self._look(count, count + min(passed, self.MOST))
        # One who may not advance it goes on seeing the same count.
        self._seen = (count, since) if looked[0] == count else looked
        return self._seen[0]
