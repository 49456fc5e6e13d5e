# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["lifelong[train,serve]"]
#
# [tool.uv.sources]
# lifelong = { path = ".." }
# ///
"""A store of your own: memories in one SQLite file, registered for URLs such as sqlite:///data/memories.db.

uv run examples/own_store.py
"""

import fcntl
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import lifelong
from lifelong.plugin import (
    ITEMS,
    ArtifactList,
    Commit,
    Elapsed,
    StoreError,
    StoreIdentity,
    StoreLockedError,
    check_bases,
    check_reached,
    check_values,
    conflict,
    refuse_write,
    register,
    space_of,
)

TABLES = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA secure_delete = ON;
CREATE TABLE IF NOT EXISTS record (space, name, value, PRIMARY KEY (space, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS watermark (source, partition, at, PRIMARY KEY (source, partition)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event_id (user, name, expiry, PRIMARY KEY (user, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event (user, count, value, PRIMARY KEY (user, count)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS artifacts (one PRIMARY KEY CHECK (one = 1), list) WITHOUT ROWID;
"""


class SqliteStore:
    """One file, owned by one process; a commit survives power loss (`synchronous = FULL`)."""

    shared = False

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path, self._read_only, self._closed = path, read_only, False
        self._lock, self._clock, self._now = threading.RLock(), Elapsed(), 0
        self._owner = None if read_only else self._own()
        self._db = self._connect()
        if not read_only:
            self._db.executescript(TABLES)

    def _own(self) -> Any:
        file = self.path.with_name(f"{self.path.name}.lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise StoreLockedError(f"another process owns {self.path}", fix="stop it, or open read_only") from error
        return file

    def _connect(self) -> sqlite3.Connection:
        mode = "ro" if self._read_only else "rwc"
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)

    def _rows(self, query: str, *values: object) -> list[Any]:
        with self._lock:
            self._check_open()
            return self._db.execute(query, values).fetchall()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed", fix="open it again")

    def _write(self, work: Callable[[], None]) -> None:
        """All that `work` does, or nothing."""
        with self._lock:
            self._check_open()
            if self._read_only:
                raise refuse_write(str(self.path))
            self._db.execute("BEGIN IMMEDIATE")
            try:
                work()
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def bind(self, identity: StoreIdentity) -> int:
        listed = self.artifact_list()
        if listed.artifacts:
            return space_of(str(self.path), listed, identity)
        if not self._read_only:
            self.change_artifact_list(listed, ArtifactList.of(identity))
        return 0

    def artifact_list(self) -> ArtifactList:
        rows = self._rows("SELECT list FROM artifacts")
        return ArtifactList.from_json(rows[0][0]) if rows else ArtifactList()

    def change_artifact_list(self, before: ArtifactList, after: ArtifactList) -> None:
        def change() -> None:
            if self.artifact_list().epoch != before.epoch:
                raise conflict(str(self.path), frozenset())
            self._db.execute("REPLACE INTO artifacts VALUES (1, ?)", [after.to_json()])

        self._write(change)

    def clear(self, space: int) -> None:
        self._write(lambda: self._many("DELETE FROM record WHERE space = ?", [(space,)]))

    def read_many(self, names: Sequence[str], *, space: int = 0) -> list[bytes | None]:
        return self._read(names, space)

    def _read(self, names: Sequence[str], space: int) -> list[bytes | None]:
        query = "SELECT value FROM record WHERE space = ? AND name = ?"
        return [next((value for (value,) in self._rows(query, space, name)), None) for name in names]

    def scan(self, space: int = 0) -> Iterator[tuple[str, bytes]]:
        self._check_open()
        return self._scanned(space)

    def _scanned(self, space: int) -> Iterator[tuple[str, bytes]]:
        # A connection of its own reads the file as it was when the first row was asked for.
        with closing(self._connect()) as db:
            for row in db.execute("SELECT name, value FROM record WHERE space = ? ORDER BY name", [space]):
                self._check_open()
                yield row

    def _many(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        self._db.executemany(statement, rows)

    def commit(self, change: Commit) -> None:
        check_values(change)
        self._write(lambda: self._apply(change))

    def _apply(self, change: Commit) -> None:
        check_bases(str(self.path), change, self.artifact_list().epoch, self._read)
        check_reached(str(self.path), change, self.watermark)
        erased = [(user,) for user in change.deleted]
        self._many("DELETE FROM record WHERE space >= 0 AND name = ?", erased)
        self._many("DELETE FROM event WHERE user = ?", erased)
        self._many("DELETE FROM event_id WHERE user = ?", erased)
        self._many("DELETE FROM record WHERE space = ? AND name = ?", [(ITEMS, item) for item in change.removed])
        rows = [(space, *record) for space, records in change.records.items() for record in records.items()]
        self._many("REPLACE INTO record VALUES (?, ?, ?)", rows)
        self._many("REPLACE INTO watermark VALUES (?, ?, ?)", [(*key, at) for key, at in change.watermarks.items()])
        self._many("DELETE FROM event WHERE user = ? AND count <= ?", list(change.trimmed.items()))
        self._many("REPLACE INTO event VALUES (?, ?, ?)", [(*key, event) for key, event in change.events.items()])
        if change.event_ids:
            self._many("DELETE FROM event_id WHERE expiry <= ?", [(min(self._now, self.clock()),)])
            self._many("REPLACE INTO event_id VALUES (?, ?, ?)", [(*key, at) for key, at in change.event_ids.items()])

    def watermark(self, source: str, partition: int) -> int:
        rows = self._rows("SELECT at FROM watermark WHERE source = ? AND partition = ?", source, partition)
        return int(rows[0][0]) if rows else -1

    def positions(self, source: str, partition: int, users: Sequence[str]) -> list[int]:
        return [self.watermark(source, partition)] * len(users)

    def clock(self) -> int:
        return self._clock.now()

    def seen(self, event_ids: Sequence[tuple[str, str]], *, now: int) -> list[bool]:
        self._now = max(self._now, now)
        query = "SELECT 1 FROM event_id WHERE user = ? AND name = ? AND expiry > ?"
        return [bool(self._rows(query, *key, now)) for key in event_ids]

    def events(self, user: str, *, last: int | None = None) -> list[bytes]:
        limit = -1 if last is None else last
        rows = self._rows("SELECT value FROM event WHERE user = ? ORDER BY count DESC LIMIT ?", user, limit)
        return [event for (event,) in reversed(rows)]

    def event_ids(self, user: str) -> list[tuple[str, int]]:
        return self._rows("SELECT name, expiry FROM event_id WHERE user = ? ORDER BY name", user)

    def logs(self, asked: Sequence[tuple[str, int]]) -> list[list[tuple[int, bytes]]]:
        query = "SELECT count, value FROM event WHERE user = ? AND count > ? ORDER BY count"
        return [self._rows(query, *one) for one in asked]

    def purge(self) -> bool:
        # What was erased is overwritten (`secure_delete`), but still stands in the write-ahead log until it is emptied.
        busy, *_ = self._rows("PRAGMA wal_checkpoint(TRUNCATE)")[0]
        return not busy

    def check_writes(self) -> None:
        self._write(lambda: None)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._db.close()
            if self._owner is not None:
                self._owner.close()


def opened(url: str, *, read_only: bool = False) -> SqliteStore:
    """The store of a URL: sqlite:///absolute/path, or sqlite://path in this folder."""
    return SqliteStore(Path(url.removeprefix("sqlite://")), read_only=read_only)


register("stores", "sqlite", opened)


def main() -> None:
    """Fold a log into it, close it, open it again, and score from it."""
    dataset = lifelong.prepare("synthetic", out="data", world="lag", users=60, overwrite=True)
    artifact = lifelong.train(dataset, "hpmn", epochs=1, progress=False, overwrite=True)
    with closing(lifelong.open_store("sqlite://memories.db")) as store:
        lifelong.backfill(artifact, dataset, store)
    with closing(lifelong.open_store("sqlite://memories.db", read_only=True)) as store:
        print(lifelong.Scorer(artifact, store).score(dataset.users.id_at(0), ["i1", "i2"]))


if __name__ == "__main__":
    main()
