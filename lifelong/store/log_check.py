"""Refuses a database if its write-ahead log is not whole, and writes down how far the log was.

log.json in the folder of a store, {"number": .., "sequence": ..}: the last file of the log, which must be there or have
a later one after it, and the number of a change that the database must have. It is written at each opening, at each
closing, and before the first commit in a new file of the log returns.
"""

from __future__ import annotations

import json
from pathlib import Path

from lifelong.atomic import replace_text
from lifelong.errors import StoreCorruptError
from lifelong.store.write_ahead_log import Fault, find_fault, named_fault

NOTE = "log.json"
_TRIES = 100
"""How often a log is read if its owner removes files meanwhile."""


def note_log(path: Path, number: int, sequence: int) -> None:
    """Write down how far the log of a database is on the disk.

    Args:
        path: the folder of the store.
        number: of the last file of the log; 0 if all is in tables.
        sequence: number of the last change.

    Raises:
        OSError: it cannot be written.
    """
    replace_text(path / NOTE, json.dumps({"number": number, "sequence": sequence}) + "\n")


def noted_log(path: Path) -> tuple[int, int]:
    """Number and sequence that were written down; 0 and 0 where nothing was, as by early releases.

    Raises:
        StoreCorruptError: the note is damaged.
    """
    try:
        note = json.loads((path / NOTE).read_text())
        return int(note["number"]), int(note["sequence"])
    except FileNotFoundError:
        return 0, 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreCorruptError(f"{path / NOTE} cannot be read: {error}", fix=_way_on(path)) from error


def check_log(path: Path) -> int:
    """Look through the log of a store's database; the change that it must have.

    Raises:
        StoreCorruptError: the log is damaged; names file and place.
    """
    number, sequence = noted_log(path)
    fault = fault_of(path, number, sequence)
    if fault is not None:
        raise _damaged(path, fault)
    return sequence


def check_reached_log(path: Path, found: int, noted: int) -> None:
    """Refuse a database that lacks changes.

    Raises:
        StoreCorruptError: its last change is before the one that was noted.
    """
    if found < noted:
        what = f"{path} ends with change {found:,}, and {noted:,} was on the disk"
        raise StoreCorruptError(what, fix=_way_on(path))


def fault_at_opening(path: Path, text: str) -> StoreCorruptError | None:
    """What RocksDB found in the log, as ours; None if the damage is elsewhere.

    Args:
        path: the folder of the store.
        text: RocksDB's error. It says of a wrong checksum not where it is.
    """
    fault = named_fault(path / "db", text) or fault_of(path, sums=True)
    return None if fault is None else _damaged(path, fault)


def fault_of(path: Path, number: int = 0, sequence: int = 0, *, sums: bool = False) -> Fault | None:
    """See `find_fault`; read again where an owner removes files meanwhile."""
    for left in reversed(range(_TRIES)):
        try:
            return find_fault(path / "db", number=number, sequence=sequence, sums=sums)
        except FileNotFoundError:
            if not left:
                raise
    raise AssertionError("unreachable")


def _damaged(path: Path, fault: Fault) -> StoreCorruptError:
    lost = "" if fault.sequence is None else f"; every commit from change {fault.sequence:,} on is after it"
    return StoreCorruptError(
        f"the write-ahead log {path / 'db'}/{fault.number:06}.log is damaged at byte {fault.place:,}:"
        f" {fault.what}{lost}",
        expected="the log as it was written; only a commit that its end cuts off, which never returned, may be missing",
        fix=_way_on(path),
    )


def _way_on(path: Path) -> str:
    return (
        f"restore a backup (`lifelong restore BACKUP rocksdb://{path}`); or see with `lifelong repair rocksdb://{path}`"
        " what is lost without one, and continue without it by --accept-loss"
    )
