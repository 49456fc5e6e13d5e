"""Continues without the damaged part of a store's write-ahead log, and says what is lost with it.

What is before the damage is kept: memories, event log, event ids and watermarks as they were after some commit, of each
shard by itself. So sources that are read again from their watermarks bring back what they still have.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lifelong.atomic import building, sync
from lifelong.errors import StoreCorruptError, StoreError
from lifelong.store.folder import databases, held, unwritable
from lifelong.store.log_check import check_reached_log, fault_of, note_log, noted_log
from lifelong.store.rocksdb import RocksDbStore, open_unchecked
from lifelong.store.write_ahead_log import Batch, Fault, changes, files, found_behind, named_fault

_LENGTH, _OFFSET = struct.Struct(">I"), struct.Struct(">q")


@dataclass(slots=True)
class Loss:
    """What a database lacks when it continues without the damaged part of its log.

    Args:
        file: of the log that is damaged.
        place: byte of the file up to which all is kept.
        what: was found there.
        first: number of the first change that is lost, None if that is not known.
        last: number of the last one that the log shows.
        commits: that are whole after the damage; the damaged ones are not among them.
        users: who were written or erased in these.
        items: those that were put online in these.
        watermarks: (source, partition) -> offset that is kept, and the one that was reached in these.
    """

    file: str
    place: int
    what: str
    first: int | None = None
    last: int | None = None
    commits: int = 0
    users: set[str] = field(default_factory=set)
    items: set[str] = field(default_factory=set)
    watermarks: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)


def examine(path: Path) -> list[Loss]:
    """What the store in a folder would lose, of each damaged shard; nothing is changed.

    Raises:
        UsageError: there is no store.
        StoreCorruptError: something else than the log is damaged.
        StoreUnavailableError: there is no room for a copy of the log next to the store.
    """
    damaged = [folder for folder in databases(path) if _fault(folder) is not None]
    try:
        return [loss for folder in damaged for loss in _tried(folder, path)]
    except OSError as error:
        raise unwritable(path.parent, error) from error


def _tried(folder: Path, path: Path) -> list[Loss]:
    """What a copy of a database loses."""
    with building(path) as draft:
        _link(folder, draft / "store")
        loss = _repaired(draft / "store", folder)
    return [] if loss is None else [loss]


def accept_loss(path: Path) -> list[Loss]:
    """Take the damaged part of the log away, and all after it; what is lost, of each damaged shard.

    No process may have the store open, not even this one.

    Raises:
        UsageError: there is no store.
        StoreLockedError: a process owns it.
        StoreCorruptError: something else than the log is damaged.
    """
    folders = databases(path)
    with held(path) if len(folders) > 1 else contextlib.nullcontext():
        return [loss for folder in folders if (loss := _repaired(folder, folder)) is not None]


def _fault(path: Path) -> Fault | None:
    """What is wrong with the log, by our check or by RocksDB's."""
    db = path / "db"
    try:
        number, sequence = noted_log(path)
    except StoreCorruptError as error:
        return fault_of(path, sums=True) or Fault(_last(db), _size(db), error.found)
    fault = fault_of(path, number, sequence, sums=True)
    if fault is not None:
        return fault
    try:
        found = open_unchecked(path)
    except StoreError as error:
        fault = named_fault(db, str(error))
        if fault is None:
            raise
        return fault
    try:
        check_reached_log(path, found.latest_sequence_number(), sequence)
    except StoreCorruptError as error:
        return Fault(_last(db), _size(db), error.found)
    finally:
        found.close()
    return None


def _last(db: Path) -> int:
    return max((int(path.stem) for path in files(db)), default=0)


def _size(db: Path) -> int:
    return max((path.stat().st_size for path in files(db)[-1:]), default=0)


def _repaired(path: Path, shown: Path) -> Loss | None:
    """Cut the log of a database; None if it is whole.

    Args:
        path: the folder with the database.
        shown: the folder as it is called.
    """
    db = path / "db"
    with held(path, database=True):
        fault = _fault(path)
        if fault is None:
            return None
        loss = Loss(f"{shown / 'db'}/{fault.number:06}.log", fault.place, fault.what, fault.sequence)
        reached = _note_lost(loss, db, fault)
        # First: what is cut then cannot be missed at an opening after a crash.
        note_log(path, 0, 0)
        _cut(db, fault)
    # Once without RocksDB's own list of finished files, so that it forgets those.
    open_unchecked(path, write=True, listed=False).close()
    with contextlib.closing(RocksDbStore(path)) as store:
        kept = {key: store.watermark(*key) for key in reached}
    loss.watermarks = {key: (kept[key], offset) for key, offset in sorted(reached.items())}
    return loss


def _cut(db: Path, fault: Fault) -> None:
    """Leave of the log what is before the fault."""
    for path in reversed(files(db)):
        if int(path.stem) > fault.number:
            path.unlink()
        elif int(path.stem) == fault.number:
            os.truncate(path, fault.place)
            sync(path)
    sync(db)


def _note_lost(loss: Loss, db: Path, fault: Fault) -> dict[tuple[str, int], int]:
    """Note what is in the whole commits after a fault; the watermarks that they reached."""
    reached: dict[tuple[str, int], int] = {}
    for path in files(db):
        if int(path.stem) < fault.number:
            continue
        for payload in found_behind(path.read_bytes(), fault.place if int(path.stem) == fault.number else 0):
            loss.commits += 1
            loss.last = max(loss.last or 0, Batch.of(payload).after - 1)
            for key, value in changes(payload):
                _note_change(loss, reached, key, value)
    return reached


def _note_change(loss: Loss, reached: dict[tuple[str, int], int], key: bytes, value: bytes | None) -> None:
    kind, name = key[:1], key[1:]
    if kind == b"w" and value is not None:
        reached[name[8:].decode(), _OFFSET.unpack(name[:8])[0]] = _OFFSET.unpack(value)[0]
    elif kind == b"i":
        loss.items.add(name.decode())
    elif kind == b"s":
        loss.users.add(name.decode())
    elif kind == b"t":
        loss.users.add(name[4:].decode())
    elif kind == b"e":
        loss.users.add(name[4 : 4 + _LENGTH.unpack(name[:4])[0]].decode())


def _link(folder: Path, to: Path) -> None:
    """A copy with the same files as tables: RocksDB never changes one."""
    shutil.copytree(folder, to, copy_function=_link_or_copy)


def _link_or_copy(one: str, other: str) -> None:
    (os.link if one.endswith(".sst") else shutil.copy2)(one, other)


def as_document(loss: Loss) -> Mapping[str, object]:
    """A loss for machines."""
    return {
        "file": loss.file,
        "byte": loss.place,
        "what": loss.what,
        "first_change": loss.first,
        "last_change": loss.last,
        "commits": loss.commits,
        "users": sorted(loss.users),
        "items": sorted(loss.items),
        "watermarks": [
            {"source": source, "partition": partition, "kept": kept, "reached": offset}
            for (source, partition), (kept, offset) in loss.watermarks.items()
        ],
    }
