"""The folder of a store on disk: its first file, who owns it, and what is said where it cannot be used.

store.json says what the folder is, {"format": "lifelong-store", "version": ..}: version 1 is one database
(`lifelong.memory.rocksdb_store`), version 2 several of them side by side (`lifelong.memory.sharded_store`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lifelong.errors import StoreCorruptError, StoreError, StoreLockedError, StoreUnavailableError

SINGLE, SHARDED = 1, 2
"""Versions."""
HEAD, OWNER = "store.json", "owner.json"


def read_head(path: Path) -> dict[str, Any] | None:
    """What the first file says; None where there is none.

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
        raise StoreCorruptError(f"{path / HEAD} cannot be read: {error}", fix="restore a backup") from error
    return head


def require_head(path: Path, version: int, *, read_only: bool) -> dict[str, Any]:
    """What the first file says of a store of this kind.

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
            f"{path} is not a store: {HEAD} is missing", expected="a new folder or one that a store made"
        )
    if head["version"] != version:
        raise StoreError(f"{path} has store format {head['version']}", expected=f"{version}, of this release")
    return head


def write_head(path: Path, version: int, **facts: Any) -> None:
    """Write the first file of a folder, which is there.

    Raises:
        OSError: it cannot be written.
    """
    # Renamed into place: an interrupted start leaves no half-written head that looks like damage.
    draft = path / f"{HEAD}.new"
    draft.write_text(json.dumps({"format": "lifelong-store", "version": version, **facts}) + "\n")
    sync(draft)
    draft.rename(path / HEAD)
    sync(path)
    sync(path.parent)


def prepare(path: Path, version: int = SINGLE, facts: Mapping[str, Any] | None = None) -> None:
    """Make the folder of a new store.

    Raises:
        StoreUnavailableError: it cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if all(file.name == f"{HEAD}.new" for file in path.iterdir()):
            write_head(path, version, **(facts or {}))
    except OSError as error:
        raise unwritable(path, error) from error


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def name_owner(path: Path) -> None:
    """Write down that this process owns a folder.

    Raises:
        OSError: it cannot be written.
    """
    (path / OWNER).write_text(json.dumps({"pid": os.getpid()}) + "\n")


def locked(path: Path) -> StoreLockedError:
    """What is said of a folder that another one owns."""
    try:
        owner = f"process {json.loads((path / OWNER).read_text())['pid']}"
    except (OSError, ValueError, KeyError, TypeError):
        owner = "another process"
    return StoreLockedError(
        f"{path} is open in {owner}",
        expected="one process that writes to a store",
        fix="stop that process; or ask it, if it is a service (--service URL); or open the store read_only",
    )


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Own a folder while this lasts; the system lets go of it when the process ends.

    Raises:
        StoreLockedError: another one owns it.
        StoreUnavailableError: it cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise locked(path) from error
        yield
    finally:
        os.close(handle)


def unwritable(path: Path, error: OSError) -> StoreUnavailableError:
    """What is said of a folder to which nothing can be written."""
    if error.errno == errno.EROFS:
        return on_read_only_disk(path)
    return StoreUnavailableError(
        f"{path} cannot be written: {error}",
        expected="a folder that this process may write to",
        fix="check the path, its rights and its space",
    )


def on_read_only_disk(path: Path) -> StoreUnavailableError:
    """What is said of a file system that can only be read."""
    return StoreUnavailableError(
        f"{path} is on a file system that can only be read; nothing was kept",
        # RocksDB writes a file of its own at each opening.
        expected="one that can be written, for reading alone too",
        fix="mount it for writing (after a fault of the disk, check that first), or name a folder elsewhere; then open "
        "the store again (restart the service that owns it)",
    )
