"""The folder of a store on disk: its head file, the process that owns it, and the errors if it cannot be used.

store.json says what the folder is, {"format": "lifelong-store", "version": ..}: version 1 is one database
(`lifelong.online.store.rocksdb`), version 2 several of them side by side (`lifelong.online.store.sharded`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

from lifelong.atomic import make_folder, replace_text, sync
from lifelong.errors import StoreCorruptError, StoreError, StoreLockedError, StoreUnavailableError, UsageError
from lifelong.online.store.part import folder_of, is_part

T = TypeVar("T")

SINGLE, SHARDED = 1, 2
"""Versions of the format: one database, or several shards."""
HEAD, OWNER = "store.json", "owner.json"
AGAIN = "a running service opens its store again by itself (another command: start it again); then send it again"
"""What to do after a write was refused, when the cause is gone."""
_SPARE, _DESCRIPTORS = 4 * 2**20, 32
"""Bytes and descriptors that opening a database takes next to those that it had open."""
_PATIENCE, _PAUSE = 10.0, 0.05
"""Seconds to wait for the processes of an owner that was killed, and seconds between two checks."""
COPY = "store"
"""Name of the folder in which a backup, or a store made of one, is being built."""


def whole_store(path: Path) -> Path:
    """The folder of the store that a database is of: its own, or the one above a shard."""
    return path.parent if is_part(path) and (path.parent / HEAD).exists() else path


def way_back(path: Path) -> str:
    """What to do about a store with a damaged database."""
    store = whole_store(path)
    folder, url = quote(str(store)), quote(f"rocksdb://{store}")
    return (
        f"move it away and restore a backup: `mv {folder} {folder}.damaged`, "
        f"`lifelong backup BACKUP --restore --store {url}`; then apply what came since: "
        f"`lifelong ingest ARTIFACT --store {url} SOURCE`, which counts nothing twice,"
        " and events over HTTP again. Without a backup, move it away and fill a new store by the same `lifelong ingest`"
    )


def left_copies(folder: Path) -> list[Path]:
    """Hidden folders with a copy of a store that a backup or a restore builds there, or left when it was killed."""
    return sorted(path for path in folder.glob(".*.unfinished") if (path / COPY).is_dir())


def read_head(path: Path) -> dict[str, Any] | None:
    """What the head file says; None if there is none.

    Raises:
        StoreCorruptError: it is damaged, or of something else.
    """
    try:
        head: dict[str, Any] = json.loads((path / HEAD).read_text())
        if head["format"] != "lifelong-store":
            raise ValueError(f"format {head['format']!r}")
        version, shards = head["version"], head.get("shards", 1)
        if version == SHARDED and not (isinstance(shards, int) and shards > 1):
            raise ValueError(f"{shards!r} shards")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreCorruptError(f"{path / HEAD} cannot be read: {error}", fix=way_back(path)) from error
    return head


def databases(path: Path) -> list[Path]:
    """The folders of a store that have a database each: its own, or those of its shards.

    Raises:
        UsageError: there is no store.
        StoreCorruptError: its head file is damaged.
    """
    head = read_head(path)
    if head is None:
        raise UsageError(
            f"there is no store in {path}",
            expected="the folder of a store: rocksdb:///path",
            fix="check the path, or make the store: `lifelong backfill` or `lifelong ingest`",
        )
    if head["version"] != SHARDED:
        require_head(path, SINGLE, read_only=True)
        return [path]
    return [folder_of(path, number) for number in head.get("own", range(head["shards"]))]


def require_head(path: Path, version: int, *, read_only: bool) -> dict[str, Any]:
    """What the head file says about a store of this kind.

    Raises:
        StoreError: no store is there, or it is of another version.
        StoreCorruptError: what is there is no store, or it is damaged.
    """
    head = read_head(path)
    if head is None:
        if read_only and not (path.exists() and any(path.iterdir())):
            raise StoreError(
                f"there is no store in {path}", fix="make one with `lifelong backfill` or `lifelong ingest`"
            )
        raise StoreCorruptError(
            f"{path} is not a store: {HEAD} is missing",
            expected="a new folder or one that a store made",
            fix=f"choose another folder; if it was a store, {way_back(path)}",
        )
    if head["version"] != version:
        raise StoreError(
            f"{path} has store format {head['version']}",
            expected=f"{version}, of this release",
            fix="use the release that wrote it, or build the store again (docs/versions.md)",
        )
    return head


def write_head(path: Path, version: int, **facts: Any) -> None:
    """Write the head file into a folder that exists.

    Raises:
        OSError: it cannot be written.
    """
    # Whole: an interrupted start leaves no half-written head that looks like damage.
    replace_text(path / HEAD, json.dumps({"format": "lifelong-store", "version": version, **facts}) + "\n")
    sync(path.parent)


def act_for(process: int) -> None:
    """Let another process be named as the owner of what this one opens: the one that starts and stops it.

    Args:
        process: its number.
    """
    global _acting_for
    _acting_for = process


_acting_for: int | None = None


def name_owner(path: Path) -> None:
    """Write down that this process owns a folder, or the one that it acts for, and which one holds its lock.

    Raises:
        OSError: it cannot be written.
    """
    (path / OWNER).write_text(json.dumps({"pid": _acting_for or os.getpid(), "holder": os.getpid()}) + "\n")


def named_owner(path: Path) -> int | None:
    """The process that says it owns a folder; None if none does."""
    return _named(path, "pid")


def _named(path: Path, role: str) -> int | None:
    try:
        return int(json.loads((path / OWNER).read_text())[role])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def after_killed_owner(path: Path, opened: Callable[[], T], *, alone: bool = False) -> T:
    """Open a folder; if its owner was killed, wait for the processes that it has left, which end by themselves.

    Args:
        path: the folder.
        opened: opens it.
        alone: whether nobody else can own it, since this process has the folder above: whoever does is left.

    Raises:
        StoreLockedError: another process owns it.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return opened()
        except StoreLockedError:
            owner = named_owner(path)
            if time.monotonic() > end or not (alone or (owner is not None and not _runs(owner))):
                raise
        # They notice by themselves that their parent is gone, within moments.
        time.sleep(_PAUSE)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # The process is another user's.
        return True
    return True


def locked(path: Path) -> StoreLockedError:
    """The error for a folder that another process owns."""
    named, holder = named_owner(path), _named(path, "holder")
    if named is not None and holder is not None and not _runs(named) and _runs(holder):
        return StoreLockedError(
            f"{path} is still open in process {holder}, which writes for process {named}; that one has ended",
            expected="a process that ends with the one that it writes for, within moments",
            fix=f"it probably waits for the disk: check that, and end it with `kill -9 {holder}`, which loses nothing"
            " that was acknowledged",
        )
    owner = "another process" if named is None else f"process {named}"
    return StoreLockedError(
        f"{path} is open in {owner}",
        expected="one process that writes to a store",
        fix="stop that process, or open the store read_only",
    )


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Own a folder inside a `with` block; the system releases it when the process ends.

    Raises:
        StoreLockedError: another process owns it.
        StoreUnavailableError: it cannot be written.
    """
    try:
        make_folder(path)
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        try:
            # Of the folder itself: no file in it has to stay, and the system gives it back however the process ends.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise locked(path) from error
        yield
    finally:
        os.close(handle)


def unwritable(path: Path, error: OSError) -> StoreUnavailableError:
    """The error for a folder that cannot be written."""
    if error.errno == errno.EROFS:
        return on_read_only_disk(path)
    return StoreUnavailableError(
        f"{path} cannot be written: {error.strerror or error}",
        expected="a folder that this process may write to",
        fix="check the path, its rights and its space",
    )


def on_read_only_disk(path: Path) -> StoreUnavailableError:
    """The error for a file system that is mounted read-only."""
    return StoreUnavailableError(
        f"{path} is on a file system that can only be read; nothing was kept",
        # RocksDB writes a file of its own at each opening.
        expected="one that can be written, also to read from it",
        fix=f"mount it for writing (after a fault of the disk, check that first), or name a folder elsewhere; {AGAIN}",
    )


def check_room(path: Path) -> None:
    """Refuse to close a database that could probably not be opened again.

    Opening writes what its log holds into a table. Files and descriptors are taken and given back to see that there are
    some.

    Raises:
        StoreUnavailableError: the disk is full or cannot be written, or the process may open no further file.
    """
    try:
        logs = sum(file.stat().st_size for file in (path / "db").glob("*.log"))
        if (free := shutil.disk_usage(path).free) < logs + _SPARE:
            raise StoreUnavailableError(
                f"the disk of {path} is full: {free:,} bytes are free, opening takes {logs + _SPARE:,}",
                fix=f"free space; {AGAIN}",
            )
        with contextlib.ExitStack() as opened:
            for _ in range(_DESCRIPTORS):
                opened.callback(os.close, os.open(path, os.O_RDONLY))
            written = opened.enter_context(tempfile.TemporaryFile(dir=path))
            written.write(bytes(4096))
            written.flush()
            # Only when it is asked to does a disk say that it is full, or fails.
            os.fsync(written.fileno())
    except OSError as error:
        raise unwritable(path, error) from error


def database_error(path: Path, text: str) -> StoreError:
    """The error for what RocksDB says of a folder's database."""
    if "LOCK" in text or "lock hold by current process" in text:
        return locked(path)
    # The first file that is opened: one that CURRENT names and that is not there is no fault of the moment.
    lacks_a_list = "No such file" in text and "/MANIFEST-" in text
    if lacks_a_list or "Corruption" in text or "corrupt" in text.lower():
        return StoreCorruptError(f"{path} is damaged: {text}", fix=way_back(path))
    if "Read-only file system" in text:
        return on_read_only_disk(path)
    for pattern, found, expected, fix in _UNAVAILABLE:
        if re.search(pattern, text, re.IGNORECASE):
            return StoreUnavailableError(found.format(path=path, text=text), expected=expected, fix=fix)
    return StoreError(f"{path}: {text}", fix=f"check the disk; if it is sound, {way_back(path)}")


_UNAVAILABLE = (
    ("Permission denied", "{path} cannot be written: {text}",
     "a folder that this process may write to, also to read from it", "check its rights"),
    ("No space left", "the disk of {path} is full; nothing was kept", "", f"free space; {AGAIN}"),
    ("Writer has previous error", "{path} takes no writes since one failed; nothing was kept", "", AGAIN),
    ("IO error|closed", "{path} cannot be read or written: {text}", "", f"check the disk, and `ulimit -n`; {AGAIN}"),
)  # fmt: skip
"""Part of what RocksDB says -> what was found, expected and is to be done."""
