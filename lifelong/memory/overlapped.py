"""Applies batches of one source one after another; while one is being written, the next is read and computed.

    batch k       read, fold --commit------------->
    batch k + 1                read, fold ---------|--commit--->

The memories of batch k + 1 are made from those of batch k before these are in the store. Commits keep their order, and
after one that fails nothing more is written: what the store holds is always a beginning of the source.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np

from lifelong.memory.event_table import EventTable, IntArray
from lifelong.memory.updater import Applied, Batch, Step, Updater

TURN = 0.0005
"""Seconds for which one of the two threads may keep the other waiting: each calls out of Python very often."""


class Overlapped:
    """A context in which batches of a source are applied; it ends when all of them are in the store.

    Meanwhile the threads of the process take shorter turns.

    Args:
        updater: used by nothing else meanwhile.
        source: where the events come from.
        partition: of the source.
    """

    def __init__(self, updater: Updater, source: str, partition: int = 0) -> None:
        self.updater, self.source, self.partition = updater, source, partition
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="lifelong-commit")
        self._reached, self._turn = -1, sys.getswitchinterval()
        self._running: tuple[Batch, Step, Future[Applied]] | None = None

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

    def apply(self, table: EventTable, offsets: Sequence[int] | IntArray, *, through: int | None = None) -> Applied:
        """Apply a batch; it may still be on its way to the store afterwards.

        Args:
            table: events, checked.
            offsets: their places in the source.
            through: see `Updater.apply`.

        Returns:
            What became of the batch before; of this one, too, where the store is shared or events have ids.

        Raises:
            StoreUnavailableError: see `Updater.apply`; of the batch before, or of this one.
        """
        batch = Batch.of(
            table, self.source, self.partition, np.asarray(offsets, np.int64), through=through, after=self._reached
        )
        if self.updater.store.shared or table.event_id is not None:
            # Others may write in between, and who is told to try again must not leave out a batch; ids that clients
            # give are looked up in the store.
            done = self.settle() + self.updater.finish(batch, self.updater.make(batch))
            if self.updater.store.shared:
                # Others can lose it: see `Updater.apply`.
                self._reached = max(self._reached, *batch.marks.values())
            return done
        newer = None if self._running is None else self._running[1].change
        step = self.updater.make(batch, newer)
        outcome = self.settle()
        self._running = batch, step, self._writer.submit(self.updater.finish, batch, step)
        return outcome

    def settle(self) -> Applied:
        """Wait until the last batch is in the store, and say what became of it."""
        if self._running is None:
            return Applied()
        running, self._running = self._running, None
        return running[2].result()
