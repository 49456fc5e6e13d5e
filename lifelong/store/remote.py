"""A store that another process on this machine owns; records that are read often are cached in this one.

    read --known here--> RAM                  commit --> owner --> disk
      `--not known--> owner --> disk                       `--what it kept, in the order of the commits--> RAM

The owner reports what a commit wrote before it reports that the commit is done. So scores include an event as soon as
it has been acknowledged; as long as its record is among the latest, it is found in the RAM of this process. Nothing
here waits while a commit is written, except a read of a record that is not in RAM.

Several processes may have one owner. Then an answer of one of them must hold for all: the owner counts the changes in
memory that all of them see, and a process that has not received the last one waits for it before it reads from its RAM.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, cast

from lifelong.errors import StoreError, StoreUnavailableError
from lifelong.store.artifact_list import ArtifactList, StoreIdentity
from lifelong.store.contract import ITEMS, Commit
from lifelong.store.messages import Calls, Channel
from lifelong.store.owner import ChangeCount
from lifelong.store.record_cache import Notice, RecordCaches
from lifelong.store.record_copies import PackedRecords, RecordCopies

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
        self._connect, self._caches = connect, RecordCaches(cache, RecordCopies)
        self._list: ArtifactList | None = None
        self._changes, self._left = 0, deque[int]()
        self.shared, self._count = count is not None, count
        # Number of the last change that is in RAM here.
        self._seen, self._came = 0, threading.Condition()
        self.calls: Calls = self._connected()

    def _connected(self) -> Calls:
        channel, ended = self._connect()
        self._caches.forget()
        self._left.clear()
        # An item that arrives before the answer removes this entry again.
        self._caches.empty.add(ITEMS)
        calls = Calls(channel, notice=self._notice, ended=ended)
        # What changes from here on is announced to this process.
        self._has_seen(calls("join"))
        if not calls("empty", ITEMS):
            self._caches.empty.discard(ITEMS)
        self._relisted()
        return calls

    def _notice(self, what: Notice, change: tuple[Mapping[int, PackedRecords], int]) -> None:
        written, number = change
        if what == "kept":
            self._caches.kept(written)
        elif what == "forgotten":
            self._caches.forget()
        else:
            self._relisted()
        self._has_seen(number)

    def _has_seen(self, number: int) -> None:
        with self._came:
            self._seen = max(self._seen, number)
            self._came.notify_all()

    def _up_to_date(self) -> bool:
        """Whether all changes that were announced until now are in RAM here."""
        return self._count is None or self._seen >= self._count.value

    def _catch_up(self) -> None:
        """Wait until what another process was told is kept can be read here.

        Raises:
            StoreUnavailableError: it does not come.
        """
        if self._count is None or self._up_to_date():
            return
        goal = self._count.value
        with self._came:
            self._came.wait_for(lambda: self._seen >= goal or self.calls.over, BEHIND_SECONDS)
        if self._seen < goal:
            raise StoreUnavailableError(
                "the latest changes of the store have not come to this process",
                expected=f"all of them within {BEHIND_SECONDS:g} seconds",
                fix="send the request again; if this happens often, use fewer workers or larger requests of events",
            )

    def _relisted(self) -> None:
        self._changes += 1
        self._list = None

    def bind(self, identity: StoreIdentity) -> int:
        """See `MemoryStore`."""
        return cast("int", self.calls("bind", identity))

    def artifact_list(self) -> ArtifactList:
        """See `MemoryStore`; the owner is asked once until it changes."""
        self._catch_up()
        found, changes = self._list, self._changes
        if found is None:
            found = cast("ArtifactList", self.calls("artifact_list"))
            if changes == self._changes:
                self._list = found
        return found

    def change_artifact_list(self, before: ArtifactList, after: ArtifactList) -> None:
        """See `MemoryStore`."""
        self.calls("change_artifact_list", before, after)

    def clear(self, space: int) -> None:
        """See `MemoryStore`."""
        self.calls("clear", space)

    def holds(self, names: Sequence[str], *, space: int = 0) -> bool:
        """Whether `read_many` finds all of these names in this process."""
        return self._up_to_date() and self._caches.holds(names, space)

    def read_many(self, names: Sequence[str], *, space: int = 0) -> list[bytes | None]:
        """See `MemoryStore`."""
        self._catch_up()
        return self._caches.read(names, space, self._ask)

    def _ask(self, names: list[str], space: int) -> list[bytes | None]:
        return cast("list[bytes | None]", self.calls("read_many", names, space))

    def scan(self, space: int = 0) -> Iterator[tuple[str, bytes]]:
        """See `MemoryStore`; the view is fixed when this is called."""
        return _RemoteScan(self.calls, self.calls("scan", space, self._unread()), self._left)

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
        return cast("bool", self.calls("purge", self._unread()))

    def _unread(self) -> list[int]:
        """Scans that were abandoned; they stay open until the owner learns of it."""
        found = list[int]()
        while self._left:
            found.append(self._left.popleft())
        return found

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


class _RemoteScan:
    """Rows of a scan, some at a time."""

    def __init__(self, calls: Calls, number: int, left: deque[int]) -> None:
        self._calls, self._rows, self._left = calls, iter(list[tuple[str, bytes]]()), left
        self._number: int | None = number

    def __iter__(self) -> _RemoteScan:
        return self

    def __next__(self) -> tuple[str, bytes]:
        if self._calls.over:
            # Its owner may have ended, and another one opens it again.
            raise StoreUnavailableError("a store was closed while it was read", fix="read it again when it is open")
        row = next(self._rows, None)
        if row is not None:
            return row
        if self._number is None:
            raise StopIteration
        rows = self._calls("rows", self._number, _ROWS)
        if len(rows) < _ROWS:
            self._number = None
        self._rows = iter(rows)
        return next(self._rows)

    def __del__(self) -> None:
        # Abandoned. Nothing called here may wait for a lock: the garbage collector may run this while the same thread
        # holds the lock.
        if self._number is not None:
            self._left.append(self._number)
