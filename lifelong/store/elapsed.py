"""A clock that advances as time passes: the system's clock can be set, forwards or back, and this one is not."""

from __future__ import annotations

import time
from collections.abc import Callable


class Elapsed:
    """UTC seconds at the start, and the seconds that have passed since.

    Args:
        start: UTC seconds now; the system's if None.
        passed: a clock in seconds that nobody sets.

    Example:
        >>> moment = [5.0]
        >>> clock = Elapsed(1_700_000_000, passed=lambda: moment[0])
        >>> moment[0] += 90
        >>> clock.now() - 1_700_000_000
        90
    """

    def __init__(self, start: int | None = None, *, passed: Callable[[], float] = time.monotonic) -> None:
        self._start = int(time.time()) if start is None else start
        self._passed, self._begun = passed, passed()

    def now(self) -> int:
        """The second now."""
        return self._start + int(self._passed() - self._begun)
