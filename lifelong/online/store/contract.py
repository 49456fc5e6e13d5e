"""What a store of memories promises: the `MemoryStore` protocol, and `Commit`, its one way of writing.

A store keeps *spaces* of (name -> bytes): one for the memories of each artifact (user -> encoded memory), `ITEMS` for
the items that were put online (item -> its fields), and `SOURCES` for what was applied of each file. Next to them it
keeps the event log, the event ids that clients gave, and a watermark for each partition of a source.

One write is one `Commit`: all of it is kept together or not at all. A record that was made from another one names it in
`bases`. If the store holds something else by now, the write is refused: of two writers none loses what the other wrote.
Values are bytes (the codec is elsewhere), names are text.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from lifelong.errors import StoreConflictError, StoreError, StoreUnavailableError
from lifelong.online.store.artifact_list import ArtifactList, StoreIdentity

T = TypeVar("T")

ITEMS: Final = -1
"""The space of the items that were put online; the spaces of memories are counted from 0."""
SOURCES: Final = -2
"""The space of what was applied of each source. It is read with `scan` alone: a store of several parts that have their
own watermarks may give a name once for each part."""
BACKFILL: Final = "lifelong:backfill"
"""Name among the sources of what says until when a store was filled: see `filled_until`."""
ATTEMPTS = 100
"""How often a change is made again because other processes wrote what it was made from."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One atomic write.

    Records and bases are grouped by space, and not keyed by (space, name): nearly all writes are of one space, and a
    tuple for each of a million names would cost more than writing them.

    Example:
        >>> from lifelong.online.store.ram import InMemoryStore
        >>> store = InMemoryStore()
        >>> store.commit(Commit(records={0: {"ann": b"memory"}}, bases={0: {"ann": None}}, watermarks={("log", 0): 7}))
        >>> store.read_many(["ann", "bob"]), store.watermark("log", 0)
        ([b'memory', None], 7)

    Args:
        records: space -> name -> value to keep.
        bases: space -> name -> the value that the change was made from, None for none.
        watermarks: (source, partition) -> offset of the last event applied.
        reached: (source, partition) -> the least offset that the watermark must have, or the write is refused: a
            server that was started again may have lost what it had acknowledged.
        event_ids: (user, client event id) -> expiry (UTC seconds).
        events: (user, count after the event) -> encoded event, for the event log.
        trimmed: user -> count up to which events are taken out of the user's event log.
        deleted: users to erase from every space of memories, with their events and event ids.
        removed: items that were put online, to be taken out.
        epoch: of the artifact list that the write was made for; None where that does not matter.
    """

    records: Mapping[int, Mapping[str, bytes]] = field(default_factory=dict)
    bases: Mapping[int, Mapping[str, bytes | None]] = field(default_factory=dict)
    watermarks: Mapping[tuple[str, int], int] = field(default_factory=dict)
    reached: Mapping[tuple[str, int], int] = field(default_factory=dict)
    event_ids: Mapping[tuple[str, str], int] = field(default_factory=dict)
    events: Mapping[tuple[str, int], bytes] = field(default_factory=dict)
    trimmed: Mapping[str, int] = field(default_factory=dict)
    deleted: Sequence[str] = ()
    removed: Sequence[str] = ()
    epoch: int | None = None

    @property
    def users(self) -> frozenset[str]:
        """All users that it keeps or erases something of."""
        spaces = [names for by_space in (self.records, self.bases) for space, names in by_space.items() if space >= 0]
        logged = (user for user, _ in (*self.event_ids, *self.events))
        return frozenset().union(*spaces, logged, self.trimmed, self.deleted)


class Elapsed:
    """UTC seconds at the start, and the seconds that have passed since.

    Args:
        start: UTC seconds now; the system's if None.
        passed: a clock in seconds that nobody sets.

    Example:
        >>> moment = [5.0]
        >>> clock = Elapsed(1_700_000_000, passed=lambda: moment[0])
        >>> moment[0] += 90
        >>> clock.now() - 1_700_000_000
        90
    """

    def __init__(self, start: int | None = None, *, passed: Callable[[], float] = time.monotonic) -> None:
        self._start = int(time.time()) if start is None else start
        self._passed, self._begun = passed, passed()

    def now(self) -> int:
        """The second now."""
        return self._start + int(self._passed() - self._begun)


class MemoryStore(Protocol):
    """A durable map of (space, name) -> bytes, and the events behind it. Each store says what "durable" survives."""

    @property
    def shared(self) -> bool:
        """Whether other processes may write to it while it is open."""

    def bind(self, identity: StoreIdentity) -> int:
        """Claim a new store, or check an old one; the space of the artifact's memories.

        Raises:
            StoreForeignError: it holds no memories of this artifact, or they are not complete.
        """

    def artifact_list(self) -> ArtifactList:
        """The artifacts that it holds memories of."""

    def change_artifact_list(self, before: ArtifactList, after: ArtifactList) -> None:
        """Write another list, at once; commits of an earlier epoch are refused when this returns.

        Args:
            before: what the change was made from.
            after: the new list; giving the present one again finishes what an interrupted call left undone.

        Raises:
            StoreConflictError: the list has changed since `before`; nothing was kept.
        """

    def clear(self, space: int) -> None:
        """Empty a space, in steps; to be called again where it was interrupted."""

    def read_many(self, names: Sequence[str], *, space: int = 0) -> list[bytes | None]:
        """The value of each name in one space, None if it is absent.

        A space that never held anything answers at once. A caller asks for one space, since the names of a space lie
        together on disk and in a cache: see `Commit`.
        """

    def scan(self, space: int = 0) -> Iterator[tuple[str, bytes]]:
        """All names of a space and their values, not all in RAM at once.

        It is one consistent view, unless the store is shared: there each name that exists throughout the scan comes at
        least once, with a value that it had meanwhile.
        """

    def commit(self, change: Commit) -> None:
        """Apply one write, all of it or nothing.

        A store of several servers may apply it for some users and not for others, but never a part of a user's, and
        `watermarks` only when it was applied for all.

        Raises:
            StoreConflictError: what it was made from has changed; names the users for whom nothing was kept.
            StoreUnavailableError: the error says what was kept, if anything.
        """

    def watermark(self, source: str, partition: int) -> int:
        """Offset up to which all events were applied, -1 if none."""

    def positions(self, source: str, partition: int, users: Sequence[str]) -> list[int]:
        """Per user the offset up to which the user's events were applied: the watermark, or a later one.

        Read it after the memories that it is compared with: then a write that came in between is a conflict.
        """

    def clock(self) -> int:
        """The second by which event ids expire: it advances as time passes, whatever becomes of the system's clock."""

    def seen(self, event_ids: Sequence[tuple[str, str]], *, now: int) -> list[bool]:
        """Which of (user, client event id) were applied and have not expired; read it after the memories, too."""

    def events(self, user: str, *, last: int | None = None) -> list[bytes]:
        """The user's event log, oldest first; [] if the store keeps none."""

    def event_ids(self, user: str) -> list[tuple[str, int]]:
        """A user's client event ids and when each expires; expired ones too, until a later write removes them."""

    def purge(self) -> bool:
        """Take what was erased out of the store's files; False if a server keeps these, or something reads old ones."""

    def check_writes(self) -> None:
        """Write a mark as durably as a commit; a store that has refused a write is opened again, if that can be done.

        Raises:
            StoreError: it takes no writes now, and why.
        """

    def logs(self, asked: Sequence[tuple[str, int]]) -> list[list[tuple[int, bytes]]]:
        """Per (user, count) the user's log after the first `count` events: (count, event), oldest first."""

    def close(self) -> None:
        """Release everything; a second call does nothing."""


def check_bases(
    place: str, change: Commit, epoch: int, read: Callable[[Sequence[str], int], Sequence[bytes | None]]
) -> None:
    """Refuse a write if the store holds other values than those that it was made from.

    Args:
        place: the store, for the message.
        change: the write.
        epoch: of the store's artifact list.
        read: gives the values of names in a space.

    Raises:
        StoreConflictError: one of them differs, or the write was made for an earlier artifact list.
    """
    late = change.epoch is not None and change.epoch < epoch
    if late or any(list(bases.values()) != list(read(list(bases), space)) for space, bases in change.bases.items()):
        raise conflict(place, change.users)


def check_reached(place: str, change: Commit, watermark: Callable[[str, int], int]) -> None:
    """Refuse a write to a store with lower watermarks than its writer has seen.

    Args:
        place: the store, for the message.
        change: the write.
        watermark: gives the store's watermark of (source, partition).

    Raises:
        StoreConflictError: one of them is lower.
    """
    if any(watermark(*key) < offset for key, offset in change.reached.items()):
        raise conflict(place, change.users)


def check_values(change: Commit) -> None:
    """Refuse values that a store cannot keep.

    Raises:
        TypeError: one is not bytes.
    """
    for values in (*(records.values() for records in change.records.values()), change.events.values()):
        if not all(issubclass(kind, bytes) for kind in set(map(type, values))):
            raise TypeError("a store keeps bytes")


def conflict(place: str, users: frozenset[str]) -> StoreConflictError:
    """The error for a write if its bases have changed."""
    return StoreConflictError(
        f"{place} holds memories or items that were written since this change was made from them",
        users=users,
        expected="what the change was made from",
        fix="read them again, and make the change again",
    )


def refuse_write(place: str) -> StoreError:
    """The error for a write to a store that was opened for reading."""
    return StoreError(f"{place} is open for reading only", fix="open it without read_only")


def try_commit(store: MemoryStore, change: Commit) -> frozenset[str] | None:
    """Commit a change once: None, or the users for whom nothing was kept, since others wrote them in between."""
    try:
        store.commit(change)
    except StoreConflictError as error:
        return error.users
    return None


def until_kept(
    attempt: Callable[[frozenset[str] | None], T], found: str | Callable[[], str], *, expected: str = "", fix: str
) -> T:
    """Read, change and commit, again until no other process writes in between.

    Args:
        attempt: reads, makes the change from what it read, commits it, and gives what this is to return. Its argument
            is None at first, then the users for whom the attempt before kept nothing.
        found: of the error if no attempt succeeds, or what gives it then.
        expected: of it, too.
        fix: likewise.

    Raises:
        StoreUnavailableError: every one of `ATTEMPTS` attempts met a conflict.

    Example:
        >>> from lifelong.online.store.ram import InMemoryStore
        >>> store = InMemoryStore()
        >>> def count(refused: frozenset[str] | None) -> int:
        ...     (before,) = store.read_many(["ann"])
        ...     after = int(before or b"0") + 1
        ...     store.commit(Commit(records={0: {"ann": b"%d" % after}}, bases={0: {"ann": before}}))
        ...     return after
        >>> [until_kept(count, "ann is busy", fix="count again") for _ in range(2)]
        [1, 2]
    """
    refused = None
    for _ in range(ATTEMPTS):
        try:
            return attempt(refused)
        except StoreConflictError as error:
            # Others were faster: the next attempt starts from what they wrote.
            refused = error.users
    raise StoreUnavailableError(found if isinstance(found, str) else found(), expected=expected, fix=fix)


def filled_until(store: MemoryStore) -> int | None:
    """The moment before which a store has everything, UTC seconds; None if no backfill has filled it.

        DATA ----------------------.                 moment = the earlier of --until and the second after DATA's last
        file, topic, HTTP ---------|------------>    an event before it: known; at it or after it: new
                                moment

    No event is counted twice by this rule, and none is lost as long as DATA had every event before the moment.

    >>> from lifelong.online.store.ram import InMemoryStore
    >>> store = InMemoryStore()
    >>> note_filled(store, 1_700_000_000)
    >>> filled_until(store)
    1700000000
    """
    return max((json.loads(value)["until"] for name, value in store.scan(SOURCES) if name == BACKFILL), default=None)


def note_filled(store: MemoryStore, until: int) -> None:
    """Note that all memories hold what came before a moment; one that is earlier than the last changes nothing.

    Args:
        store: all its memories have been written.
        until: UTC seconds.
    """
    value = json.dumps({"until": max(until, filled_until(store) or 0)}).encode()
    store.commit(Commit(records={SOURCES: {BACKFILL: value}}))
