"""Whether the store takes writes: what `/readyz` says, and what brings a store back after a failure.

write fails --> not ready, with the reason --every second: `MemoryStore.check_writes`--> ready again
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from lifelong.errors import StoreError, StoreUnavailableError
from lifelong.online.background import Background
from lifelong.online.store.contract import MemoryStore

TRUSTED = 5.0
"""Seconds for which a successful mark is taken as a sign that the next write will succeed."""
_PAUSE = 1.0
_DAY = 86_400


def check_clock(store: MemoryStore, max_ahead: float, now: float) -> None:
    """Refuse a system clock that lies so far behind the store's that events of today are refused as too far ahead.

    The store's clock advances as time passes while it is open, so it is not ahead unless the system's clock once was.

    Args:
        store: an opened one.
        max_ahead: days that an event may be ahead of the system's clock.
        now: that clock, UTC seconds.

    Raises:
        StoreUnavailableError: it is behind; says by how much, and what to do.
    """
    behind = (store.clock() - now) / _DAY
    if behind > max_ahead:
        raise StoreUnavailableError(
            f"this machine's clock is {behind:,.1f} days behind that of the store, so events of today are refused",
            expected=f"a clock that is behind by {max_ahead:g} days at most, as max_ahead allows",
            fix="set the clock; if it is right, it was ahead when the store was made: start with a larger max_ahead",
        )


class WriteHealth:
    """Whether writes succeed, judged by the latest writes and marks. Threads may share it.

    Args:
        store: what is written to.
        now: a clock, in seconds.
    """

    def __init__(self, store: MemoryStore, *, now: Callable[[], float] = time.monotonic) -> None:
        self._store, self._now = store, now
        self._failure: StoreError | None = None
        # Times of the last successful mark, and of the last attempt at one.
        self._marked = self._tried = -TRUSTED
        self._checking = threading.Lock()
        self._healer = Background(
            self._heal, name="heal", failure="the store takes no writes", retry=_PAUSE, longest=_PAUSE
        )

    def start(self) -> None:
        """Bring the store back whenever a write has failed."""
        self._healer.start()

    def close(self) -> None:
        """Stop trying."""
        self._healer.close()

    def failed(self, error: StoreUnavailableError) -> None:
        """Note that writes fail, and begin to bring the store back."""
        self._failure = error
        self._healer.wake()

    def check(self) -> None:
        """Raise the error that writes fail with, if any; now and then, and after a failure, a mark is written to see.

        Raises:
            StoreUnavailableError: the store takes no writes now.
        """
        # A mark costs a wait for the disk, so a good one is trusted for a while. After a failure the next try comes
        # sooner.
        since, patience = (self._marked, TRUSTED) if self._failure is None else (self._tried, _PAUSE)
        if self._now() - since >= patience:
            self._prove()
        if self._failure is not None:
            failure = self._failure
            raise StoreUnavailableError(
                f"the store takes no writes: {failure.found}", expected=failure.expected, fix=failure.fix
            )

    def _prove(self) -> None:
        """Write a mark, unless another thread does it."""
        # A disk that hangs holds one thread here, and not one for each request that asks.
        if not self._checking.acquire(blocking=False):
            return
        try:
            self._tried = self._now()
            self._store.check_writes()
            self._failure, self._marked = None, self._now()
        except StoreError as error:
            self._failure = error
        finally:
            self._checking.release()

    def _heal(self) -> float:
        if self._failure is not None:
            self._prove()
        if self._failure is not None:
            # Logged once, and once more when it is over.
            raise self._failure
        # Until `failed` wakes it.
        return 3600.0
