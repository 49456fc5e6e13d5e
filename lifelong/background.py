"""Work that a process repeats in a thread of its own until it is stopped."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Self

from lifelong.errors import LifelongError

logger: logging.Logger = logging.getLogger(__name__)


class Background:
    """Calls `work` again and again in a thread.

    An error ends the pass and not the thread: it is logged, and the next pass comes after `retry` seconds. While the
    same error repeats it is not logged again; the end of it is.

        >>> sweeper = Background(lambda: 3600.0, name="sweep", failure="nothing was swept")
        >>> sweeper.start().close()
        >>> sweeper.rest(3600.0)
        True

    Args:
        work: one pass; returns the seconds until the next one, or None if there is none.
        name: of the thread, after "lifelong-".
        failure: what an error means, for the log.
        retry: seconds of rest after a pass that failed.
    """

    def __init__(self, work: Callable[[], float | None], *, name: str, failure: str, retry: float = 1.0) -> None:
        self._work, self._failure, self._retry = work, failure, retry
        self._last_error: str | None = None
        self._changed = threading.Condition()
        self._stopping = self._woken = False
        self._thread = threading.Thread(target=self._run, name=f"lifelong-{name}", daemon=True)

    def start(self) -> Self:
        """Begin with the first pass at once."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Wait for the pass that runs, and end; also before the start."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def rest(self, seconds: float) -> bool:
        """Wait, at most until the end or until `wake`; whether to stop. A long pass calls it between its steps."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._woken, seconds)
            self._woken = False
            return self._stopping

    def wake(self) -> None:
        """End the rest that the thread is in, or the next one."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

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
            if repr(error) != self._last_error:
                # The traceback of an error of ours says nothing that its message does not.
                logger.error("%s: %s", self._failure, error, exc_info=not isinstance(error, LifelongError))
            self._last_error = repr(error)
            return self._retry
        if self._last_error is not None:
            logger.info("%s: no longer, it works again", self._failure)
            self._last_error = None
        return seconds
