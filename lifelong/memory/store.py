"""Where memories live: the `MemoryStore` protocol, opening by URL, and the in-RAM store.

One write is one `Commit`: memories, the position in each event source, seen event ids and the event log are kept
together or not at all. A memory that was made from another one names it in `based_on`: where that is no longer what the
store holds, the write is refused, so that of two writers none loses the other's events. Values are bytes (the codec's
business is elsewhere); users are strings.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lifelong.errors import StoreConflictError, StoreError, StoreForeignError, UsageError


@dataclass(frozen=True, slots=True)
class StoreIdentity:
    """What a store remembers of its maker; another identity is refused."""

    artifact_id: str
    codec: str
    layout: str
    """Canonical JSON of the memory layout."""

    @classmethod
    def from_json(cls, text: str | bytes) -> StoreIdentity:
        """What a store wrote down, as an object; where no codec is named, memories are fp32."""
        return cls(**{"codec": "fp32", **json.loads(text)})


@dataclass(frozen=True, slots=True)
class Commit:
    """One atomic write.

    Args:
        states: user -> encoded memory.
        watermarks: (source, partition) -> offset of the last event applied.
        event_ids: (user, client event id) -> expiry (UTC seconds).
        events: (user, count after the event) -> encoded event, for the event log.
        items: item id -> fields (JSON), for items added or changed online.
        deleted: users to erase, with their events and event ids.
        based_on: user -> the encoded memory that the change was made from, None for none.
        items_based_on: item -> the fields that the change was made from, None for none.
    """

    states: Mapping[str, bytes] = field(default_factory=dict)
    watermarks: Mapping[tuple[str, int], int] = field(default_factory=dict)
    event_ids: Mapping[tuple[str, str], int] = field(default_factory=dict)
    events: Mapping[tuple[str, int], bytes] = field(default_factory=dict)
    items: Mapping[str, bytes] = field(default_factory=dict)
    deleted: Sequence[str] = ()
    based_on: Mapping[str, bytes | None] = field(default_factory=dict)
    items_based_on: Mapping[str, bytes | None] = field(default_factory=dict)

    @property
    def users(self) -> frozenset[str]:
        """All users of whom it keeps or erases something."""
        named = {user for user, _ in (*self.event_ids, *self.events)}
        return frozenset({*self.states, *named, *self.deleted, *self.based_on})


class MemoryStore(Protocol):
    """A durable user -> memory map. What "durable" survives is said by each store."""

    @property
    def shared(self) -> bool:
        """Whether other processes may write to it while it is open."""

    @property
    def identity(self) -> StoreIdentity | None:
        """Who wrote it; None while it is new."""

    def bind(self, identity: StoreIdentity) -> None:
        """Claim a new store, or check an old one.

        Raises:
            StoreForeignError: another artifact wrote it.
        """

    def read_many(self, users: Sequence[str]) -> list[bytes | None]:
        """Encoded memories, as many as asked, None where a user is absent."""

    def commit(self, change: Commit) -> None:
        """Apply one write, all of it or nothing.

        A store of several servers may apply it for some users and not for others, but never a part of a user's, and
        `watermarks` only when it was applied for all.

        Raises:
            StoreConflictError: what it was made from has changed; names the users of whom nothing was kept.
            StoreUnavailableError: the error says what was kept, if anything.
        """

    def watermark(self, source: str, partition: int) -> int:
        """Offset up to which all events were applied, -1 if none."""

    def positions(self, source: str, partition: int, users: Sequence[str]) -> list[int]:
        """Per user the offset up to which her events were applied: the watermark, or one behind it.

        To be read after the memories that it is compared with: then a write that came between is a conflict.
        """

    def seen(self, event_ids: Sequence[tuple[str, str]], *, now: int) -> list[bool]:
        """Of which users which client event ids were applied and have not expired; read it after the memories too."""

    def events(self, user: str, *, last: int | None = None) -> list[bytes]:
        """The user's event log, oldest first; [] if the store keeps none."""

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Items added or changed online."""

    def read_items(self, items: Sequence[str]) -> list[bytes | None]:
        """What was put online of some items, as many as asked, None where nothing was."""

    def users(self) -> Iterator[tuple[str, bytes]]:
        """All users and their encoded memories, not all in RAM at once; one consistent view unless it is shared.

        In a shared store each user who is there all the while comes at least once, as she is then.
        """

    def close(self) -> None:
        """Release everything; a second call does nothing."""


def open_store(url: str, *, read_only: bool = False) -> MemoryStore:
    """Open a store, or make a new one.

    Args:
        url: `memory://` (gone with the process), `rocksdb:///path` (see `lifelong.memory.rocksdb_store`) or
            `redis://host:port/database` (see `lifelong.memory.redis_client` and `.redis_store`).
        read_only: an existing store that another process may own; of a folder a fixed view, of a server what it has.

    Raises:
        UsageError: the URL names no store that there is.
        StoreLockedError: another process owns it.
        StoreError: it cannot be opened.
    """
    scheme, found, place = url.partition("://")
    expected = "memory://, rocksdb:///path or redis://host:port/database"
    if not found:
        raise UsageError(f"{url!r} is not the URL of a store", expected=expected, fix=f"write rocksdb://{url}")
    if scheme == "memory":
        if place:
            raise UsageError(f"{url!r}: a store in memory has no place", expected="memory://")
        return InMemoryStore(read_only=read_only)
    if scheme == "rocksdb":
        if not place:
            raise UsageError(f"{url!r} names no folder", expected="rocksdb:///path")
        from lifelong.memory.rocksdb_store import RocksDbStore

        return RocksDbStore(Path(place), read_only=read_only)
    if scheme in ("redis", "rediss"):
        from lifelong.memory.redis_client import parse
        from lifelong.memory.redis_store import RedisStore

        return RedisStore(parse(url), read_only=read_only)
    raise UsageError(f"there is no store {scheme}://", expected=expected)


def check_identity(place: str, known: StoreIdentity, wanted: StoreIdentity) -> None:
    """Refuse a store of another artifact.

    Args:
        place: the store, for the message.
        known: who wrote it.
        wanted: who wants to use it.

    Raises:
        StoreForeignError: they differ; says in what.
    """
    fix = "use the artifact that wrote the store, or build a new store with `lifelong backfill`"
    if known.artifact_id != wanted.artifact_id:
        raise StoreForeignError(
            f"{place} was written by artifact {known.artifact_id[:12]}",
            expected=f"artifact {wanted.artifact_id[:12]}",
            fix=fix,
        )
    if known.codec != wanted.codec:
        raise StoreForeignError(
            f"{place} holds memories in codec {known.codec}",
            expected=f"codec {wanted.codec}",
            fix="name no codec to use the store's own, or build a new store",
        )
    if known != wanted:
        raise StoreForeignError(
            f"{place} holds memories of layout {known.layout}", expected=f"layout {wanted.layout}", fix=fix
        )


def check_bases(place: str, change: Commit, states: Sequence[bytes | None], items: Sequence[bytes | None]) -> None:
    """Refuse a write whose bases are not what the store holds.

    Args:
        place: the store, for the message.
        change: the write.
        states: the memories that there are of the users of `change.based_on`, in its order.
        items: the same of `change.items_based_on`.

    Raises:
        StoreConflictError: one of them differs.
    """
    if list(change.based_on.values()) != list(states) or list(change.items_based_on.values()) != list(items):
        raise conflict(place, change.users)


def check_values(change: Commit) -> None:
    """Refuse values that a store cannot keep.

    Raises:
        TypeError: one is not bytes.
    """
    for values in (change.states, change.events, change.items):
        if not all(isinstance(value, bytes) for value in values.values()):
            raise TypeError("a store keeps bytes")


def conflict(place: str, users: frozenset[str]) -> StoreConflictError:
    """What a store answers to a write whose bases have changed."""
    return StoreConflictError(
        f"{place} holds memories or items that were written since this change was made from them",
        users=users,
        expected="what the change was made from",
        fix="read them again, and make the change again",
    )


def refuse_write(place: str) -> StoreError:
    """What a store opened for reading answers to a write."""
    return StoreError(f"{place} is open for reading only", fix="open it without read_only")


class InMemoryStore:
    """A store in RAM: survives nothing, for tests and one-off work. Threads may share it."""

    shared = False

    def __init__(self, *, read_only: bool = False) -> None:
        self._read_only, self._lock, self._identity = read_only, threading.Lock(), None
        self._states: dict[str, bytes] = {}
        self._watermarks: dict[tuple[str, int], int] = {}
        self._event_ids: dict[tuple[str, str], int] = {}
        self._events: dict[str, dict[int, bytes]] = {}
        self._items: dict[str, bytes] = {}
        self._now = 0
        self._closed = False

    _identity: StoreIdentity | None

    @property
    def identity(self) -> StoreIdentity | None:
        """Who wrote it; None while it is new."""
        self._check_open()
        return self._identity

    def bind(self, identity: StoreIdentity) -> None:
        """Claim a new store, or check an old one; a store for reading is only checked.

        Raises:
            StoreForeignError: another artifact wrote it.
        """
        self._check_open()
        if self._identity is not None:
            check_identity("the store", self._identity, identity)
        elif not self._read_only:
            self._identity = identity

    def read_many(self, users: Sequence[str]) -> list[bytes | None]:
        """Encoded memories, as many as asked, None where a user is absent."""
        self._check_open()
        return [self._states.get(user) for user in users]

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
            states, items = map(self._states.get, change.based_on), map(self._items.get, change.items_based_on)
            check_bases("the store", change, list(states), list(items))
            for user in change.deleted:
                self._states.pop(user, None)
                self._events.pop(user, None)
            if gone := set(change.deleted):
                self._event_ids = {key: expiry for key, expiry in self._event_ids.items() if key[0] not in gone}
            self._states.update(change.states)
            self._watermarks.update(change.watermarks)
            self._items.update(change.items)
            for (user, count), event in change.events.items():
                self._events.setdefault(user, {})[count] = event
            if change.event_ids:
                self._event_ids = {key: expiry for key, expiry in self._event_ids.items() if expiry > self._now}
                self._event_ids.update(change.event_ids)

    def watermark(self, source: str, partition: int) -> int:
        """Offset up to which all events were applied, -1 if none."""
        self._check_open()
        return self._watermarks.get((source, partition), -1)

    def positions(self, source: str, partition: int, users: Sequence[str]) -> list[int]:
        """The watermark, for each user."""
        return [self.watermark(source, partition)] * len(users)

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

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Items added or changed online."""
        self._check_open()
        with self._lock:
            return iter(sorted(self._items.items()))

    def read_items(self, items: Sequence[str]) -> list[bytes | None]:
        """What was put online of some items, as many as asked."""
        self._check_open()
        return [self._items.get(item) for item in items]

    def users(self) -> Iterator[tuple[str, bytes]]:
        """All users and their encoded memories, as they are now."""
        self._check_open()
        with self._lock:
            return iter(sorted(self._states.items()))

    def close(self) -> None:
        """Forget everything; a second call does nothing."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed", fix="open it again")
