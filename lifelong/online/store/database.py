"""An open RocksDB database of memories: how it is read, and how a commit reaches the disk.

FOLDER/db is in raw mode, with one key space; the first byte says what a key is:

    m name                                          meta: the list of artifacts, and the clock of event ids
    s user                                          encoded memory, in space 0
    t space (4) user                                encoded memory, in another space of memories
    w partition (8) source                          watermark (8)
    n day (4) length of user (4) user event id      expiry (8) of a client event id; the day is that of the expiry
    e length of user (4) user count (8)             event log
    i item                                          fields put online, JSON
    f source                                        what was applied of a file, JSON

Numbers in keys are big-endian, so that keys sort as numbers.

    commit --bases as they were?--> batch --write--> log --wait for the disk--> FOLDER/acknowledged --> caches, listener

FOLDER/acknowledged has two slots, written in turn, so that one is whole if a write of the other is cut:

    sequence number of RocksDB's last acknowledged change (8)   CRC-32 of it (4)   nothing (4)

RocksDB takes some damage for the end of its log: a commit whose length was changed looks like one that was cut. Such a
log opens, without the commits behind the damage, and then ends before the number here. A number is written after its
commit is on the disk, so it never names one that a loss of power may take. It is brought to the disk itself once a
second: after a kill it is exact, after a loss of power at most seconds behind.

No commit looks for old event ids: when the day of some is over, they go as one range of keys. Time is how long the
store was open, from the second when it was made (docs/decisions/0023-event-ids-by-day.md).
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import threading
import time as clock
import weakref
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import add, itemgetter
from pathlib import Path
from typing import Any

from lifelong.atomic import write_whole
from lifelong.errors import StoreError, StoreUnavailableError, require
from lifelong.online.store.artifact_list import ArtifactList
from lifelong.online.store.contract import (
    ITEMS,
    SOURCES,
    Commit,
    Elapsed,
    check_bases,
    check_reached,
    refuse_write,
)
from lifelong.online.store.folder import AGAIN, database_error
from lifelong.online.store.record_cache import ABSENT, Listener, Notice, RecordCache, RecordCaches, Written

logger: logging.Logger = logging.getLogger(__name__)

ARTIFACTS = b"martifacts"
_CLOCK = b"mclock"
_NUMBER = struct.Struct(">q")
_LENGTH = struct.Struct(">I")
_AT_ONCE = 64
"""Keys that are read in one call: about a quarter of a millisecond."""
DAY = 86_400
"""Seconds in which the event ids expire that go together."""
ACKNOWLEDGED = "acknowledged"
"""Name of the file of the last acknowledged change."""
_SLOT, _SIZE = struct.Struct(">QI"), 16
_EVERY = 1.0
"""Seconds between two times that it waits for the disk."""


class Database:
    """A database that is read and written; threads may share it.

    Args:
        path: the folder of the store.
        read_only: refuses commits.
        sync: whether each commit waits for the disk.
        cache: bytes of records of a space that are kept in RAM, about.
    """

    shared = False
    path: Path
    _db: Any = None
    """RocksDB's own object; None while it is closed."""
    _ids: EventIds
    """Set when the database is open."""
    _tell: Listener | None = None
    _artifact_list: ArtifactList | None = None
    _ill: StoreError | None = None
    """The error of the write since which the database refuses all writes; None if all is well."""
    _acknowledged: Acknowledged | None = None
    """Where each commit is noted; None of a store for reading, or one that is closed."""
    _doubt: str | None = None
    """Why it is not known whether the last write is on the disk; None if all is well."""

    def __init__(self, path: Path, *, read_only: bool, sync: bool, cache: int) -> None:
        self.path, self._read_only, self._sync = path, read_only, sync
        self._rocksdict: Any = require("rocksdict", extra="serve", purpose="a rocksdb:// store")
        self._scans: weakref.WeakSet[_Scan] = weakref.WeakSet()
        # One commit at a time: what it compares and what it writes belong together.
        self._lock = threading.Lock()
        self._caches = RecordCaches(cache, RecordCache[str])

    def artifact_list(self) -> ArtifactList:
        """The artifacts that it holds memories of; of a store for reading, those that it held when it was opened."""
        self._opened()
        if self._artifact_list is None:
            written = self._get(ARTIFACTS)
            self._artifact_list = ArtifactList() if written is None else ArtifactList.from_json(written)
        return self._artifact_list

    def read_many(self, names: Sequence[str], *, space: int = 0) -> list[bytes | None]:
        """The value of each name, None if it is absent."""
        self._opened()
        return self._caches.read(names, space, lambda unknown, space: self._get_many(_keys(unknown, space)))

    def listen(self, listener: Listener) -> None:
        """Register a listener for all changes of what readers may keep; see `Listener`."""
        self._tell = listener

    def commit(self, change: Commit) -> None:
        """Apply one write, all of it or nothing; see the module for what it survives.

        Raises:
            StoreConflictError: what it was made from has changed; nothing was kept.
            StoreUnavailableError: the disk is full or fails; nothing was kept.
        """
        if self._read_only:
            raise refuse_write(str(self.path))
        batch = self._batch()
        with self._lock:
            check_bases(str(self.path), change, self.artifact_list().epoch, self._held)
            check_reached(str(self.path), change, self.watermark)
            self._fill(batch, change)
            self._write(batch)
            self._keep(change)
            self._ids.kept(change.event_ids)

    def _fill(self, batch: Any, change: Commit) -> None:
        """Put a change into a batch."""
        put = batch.put
        for user in change.deleted:
            self._erase(batch, user)
        for item in change.removed:
            batch.delete(prefix_of(ITEMS) + item.encode())
        for space, records in change.records.items():
            _each(put, _keys(records, space), records.values())
        for (source, partition), offset in change.watermarks.items():
            put(_watermark_key(source, partition), _NUMBER.pack(offset))
        for user, through in change.trimmed.items():
            for key, _ in self._scan(_log_of(user)):
                # The key ends with the event's count; packed numbers compare as numbers do.
                if key[-_NUMBER.size :] > _NUMBER.pack(through):
                    break
                batch.delete(key)
        _each(put, _log_keys(change.events), change.events.values())
        self._ids.put(batch, change.event_ids)

    def _held(self, names: Sequence[str], space: int) -> list[bytes | None]:
        return self.read_many(names, space=space)

    def _keep(self, change: Commit) -> None:
        """Put what was written into the caches, and remove what was erased."""
        written: dict[int, Mapping[str, bytes]] = dict(change.records)
        # Erased users are absent in every space.
        erased = dict.fromkeys(self.artifact_list().spaces, change.deleted) if change.deleted else {}
        if change.removed:
            erased[ITEMS] = change.removed
        for space, names in erased.items():
            # Erased first: a commit may erase a user and write the user again.
            written[space] = {**dict.fromkeys(names, ABSENT), **change.records.get(space, {})}
        self._caches.kept(written)
        self._say("kept", written)

    def _say(self, what: Notice, written: Written | None = None) -> None:
        if self._tell is not None:
            self._tell(what, written or {})

    def _erase(self, batch: Any, user: str) -> None:
        """Remove everything about a user."""
        for space in self.artifact_list().spaces:
            batch.delete(prefix_of(space) + user.encode())
        for key, _ in self._scan(_log_of(user)):
            batch.delete(key)
        self._ids.erase(batch, user)

    def watermark(self, source: str, partition: int) -> int:
        """Offset up to which all events were applied, -1 if none."""
        value = self._get(_watermark_key(source, partition))
        return -1 if value is None else int(_NUMBER.unpack(value)[0])

    def positions(self, source: str, partition: int, users: Sequence[str]) -> list[int]:
        """The watermark, for each user."""
        return [self.watermark(source, partition)] * len(users)

    def clock(self) -> int:
        """The second by which event ids expire: how long the store was open, from the second when it was made."""
        return self._ids.clock.now()

    def seen(self, event_ids: Sequence[tuple[str, str]], *, now: int) -> list[bool]:
        """Which client event ids were applied and have not expired."""
        return self._ids.seen(event_ids, now)

    def events(self, user: str, *, last: int | None = None) -> list[bytes]:
        """The user's event log, oldest first."""
        prefix = _log_of(user)
        if last is None:
            return [value for _, value in self._scan(prefix)]
        # The last ones are the first of a scan backwards.
        return [value for _, value in self._scan(prefix, most=last, backwards=True)][::-1]

    def event_ids(self, user: str) -> list[tuple[str, int]]:
        """A user's client event ids and when each expires; expired ones too, until a later write removes them."""
        return self._ids.of_user(user)

    def _forget(self) -> None:
        """Keep no record in RAM."""
        self._caches.forget()
        self._say("forgotten")

    def logs(self, asked: Sequence[tuple[str, int]]) -> list[list[tuple[int, bytes]]]:
        """Per (user, count) the user's logged events after the first `count`."""
        logs = []
        for user, count in asked:
            prefix = _log_of(user)
            # The key of an event is the prefix and its count, which begins at 1.
            rows = self._scan(prefix, start=prefix + _NUMBER.pack(count + 1))
            logs.append([(int(_NUMBER.unpack(key[len(prefix) :])[0]), value) for key, value in rows])
        return logs

    def scan(self, space: int = 0) -> Iterator[tuple[str, bytes]]:
        """All names of a space and their values: the view is fixed when this is called; later commits do not show."""
        prefix = prefix_of(space)
        rows = self._scan(prefix)
        return ((key[len(prefix) :].decode(), value) for key, value in rows)

    def _opened(self) -> Any:
        if self._db is None:
            raise self._ill or StoreError(f"{self.path} is closed", fix="open it again")
        if self._doubt is not None:
            raise self._in_doubt()
        return self._db

    def _get(self, key: bytes) -> bytes | None:
        with translated(self.path):
            value: bytes | None = self._opened().get(key)
            return value

    def _get_many(self, keys: list[bytes]) -> list[bytes | None]:
        values: list[bytes | None] = []
        with translated(self.path):
            # rocksdict holds all threads of the process while it reads; in between those that wait have their turn.
            for first in range(0, len(keys), _AT_ONCE):
                values += self._opened().get(keys[first : first + _AT_ONCE])
        return values

    def _batch(self) -> Any:
        return self._rocksdict.WriteBatch(raw_mode=True)

    def _write(self, batch: Any) -> None:
        """Write a batch, and wait for the disk.

        The wait comes as a call of its own: a synced write would hold all threads of the process for as long. What is
        read before it returns is in the log and may be lost with the machine, as may be the answer.
        """
        try:
            with translated(self.path):
                self._opened().write(batch, self._rocksdict.WriteOptions())
                # Before the wait: a purge may write meanwhile, and does not wait for the disk then.
                sequence = self._db.latest_sequence_number()
        except StoreError as error:
            self._ill = error
            self._forget()
            raise
        if not self._sync:
            return
        try:
            with translated(self.path):
                self._opened().flush_wal(True)
        except StoreError as error:
            # Otherwise readers would find what may not be on the disk, and a retry would be called a duplicate.
            self._ill, self._doubt = error, error.found
            raise self._in_doubt() from error
        try:
            if self._acknowledged is not None:
                self._acknowledged.note(sequence)
        except OSError as error:
            # The next commit tries it again; this one is on the disk.
            logger.warning("%s: how far commits were acknowledged could not be written: %s", self.path, error)

    def _in_doubt(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"{self.path} could not bring its last write to the disk, which may or may not be there: {self._doubt}",
            fix=f"check the disk; {AGAIN}",
        )

    def _scan(
        self, prefix: bytes, *, most: int | None = None, backwards: bool = False, start: bytes | None = None
    ) -> _Scan:
        # Behind every key with this prefix, which ends with a count of eight bytes.
        start = prefix + b"\xff" * _NUMBER.size if backwards else start or prefix
        with translated(self.path):
            rows = self._opened().items(backwards=backwards, from_key=start)
        scan = _Scan(rows, prefix, most, self.path, partial(self._check_end, start, backwards))
        self._scans.add(scan)
        return scan

    def _check_end(self, start: bytes, backwards: bool, last: bytes | None) -> None:
        """Check that a scan without further rows is complete: at damage RocksDB's rows end, too, without an error.

        Raises:
            StoreCorruptError: it is not.
        """
        # From the last row, since a probe from the start would read all of it again.
        probe = self._opened().iter()
        if backwards:
            probe.seek_for_prev(start if last is None else last)
        else:
            probe.seek(start if last is None else last)
        if last is not None and probe.valid():
            probe.prev() if backwards else probe.next()
        # Raises what stopped the probe, if it was not the end.
        probe.status()


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
            # The day follows the first byte of the key; the next look begins behind all ids of this day.
            buckets.append(_LENGTH.unpack(row[0][1:5])[0])
            start = _bucket(buckets[-1] + 1)
        self.buckets = buckets

    def seen(self, event_ids: Sequence[tuple[str, str]], now: int) -> list[bool]:
        """Which of (user, id) are known and have not expired."""
        self._asked = max(self._asked, now)
        names = [name_of(user) + event_id.encode() for user, event_id in event_ids]
        applied = [False] * len(names)
        # An id may be in the bucket of any day that is not over.
        for prefix in self._prefixes(now):
            values = self._get(list(map(prefix.__add__, names)))
            for at, value in enumerate(values):
                applied[at] |= value is not None and _NUMBER.unpack(value)[0] > now
        return applied

    def of_user(self, user: str) -> list[tuple[str, int]]:
        """A user's ids and when each expires."""
        expiry_of: dict[str, int] = {}
        for kind in self._prefixes(0):
            prefix = kind + name_of(user)
            for key, value in self._scan(prefix):
                # One that came again after it had expired is in two buckets, the later one last.
                expiry_of[key[len(prefix) :].decode()] = int(_NUMBER.unpack(value)[0])
        return sorted(expiry_of.items())

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


class Acknowledged:
    """The number of a database that this process owns; threads may share it.

    Args:
        path: folder of the database's store.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._last, self._slot = _newest(path)
        self._file, self._lock, self._synced = os.open(path / ACKNOWLEDGED, os.O_WRONLY), threading.Lock(), 0.0

    def note(self, sequence: int, *, sync: bool = False) -> None:
        """Write down a change that is on the disk.

        Raises:
            OSError: it cannot be written.
        """
        # Commits and a purge come from different threads, in another order than their numbers.
        with self._lock:
            if sequence > self._last:
                # Never over the newest number: a write that is cut leaves that one whole.
                slot = 1 - self._slot
                os.pwrite(self._file, _packed(sequence), slot * _SIZE)
                self._last, self._slot = sequence, slot
            # A wait for the disk at each commit would double that of the commit itself.
            now = clock.monotonic()
            if sync or now - self._synced > _EVERY:
                os.fdatasync(self._file)
                self._synced = now

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def begin(path: Path) -> None:
    """Write the file of a new database.

    Raises:
        OSError: it cannot be written.
    """
    with write_whole(path / ACKNOWLEDGED) as draft:
        draft.write_bytes((_packed(0) + bytes(_SIZE - _SLOT.size)) * 2)


def last_acknowledged(path: Path) -> int:
    """The number of a store's database.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged.
    """
    return _newest(path)[0]


def _newest(path: Path) -> tuple[int, int]:
    """The larger number, and its slot."""
    data, whole = (path / ACKNOWLEDGED).read_bytes(), []
    for slot in (0, 1):
        # The rest of the `_SIZE` bytes of a slot is nothing.
        written = data[slot * _SIZE :][: _SLOT.size]
        if len(written) == _SLOT.size and written == _packed(sequence := _SLOT.unpack(written)[0]):
            whole.append((sequence, slot))
    if not whole:
        raise ValueError("neither of its two numbers fits its checksum")
    return max(whole)


def _packed(sequence: int) -> bytes:
    return _SLOT.pack(sequence, zlib.crc32(sequence.to_bytes(8, "big")))


class _Scan:
    """Keys with a prefix and their values, in a view fixed at the start; the store can stop it from outside."""

    def __init__(
        self, rows: Any, prefix: bytes, most: int | None, path: Path, check_end: Callable[[bytes | None], None]
    ) -> None:
        self._rows, self._prefix, self._left, self._path = rows, prefix, most, path
        self._stopped, self._check_end = False, check_end
        self._last: bytes | None = None

    def __iter__(self) -> _Scan:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        if self._stopped:
            # Opened again after a write that failed, or closed.
            raise StoreUnavailableError(f"{self._path} was closed while it was read", fix="read it again")
        if self._rows is None or self._left == 0:
            self._rows = None
            raise StopIteration
        with translated(self._path):
            row: tuple[bytes, bytes] | None = next(self._rows, None)
            if row is None:
                self._check_end(self._last)
        if row is None or not row[0].startswith(self._prefix):
            self._rows = None
            raise StopIteration
        if self._left is not None:
            self._left -= 1
        self._last = row[0]
        return row

    def stop(self) -> None:
        """Release the view; a reader that has not finished gets an error."""
        self._stopped, self._rows = self._rows is not None, None


def prefix_of(space: int) -> bytes:
    """The prefix of the keys of a space; no space's prefix begins another's."""
    if space < 0:
        return {ITEMS: b"i", SOURCES: b"f"}[space]
    return b"t" + _LENGTH.pack(space) if space else b"s"


def _keys(names: Iterable[str], space: int) -> list[bytes]:
    """Keys of names in a space; without a loop of Python's own, since there are very many."""
    return list(map(prefix_of(space).__add__, map(str.encode, names)))


def _log_keys(events: Iterable[tuple[str, int]]) -> Iterable[bytes]:
    """Keys of the event log."""
    users, counts = list(map(itemgetter(0), events)), map(itemgetter(1), events)
    log_of = {user: _log_of(user) for user in set(users)}
    return map(add, map(log_of.__getitem__, users), map(_NUMBER.pack, counts))


def _each(call: Callable[[bytes, bytes], None], keys: Iterable[bytes], values: Iterable[bytes]) -> None:
    """Call it with each pair; without a loop of Python's own, since there are very many."""
    deque(map(call, keys, values), maxlen=0)


def _log_of(user: str) -> bytes:
    """The prefix of the keys of a user's events."""
    return b"e" + name_of(user)


def _watermark_key(source: str, partition: int) -> bytes:
    return b"w" + _NUMBER.pack(partition) + source.encode()


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raises RocksDB's errors as errors of a store."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        raise database_error(path, str(error)) from error
