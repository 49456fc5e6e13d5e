"""A store that another process on this machine owns; records that are read often are cached in this one.

    read --known here--> RAM                  commit --> owner --> disk
      `--not known--> owner --> disk                       `--what it kept, in the order of the commits--> RAM

Scores include an event as soon as it has been acknowledged (`lifelong.online.store.protocol`); as long as its record is
among the latest, it is found in the RAM of this process. Nothing here waits while a commit is written, except a read
of a record that is not in RAM.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar, cast

from lifelong.errors import StoreError, StoreUnavailableError
from lifelong.online.store.artifact_list import ArtifactList, StoreIdentity
from lifelong.online.store.contract import Commit
from lifelong.online.store.messages import Calls, ChangeCount, Channel
from lifelong.online.store.protocol import Held, Reader, Steps

V = TypeVar("V")
CACHE = 128 * 2**20
"""Default of the bytes of records of a space that are kept in RAM."""
_ROWS = 256
"""Rows of a scan that come in one message."""
BEHIND_SECONDS = 2.0
"""Seconds that a read waits for changes that the owner has announced."""


class Connect(Protocol):
    """Starts the owner of a store, or a new one after it has ended."""

    def __call__(self) -> tuple[Channel, Callable[[], Exception]]:
        """The channel to a process that serves `functions_of` its store, and a function that gives its error.

        Raises:
            StoreError: it could not open the store.
        """


class RemoteStore:
    """A store that another process owns. Threads may share it.

    Args:
        connect: starts the owner; once here, and again in `check_writes` if it has ended.
        cache: bytes of records of a space that are kept in RAM, about.
        count: of the changes, where the owner has several readers; None where this process is its only one.

    Raises:
        StoreError: the owner could not open the store.
    """

    shared: bool
    """Whether other processes write to it, too."""

    def __init__(self, connect: Connect, *, cache: int = CACHE, count: ChangeCount | None = None) -> None:
        self._connect, self.shared = connect, count is not None
        self._reader = Reader[Future[Any]](cache, count)
        self.calls: Calls = self._connected()

    def _connected(self) -> Calls:
        channel, ended = self._connect()
        calls = Calls(channel, self._reader, ended=ended)
        try:
            calls("join")
        except BaseException:
            # An owner that nobody calls would keep the store locked.
            calls.close()
            raise
        return calls

    def _run(self, steps: Steps[V]) -> V:
        return self.calls.run(steps, BEHIND_SECONDS, _late)

    def bind(self, identity: StoreIdentity) -> int:
        """See `MemoryStore`."""
        return cast("int", self.calls("bind", identity))

    def artifact_list(self) -> ArtifactList:
        """See `MemoryStore`; the owner is asked once until it changes."""
        return self._run(self._reader.artifact_list())

    def change_artifact_list(self, before: ArtifactList, after: ArtifactList) -> None:
        """See `MemoryStore`."""
        self.calls("change_artifact_list", before, after)

    def clear(self, space: int) -> None:
        """See `MemoryStore`."""
        self.calls("clear", space)

    def holds(self, names: Sequence[str], *, space: int = 0) -> bool:
        """Whether `read_many` finds all of these names in this process."""
        return self._reader.current and self._reader.copies.holds(names, space)

    def read_many(self, names: Sequence[str], *, space: int = 0) -> list[bytes | None]:
        """See `MemoryStore`."""
        return self._run(self._reader.read(names, space))

    def scan(self, space: int = 0) -> Iterator[tuple[str, bytes]]:
        """See `MemoryStore`; the view is fixed when this is called, and closed when nothing refers to it."""
        calls = self.calls
        held, _ = calls.held("scan", space)
        return _rows(calls, held)

    def commit(self, change: Commit) -> None:
        """See `MemoryStore`."""
        self.calls("commit", change)

    def watermark(self, source: str, partition: int) -> int:
        """See `MemoryStore`."""
        return cast("int", self.calls("watermark", source, partition))

    def positions(self, source: str, partition: int, users: Sequence[str]) -> list[int]:
        """See `MemoryStore`."""
        return cast("list[int]", self.calls("positions", source, partition, users))

    def clock(self) -> int:
        """See `MemoryStore`."""
        return cast("int", self.calls("clock"))

    def seen(self, event_ids: Sequence[tuple[str, str]], *, now: int) -> list[bool]:
        """See `MemoryStore`."""
        return cast("list[bool]", self.calls("seen", event_ids, now))

    def events(self, user: str, *, last: int | None = None) -> list[bytes]:
        """See `MemoryStore`."""
        return cast("list[bytes]", self.calls("events", user, last))

    def event_ids(self, user: str) -> list[tuple[str, int]]:
        """See `MemoryStore`."""
        return cast("list[tuple[str, int]]", self.calls("event_ids", user))

    def purge(self) -> bool:
        """See `MemoryStore`."""
        return cast("bool", self.calls("purge"))

    def check_writes(self) -> None:
        """See `MemoryStore`; if the owner has ended, another one is started, which opens the store again."""
        if self.calls.over:
            self.calls.close()
            self.calls = self._connected()
        self.calls("check_writes")

    def logs(self, asked: Sequence[tuple[str, int]]) -> list[list[tuple[int, bytes]]]:
        """See `MemoryStore`."""
        return cast("list[list[tuple[int, bytes]]]", self.calls("logs", asked))

    def figures(self) -> dict[str, int]:
        """What the database counts about itself; nothing while its owner has ended."""
        with contextlib.suppress(StoreError):
            return cast("dict[str, int]", self.calls("figures"))
        return {}

    def close(self) -> None:
        """Let the owner release everything, and hang up; a second call does nothing."""
        with contextlib.suppress(StoreError):
            if not self.calls.over:
                self.calls("close")
        self.calls.close()


def _rows(calls: Calls, held: Held) -> Iterator[tuple[str, bytes]]:
    """Rows of a scan, some of them at a time."""
    while True:
        rows = calls("rows", held.number, _ROWS)
        for row in rows:
            if calls.over:
                # Its owner may have ended, and another one opens it again.
                raise StoreUnavailableError("a store was closed while it was read", fix="read it again when it is open")
            yield row
        if len(rows) < _ROWS:
            return


def _late() -> StoreUnavailableError:
    return StoreUnavailableError(
        "the latest changes of the store have not come to this process",
        expected=f"all of them within {BEHIND_SECONDS:g} seconds",
        fix="send the request again; if this happens often, use fewer workers or larger requests of events",
    )
