"""Records that were read or written lately, so that those in use are not read from the disk again.

A reader takes note of `moment` before it reads the disk, and offers what it found together with it: if a write came in
between, what was found may be old and is not kept.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

ABSENT = b""
"""Marks a name that the store does not hold; no record is empty."""


class RecordCache:
    """A bounded map name -> record. Threads may share it.

    Args:
        limit: bytes of the records that are kept, about.

    Example:
        >>> cache = RecordCache(limit=2**20)
        >>> cache.offer(cache.moment, ["ann", "bob"], [b"1", None])
        >>> cache.get(["ann", "bob", "eve"])
        [b'1', b'', None]
    """

    limit: int
    moment: int

    def __init__(self, limit: int) -> None:
        self.limit, self.moment = limit, 0
        self._lock, self._bytes = threading.Lock(), 0
        # In the order in which they came; when it is full, the quarter that came first goes.
        self._records: dict[str, bytes] = {}

    def get(self, names: Sequence[str]) -> list[bytes | None]:
        """Record of each name: `ABSENT` if it is known that there is none, None if nothing is known."""
        return list(map(self._records.get, names))

    def offer(self, moment: int, names: Iterable[str], records: Iterable[bytes | None]) -> None:
        """Keep what was read, unless something was written since `moment`."""
        with self._lock:
            if moment == self.moment:
                self._put({name: record or ABSENT for name, record in zip(names, records, strict=True)})

    def wrote(self, records: Mapping[str, bytes], deleted: Iterable[str] = ()) -> None:
        """Keep what was written."""
        with self._lock:
            self.moment += 1
            # Erased first: a commit may erase a user and write the user again.
            self._put(dict.fromkeys(deleted, ABSENT))
            self._put(records)

    def forget(self) -> None:
        """Keep nothing."""
        with self._lock:
            self.moment += 1
            self._records, self._bytes = {}, 0

    def _put(self, records: Mapping[str, bytes]) -> None:
        before = map(self._records.get, records)
        self._bytes += sum(map(len, records.values())) - sum(map(len, filter(None, before)))
        self._records.update(records)
        if self._size() <= self.limit:
            return
        for name in list(self._records):
            self._bytes -= len(self._records.pop(name))
            if self._size() <= self.limit - self.limit // 4:
                return

    def _size(self) -> int:
        return self._bytes + _OVERHEAD * len(self._records)


_OVERHEAD = 200
"""Bytes of Python around a record, about."""
