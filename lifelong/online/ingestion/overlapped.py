"""Applies the batches of a source in their order; while one is being written, the next is read and computed.

    batch k       read, fold --commit------------->
    batch k + 1                read, fold ---------|--commit--->

The memories of batch k + 1 are made from those of batch k before these are in the store. Commits keep their order, and
after one that fails nothing more is written: the store always holds a prefix of the source.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType

import numpy as np

from lifelong.dtypes import IntArray
from lifelong.online.memory.event import EventTable
from lifelong.online.memory.updater import Applied, Attempt, NewEvents, Updater

TURN = 0.0005
"""Seconds after which one of the two threads gets its turn: each releases the interpreter very often."""


class Overlapped:
    """A context in which batches of a source are applied; it ends when all of them are in the store.

    Meanwhile the threads of the process take shorter turns.

    Args:
        updater: not used by others meanwhile.
        source: name of the source of the events.
    """

    updater: Updater
    source: str

    def __init__(self, updater: Updater, source: str) -> None:
        self.updater, self.source = updater, source
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="lifelong-commit")
        self._reached, self._turn = -1, sys.getswitchinterval()
        self._running: tuple[Attempt, Future[Applied]] | None = None

    def __enter__(self) -> Overlapped:
        self._turn = sys.getswitchinterval()
        sys.setswitchinterval(min(self._turn, TURN))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None or issubclass(kind, Exception):
                self.settle()
        finally:
            self._writer.shutdown(wait=True)
            sys.setswitchinterval(self._turn)

    def apply(
        self,
        table: EventTable,
        offsets: Sequence[int] | IntArray,
        *,
        through: int | None = None,
        sources: Mapping[str, bytes] | None = None,
    ) -> Applied:
        """Apply a batch; it may not have reached the store when this returns.

        Args:
            table: checked events.
            offsets: their places in the source.
            through: see `Updater.apply`.
            sources: see `NewEvents`.

        Returns:
            What became of the previous batch, and also of this one if the store is shared or events have ids.

        Raises:
            StoreUnavailableError: see `Updater.apply`; for the previous batch or this one.
        """
        batch = NewEvents.of(table, self.source, 0, np.asarray(offsets, np.int64), through=through, after=self._reached)
        batch = replace(batch, sources=sources or {})
        if self.updater.store.shared or table.event_id is not None:
            # Nothing overlaps: others may write in between, so that a batch must be made again before the next one;
            # and ids that clients give are looked up in the store.
            done = self.settle() + self.updater.finish(self.updater.make(batch))
            if self.updater.store.shared:
                # A shared store can lose commits; the next batch says what must be there. See `Updater.apply`.
                self._reached = max(self._reached, *batch.marks.values())
            return done
        newer = None if self._running is None else self._running[0].change
        step = self.updater.make(batch, newer)
        outcome = self.settle()
        self._running = step, self._writer.submit(self.updater.finish, step)
        return outcome

    def settle(self) -> Applied:
        """Wait until the last batch is in the store; returns what became of it."""
        if self._running is None:
            return Applied()
        running, self._running = self._running, None
        return running[1].result()
