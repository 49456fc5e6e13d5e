"""Client event ids in RocksDB: buckets of a day that go whole; and the clocks by which ids expire, in every store.

    n bucket (4) length of user (4) user event id   expiry (8); the bucket is the day of the expiry
    mclock                                          the second by which they expire

No commit looks for old ids: when the day of a bucket is over, it goes as one range of keys. Time is how long the store
was open, from the second when it was made (docs/decisions/0023-event-ids-by-day.md): the system's clock can be set,
forwards or back, and these clocks are not.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

DAY = 86_400
"""Seconds of a bucket."""
_CLOCK = b"mclock"
_NUMBER, _LENGTH = struct.Struct(">q"), struct.Struct(">I")


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


class SharedSeconds:
    """A count of seconds that several processes keep in one place and advance together, never faster than time passes.

    Whoever has seen the same count for a while adds that while, unless another process was faster. A process that was
    idle for a day may thus add more than has passed since another one wrote, so it adds `MOST` at most. That happens
    once: whoever adds next has seen the count after that. While no process looks, the count stands still.

    Args:
        exchange: puts its second argument in the place of its first one, if that is the count; gives the count.
        passed: a clock in seconds that nobody sets.

    Example:
        >>> place, moment = [100], [5.0]
        >>> def exchange(seen: int, later: int) -> int:
        ...     place[0] = later if place[0] == seen else place[0]
        ...     return place[0]
        >>> one, other = (SharedSeconds(exchange, passed=lambda: moment[0]) for _ in range(2))
        >>> one.now(), other.now()
        (100, 100)
        >>> moment[0] += 90
        >>> one.now(), other.now(), place
        (190, 190, [190])
    """

    TURN = 60
    """Seconds for which a count is taken to be the present one; each look at it costs a trip to a server."""
    MOST = 1800
    """Seconds that are added at once, at most."""

    def __init__(self, exchange: Callable[[int, int], int], *, passed: Callable[[], float] = time.monotonic) -> None:
        self._exchange, self._passed = exchange, passed
        # One pair, so that no thread takes the count of one moment for that of another.
        self._seen = self._look(0, 0)

    def _look(self, seen: int, later: int) -> tuple[int, float]:
        # The moment after the answer: the count may have been put there just before it.
        return self._exchange(seen, later), self._passed()

    def now(self) -> int:
        """The count now, as far as a look at it in the last `TURN` seconds tells."""
        count, since = self._seen
        passed = int(self._passed() - since)
        if passed < self.TURN:
            return count
        found = self._look(count, count + min(passed, self.MOST))
        # One who may not advance it goes on seeing the same count.
        self._seen = (count, since) if found[0] == count else found
        return self._seen[0]


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
