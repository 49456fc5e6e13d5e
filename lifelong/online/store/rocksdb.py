"""Memories on disk, in RocksDB, inside the process: how a store is opened, owned, brought back, purged and closed.

FOLDER/
  store.json    format version; written first, and checked before RocksDB is opened
  owner.json    process that has the store open for writing
  acknowledged  number of the last change that was acknowledged
  db/           RocksDB; `lifelong.online.store.database` has the keys, and the way of a read and of a commit

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
import logging
import time as clock
from functools import partial
from pathlib import Path
from typing import Any

from lifelong.atomic import sync
from lifelong.errors import StoreUnavailableError
from lifelong.online.store.artifact_list import ArtifactList, StoreIdentity, space_of
from lifelong.online.store.contract import ITEMS, conflict, refuse_write
from lifelong.online.store.database import ARTIFACTS, Acknowledged, Database, EventIds, prefix_of, translated
from lifelong.online.store.folder import (
    OWNER,
    SINGLE,
    after_killed_owner,
    check_room,
    left_copies,
    name_owner,
    require_head,
    unwritable,
    whole_store,
)
from lifelong.online.store.rocksdb_opening import check_raw, open_at_rest, open_checked, open_database, prepare

logger: logging.Logger = logging.getLogger(__name__)

_PURGED = b"mpurged"
_PROBE = b"mprobe"
_REMOVAL = 1.0
"""Seconds allowed for the removal of files that nothing reads."""
_COMPACTIONS = 3
"""How often all tables are rewritten where other erasures reach them meanwhile."""
CACHE = 128 * 2**20
"""Default of the bytes of records that a store keeps in RAM."""
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


class RocksDbStore(Database):
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

    def __init__(
        self, path: Path | str, *, read_only: bool = False, sync: bool = True, cache: int = CACHE, stores: int = 1
    ) -> None:
        path = Path(path)
        super().__init__(path, read_only=read_only, sync=sync, cache=cache)
        self._stores = stores
        if not read_only:
            prepare(path)
        require_head(path, SINGLE, read_only=read_only)
        check_raw(path, read_only=read_only)
        self._db = self._open()
        if not read_only:
            self._own()
        self._ids = EventIds(self._get_many, self._scan)
        # Most stores never hold an item, and each event would look for its own.
        if next(self._scan(prefix_of(ITEMS)), None) is None:
            self._caches.empty.add(ITEMS)

    def bind(self, identity: StoreIdentity) -> int:
        """Claim a new store, or check an old one; a store for reading is only checked."""
        listed = self.artifact_list()
        space = space_of(str(self.path), listed, identity) if listed.artifacts else 0
        stored = listed.find(identity.artifact_id)
        if self._read_only or (stored is not None and stored.identity.path == identity.path):
            return space
        self.change_artifact_list(listed, listed.renew(identity) if listed.artifacts else ArtifactList.of(identity))
        return space

    def change_artifact_list(self, before: ArtifactList, after: ArtifactList) -> None:
        """Write another list."""
        if self._read_only:
            raise refuse_write(str(self.path))
        with self._lock:
            if self.artifact_list().epoch != before.epoch:
                raise conflict(str(self.path), frozenset())
            self._put_meta(ARTIFACTS, after.to_json())
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
        first = prefix_of(space)
        # The keys of a space lie from its prefix up to the prefix that is larger by one.
        last = (int.from_bytes(first, "big") + 1).to_bytes(len(first), "big")
        with translated(self.path):
            self._opened().delete_range(first, last)
            self._opened().compact_range(first, last)
        self._caches.drop(space)
        self._say("forgotten")

    def purge(self) -> bool:
        """Rewrite all files, so that no byte of what was erased is left in them.

        Returns:
            Whether that is so, as the files say: no table holds an erasure, all files of before are gone, and there is
            no copy of the store that a killed backup has left next to it. Tables that a scan still reads go when it
            ends, and then by themselves.
        """
        if self._read_only:
            raise refuse_write(str(self.path))
        with translated(self.path):
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

    def _reopen(self) -> None:
        """Open the database again, which reads the log again: all that was acknowledged is there."""
        if self._db is not None:
            check_room(self.path)
            self._release()
        with translated(self.path):
            self._db = self._open()
        self._own()
        self._forget()
        self._ill = self._doubt = None
        # The write that was in doubt may be there.
        self._ids.find()
        logger.warning("%s was opened again after a write had failed; it takes writes", self.path)

    def figures(self) -> dict[str, int]:
        """What RocksDB counts about itself, for metrics; nothing while it is closed."""
        try:
            return {name: int(self._db.property_int_value(of) or 0) for name, of in _FIGURES.items()}
        except Exception:
            # Another thread closes it, or opens it again.
            return {}

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
        opened = partial(open_database, self.path, write=not self._read_only, stores=self._stores)
        checked = partial(open_checked, self.path, opened)
        with translated(self.path):
            return open_at_rest(self.path, checked) if self._read_only else after_killed_owner(self.path, checked)
