"""Work that is repeated: in a thread of its own until it is stopped, or until a store or a broker answers.

pass --error--> logged once, `failing` --pause, twice as long each time--> pass ... --it works--> logged once
"""

from __future__ import annotations

import logging
import threading
import time as clock
import weakref
from collections.abc import Callable
from typing import Self, TypeVar

from lifelong.errors import (
    LifelongError,
    StoreBehindError,
    StoreConflictError,
    StoreUnavailableError,
    StreamUnavailableError,
)

T = TypeVar("T")
logger: logging.Logger = logging.getLogger(__name__)
_RUNNING: weakref.WeakSet[Background] = weakref.WeakSet()
_PASSING = StoreUnavailableError, StoreConflictError, StoreBehindError, StreamUnavailableError


class Background:
    """Calls `work` again and again in a thread.

    An error ends the pass and not the thread: the next pass comes after a pause. The first error of an outage is
    logged, and so is the end of the outage; meanwhile `failing` says what is wrong.

        >>> sweeper = Background(lambda: 3600.0, name="sweep", failure="nothing was swept")
        >>> sweeper.start().close()
        >>> sweeper.rest(3600.0)
        True

    Args:
        work: one pass; returns the seconds until the next one, or None if there is none.
        name: of the thread, after "lifelong-", and of the work in metrics.
        failure: what an error means, for the log.
        retry: seconds of rest after the first pass that failed; each further one doubles them.
        longest: seconds of rest at most between two passes that fail.
        gives_up: whether an error that waiting cannot fix (see `may_pass`) ends the work.
        needed: whether the process is not ready while the work fails.
    """

    name: str
    failure: str
    needed: bool
    failing: str | None
    """What is wrong; None while the work is done."""
    failures: int
    """Passes that failed."""

    def __init__(
        self,
        work: Callable[[], float | None],
        *,
        name: str,
        failure: str,
        retry: float = 1.0,
        longest: float = 10.0,
        gives_up: bool = False,
        needed: bool = False,
    ) -> None:
        self._work, self.name, self.failure, self.needed = work, name, failure, needed
        self._retry, self._longest, self._gives_up = retry, longest, gives_up
        self.failing, self.failures, self._pause = None, 0, retry
        self._kind: type[Exception] | None = None
        # Held only to look at the two flags; never while work is done.
        self._changed = threading.Condition()
        self._stopping = self._woken = False
        self._thread = threading.Thread(target=self._run, name=f"lifelong-{name}", daemon=True)

    def start(self) -> Self:
        """Begin with the first pass at once."""
        _RUNNING.add(self)
        self._thread.start()
        return self

    def close(self) -> None:
        """Wait for the pass that runs, and end; also before the start."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            # The pass that runs may be in the middle of a write.
            self._thread.join()
        # Last: until then what fails in the pass is shown.
        _RUNNING.discard(self)

    def rest(self, seconds: float) -> bool:
        """Wait, at most until the end or until `wake`; whether to stop. A long pass calls it between its steps."""
        with self._changed:
            # A condition and no sleep: `wake` and `close` end it at once.
            self._changed.wait_for(lambda: self._stopping or self._woken, seconds)
            self._woken = False
            return self._stopping

    def wake(self) -> None:
        """End the rest that the thread is in, or the next one."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def works(self) -> None:
        """Note that the work is done again. A long pass calls it when it has got further than the one that failed."""
        self._pause = self._retry
        if self.failing is not None:
            self.failing = self._kind = None
            logger.info("%s: no longer, it works again", self.failure)

    def _run(self) -> None:
        while True:
            seconds = self._pass()
            if seconds is None or self.rest(seconds):
                return

    def _pass(self) -> float | None:
        """Seconds until the next pass, None if there is none."""
        try:
            seconds = self._work()
        except Exception as error:
            return self._failed(error)
        self.works()
        return seconds

    def _failed(self, error: Exception) -> float | None:
        """Seconds until the work is tried again, None if it is not."""
        if self._stopping:
            # A pass that was asked to end may say so by an error.
            return None
        last = self._gives_up and not may_pass(error)
        if last or type(error) is not self._kind:
            # The traceback of an error of ours says nothing that its message does not.
            exc_info, end = not isinstance(error, LifelongError), ", and is not tried again" * last
            logger.error("%s%s: %s", self.failure, end, error, exc_info=exc_info)
        # The error itself would keep all that its frames hold.
        self.failing, self._kind, pause = str(error), type(error), self._pause
        self.failures, self._pause = self.failures + 1, min(2 * self._pause, self._longest)
        return None if last else pause


def running() -> list[Background]:
    """The background work of this process that was started and not closed."""
    return sorted(_RUNNING, key=lambda work: work.name)


def may_pass(error: Exception) -> bool:
    """Whether later work may succeed though nobody changes what was asked: a fault, or a store or broker that is away.

    >>> may_pass(StoreUnavailableError("the disk is full")), may_pass(LifelongError("there is no such topic"))
    (True, False)
    """
    return isinstance(error, _PASSING) or not isinstance(error, LifelongError)


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
