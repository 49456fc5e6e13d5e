"""Records that were read or written lately, so that those in use are not read again: from the disk, or from the owner.

    RecordCache    of a store that this process owns: what it read and wrote
    RecordCopies   of a store that another process owns

    what a commit wrote --packed, in pieces--> the latest pieces, as they came
                                                   |--search for a name that is asked for the first time--.
    what readers asked for, brought up to date <---'<-----------------------------------------------------'

Every write comes to the copies, and most are of users that nobody asks about. To put each of their records into a map
would hold up the threads that read for longer than all else that a write costs this process.

A reader takes note of `moment` before it reads the store, and offers what it found together with it: if a write came in
between, what was found may be old and is not kept.
"""

from __future__ import annotations

import threading
from array import array
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import accumulate, islice
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

OVERHEAD = 200
"""Bytes of Python around a record, about."""
PIECE = 256
"""Records that come at once: while they are taken in, no other thread of this process runs."""
_SMALL, _PIECES = 64, 64
"""Records below which pieces are put together, and pieces that are kept: a search passes over all of them."""
_FEW = 20
"""Names that are searched for one by one."""
_BETWEEN = b"\xff"
"""Between two names: no text in UTF-8 has this byte."""
ABSENT = b""
"""Marks a name that the store does not hold; no record is empty."""
Written = Mapping[int, Mapping[str, bytes]]
"""Space -> records that a commit wrote there, `ABSENT` for names that it erased; nothing of other spaces."""
Notice = Literal["kept", "listed", "forgotten"]
"""A commit has written something; there is another list of artifacts; or nothing that was read may be kept."""
Name = TypeVar("Name", bound=Hashable)
W = TypeVar("W")
W_contra = TypeVar("W_contra", contravariant=True)
Listener = Callable[[Notice, Written], None]
"""Called in the order of the commits, before they return, with what they have written."""


@runtime_checkable
class Listenable(Protocol):
    """A store that says what changes in it."""

    def listen(self, listener: Listener) -> None:
        """Call a function with all that changes what a reader may keep."""


class RecordCache(Generic[Name]):
    """A bounded map name -> record. Threads may share it.

    Args:
        limit: bytes of the records that are kept, about.
        favour_read: whether what was found again since it came is spared once when its turn to go comes.

    Example:
        >>> cache = RecordCache[str](limit=2**20)
        >>> cache.offer(cache.moment, ["ann", "bob"], [b"1", None])
        >>> cache.get(["ann", "bob", "eve"])
        [b'1', b'', None]
    """

    limit: int
    moment: int

    def __init__(self, limit: int, *, favour_read: bool = False) -> None:
        self.limit, self.moment, self._favour_read = limit, 0, favour_read
        # Of those that change what is kept; reads go without it, see `get`.
        self._lock, self._bytes = threading.Lock(), 0
        # In the order in which they came; when it is full, those that came first go.
        self._records: dict[Name, bytes] = {}
        # The names that are the next to go, the first of them last.
        self._oldest: list[Name] = []
        # Names that were found since they came, or were last spared.
        self._found = set[Name]()

    def get(self, names: Sequence[Name]) -> list[bytes | None]:
        """Record of each name: `ABSENT` if it is known that there is none, None if nothing is known."""
        # Without the lock: each look-up is one step for the interpreter, and a record that is replaced meanwhile was
        # the present one when the read began.
        records = list(map(self._records.get, names))
        if self._favour_read:
            # Names without a record are not noted: there is no end of them.
            self._found.update(name for name, record in zip(names, records, strict=True) if record is not None)
        return records

    def offer(self, moment: int, names: Iterable[Name], records: Iterable[bytes | None]) -> None:
        """Keep what was read, unless something was written since `moment`."""
        # Not between the comparison and the write of a newer record.
        with self._lock:
            if moment == self.moment:
                self._put({name: record or ABSENT for name, record in zip(names, records, strict=True)})

    def wrote(self, written: Mapping[Name, bytes]) -> None:
        """Keep what was written, `ABSENT` where it was erased."""
        with self._lock:
            self.moment += 1
            self._put(written)

    def wrote_some(self, names: Sequence[Name], record: Callable[[int], bytes]) -> None:
        """Keep what was written for names that are kept here.

        Args:
            names: all that were written.
            record: gives the record of the name at a place.
        """
        with self._lock:
            self.moment += 1
            if not self._records.keys().isdisjoint(names):
                self._put({name: record(at) for at, name in enumerate(names) if name in self._records})

    def forget(self) -> None:
        """Keep nothing."""
        with self._lock:
            self.moment += 1
            self._records, self._bytes, self._oldest = {}, 0, []
            self._found.clear()

    def _put(self, records: Mapping[Name, bytes]) -> None:
        before = map(self._records.get, records)
        self._bytes += sum(map(len, records.values())) - sum(map(len, filter(None, before)))
        self._records.update(records)
        # No more than have to: to make room for many at once would hold up the threads that read.
        while self._bytes + OVERHEAD * len(self._records) > self.limit:
            if not self._oldest:
                # To look for the first name of a `dict` each time would pass over all that have gone.
                self._oldest = list(reversed(self._records))
            name = self._oldest.pop()
            record = self._records.pop(name, None)
            if record is not None and name in self._found:
                # It goes to the end.
                self._found.discard(name)
                self._records[name] = record
            elif record is not None:
                self._bytes -= len(record)


class PackedRecords(NamedTuple):
    """Names, and the record of each."""

    names: bytes
    """UTF-8, with `_BETWEEN` before the first, between two, and after the last."""
    start_N: array[int]
    """The byte at which each record begins, and the end."""
    text: bytes

    @classmethod
    def of(cls, records: Mapping[bytes, bytes]) -> PackedRecords:
        """Pack records.

        Example:
            >>> packed = PackedRecords.of({b"ann": b"12", b"bob": b"3"})
            >>> packed.get(b"bob"), packed.get(b"eve")
            (b'3', None)
        """
        # Record i is from start i to start i + 1, so that there is one start more than records.
        start_N = array("Q", accumulate(map(len, records.values()), initial=0))
        return cls(_BETWEEN.join([b"", *records, b""]), start_N, b"".join(records.values()))

    def get(self, name: bytes) -> bytes | None:
        """The record of a name, None if it is not among them."""
        at = self.names.find(_BETWEEN + name + _BETWEEN)
        # As many separators before it as records.
        return None if at < 0 else self.record(self.names.count(_BETWEEN, 0, at))

    def among(self, names: Set[bytes]) -> dict[bytes, bytes]:
        """The records of those of some names that are among them."""
        # A search takes a microsecond, a list of all names twenty.
        some = names if len(names) < _FEW else names & set(self.listed())
        return {name: record for name in some if (record := self.get(name)) is not None}

    def record(self, place: int) -> bytes:
        """One of them."""
        return self.text[self.start_N[place] : self.start_N[place + 1]]

    def listed(self) -> list[bytes]:
        """The names."""
        return self.names.split(_BETWEEN)[1:-1]


def pieces_of(written: Written) -> Iterator[Mapping[int, PackedRecords]]:
    """What a commit wrote, in pieces of at most `PIECE` records of each space.

    Example:
        >>> [piece] = pieces_of({0: {"ann": b"1"}, 1: {"ann": b"2"}})
        >>> piece[0].get(b"ann"), piece[1].get(b"ann")
        (b'1', b'2')
    """
    rows = {space: zip(map(str.encode, some), some.values(), strict=True) for space, some in written.items()}
    while some := {space: piece for space, left in rows.items() if (piece := dict(islice(left, PIECE)))}:
        yield {space: PackedRecords.of(piece) for space, piece in some.items()}


class RecordCopies:
    """The copies of one space. Threads may share it.

    Three quarters of the room are for what was asked for, one quarter is for the latest pieces.

    Args:
        limit: bytes of the records that are kept, about.

    Example:
        >>> copies = RecordCopies(limit=2**20)
        >>> copies.wrote(PackedRecords.of({b"ann": b"1"}))
        >>> copies.get(["ann", "eve"])
        [b'1', None]
    """

    def __init__(self, limit: int) -> None:
        # Of those that add pieces; a search goes without it, see `_search`.
        self._limit, self._lock = limit // 4, threading.Lock()
        self._asked = RecordCache[bytes](limit - self._limit, favour_read=True)
        self._pieces, self._bytes = deque[PackedRecords](), 0
        # Of small commits, until they are a piece.
        self._small: dict[bytes, bytes] = {}

    @property
    def moment(self) -> int:
        """See `RecordCache`."""
        return self._asked.moment

    def get(self, names: Sequence[str]) -> list[bytes | None]:
        """See `RecordCache`."""
        moment, keys = self.moment, [name.encode() for name in names]
        records = self._asked.get(keys)
        if None in records:
            late = self._search({key for key, record in zip(keys, records, strict=True) if record is None})
            self._asked.offer(moment, late.keys(), late.values())
            records = [late.get(key) if record is None else record for key, record in zip(keys, records, strict=True)]
        return records

    def _search(self, names: set[bytes]) -> dict[bytes, bytes]:
        """The records of names that are among the latest, whichever is later where there are two."""
        # No lock is held: records of small commits join the pieces before they are gone here.
        small = self._small
        records = {name: small[name] for name in names & small.keys()}
        # The latest first, which wins; a copy, since a writer may add a piece meanwhile.
        for piece in reversed(tuple(self._pieces)):
            left = names - records.keys()
            if not left:
                break
            records |= piece.among(left)
        return records

    def offer(self, moment: int, names: Sequence[str], records: Sequence[bytes | None]) -> None:
        """See `RecordCache`."""
        self._asked.offer(moment, [name.encode() for name in names], records)

    def wrote(self, written: PackedRecords) -> None:
        """Keep a piece of what was written."""
        with self._lock:
            names = written.listed()
            # It can be found before what was asked for is brought up to date: then what was found before is refused.
            if len(names) < _SMALL:
                self._small.update(zip(names, map(written.record, range(len(names))), strict=True))
            if self._small and (len(names) >= _SMALL or len(self._small) >= PIECE):
                self._keep(PackedRecords.of(self._small))
                self._small = {}
            if len(names) >= _SMALL:
                self._keep(written)
            self._asked.wrote_some(names, written.record)

    def _keep(self, piece: PackedRecords) -> None:
        self._pieces.append(piece)
        self._bytes += self._size(piece)
        while len(self._pieces) > _PIECES or self._bytes > self._limit:
            self._bytes -= self._size(self._pieces.popleft())

    @staticmethod
    def _size(piece: PackedRecords) -> int:
        return len(piece.text) + len(piece.names) + OVERHEAD

    def forget(self) -> None:
        """Keep nothing."""
        with self._lock:
            self._pieces, self._bytes, self._small = deque(), 0, {}
            self._asked.forget()


class SpaceCache(Protocol[W_contra]):
    """A cache of the records of one space."""

    @property
    def moment(self) -> int:
        """Changes with every write."""

    def get(self, names: Sequence[str]) -> list[bytes | None]:
        """See `RecordCache`."""

    def offer(self, moment: int, names: Sequence[str], records: Sequence[bytes | None]) -> None:
        """See `RecordCache`."""

    def wrote(self, written: W_contra) -> None:
        """Keep what was written."""

    def forget(self) -> None:
        """Keep nothing."""


class RecordCaches(Generic[W]):
    """Records of all spaces of a store. Threads may share it.

    Args:
        limit: bytes of the records of a space that are kept, about.
        kind: makes the cache of a space, given the limit.

    Example:
        >>> caches = RecordCaches(2**20, RecordCache[str])
        >>> caches.read(["ann", "bob"], 0, lambda names, space: [b"1", None])
        [b'1', None]
        >>> caches.holds(["ann", "bob"], 0), caches.holds(["eve"], 0)
        (True, False)
    """

    empty: set[int]
    """Spaces that never held anything: they answer at once."""

    def __init__(self, limit: int, kind: Callable[[int], SpaceCache[W]]) -> None:
        self._limit, self._kind, self._of, self.empty = limit, kind, dict[int, SpaceCache[W]](), set[int]()

    def of(self, space: int) -> SpaceCache[W]:
        """The records of one space."""
        cache = self._of.get(space)
        if cache is None:
            # Of two threads that make one, both get the same.
            cache = self._of.setdefault(space, self._kind(self._limit))
        return cache

    def holds(self, names: Sequence[str], space: int) -> bool:
        """Whether `read` needs no more than what is kept here."""
        return space in self.empty or None not in self.of(space).get(names)

    def read(
        self, names: Sequence[str], space: int, read: Callable[[list[str], int], Sequence[bytes | None]]
    ) -> list[bytes | None]:
        """The record of each name, None if there is none.

        Args:
            names: in one space.
            space: of them.
            read: gives the records of those that are not known here.
        """
        steps = self.steps(names, space)
        try:
            steps.send(read(next(steps), space))
        except StopIteration as done:
            return cast("list[bytes | None]", done.value)
        raise AssertionError("unreachable")

    def steps(
        self, names: Sequence[str], space: int
    ) -> Generator[list[str], Sequence[bytes | None], list[bytes | None]]:
        """As `read`, but it stops where names are not known here, yields them, and is sent their records."""
        if space in self.empty:
            return [None] * len(names)
        cache = self.of(space)
        moment, kept_records = cache.moment, cache.get(names)
        missing = [at for at, record in enumerate(kept_records) if record is None]
        if missing:
            unknown = [names[at] for at in missing]
            records = yield unknown
            for at, record in zip(missing, records, strict=True):
                kept_records[at] = record
            cache.offer(moment, unknown, records)
        return [record or None for record in kept_records]

    def kept(self, written: Mapping[int, W]) -> None:
        """Keep what a commit has written, by space."""
        for space, some in written.items():
            self.empty.discard(space)
            self.of(space).wrote(some)

    def drop(self, space: int) -> None:
        """Keep nothing of a space that was emptied."""
        self._of.pop(space, None)

    def forget(self) -> None:
        """Keep nothing; a space that was empty may hold something by now."""
        self.empty.clear()
        for cache in list(self._of.values()):
            cache.forget()
