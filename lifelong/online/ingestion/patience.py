"""Repeats work while a store or a broker does not answer."""

from __future__ import annotations

import logging
import threading
import time as clock
from collections.abc import Callable
from typing import TypeVar

from lifelong.errors import StoreUnavailableError, StreamUnavailableError

logger: logging.Logger = logging.getLogger(__name__)
T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0


class Patience:
    """Repeats work while a shared store or a broker does not answer, with longer and longer pauses.

    The work must be safe to repeat, as events with offsets are.

    Args:
        seconds: how long in all, from the first failure; 0 gives up at once.
        stopping: gives up when it is set.

    >>> Patience(0)(lambda: "done")
    'done'
    """

    seconds: float

    def __init__(self, seconds: float, *, stopping: threading.Event | None = None) -> None:
        self.seconds, self._stopping = seconds, stopping or threading.Event()

    def __call__(self, work: Callable[[], T]) -> T:
        """The result of `work`.

        Raises:
            StoreUnavailableError: the store did not answer in time.
            StreamUnavailableError: no broker did.
        """
        pause, end = _FIRST_PAUSE, None
        while True:
            try:
                return work()
            except (StoreUnavailableError, StreamUnavailableError) as error:
                now = clock.monotonic()
                # Counted from the first failure: work that took long and succeeded says nothing.
                first, end = end is None, now + self.seconds if end is None else end
                # No last pause after which nothing would be tried.
                if now + pause > end or self._stopping.is_set():
                    raise
                if first:
                    logger.warning("%s Trying again, for %.0f more seconds at most.", error, end - now)
                # Not `sleep`: whoever stops the process does not wait for the pause.
                self._stopping.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
