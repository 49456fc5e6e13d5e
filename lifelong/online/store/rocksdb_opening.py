"""Opens the RocksDB database in a store's folder, and refuses one that is damaged or lacks what was acknowledged."""

from __future__ import annotations

import contextlib
import json
import logging
import time as clock
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lifelong.atomic import DRAFT, make_folder
from lifelong.errors import StoreCorruptError, StoreUnavailableError, require
from lifelong.online.store.database import ACKNOWLEDGED, begin, last_acknowledged
from lifelong.online.store.descriptors import files_of_a_store
from lifelong.online.store.folder import HEAD, SINGLE, database_error, unwritable, way_back, write_head

logger: logging.Logger = logging.getLogger(__name__)

_PATIENCE = 10.0
"""Seconds for which a reader tries to open what another process is changing."""
_DIARY, _DIARIES = 2**20, 3
"""Bytes of a file in which RocksDB writes what it does, and how many such files stay."""
_OPTIONS = Path(__file__).with_name("rocksdb_options")
"""RocksDB's file of the one option that the binding has no call for."""


def prepare(path: Path, facts: Mapping[str, Any] | None = None) -> None:
    """Make the folder of a new database.

    Raises:
        StoreUnavailableError: it cannot be written.
    """
    try:
        make_folder(path)
        if all(file.name in _BEGUN for file in path.iterdir()):
            # The head last: a folder that has it has all that a store needs.
            begin(path)
            write_head(path, SINGLE, **(facts or {}))
    except OSError as error:
        raise unwritable(path, error) from error


_BEGUN = (HEAD + DRAFT, ACKNOWLEDGED, ACKNOWLEDGED + DRAFT)
"""What an interrupted start leaves."""


def open_database(path: Path, *, write: bool, stores: int = 1, up_to_damage: bool = False) -> Any:
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


def open_checked(path: Path, opened: Callable[..., Any]) -> Any:
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
        reason = database_error(path, str(caught))
        # A file that is missing is no part of a commit that was under way.
        torn = isinstance(reason, StoreCorruptError) and "No such file" not in str(caught)
        if not torn or not _holds(path, noted):
            raise reason from caught
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
        db = open_database(path, write=False, up_to_damage=True)
    except Exception as error:
        logger.debug("%s is not only damaged at the end of its log: %s", path, error)
        return False
    with contextlib.closing(db):
        return bool(db.latest_sequence_number() >= noted)


def _check_reached(path: Path, last: int, noted: int) -> None:
    """Refuse a database that lacks commits.

    Raises:
        StoreCorruptError: its last change is before the last one that was acknowledged.
    """
    if last < noted:
        raise StoreCorruptError(
            f"{path} is damaged: the write-ahead log in {path / 'db'} ends with change {last:,}, and change {noted:,}"
            " was acknowledged",
            expected="all that was acknowledged",
            fix=way_back(path),
        )


def open_at_rest(path: Path, opened: Callable[[], Any]) -> Any:
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


def check_raw(path: Path, *, read_only: bool) -> None:
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
