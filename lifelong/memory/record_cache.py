"""Records of users that were read or written lately, so that hot users are not read from the disk again.

A reader notes `moment` before it reads, and offers what it found with it: if a write came between, what was found may
be old and is not kept.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

ABSENT = b""
"""What stands for a user of whom there is nothing; no record is empty."""


class RecordCache:
    """A bounded map user -> record. Threads may share it.

    Args:
        limit: bytes of the records that are kept, about.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.moment = limit, 0
        self._lock, self._largest = threading.Lock(), 0
        # In the order in which they came; when it is full, a quarter goes, those that came first.
        self._records: dict[str, bytes] = {}

    def get(self, users: Sequence[str]) -> list[bytes | None]:
        """Record of each user, `ABSENT` where it is known that there is none, None where nothing is known."""
        return list(map(self._records.get, users))

    def offer(self, moment: int, users: Iterable[str], records: Iterable[bytes | None]) -> None:
        """Keep what was read, unless something was written since `moment`."""
        with self._lock:
            if moment == self.moment:
                self._put({user: record or ABSENT for user, record in zip(users, records, strict=True)})

    def wrote(self, records: Mapping[str, bytes], deleted: Iterable[str] = ()) -> None:
        """Keep what was written."""
        with self._lock:
            self.moment += 1
            # Erased first: a commit may erase a user and write her anew.
            self._records.update(dict.fromkeys(deleted, ABSENT))
            self._put(records)

    def forget(self) -> None:
        """Keep nothing."""
        with self._lock:
            self.moment += 1
            self._records = {}

    def _put(self, records: Mapping[str, bytes]) -> None:
        self._largest = max(self._largest, max(map(len, records.values()), default=0))
        self._records.update(records)
        most = self.limit // (self._largest + _OVERHEAD)
        if len(self._records) > most:
            for user in list(islice(self._records, len(self._records) - most + most // 4)):
                del self._records[user]


_OVERHEAD = 200
"""Bytes of Python around a record, about."""
