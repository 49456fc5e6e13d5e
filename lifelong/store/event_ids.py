"""Client event ids in RocksDB: buckets of a day that go whole, and the clock by which they expire.

    n bucket (4) length of user (4) user event id   expiry (8); the bucket is the day of the expiry
    mclock                                          the second by which they expire

No commit looks for old ids: when the day of a bucket is over, it goes as one range of keys. Time is how long the store
was open, from the second when it was made (docs/decisions/0023-event-ids-by-day.md).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lifelong.store.elapsed import Elapsed

DAY = 86_400
"""Seconds of a bucket."""
_CLOCK = b"mclock"
_NUMBER, _LENGTH = struct.Struct(">q"), struct.Struct(">I")


class EventIds:
    """The event ids of one database; a commit is made under the store's lock.

    Args:
        get: gives the values of keys.
        scan: gives the keys with a prefix and their values, as `RocksDbStore._scan` does.
    """

    def __init__(
        self, get: Callable[[list[bytes]], list[bytes | None]], scan: Callable[..., Iterator[tuple[bytes, bytes]]]
    ) -> None:
        self._get, self._scan = get, scan
        self._asked, self._over = 0, list[int]()
        self.find()
        (noted,) = get([_CLOCK])
        self.clock: Elapsed = Elapsed(None if noted is None else int(_NUMBER.unpack(noted)[0]))

    buckets: list[int]
    """Those that there are."""

    def find(self) -> None:
        """Look which ids there are."""
        buckets, start = list[int](), b"n"
        while (row := next(self._scan(b"n", start=start), None)) is not None:
            buckets.append(_LENGTH.unpack(row[0][1:5])[0])
            start = _bucket(buckets[-1] + 1)
        self.buckets = buckets

    def seen(self, event_ids: Sequence[tuple[str, str]], now: int) -> list[bool]:
        """Which of (user, id) are known and have not expired."""
        self._asked = max(self._asked, now)
        names = [name_of(user) + event_id.encode() for user, event_id in event_ids]
        found = [False] * len(names)
        for prefix in self._prefixes(now):
            values = self._get(list(map(prefix.__add__, names)))
            for place, value in enumerate(values):
                found[place] |= value is not None and _NUMBER.unpack(value)[0] > now
        return found

    def of_user(self, user: str) -> list[tuple[str, int]]:
        """A user's ids and when each expires."""
        found: dict[str, int] = {}
        for kind in self._prefixes(0):
            prefix = kind + name_of(user)
            for key, value in self._scan(prefix):
                # One that came again after it had expired is in two places, the later one last.
                found[key[len(prefix) :].decode()] = int(_NUMBER.unpack(value)[0])
        return sorted(found.items())

    def erase(self, batch: Any, user: str) -> None:
        """Take a user's ids out."""
        for kind in self._prefixes(0):
            for key, _ in self._scan(kind + name_of(user)):
                batch.delete(key)

    def put(self, batch: Any, event_ids: Mapping[tuple[str, str], int]) -> None:
        """Put ids into a batch, and remove the buckets of past days."""
        if not event_ids:
            return
        # A day is past only if both the caller and the store's own clock say so.
        now = min(self._asked, self.clock.now())
        self._over = [bucket for bucket in self.buckets if (bucket + 1) * DAY <= now]
        for bucket in self._over:
            batch.delete_range(_bucket(bucket), _bucket(bucket + 1))
        for (user, event_id), expiry in event_ids.items():
            batch.put(_bucket(expiry // DAY) + name_of(user) + event_id.encode(), _NUMBER.pack(expiry))
        batch.put(_CLOCK, _NUMBER.pack(self.clock.now()))

    def kept(self, event_ids: Mapping[tuple[str, str], int]) -> None:
        """Note which ids exist, once the batch of `put` is written."""
        if event_ids:
            left = set(self.buckets) - set(self._over)
            self.buckets = sorted(left.union(expiry // DAY for expiry in event_ids.values()))

    def _prefixes(self, now: int) -> list[bytes]:
        """Prefixes of the keys of ids that may be known at a second."""
        return [_bucket(bucket) for bucket in self.buckets if (bucket + 1) * DAY > now]


def name_of(user: str) -> bytes:
    r"""A user's id after its length, so that no user's prefix begins another's.

    >>> name_of("ann")
    b'\x00\x00\x00\x03ann'
    """
    name = user.encode()
    return _LENGTH.pack(len(name)) + name


def _bucket(number: int) -> bytes:
    """The prefix of the keys of a bucket."""
    return b"n" + _LENGTH.pack(number)
