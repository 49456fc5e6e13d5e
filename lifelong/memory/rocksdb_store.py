"""Memories on disk, in RocksDB, inside the process.

FOLDER/
  store.json    format version; written first, and checked before RocksDB is opened
  owner.json    process that has the store open for writing
  db/           RocksDB, raw mode; one key space, the first byte says what a key is

    m name                                     meta: the identity; the list of artifacts, once there were two
    s user                                     encoded memory, in slot 0
    t slot (4) user                            encoded memory, in another slot; in slot 2^31 the last events of an item
    w partition (8) source                     watermark (8)
    d length of user (4) user event id         expiry (8)
    x expiry (8) length of user (4) user event id   the same by expiry, so that old ones are found
    e length of user (4) user count (8)        event log
    i item                                     fields, JSON

Numbers in keys are big-endian, so that keys sort as numbers.

What a commit survives, once `commit` has returned: a crash or kill of the process always; a crash of the operating
system and a loss of power with `sync=True` (the default: one fsync of the log per commit), as far as the disk keeps
what it said it wrote. With `sync=False` the commits of the last seconds before such a crash can be lost, from the end;
never a part of one. A commit is all there or not at all, the watermarks of its events included.

A reader sees all commits that returned before it was opened, also where the owner changes the files meanwhile: it is
then opened again.

Where the disk is full or fails, the commit is refused and nothing of it is kept. RocksDB then refuses every further
write, also after space was freed, until the store is opened again; reading goes on. Only where the disk takes a write
and then fails to sync it nobody knows whether it is there: the error says so, and neither writes nor reads go on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import struct
import threading
import time as clock
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from operator import add, itemgetter
from pathlib import Path
from typing import Any

from lifelong.errors import (
    StoreCorruptError,
    StoreError,
    StoreUnavailableError,
    require,
)
from lifelong.memory.record_cache import RecordCache
from lifelong.memory.roster import Roster, StoreIdentity, slot_of
from lifelong.memory.store import Commit, check_bases, check_reached, conflict, refuse_write
from lifelong.memory.store_folder import (
    OWNER,
    SINGLE,
    locked,
    name_owner,
    on_read_only_disk,
    prepare,
    require_head,
    sync,
    unwritable,
)

logger = logging.getLogger(__name__)

_IDENTITY = b"midentity"
_ROSTER = b"mroster"
_PURGED = b"mpurged"
_NUMBER = struct.Struct(">q")
_LENGTH = struct.Struct(">I")
CACHE = 128 * 2**20
"""Bytes of memories that a store keeps in RAM, unless it is told otherwise."""
_PATIENCE = 10.0
"""Seconds for which a reader tries to open what another process is changing."""
_AT_ONCE = 64
"""Keys that are read in one call: about a quarter of a millisecond."""
_PURGE = 10_000
"""Expired event ids that one commit removes at most."""


class RocksDbStore:
    """A store in a folder; one process may write to it at a time, threads of it may share it.

    Args:
        path: the folder; made if it is not there.
        read_only: a fixed view of the store as it is now; works beside a writing process.
        sync: whether each commit waits for the disk; see the module.
        cache: bytes of memories that are kept in RAM, about; beside it RocksDB has a cache of its own.

    Raises:
        StoreLockedError: another process has it open; names the process.
        StoreCorruptError: the folder is damaged, or holds something else.
        StoreUnavailableError: the disk is full or cannot be read.
        StoreError: it is not there (read_only), or of another format.
    """

    shared, whole = False, True

    def __init__(self, path: Path, *, read_only: bool = False, sync: bool = True, cache: int = CACHE) -> None:
        self.path, self._read_only, self._sync = path, read_only, sync
        self._rocksdict: Any = require("rocksdict", extra="serve", purpose="a rocksdb:// store")
        self._scans: weakref.WeakSet[_Scan] = weakref.WeakSet()
        self._lock, self._now, self._db = threading.Lock(), 0, None
        self._cache_size, self._caches = cache, dict[int, RecordCache]()
        if not read_only:
            prepare(path)
        require_head(path, SINGLE, read_only=read_only)
        _check_raw(path, read_only=read_only)
        self._db = self._open()
        if not read_only:
            self._own()
        self._has_items = next(self._scan(b"i"), None) is not None

    _db: Any
    _roster: Roster | None = None
    _doubt: str | None = None
    """Why nobody knows what of the last write is on the disk; None where all is well."""

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
        slot = slot_of(str(self.path), known, identity) if known.members else 0
        member = known.find(identity.artifact_id)
        if self._read_only or (member is not None and member.identity.path == identity.path):
            return slot
        if known.epoch:
            self.change_roster(known, known.renew(identity))
        else:
            self._put_meta(_IDENTITY, json.dumps(asdict(identity)))
            self._roster = Roster.of(identity)
        return slot

    def roster(self) -> Roster:
        """Whose memories it holds: of this process alone, or as it was when the store was opened for reading."""
        self._opened()
        if self._roster is None:
            written, value = self._get(_ROSTER), self._get(_IDENTITY)
            identity = None if value is None else StoreIdentity.from_json(value)
            self._roster = Roster.of(identity) if written is None else Roster.from_json(written)
        return self._roster

    def change_roster(self, before: Roster, after: Roster) -> None:
        """Write another list.

        Raises:
            StoreConflictError: the list is another one by now; nothing was kept.
        """
        if self._read_only:
            raise refuse_write(str(self.path))
        with self._lock:
            if self.roster().epoch != before.epoch:
                raise conflict(str(self.path), frozenset())
            self._put_meta(_ROSTER, after.to_json())
            self._roster = after

    def _put_meta(self, key: bytes, text: str) -> None:
        batch = self._batch()
        batch.put(key, text.encode())
        self._write(batch)

    def clear(self, slot: int) -> None:
        """Empty a slot: one range of keys."""
        if self._read_only:
            raise refuse_write(str(self.path))
        first = _state_key("", slot)
        last = first[:-1] + bytes([first[-1] + 1]) if slot == 0 else _state_key("", slot + 1)
        with _translated(self.path):
            self._opened().delete_range(first, last)
            self._opened().compact_range(first, last)
        self._caches.pop(slot, None)

    def read_many(self, users: Sequence[str], *, slot: int = 0) -> list[bytes | None]:
        """Encoded memories, as many as asked, None where a user is absent."""
        self._opened()
        cache = self._cache_of(slot)
        moment, found = cache.moment, cache.get(users)
        missing = [place for place, record in enumerate(found) if record is None]
        if missing:
            names = [users[place] for place in missing]
            read = self._get_many(_state_keys(names, slot))
            for place, record in zip(missing, read, strict=True):
                found[place] = record
            cache.offer(moment, names, read)
        return [record or None for record in found]

    def _cache_of(self, slot: int) -> RecordCache:
        """Memories of one artifact that are kept in RAM."""
        cache = self._caches.get(slot)
        if cache is None:
            cache = self._caches.setdefault(slot, RecordCache(self._cache_size))
        return cache

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
            items = self.read_items(list(change.items_based_on))
            check_bases(str(self.path), change, self.roster().epoch, self._now_of, items)
            check_reached(str(self.path), change, self.watermark)
            self._fill(batch, change)
            self._write(batch)
            self._keep(change)
            self._has_items = self._has_items or bool(change.items)

    def _fill(self, batch: Any, change: Commit) -> None:
        """Put a change into a batch."""
        put = batch.put
        for user in change.deleted:
            self._erase(batch, user)
        for slot, records in change.records.items():
            _each(put, _state_keys(records, slot), records.values())
        for (source, partition), offset in change.watermarks.items():
            put(_watermark_key(source, partition), _NUMBER.pack(offset))
        for user, through in change.trimmed.items():
            for key, _ in self._scan(_of_user(b"e", user)):
                if key[-_NUMBER.size :] > _NUMBER.pack(through):
                    break
                batch.delete(key)
        _each(put, _log_keys(change.events), change.events.values())
        for item, value in change.items.items():
            put(b"i" + item.encode(), value)
        self._remember(batch, change)

    def _now_of(self, users: Sequence[str], slot: int) -> list[bytes | None]:
        """The memories that there are now."""
        return self.read_many(users, slot=slot)

    def _keep(self, change: Commit) -> None:
        """Let the memories in RAM be what was written."""
        written: dict[int, Mapping[str, bytes]] = {**{slot: {} for slot in self.roster().slots}, **change.records}
        for slot, states in written.items():
            self._cache_of(slot).wrote(states, change.deleted)

    def _erase(self, batch: Any, user: str) -> None:
        """Take everything of a user out."""
        for slot in self.roster().slots:
            batch.delete(_state_key(user, slot))
        for key, _ in self._scan(_of_user(b"e", user)):
            batch.delete(key)
        for key, expiry in self._scan(_of_user(b"d", user)):
            batch.delete(key)
            batch.delete(b"x" + expiry + key[1:])

    def _remember(self, batch: Any, change: Commit) -> None:
        """Put new event ids into a batch, and take expired ones out."""
        if not change.event_ids:
            return
        for key, _ in self._scan(b"x", most=_PURGE):
            expiry = _NUMBER.unpack(key[1:9])[0]
            if expiry > self._now:
                break
            batch.delete(key)
            # An id that came again after it had expired stands under a later expiry too.
            if self._get(b"d" + key[9:]) == key[1:9]:
                batch.delete(b"d" + key[9:])
        for (user, event_id), expiry in change.event_ids.items():
            packed, key = _NUMBER.pack(expiry), _of_user(b"d", user) + event_id.encode()
            batch.put(key, packed)
            batch.put(b"x" + packed + key[1:], b"")

    def watermark(self, source: str, partition: int) -> int:
        """Offset up to which all events were applied, -1 if none."""
        value = self._get(_watermark_key(source, partition))
        return -1 if value is None else int(_NUMBER.unpack(value)[0])

    def positions(self, source: str, partition: int, users: Sequence[str]) -> list[int]:
        """The watermark, for each user."""
        return [self.watermark(source, partition)] * len(users)

    def seen(self, event_ids: Sequence[tuple[str, str]], *, now: int) -> list[bool]:
        """Which client event ids were applied and have not expired; those that have are forgotten at later writes."""
        self._now = max(self._now, now)
        found = self._get_many([_of_user(b"d", user) + event_id.encode() for user, event_id in event_ids])
        return [value is not None and _NUMBER.unpack(value)[0] > now for value in found]

    def events(self, user: str, *, last: int | None = None) -> list[bytes]:
        """The user's event log, oldest first."""
        prefix = _of_user(b"e", user)
        if last is None:
            return [value for _, value in self._scan(prefix)]
        return [value for _, value in self._scan(prefix, most=last, backwards=True)][::-1]

    def event_ids(self, user: str) -> list[tuple[str, int]]:
        """A user's client event ids and when each expires; expired ones too, until a later write removes them."""
        prefix = _of_user(b"d", user)
        rows = self._scan(prefix)
        return [(key[len(prefix) :].decode(), int(_NUMBER.unpack(value)[0])) for key, value in rows]

    def purge(self) -> bool:
        """Rewrite all files, so that no byte of what was erased is left in them; always done when this returns."""
        if self._read_only:
            raise refuse_write(str(self.path))
        with _translated(self.path):
            # The first flush closes the write-ahead log of the erasure; its files go when their content is in tables.
            self._opened().flush()
            self._opened().compact_range(None, None)
            # The list of files still names the first and last keys of those that went; the next change of the files
            # writes it anew, from those that there are now.
            self._put_meta(_PURGED, str(int(clock.time())))
            self._opened().flush()
        return True

    def logs(self, asked: Sequence[tuple[str, int]]) -> list[list[tuple[int, bytes]]]:
        """Per (user, count) her logged events after the first `count`."""
        found = []
        for user, count in asked:
            prefix = _of_user(b"e", user)
            rows = self._scan(prefix, start=prefix + _NUMBER.pack(count + 1))
            found.append([(int(_NUMBER.unpack(key[len(prefix) :])[0]), value) for key, value in rows])
        return found

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Items added or changed online, as they are now."""
        return ((key[1:].decode(), value) for key, value in self._scan(b"i"))

    @property
    def has_items(self) -> bool:
        """Whether any items were put online."""
        self._opened()
        return self._has_items

    def read_items(self, items: Sequence[str]) -> list[bytes | None]:
        """What was put online of some items, as many as asked."""
        if not self.has_items:
            return [None] * len(items)
        return self._get_many([b"i" + item.encode() for item in items])

    def users(self, *, slot: int = 0) -> Iterator[tuple[str, bytes]]:
        """All users and their encoded memories: the view is fixed when this is called; later commits do not show."""
        prefix = _state_key("", slot)
        scan = self._scan(prefix)
        return ((key[len(prefix) :].decode(), value) for key, value in scan)

    def close(self) -> None:
        """Release the store and its lock; views that are still read end with an error. A second call does nothing."""
        if self._db is None:
            return
        # A live iterator would keep the lock.
        for scan in list(self._scans):
            scan.stop()
        db, self._db = self._db, None
        if not self._read_only:
            try:
                (self.path / OWNER).unlink(missing_ok=True)
            except OSError as error:
                logger.warning("%s still names this process as its owner: %s", self.path, error)
        try:
            db.close()
        except Exception as error:
            # After a refused write the last flush fails too; what was acknowledged is in the log that opening replays.
            logger.warning("%s was closed without a flush: %s", self.path, error)

    def _own(self) -> None:
        """Name this process as the owner, and bring what RocksDB itself does not sync to the disk.

        Raises:
            StoreUnavailableError: the folder cannot be written.
        """
        try:
            name_owner(self.path)
            sync(self.path / "db")
        except OSError as error:
            self.close()
            raise unwritable(self.path, error) from error

    def _open(self) -> Any:
        kit = self._rocksdict
        options = kit.Options(raw_mode=True)
        options.create_if_missing(not self._read_only)
        # Every change of the files writes the list of them anew: it names the first and last key of each, and must not
        # name erased users for long.
        options.set_max_manifest_file_size(1)
        with _translated(self.path):
            access = kit.AccessType.read_only(False) if self._read_only else kit.AccessType.read_write()
            opened = partial(kit.Rdict, str(self.path / "db"), options, access_type=access)
            return _at_rest(self.path, opened) if self._read_only else opened()

    def _opened(self) -> Any:
        if self._db is None:
            raise StoreError(f"{self.path} is closed", fix="open it again")
        if self._doubt is not None:
            raise self._in_doubt()
        return self._db

    def _get(self, key: bytes) -> bytes | None:
        with _translated(self.path):
            value: bytes | None = self._opened().get(key)
            return value

    def _get_many(self, keys: list[bytes]) -> list[bytes | None]:
        values: list[bytes | None] = []
        with _translated(self.path):
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
            with _translated(self.path):
                self._opened().write(batch, self._rocksdict.WriteOptions())
        except StoreError:
            for cache in self._caches.values():
                cache.forget()
            raise
        if not self._sync:
            return
        try:
            with _translated(self.path):
                self._opened().flush_wal(True)
        except StoreError as error:
            # Readers would find what may not be on the disk, a repetition would be called a duplicate.
            self._doubt = error.found
            raise self._in_doubt() from error

    def _in_doubt(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"{self.path} could not bring its last write to the disk, which may or may not be there: {self._doubt}",
            fix="check the disk, open the store again (restart the service that owns it), then send it again",
        )

    def _scan(
        self, prefix: bytes, *, most: int | None = None, backwards: bool = False, start: bytes | None = None
    ) -> _Scan:
        start = prefix + b"\xff" * 8 if backwards else start or prefix
        with _translated(self.path):
            rows = self._opened().items(backwards=backwards, from_key=start)
        scan = _Scan(rows, prefix, most, self.path, partial(self._check_end, start, backwards))
        self._scans.add(scan)
        return scan

    def _check_end(self, start: bytes, backwards: bool, last: bytes | None) -> None:
        """Whether a scan that found no more rows is through: at damage RocksDB's rows end, too, and say nothing.

        Raises:
            StoreCorruptError: it is not.
        """
        probe = self._opened().iter()
        if backwards:
            probe.seek_for_prev(start if last is None else last)
        else:
            probe.seek(start if last is None else last)
        if last is not None and probe.valid():
            probe.prev() if backwards else probe.next()
        # Raises what stopped the probe, if it was not the end.
        probe.status()


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
            raise StoreError(f"{self._path} was closed while it was read", fix="open it again")
        if self._rows is None or self._left == 0:
            self._rows = None
            raise StopIteration
        with _translated(self._path):
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
        """Let go of the view; a reader that is not through gets an error."""
        self._stopped, self._rows = self._rows is not None, None


def _state_key(user: str, slot: int = 0) -> bytes:
    return (b"t" + _LENGTH.pack(slot) if slot else b"s") + user.encode()


def _state_keys(users: Iterable[str], slot: int) -> list[bytes]:
    """`_state_key` of each user."""
    if slot:
        return [_state_key(user, slot) for user in users]
    return list(map(str.encode, map("s".__add__, users)))


def _log_keys(events: Iterable[tuple[str, int]]) -> Iterable[bytes]:
    """Keys of the event log."""
    users, counts = list(map(itemgetter(0), events)), map(itemgetter(1), events)
    prefix_of = {user: _of_user(b"e", user) for user in set(users)}
    return map(add, map(prefix_of.__getitem__, users), map(_NUMBER.pack, counts))


def _each(call: Callable[[bytes, bytes], None], keys: Iterable[bytes], values: Iterable[bytes]) -> None:
    """Call it with each pair; without a loop of Python's own, since there are very many."""
    deque(map(call, keys, values), maxlen=0)


def _of_user(kind: bytes, user: str) -> bytes:
    """What the keys of a kind begin with that are a user's; no user's is another's prefix."""
    name = user.encode()
    return kind + _LENGTH.pack(len(name)) + name


def _watermark_key(source: str, partition: int) -> bytes:
    return b"w" + _NUMBER.pack(partition) + source.encode()


def _at_rest(path: Path, opened: Callable[[], Any]) -> Any:
    """Open a database for reading, anew until its owner did not change its files meanwhile.

    Reading begins with the list of files and goes on with the files. Where the owner flushes or compacts in between,
    files that the old list names are gone; or, without any error, the log is whose commits the old list does not have
    yet. CURRENT names the list, and each change of the files makes a new one (`RocksDbStore._open`).

    Raises:
        StoreUnavailableError: they changed each time.
    """
    current = path / "db" / "CURRENT"
    end = clock.monotonic() + _PATIENCE
    while True:
        before, db, error = current.read_bytes(), None, None
        try:
            db = opened()
        except Exception as caught:
            error = caught
        if current.read_bytes() == before:
            if error is not None:
                raise error
            return db
        if db is not None:
            db.close()
        if clock.monotonic() > end:
            raise StoreUnavailableError(
                f"the files of {path} changed each time that they were opened for {_PATIENCE:.0f} s",
                expected="a moment in which the process that writes does not flush or compact",
                fix="try again when it has less to write, or ask the service that owns it (--service URL)",
            )


def _check_raw(path: Path, *, read_only: bool) -> None:
    """Refuse a database that RocksDB would open, and damage, although it is not ours.

    Raises:
        StoreCorruptError: it is of another program, or damaged.
    """
    settings, current = path / "db" / "rocksdict-config.json", path / "db" / "CURRENT"
    if not current.exists():
        # Without it RocksDB would start a new database over the files of the old one.
        if read_only or any(file.stat().st_size for kind in ("*.sst", "*.log") for file in (path / "db").glob(kind)):
            raise StoreCorruptError(f"{current} is missing", fix="restore a backup, or build the store anew")
        return
    try:
        raw = json.loads(settings.read_text())["raw_mode"]
    except (OSError, ValueError, KeyError, TypeError):
        # Each opening, for reading too, empties this file and writes it again: one that was killed, or is under way,
        # leaves it empty or half. RocksDB does not need it, and store.json says whose the folder is.
        return
    if raw is not True:
        raise StoreCorruptError(f"{settings} says that another program wrote this database", fix="check the path")


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """RocksDB's errors as ours."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        raise _as_ours(path, str(error)) from error


def _as_ours(path: Path, text: str) -> StoreError:
    if "LOCK" in text or "lock hold by current process" in text:
        return locked(path)
    if "Corruption" in text or "corrupt" in text.lower():
        return StoreCorruptError(f"{path} is damaged: {text}", fix="restore a backup, or build the store anew")
    if "Read-only file system" in text:
        return on_read_only_disk(path)
    if "Permission denied" in text:
        return StoreUnavailableError(
            f"{path} cannot be written: {text}",
            expected="a folder that this process may write to, for reading alone too",
            fix="check its rights",
        )
    if "No space left" in text:
        return StoreUnavailableError(
            f"the disk of {path} is full; nothing was kept",
            fix="free space, open the store again (restart the service that owns it), then send it again",
        )
    if "Writer has previous error" in text:
        return StoreUnavailableError(
            f"{path} takes no writes since one failed; nothing was kept",
            fix="open the store again (restart the service that owns it), then send it again",
        )
    if "IO error" in text or "closed" in text.lower():
        return StoreUnavailableError(
            f"{path} cannot be read or written: {text}", fix="check the disk, then open the store again"
        )
    return StoreError(f"{path}: {text}")
