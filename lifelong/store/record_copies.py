"""Copies of the records of a store that another process owns.

    what a commit wrote --packed, in pieces--> the latest pieces, as they came
                                                   |--search for a name that is asked for the first time--.
    what readers asked for, brought up to date <---'<-----------------------------------------------------'

Every write comes here, and most are of users that nobody asks about. To put each of their records into a map would
hold up the threads that read for longer than all else that a write costs this process.
"""

from __future__ import annotations

import threading
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import accumulate, islice
from typing import NamedTuple

from lifelong.store.record_cache import OVERHEAD, RecordCache, Written

PIECE = 256
"""Records that come at once: while they are taken in, no other thread of this process runs."""
_SMALL, _PIECES = 64, 64
"""Records below which pieces are put together, and pieces that are kept: a search passes over all of them."""
_FEW = 20
"""Names that are searched for one by one."""
_BETWEEN = b"\xff"
"""Between two names: no text in UTF-8 has this byte."""


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
        start_N = array("Q", accumulate(map(len, records.values()), initial=0))
        return cls(_BETWEEN.join([b"", *records, b""]), start_N, b"".join(records.values()))

    def get(self, name: bytes) -> bytes | None:
        """The record of a name, None if it is not among them."""
        at = self.names.find(_BETWEEN + name + _BETWEEN)
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
    while some := {space: found for space, left in rows.items() if (found := dict(islice(left, PIECE)))}:
        yield {space: PackedRecords.of(found) for space, found in some.items()}


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
        found = self._asked.get(keys)
        if None in found:
            late = self._search({key for key, record in zip(keys, found, strict=True) if record is None})
            self._asked.offer(moment, late.keys(), late.values())
            found = [late.get(key) if record is None else record for key, record in zip(keys, found, strict=True)]
        return found

    def _search(self, names: set[bytes]) -> dict[bytes, bytes]:
        """The records of names that are among the latest, whichever is later where there are two."""
        # No lock is held: records of small commits join the pieces before they are gone here.
        small = self._small
        found = {name: small[name] for name in names & small.keys()}
        for piece in reversed(tuple(self._pieces)):
            left = names - found.keys()
            if not left:
                break
            found |= piece.among(left)
        return found

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
