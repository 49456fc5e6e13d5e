"""Memories on disk, in RocksDB, inside the process.

FOLDER/
  store.json    format version; written first, and checked before RocksDB is opened
  owner.json    process that has the store open for writing
  acknowledged  number of the last change that was acknowledged: see `lifelong.online.store.acknowledged`
  db/           RocksDB, raw mode; one key space, the first byte says what a key is

    m name                                     meta: the list of artifacts
    s user                                     encoded memory, in space 0
    t space (4) user                           encoded memory, in another space of memories
    w partition (8) source                     watermark (8)
    n, mclock                                  client event ids: see `lifelong.online.store.event_ids`
    e length of user (4) user count (8)        event log
    i item                                     fields put online, JSON
    f source                                   what was applied of a file, JSON

Numbers in keys are big-endian, so that keys sort as numbers.

What a commit survives, once `commit` has returned: a crash or kill of the process always; a crash of the operating
system and a loss of power with `sync=True` (the default: one fsync of the log per commit), as far as the disk keeps
what it said it wrote. With `sync=False` the commits of the last seconds before such a crash can be lost, from the end;
never a part of one. A commit is all there or not at all, the watermarks of its events included.

A damaged database is an error at its opening, or where the damage is read, that says what to do. RocksDB compares
checksums; what it takes for the end of its log is compared with the last change that was acknowledged. A commit that
was under way at a loss of power may be there in parts: it never returned, and is left out.

A reader sees all commits that returned before it was opened, also where the owner changes the files meanwhile: it is
then opened again.

If the disk is full or fails, or the process may open no further file, the commit is refused and nothing of it is kept.
RocksDB then refuses every further write, also after space was freed, until the database is opened again, which
`check_writes` does; reading goes on. Only if the disk takes a write and then fails to sync it, it is not known whether
the write is there: the error says so, and neither writes nor reads go on until then.
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
from functools import partial
from operator import add, itemgetter
from pathlib import Path
from typing import Any

from lifelong.atomic import sync
from lifelong.errors import (
    StoreCorruptError,
    StoreError,
    StoreUnavailableError,
    require,
)
from lifelong.online.store.acknowledged import NAME as ACKNOWLEDGED
from lifelong.online.store.acknowledged import Acknowledged, last_acknowledged
from lifelong.online.store.artifact_list import ArtifactList, StoreIdentity, space_of
from lifelong.online.store.contract import ITEMS, SOURCES, Commit, check_bases, check_reached, conflict, refuse_write
from lifelong.online.store.descriptors import files_of_a_store
from lifelong.online.store.event_ids import EventIds, name_of
from lifelong.online.store.folder import (
    AGAIN,
    OWNER,
    SINGLE,
    after_killed_owner,
    check_room,
    left_copies,
    locked,
    name_owner,
    on_read_only_disk,
    prepare,
    require_head,
    unwritable,
    way_back,
    whole_store,
)
from lifelong.online.store.record_cache import ABSENT, Listener, Notice, RecordCache, RecordCaches, Written

logger: logging.Logger = logging.getLogger(__name__)

_ARTIFACTS = b"martifacts"
_PURGED = b"mpurged"
_PROBE = b"mprobe"
_REMOVAL = 1.0
"""Seconds allowed for the removal of files that nothing reads."""
_COMPACTIONS = 3
"""How often all tables are rewritten where other erasures reach them meanwhile."""
_NUMBER = struct.Struct(">q")
_LENGTH = struct.Struct(">I")
CACHE = 128 * 2**20
"""Default of the bytes of records that a store keeps in RAM."""
_PATIENCE = 10.0
"""Seconds for which a reader tries to open what another process is changing."""
_AT_ONCE = 64
"""Keys that are read in one call: about a quarter of a millisecond."""
_DIARY, _DIARIES = 2**20, 3
"""Bytes of a file in which RocksDB writes what it does, and how many such files stay."""
_OPTIONS = Path(__file__).with_name("rocksdb_options")
"""RocksDB's file of the one option that the binding has no call for."""


class RocksDbStore:
    """A store in a folder; one process may write to it at a time, threads of it may share it.

    Args:
        path: the folder; made if it is not there.
        read_only: a fixed view of the store as it is now, while another process may write to it.
        sync: whether each commit waits for the disk; see the module.
        cache: bytes of records of a space that are kept in RAM, about; RocksDB has a cache of its own as well.
        stores: that this process has open; they share the descriptors that it may have.

    Raises:
        StoreLockedError: another process has it open; names the process.
        StoreCorruptError: the folder is damaged, or holds something else.
        StoreUnavailableError: the disk is full or cannot be read.
        StoreError: it is not there (read_only), or of another format.
    """

    shared = False
    path: Path

    def __init__(
        self, path: Path | str, *, read_only: bool = False, sync: bool = True, cache: int = CACHE, stores: int = 1
    ) -> None:
        self.path = path = Path(path)
        self._read_only, self._sync, self._stores = read_only, sync, stores
        self._rocksdict: Any = require("rocksdict", extra="serve", purpose="a rocksdb:// store")
        self._scans: weakref.WeakSet[_Scan] = weakref.WeakSet()
        self._lock, self._db = threading.Lock(), None
        self._caches = RecordCaches(cache, RecordCache[str])
        if not read_only:
            prepare(path)
        require_head(path, SINGLE, read_only=read_only)
        _check_raw(path, read_only=read_only)
        self._db = self._open()
        if not read_only:
            self._own()
        self._ids = EventIds(self._get_many, self._scan)
        # Most stores never hold an item, and each event would look for its own.
        if next(self._scan(_prefix(ITEMS)), None) is None:
            self._caches.empty.add(ITEMS)

    _db: Any
    _tell: Listener | None = None
    _artifact_list: ArtifactList | None = None
    _ill: StoreError | None = None
    """The error of the write since which the database refuses all writes; None if all is well."""
    _acknowledged: Acknowledged | None = None
    """Where each commit is noted; None of a store for reading, or one that is closed."""
    _doubt: str | None = None
    """Why it is not known whether the last write is on the disk; None if all is well."""

    def bind(self, identity: StoreIdentity) -> int:
        """Claim a new store, or check an old one; a store for reading is only checked."""
        known = self.artifact_list()
        space = space_of(str(self.path), known, identity) if known.artifacts else 0
        stored = known.find(identity.artifact_id)
        if self._read_only or (stored is not None and stored.identity.path == identity.path):
            return space
        self.change_artifact_list(known, known.renew(identity) if known.artifacts else ArtifactList.of(identity))
        return space

    def artifact_list(self) -> ArtifactList:
        """The artifacts that it holds memories of; of a store for reading, those that it held when it was opened."""
        self._opened()
        if self._artifact_list is None:
            written = self._get(_ARTIFACTS)
            self._artifact_list = ArtifactList() if written is None else ArtifactList.from_json(written)
        return self._artifact_list

    def change_artifact_list(self, before: ArtifactList, after: ArtifactList) -> None:
        """Write another list."""
        if self._read_only:
            raise refuse_write(str(self.path))
        with self._lock:
            if self.artifact_list().epoch != before.epoch:
                raise conflict(str(self.path), frozenset())
            self._put_meta(_ARTIFACTS, after.to_json())
            self._artifact_list = after
            self._say("listed")

    def _put_meta(self, key: bytes, text: str) -> None:
        batch = self._batch()
        batch.put(key, text.encode())
        self._write(batch)

    def clear(self, space: int) -> None:
        """Empty a space: one range of keys."""
        if self._read_only:
            raise refuse_write(str(self.path))
        first = _prefix(space)
        # The keys of a space lie from its prefix up to the prefix that is larger by one.
        last = (int.from_bytes(first, "big") + 1).to_bytes(len(first), "big")
        with _translated(self.path):
            self._opened().delete_range(first, last)
            self._opened().compact_range(first, last)
        self._caches.drop(space)
        self._say("forgotten")

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
            batch.delete(_prefix(ITEMS) + item.encode())
        for space, records in change.records.items():
            _each(put, _keys(records, space), records.values())
        for (source, partition), offset in change.watermarks.items():
            put(_watermark_key(source, partition), _NUMBER.pack(offset))
        for user, through in change.trimmed.items():
            for key, _ in self._scan(_of_user(b"e", user)):
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
            batch.delete(_prefix(space) + user.encode())
        for key, _ in self._scan(_of_user(b"e", user)):
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
        prefix = _of_user(b"e", user)
        if last is None:
            return [value for _, value in self._scan(prefix)]
        return [value for _, value in self._scan(prefix, most=last, backwards=True)][::-1]

    def event_ids(self, user: str) -> list[tuple[str, int]]:
        """A user's client event ids and when each expires; expired ones too, until a later write removes them."""
        return self._ids.of_user(user)

    def purge(self) -> bool:
        """Rewrite all files, so that no byte of what was erased is left in them.

        Returns:
            Whether that is so, as the files say: no table holds an erasure, all files of before are gone, and there is
            no copy of the store that a killed backup has left next to it. Tables that a scan still reads go when it
            ends, and then by themselves.
        """
        if self._read_only:
            raise refuse_write(str(self.path))
        with _translated(self.path):
            logs = self._files("*.log")
            # The first flush closes the write-ahead log of the erasure; its files go when their content is in tables.
            self._opened().flush()
            if not self._compacted():
                return False
            # The list of files still names the first and last keys of files that are gone; the next change of the files
            # writes it again.
            self._put_meta(_PURGED, str(int(clock.time())))
            self._opened().flush()
            gone = self._old_files_go(logs)
        for copy in left_copies(whole_store(self.path).parent):
            logger.warning("%s holds a copy of a store that was not finished: remove it", copy)
            gone = False
        return gone

    def _compacted(self) -> bool:
        """Rewrite all tables; whether none of them holds an erasure, which would hold the erased key, too."""
        options = self._rocksdict.CompactOptions()
        # Otherwise a first table is only moved to the last level, with the erasures that are in it.
        options.set_bottommost_level_compaction(self._rocksdict.BottommostLevelCompaction.force())
        for _ in range(_COMPACTIONS):
            self._opened().compact_range(None, None, options)
            if not any(table["num_deletions"] for table in self._opened().live_files()):
                return True
        return False

    def _files(self, kind: str) -> set[str]:
        """Names of the database's files of a kind."""
        return {path.name for path in (self.path / "db").glob(kind)}

    def _old_files_go(self, logs: set[str]) -> bool:
        """Wait a moment for the files that are no longer part of the store; False if something still reads one."""
        until = clock.monotonic() + _REMOVAL
        while True:
            live = {Path(table["name"]).name for table in self._opened().live_files()}
            if live >= self._files("*.sst") and not logs & self._files("*.log") and len(self._files("MANIFEST-*")) == 1:
                return True
            if clock.monotonic() > until:
                return False
            # RocksDB removes them in a thread of its own.
            clock.sleep(0.01)

    def check_writes(self) -> None:
        """Write a mark and wait for the disk; a database that has refused a write is opened again first.

        Scans that are under way then end with an error. Where it could not be opened again, it stays as it is, so that
        reading goes on.

        Raises:
            StoreUnavailableError: the disk is full or fails, or the process may open no further file.
        """
        if self._read_only:
            raise refuse_write(str(self.path))
        with self._lock:
            if self._ill is None:
                # One that a flush in the background has failed is not known yet.
                with contextlib.suppress(StoreUnavailableError):
                    self._put_meta(_PROBE, str(int(clock.time())))
                    return
            self._reopen()
            self._put_meta(_PROBE, str(int(clock.time())))

    def _forget(self) -> None:
        """Keep no record in RAM."""
        self._caches.forget()
        self._say("forgotten")

    def _reopen(self) -> None:
        """Open the database again, which reads the log again: all that was acknowledged is there."""
        if self._db is not None:
            check_room(self.path)
            self._release()
        with _translated(self.path):
            self._db = self._open()
        self._own()
        self._forget()
        self._ill = self._doubt = None
        # The write that was in doubt may be there.
        self._ids.find()
        logger.warning("%s was opened again after a write had failed; it takes writes", self.path)

    def logs(self, asked: Sequence[tuple[str, int]]) -> list[list[tuple[int, bytes]]]:
        """Per (user, count) the user's logged events after the first `count`."""
        found = []
        for user, count in asked:
            prefix = _of_user(b"e", user)
            rows = self._scan(prefix, start=prefix + _NUMBER.pack(count + 1))
            found.append([(int(_NUMBER.unpack(key[len(prefix) :])[0]), value) for key, value in rows])
        return found

    def figures(self) -> dict[str, int]:
        """What RocksDB counts about itself, for metrics; nothing while it is closed."""
        try:
            return {name: int(self._db.property_int_value(of) or 0) for name, of in _FIGURES.items()}
        except Exception:
            # Another thread closes it, or opens it again.
            return {}

    def scan(self, space: int = 0) -> Iterator[tuple[str, bytes]]:
        """All names of a space and their values: the view is fixed when this is called; later commits do not show."""
        prefix = _prefix(space)
        rows = self._scan(prefix)
        return ((key[len(prefix) :].decode(), value) for key, value in rows)

    def close(self) -> None:
        """Release the store and its lock; views that are still read end with an error. A second call does nothing."""
        self._ill = None
        if self._db is None:
            return
        if not self._read_only:
            try:
                (self.path / OWNER).unlink(missing_ok=True)
            except OSError as error:
                logger.warning("%s still names this process as its owner: %s", self.path, error)
        self._release()

    def _release(self) -> None:
        """Close the database."""
        # A live iterator would keep the lock.
        for scan in list(self._scans):
            scan.stop()
        (db, self._db), (acknowledged, self._acknowledged) = (self._db, None), (self._acknowledged, None)
        sequence = db.latest_sequence_number()
        try:
            db.close()
            if acknowledged is not None:
                # All of it is in tables now.
                acknowledged.note(sequence, sync=True)
        except Exception as error:
            # After a refused write the last flush fails too; what was acknowledged is in the log that opening replays.
            logger.warning("%s was closed without a flush: %s", self.path, error)
        finally:
            if acknowledged is not None:
                acknowledged.close()

    def _own(self) -> None:
        """Name this process as the owner, and sync to the disk what RocksDB itself does not.

        Raises:
            StoreUnavailableError: the folder cannot be written.
        """
        try:
            name_owner(self.path)
            sync(self.path / "db")
            sync(self.path)
            self._acknowledged = Acknowledged(self.path)
            # RocksDB has put what its log held into tables.
            self._acknowledged.note(self._db.latest_sequence_number(), sync=True)
        except OSError as error:
            self.close()
            raise unwritable(self.path, error) from error

    def _open(self) -> Any:
        opened = partial(_opened, self.path, write=not self._read_only, stores=self._stores)
        checked = partial(_checked, self.path, opened)
        with _translated(self.path):
            return _at_rest(self.path, checked) if self._read_only else after_killed_owner(self.path, checked)

    def _opened(self) -> Any:
        if self._db is None:
            raise self._ill or StoreError(f"{self.path} is closed", fix="open it again")
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
                # Before the wait: a purge may write meanwhile, and does not wait for the disk then.
                sequence = self._db.latest_sequence_number()
        except StoreError as error:
            self._ill = error
            self._forget()
            raise
        if not self._sync:
            return
        try:
            with _translated(self.path):
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
        start = prefix + b"\xff" * 8 if backwards else start or prefix
        with _translated(self.path):
            rows = self._opened().items(backwards=backwards, from_key=start)
        scan = _Scan(rows, prefix, most, self.path, partial(self._check_end, start, backwards))
        self._scans.add(scan)
        return scan

    def _check_end(self, start: bytes, backwards: bool, last: bytes | None) -> None:
        """Check that a scan without further rows is complete: at damage RocksDB's rows end, too, without an error.

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
            # Opened again after a write that failed, or closed.
            raise StoreUnavailableError(f"{self._path} was closed while it was read", fix="read it again")
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
        """Release the view; a reader that has not finished gets an error."""
        self._stopped, self._rows = self._rows is not None, None


def _prefix(space: int) -> bytes:
    """The prefix of the keys of a space; no space's prefix begins another's."""
    if space < 0:
        return {ITEMS: b"i", SOURCES: b"f"}[space]
    return b"t" + _LENGTH.pack(space) if space else b"s"


def _keys(names: Iterable[str], space: int) -> list[bytes]:
    """Keys of names in a space; without a loop of Python's own, since there are very many."""
    return list(map(_prefix(space).__add__, map(str.encode, names)))


def _log_keys(events: Iterable[tuple[str, int]]) -> Iterable[bytes]:
    """Keys of the event log."""
    users, counts = list(map(itemgetter(0), events)), map(itemgetter(1), events)
    prefix_of = {user: _of_user(b"e", user) for user in set(users)}
    return map(add, map(prefix_of.__getitem__, users), map(_NUMBER.pack, counts))


def _each(call: Callable[[bytes, bytes], None], keys: Iterable[bytes], values: Iterable[bytes]) -> None:
    """Call it with each pair; without a loop of Python's own, since there are very many."""
    deque(map(call, keys, values), maxlen=0)


def _of_user(kind: bytes, user: str) -> bytes:
    """The prefix of a user's keys of one kind; no user's prefix begins another's."""
    return kind + name_of(user)


def _watermark_key(source: str, partition: int) -> bytes:
    return b"w" + _NUMBER.pack(partition) + source.encode()


def _opened(path: Path, *, write: bool, stores: int = 1, up_to_damage: bool = False) -> Any:
    """The database in a folder.

    Args:
        path: the folder of the store.
        write: made if it is not there.
        stores: that share the descriptors of this process.
        up_to_damage: takes what the log holds before a damaged place; else such a place is an error.
    """
    kit: Any = require("rocksdict", extra="serve", purpose="a rocksdb:// store")
    options, families = kit.Options.load_latest(str(_OPTIONS))
    options.create_if_missing(write)
    # Without a limit each file of the store stays open, and a large store runs out of descriptors.
    options.set_max_open_files(files_of_a_store(stores))
    modes = kit.DBRecoveryMode
    options.set_wal_recovery_mode(modes.point_in_time() if up_to_damage else modes.tolerate_corrupted_tail_records())
    # Every change of the files writes a new list of them: it names the first and last key of each, and must not
    # name erased users for long.
    options.set_max_manifest_file_size(1)
    # RocksDB's own diary, which grows with each change of the files, and forever otherwise.
    options.set_max_log_file_size(_DIARY)
    options.set_keep_log_file_num(_DIARIES)
    access = kit.AccessType.read_write() if write else kit.AccessType.read_only(False)
    return kit.Rdict(str(path / "db"), options, column_families=families, access_type=access)


def _checked(path: Path, opened: Callable[..., Any]) -> Any:
    """Open a database if all is there that was acknowledged.

    Raises:
        StoreCorruptError: it is not.
    """
    try:
        # Before the log is read, to which an owner may add meanwhile.
        noted = last_acknowledged(path)
    except (OSError, ValueError) as error:
        raise StoreCorruptError(f"{path / ACKNOWLEDGED} cannot be read: {error}", fix=way_back(path)) from error
    try:
        db = opened()
    except Exception as caught:
        found = _as_ours(path, str(caught))
        # A file that is missing is no part of a commit that was under way.
        torn = isinstance(found, StoreCorruptError) and "No such file" not in str(caught)
        if not torn or not _holds(path, noted):
            raise found from caught
        logger.warning("%s: what follows the last acknowledged commit in its log is left out: %s", path, caught)
        return opened(up_to_damage=True)
    try:
        _check_reached(path, db.latest_sequence_number(), noted)
    except StoreCorruptError:
        db.close()
        raise
    return db


def _holds(path: Path, noted: int) -> bool:
    """Whether the log of a database holds, before its damaged place, all that was acknowledged; changes nothing.

    A commit that was under way when the power failed may be on the disk in parts, and never returned.
    """
    try:
        db = _opened(path, write=False, up_to_damage=True)
    except Exception as error:
        logger.debug("%s is not only damaged at the end of its log: %s", path, error)
        return False
    with contextlib.closing(db):
        return bool(db.latest_sequence_number() >= noted)


def _check_reached(path: Path, found: int, noted: int) -> None:
    """Refuse a database that lacks commits.

    Raises:
        StoreCorruptError: its last change is before the last one that was acknowledged.
    """
    if found < noted:
        raise StoreCorruptError(
            f"{path} is damaged: the write-ahead log in {path / 'db'} ends with change {found:,}, and change {noted:,}"
            " was acknowledged",
            expected="all that was acknowledged",
            fix=way_back(path),
        )


def _at_rest(path: Path, opened: Callable[[], Any]) -> Any:
    """Open a database for reading, again until its owner did not change its files meanwhile.

    Opening reads the list of files, then the files. If the owner flushes or compacts in between, files that the old
    list names are gone; or, without any error, so is a log with commits that are in no file of the old list. CURRENT
    names the list, and each change of the files makes a new one (`RocksDbStore._open`).

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
                fix="try again when it has less to write, or ask the service that owns it, over HTTP",
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
            raise StoreCorruptError(f"{current} is missing", fix=way_back(path))
        return
    try:
        raw = json.loads(settings.read_text())["raw_mode"]
    except (OSError, ValueError, KeyError, TypeError):
        # Each opening, for reading too, empties this file and writes it again: one that was killed, or is under way,
        # leaves it empty or half. RocksDB does not need it, and store.json says what the folder is.
        return
    if raw is not True:
        raise StoreCorruptError(f"{settings} says that another program wrote this database", fix="check the path")


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Raises RocksDB's errors as errors of a store."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        raise _as_ours(path, str(error)) from error


def _as_ours(path: Path, text: str) -> StoreError:
    if "LOCK" in text or "lock hold by current process" in text:
        return locked(path)
    # The first file that is opened: one that CURRENT names and that is not there is no fault of the moment.
    lacks_a_list = "No such file" in text and "/MANIFEST-" in text
    if lacks_a_list or "Corruption" in text or "corrupt" in text.lower():
        return StoreCorruptError(f"{path} is damaged: {text}", fix=way_back(path))
    if "Read-only file system" in text:
        return on_read_only_disk(path)
    if "Permission denied" in text:
        return StoreUnavailableError(
            f"{path} cannot be written: {text}",
            expected="a folder that this process may write to, also to read from it",
            fix="check its rights",
        )
    if "No space left" in text:
        return StoreUnavailableError(
            f"the disk of {path} is full; nothing was kept",
            fix=f"free space; {AGAIN}",
        )
    if "Writer has previous error" in text:
        return StoreUnavailableError(
            f"{path} takes no writes since one failed; nothing was kept",
            fix=AGAIN,
        )
    if "IO error" in text or "closed" in text.lower():
        return StoreUnavailableError(
            f"{path} cannot be read or written: {text}", fix=f"check the disk, and `ulimit -n`; {AGAIN}"
        )
    return StoreError(f"{path}: {text}", fix=f"check the disk; if it is sound, {way_back(path)}")


_FIGURES = {
    "bytes": "rocksdb.total-sst-files-size",
    "records": "rocksdb.estimate-num-keys",
    "memtable_bytes": "rocksdb.cur-size-all-mem-tables",
    "level0_files": "rocksdb.num-files-at-level0",
    "compactions": "rocksdb.num-running-compactions",
    "compaction_bytes": "rocksdb.estimate-pending-compaction-bytes",
    "write_limit_bytes": "rocksdb.actual-delayed-write-rate",
    "writes_stopped": "rocksdb.is-write-stopped",
    "background_errors": "rocksdb.background-errors",
}
"""Name of a figure -> RocksDB's property; each is a number that it has at hand."""
