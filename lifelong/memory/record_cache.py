"""Records of users that were read or written lately, so that hot users are not read from the disk again.

A reader notes `moment` before it reads, and offers what it found with it: if a write came between, what was found may
be old and is not kept.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

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
        # Two generations: what is asked moves to the young one, and the old one is dropped when that is half full.
        self._young: dict[str, bytes] = {}
        self._old: dict[str, bytes] = {}

    def get(self, users: Sequence[str]) -> list[bytes | None]:
        """Record of each user, `ABSENT` where it is known that there is none, None where nothing is known."""
        young, old = self._young, self._old
        found = [young.get(user) for user in users]
        if old and None in found:
            for place, record in enumerate(found):
                if record is None and (kept := old.get(users[place])) is not None:
                    found[place] = kept
        return found

    def offer(self, moment: int, users: Iterable[str], records: Iterable[bytes | None]) -> None:
        """Keep what was read, unless something was written since `moment`."""
        with self._lock:
            if moment == self.moment:
                self._put({user: record or ABSENT for user, record in zip(users, records, strict=True)})

    def wrote(self, records: Mapping[str, bytes], deleted: Iterable[str] = ()) -> None:
        """Keep what was written."""
        with self._lock:
            self.moment += 1
            gone = dict.fromkeys(deleted, ABSENT)
            for user in gone:
                self._old.pop(user, None)
            # Erased first: a commit may erase a user and write her anew.
            self._put({**gone, **records})

    def forget(self) -> None:
        """Keep nothing."""
        with self._lock:
            self.moment += 1
            self._young, self._old = {}, {}

    def _put(self, records: Mapping[str, bytes]) -> None:
        self._largest = max(self._largest, max(map(len, records.values()), default=0))
        if len(self._young) + len(records) > self.limit // 2 // (self._largest + _OVERHEAD):
            # What is put now must not be hidden by what was before.
            self._young, self._old = dict(records), self._young
        else:
            self._young.update(records)


_OVERHEAD = 200
"""Bytes of Python around a record, about."""
