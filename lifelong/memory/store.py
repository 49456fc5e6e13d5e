"""Where memories live: the `MemoryStore` protocol, opening by URL, and the in-RAM store.

One write is one `Commit`: memories, the position in each event source, seen event ids and the event log are kept
together or not at all. A memory that was made from another one names it in `based_on`: where that is no longer what the
store holds, the write is refused, so that of two writers none loses the other's events. Values are bytes (the codec's
business is elsewhere); users are strings.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from lifelong.errors import StoreConflictError, StoreError, UsageError
from lifelong.memory.redis_client import SCHEMES, parse
from lifelong.memory.roster import Roster, StoreIdentity, check_identity, slot_of

T = TypeVar("T")

__all__ = ["Commit", "InMemoryStore", "MemoryStore", "StoreIdentity", "check_identity", "open_store"]


@dataclass(frozen=True, slots=True)
class Commit:
    """One atomic write.

    Args:
        states: user -> encoded memory, of the artifact in `slot`.
        watermarks: (source, partition) -> offset of the last event applied.
        event_ids: (user, client event id) -> expiry (UTC seconds).
        events: (user, count after the event) -> encoded event, for the event log.
        trimmed: user -> count up to which her events are taken out of the event log.
        items: item id -> fields (JSON), for items added or changed online.
        deleted: users to erase, with their events and event ids, and their memories of every artifact.
        based_on: user -> the encoded memory that the change was made from, None for none.
        items_based_on: item -> the fields that the change was made from, None for none.
        slot: of `states` and `based_on`; see `lifelong.memory.roster`.
        beside: (slot, user) -> encoded memory, of other artifacts; and (slot of items, item) -> its last events.
        beside_based_on: (slot, user) -> the encoded memory that the change was made from, None for none.
        epoch: of the list of artifacts that it was made for; None where that does not matter.
        reached: (source, partition) -> offset that the watermark has reached at least, or the change is refused: a
            server that was started again may have lost what it had acknowledged.
    """

    states: Mapping[str, bytes] = field(default_factory=dict)
    watermarks: Mapping[tuple[str, int], int] = field(default_factory=dict)
    event_ids: Mapping[tuple[str, str], int] = field(default_factory=dict)
    events: Mapping[tuple[str, int], bytes] = field(default_factory=dict)
    trimmed: Mapping[str, int] = field(default_factory=dict)
    items: Mapping[str, bytes] = field(default_factory=dict)
    deleted: Sequence[str] = ()
    based_on: Mapping[str, bytes | None] = field(default_factory=dict)
    items_based_on: Mapping[str, bytes | None] = field(default_factory=dict)
    slot: int = 0
    beside: Mapping[tuple[int, str], bytes] = field(default_factory=dict)
    beside_based_on: Mapping[tuple[int, str], bytes | None] = field(default_factory=dict)
    epoch: int | None = None
    reached: Mapping[tuple[str, int], int] = field(default_factory=dict)

    @property
    def users(self) -> frozenset[str]:
        """All users of whom it keeps or erases something."""
        named = {user for user, _ in (*self.event_ids, *self.events)}
        beside = {user for _, user in (*self.beside, *self.beside_based_on)}
        return frozenset({*self.states, *named, *self.trimmed, *self.deleted, *self.based_on, *beside})

    @property
    def records(self) -> dict[int, Mapping[str, bytes]]:
        """All memories to write: slot -> user -> memory."""
        return _by_slot(self.slot, self.states, self.beside)

    @property
    def bases(self) -> dict[int, Mapping[str, bytes | None]]:
        """All memories that it was made from: slot -> user -> memory."""
        return _by_slot(self.slot, self.based_on, self.beside_based_on)


def _by_slot(slot: int, first: Mapping[str, T], beside: Mapping[tuple[int, str], T]) -> dict[int, Mapping[str, T]]:
    """Memories of one slot, and of others, each under its own; those of the first are not copied."""
    others: dict[int, dict[str, T]] = {}
    for (other, user), value in beside.items():
        others.setdefault(other, {} if other != slot else dict(first))[user] = value
    return {slot: first, **others}


class MemoryStore(Protocol):
    """A durable user -> memory map. What "durable" survives is said by each store."""

    @property
    def shared(self) -> bool:
        """Whether other processes may write to it while it is open."""

    @property
    def whole(self) -> bool:
        """Whether a commit is all there or nothing, whoever's records are in it."""

    @property
    def identity(self) -> StoreIdentity | None:
        """The artifact that is served from it; None while it is new."""

    def bind(self, identity: StoreIdentity) -> int:
        """Claim a new store, or check an old one; the slot of the artifact's memories.

        Raises:
            StoreForeignError: it holds no memories of this artifact, or they are not complete.
        """

    def roster(self) -> Roster:
        """Whose memories it holds."""

    def change_roster(self, before: Roster, after: Roster) -> None:
        """Write another list, at once; commits of an earlier epoch are refused when this returns.

        Args:
            before: what the change was made from.
            after: the new list; the same one brings to an end what an interrupted call has left undone.

        Raises:
            StoreConflictError: the list is another one by now; nothing was kept.
        """

    def clear(self, slot: int) -> None:
        """Empty a slot, in steps; to be called again where it was interrupted."""

    def read_many(self, users: Sequence[str], *, slot: int = 0) -> list[bytes | None]:
        """Encoded memories of one artifact, as many as asked, None where a user is absent."""

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

    def event_ids(self, user: str) -> list[tuple[str, int]]:
        """A user's client event ids and when each expires; expired ones too, until a later write removes them."""

    def purge(self) -> bool:
        """Take what was erased out of the store's own files; False where these are not the store's business."""

    def logs(self, asked: Sequence[tuple[str, int]]) -> list[list[tuple[int, bytes]]]:
        """Per (user, count) her logged events after the first `count`, each with the count after it, oldest first."""

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Items added or changed online."""

    @property
    def has_items(self) -> bool:
        """Whether any items may have been put online; True where a server would have to be asked."""

    def read_items(self, items: Sequence[str]) -> list[bytes | None]:
        """What was put online of some items, as many as asked, None where nothing was."""

    def users(self, *, slot: int = 0) -> Iterator[tuple[str, bytes]]:
        """All users and their encoded memories of one artifact, not all in RAM at once.

        It is one consistent view, unless the store is shared: there each user who is there all the while comes at least
        once, as she is then.
        """

    def close(self) -> None:
        """Release everything; a second call does nothing."""


def open_store(url: str, *, read_only: bool = False) -> MemoryStore:
    """Open a store, or make a new one.

    Args:
        url: `memory://` (gone with the process), `rocksdb:///path` (see `lifelong.memory.rocksdb_store`), with
            `?shards=N` for a new store of several databases (see `lifelong.memory.sharded_store`), or
            `redis://host:port/database` (see `lifelong.memory.redis_client` and `.redis_store`).
        read_only: an existing store that another process may own; of a folder a fixed view, of a server what it has.

    Raises:
        UsageError: the URL names no store that there is, or another number of shards than the store has.
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
        from lifelong.memory.sharded_store import open_folder

        return open_folder(*folder_of(url), read_only=read_only)
    if scheme in SCHEMES:
        from lifelong.memory.redis_store import RedisStore

        return RedisStore(parse(url), read_only=read_only)
    raise UsageError(f"there is no store {scheme}://", expected=expected)


def folder_of(url: str) -> tuple[Path, int | None]:
    """The folder that a `rocksdb://` URL names, and the number of shards, None where it names none.

    Raises:
        UsageError: it names no folder, or has an option that there is not.
    """
    place, _, query = url.partition("://")[2].partition("?")
    expected = "rocksdb:///path, or rocksdb:///path?shards=N for a new store of N shards"
    if not place:
        raise UsageError(f"{url!r} names no folder", expected=expected)
    option, _, value = query.partition("=")
    if query and not (option == "shards" and value.isdecimal() and int(value) > 0):
        raise UsageError(f"{url!r} has the option {query!r}", expected=expected)
    return Path(place), int(value) if query else None


def check_bases(
    place: str,
    change: Commit,
    epoch: int,
    read: Callable[[Sequence[str], int], Sequence[bytes | None]],
    items: Sequence[bytes | None],
) -> None:
    """Refuse a write whose bases are not what the store holds.

    Args:
        place: the store, for the message.
        change: the write.
        epoch: of the store's list of artifacts.
        read: gives the memories that there are of users, in a slot.
        items: the fields that there are of `change.items_based_on`, in its order.

    Raises:
        StoreConflictError: one of them differs, or the write was made for an earlier list.
    """
    late = change.epoch is not None and change.epoch < epoch
    moved = any(list(bases.values()) != list(read(list(bases), slot)) for slot, bases in change.bases.items())
    if late or moved or list(change.items_based_on.values()) != list(items):
        raise conflict(place, change.users)


def check_reached(place: str, change: Commit, watermark: Callable[[str, int], int]) -> None:
    """Refuse a write to a store that stands behind where its maker has seen it.

    Args:
        place: the store, for the message.
        change: the write.
        watermark: gives where it stands.

    Raises:
        StoreConflictError: it does.
    """
    if any(watermark(*key) < offset for key, offset in change.reached.items()):
        raise conflict(place, change.users)


def check_values(change: Commit) -> None:
    """Refuse values that a store cannot keep.

    Raises:
        TypeError: one is not bytes.
    """
    parts = [records.values() for records in change.records.values()]
    for values in (*parts, change.events.values(), change.items.values()):
        if not all(issubclass(kind, bytes) for kind in set(map(type, values))):
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

    shared, whole = False, True

    def __init__(self, *, read_only: bool = False) -> None:
        self._read_only, self._lock = read_only, threading.Lock()
        self._roster = Roster()
        self._states: dict[tuple[int, str], bytes] = {}
        self._watermarks: dict[tuple[str, int], int] = {}
        self._event_ids: dict[tuple[str, str], int] = {}
        self._events: dict[str, dict[int, bytes]] = {}
        self._items: dict[str, bytes] = {}
        self._now = 0
        self._closed = False

    @property
    def identity(self) -> StoreIdentity | None:
        """The artifact that is served from it; None while it is new."""
        served = self.roster().served
        return None if served is None else served.identity

    def bind(self, identity: StoreIdentity) -> int:
        """Claim a new store, or check an old one; a store for reading is only checked.

        Raises:
            StoreForeignError: it holds no memories of this artifact, or they are not complete.
        """
        known = self.roster()
        if known.members:
            return slot_of("the store", known, identity)
        if not self._read_only:
            self._roster = Roster.of(identity)
        return 0

    def roster(self) -> Roster:
        """Whose memories it holds."""
        self._check_open()
        return self._roster

    def change_roster(self, before: Roster, after: Roster) -> None:
        """Write another list.

        Raises:
            StoreConflictError: the list is another one by now; nothing was kept.
        """
        self._check_open()
        with self._lock:
            if self._roster.epoch != before.epoch:
                raise conflict("the store", frozenset())
            self._roster = after

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        with self._lock:
            self._states = {key: value for key, value in self._states.items() if key[0] != slot}

    def read_many(self, users: Sequence[str], *, slot: int = 0) -> list[bytes | None]:
        """Encoded memories, as many as asked, None where a user is absent."""
        self._check_open()
        return self._read(users, slot)

    def _read(self, users: Sequence[str], slot: int) -> list[bytes | None]:
        return [self._states.get((slot, user)) for user in users]

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
            items = list(map(self._items.get, change.items_based_on))
            check_bases("the store", change, self._roster.epoch, self._read, items)
            check_reached("the store", change, self.watermark)
            for user in change.deleted:
                for slot in self._roster.slots:
                    self._states.pop((slot, user), None)
                self._events.pop(user, None)
            if gone := set(change.deleted):
                self._event_ids = {key: expiry for key, expiry in self._event_ids.items() if key[0] not in gone}
            for slot, records in change.records.items():
                self._states.update({(slot, user): record for user, record in records.items()})
            self._watermarks.update(change.watermarks)
            self._items.update(change.items)
            for user, through in change.trimmed.items():
                log = self._events.get(user, {})
                self._events[user] = {count: event for count, event in log.items() if count > through}
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

    def event_ids(self, user: str) -> list[tuple[str, int]]:
        """A user's client event ids and when each expires."""
        self._check_open()
        with self._lock:
            return sorted((name, expiry) for (owner, name), expiry in self._event_ids.items() if owner == user)

    def purge(self) -> bool:
        """There are no files."""
        return True

    def logs(self, asked: Sequence[tuple[str, int]]) -> list[list[tuple[int, bytes]]]:
        """Per (user, count) her logged events after the first `count`."""
        self._check_open()
        with self._lock:
            return [
                [(at, event) for at, event in sorted(self._events.get(user, {}).items()) if at > count]
                for user, count in asked
            ]

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Items added or changed online."""
        self._check_open()
        with self._lock:
            return iter(sorted(self._items.items()))

    @property
    def has_items(self) -> bool:
        """Whether any items were put online."""
        return bool(self._items)

    def read_items(self, items: Sequence[str]) -> list[bytes | None]:
        """What was put online of some items, as many as asked."""
        self._check_open()
        return [self._items.get(item) for item in items]

    def users(self, *, slot: int = 0) -> Iterator[tuple[str, bytes]]:
        """All users and their encoded memories, as they are now."""
        self._check_open()
        with self._lock:
            return iter(sorted((user, value) for (at, user), value in self._states.items() if at == slot))

    def close(self) -> None:
        """Forget everything; a second call does nothing."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed", fix="open it again")
