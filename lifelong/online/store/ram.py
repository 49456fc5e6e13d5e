"""The store in RAM."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence

from lifelong.errors import StoreError
from lifelong.online.store.artifact_list import ArtifactList, StoreIdentity, space_of
from lifelong.online.store.contract import (
    ITEMS,
    Commit,
    Elapsed,
    check_bases,
    check_reached,
    check_values,
    conflict,
    refuse_write,
)


class InMemoryStore:
    """A store in RAM: survives nothing, for tests and one-off work. Threads may share it.

    Example:
        >>> store = InMemoryStore()
        >>> store.commit(Commit(records={0: {"ann": b"1", "bob": b"2"}}))
        >>> store.read_many(["bob", "eve"]), list(store.scan())
        ([b'2', None], [('ann', b'1'), ('bob', b'2')])
    """

    shared = False

    def __init__(self, *, read_only: bool = False) -> None:
        # What a commit compares and what it writes belong together.
        self._read_only, self._lock = read_only, threading.Lock()
        self._artifact_list = ArtifactList()
        self._spaces: dict[int, dict[str, bytes]] = defaultdict(dict)
        self._watermarks: dict[tuple[str, int], int] = {}
        self._event_ids: dict[tuple[str, str], int] = {}
        self._events: dict[str, dict[int, bytes]] = {}
        self._now, self._clock = 0, Elapsed()
        self._closed = False

    def bind(self, identity: StoreIdentity) -> int:
        """Claim a new store, or check an old one; a store for reading is only checked."""
        listed = self.artifact_list()
        if listed.artifacts:
            return space_of("the store", listed, identity)
        if not self._read_only:
            self._artifact_list = ArtifactList.of(identity)
        return 0

    def artifact_list(self) -> ArtifactList:
        """The artifacts that it holds memories of."""
        self._check_open()
        return self._artifact_list

    def change_artifact_list(self, before: ArtifactList, after: ArtifactList) -> None:
        """Write another list."""
        self._check_open()
        with self._lock:
            if self._artifact_list.epoch != before.epoch:
                raise conflict("the store", frozenset())
            self._artifact_list = after

    def clear(self, space: int) -> None:
        """Empty a space."""
        with self._lock:
            self._spaces.pop(space, None)

    def read_many(self, names: Sequence[str], *, space: int = 0) -> list[bytes | None]:
        """The value of each name, None if it is absent."""
        self._check_open()
        return self._read(names, space)

    def _read(self, names: Sequence[str], space: int) -> list[bytes | None]:
        values = self._spaces.get(space)
        return list(map(values.get, names)) if values else [None] * len(names)

    def commit(self, change: Commit) -> None:
        """Apply one write.

        Raises:
            StoreConflictError: what it was made from has changed; nothing was kept.
            TypeError: a value is not bytes; nothing was kept.
        """
        self._check_open()
        if self._read_only:
            raise refuse_write("the store")
        check_values(change)
        with self._lock:
            check_bases("the store", change, self._artifact_list.epoch, self._read)
            check_reached("the store", change, self.watermark)
            for user in change.deleted:
                for space in self._artifact_list.spaces:
                    self._spaces[space].pop(user, None)
                self._events.pop(user, None)
            if gone := set(change.deleted):
                self._event_ids = {key: expiry for key, expiry in self._event_ids.items() if key[0] not in gone}
            for item in change.removed:
                self._spaces[ITEMS].pop(item, None)
            for space, records in change.records.items():
                self._spaces[space].update(records)
            self._watermarks.update(change.watermarks)
            for user, through in change.trimmed.items():
                log = self._events.get(user, {})
                self._events[user] = {count: event for count, event in log.items() if count > through}
            for (user, count), event in change.events.items():
                self._events.setdefault(user, {})[count] = event
            if change.event_ids:
                now = min(self._now, self.clock())
                self._event_ids = {key: expiry for key, expiry in self._event_ids.items() if expiry > now}
                self._event_ids.update(change.event_ids)

    def watermark(self, source: str, partition: int) -> int:
        """Offset up to which all events were applied, -1 if none."""
        self._check_open()
        return self._watermarks.get((source, partition), -1)

    def positions(self, source: str, partition: int, users: Sequence[str]) -> list[int]:
        """The watermark, for each user."""
        return [self.watermark(source, partition)] * len(users)

    def clock(self) -> int:
        """The second by which event ids expire."""
        return self._clock.now()

    def seen(self, event_ids: Sequence[tuple[str, str]], *, now: int) -> list[bool]:
        """Which client event ids were applied and have not expired; those that have are forgotten at the next write."""
        self._check_open()
        self._now = max(self._now, now)
        return [self._event_ids.get(key, now) > now for key in event_ids]

    def events(self, user: str, *, last: int | None = None) -> list[bytes]:
        """The user's event log, oldest first."""
        self._check_open()
        with self._lock:
            log = sorted(self._events.get(user, {}).items())
        return [event for _, event in (log if last is None else log[len(log) - min(last, len(log)) :])]

    def event_ids(self, user: str) -> list[tuple[str, int]]:
        """A user's client event ids and when each expires."""
        self._check_open()
        with self._lock:
            return sorted((name, expiry) for (owner, name), expiry in self._event_ids.items() if owner == user)

    def purge(self) -> bool:
        """Nothing to do: there are no files."""
        return True

    def check_writes(self) -> None:
        """Nothing can fail while it is open."""
        self._check_open()
        if self._read_only:
            raise refuse_write("the store")

    def logs(self, asked: Sequence[tuple[str, int]]) -> list[list[tuple[int, bytes]]]:
        """Per (user, count) the user's logged events after the first `count`."""
        self._check_open()
        with self._lock:
            return [
                [(at, event) for at, event in sorted(self._events.get(user, {}).items()) if at > count]
                for user, count in asked
            ]

    def scan(self, space: int = 0) -> Iterator[tuple[str, bytes]]:
        """All names of a space and their values, as they are now."""
        self._check_open()
        with self._lock:
            return iter(sorted(self._spaces.get(space, {}).items()))

    def close(self) -> None:
        """Forget everything; a second call does nothing."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed", fix="open it again")
