"""Copies a store on this machine's disk, also while a process owns it, and makes a store of a copy.

    backup    tables (linked), then the log (copied) --same list of files as before?--> opened once --> DEST
    restore   DEST --copied--> every file as it was? --> opened once --> the new store

RocksDB never changes a table, only appends to its log, and each change of its files makes a new list (CURRENT names
it). So what was linked and copied while CURRENT stayed the same is what a kill of the owner would have left: every
commit that returned before the backup began, and of those that came meanwhile the first ones. Opening it checks the log
and puts it into tables. Each shard is copied by itself, as after a kill: the positions of its own sources tell
how far it is.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lifelong.atomic import building, put_in_place, remove_left, replace_text
from lifelong.errors import StoreCorruptError, StoreUnavailableError, UsageError
from lifelong.online.store.contract import BACKFILL, SOURCES
from lifelong.online.store.database import ACKNOWLEDGED
from lifelong.online.store.folder import (
    COPY,
    HEAD,
    SHARDED,
    databases,
    held,
    left_copies,
    read_head,
    unwritable,
    write_head,
)
from lifelong.online.store.part import FolderUrl, folder_of
from lifelong.online.store.rocksdb import RocksDbStore
from lifelong.online.store.sharded import open_folder

logger: logging.Logger = logging.getLogger(__name__)

FACTS = "backup.json"
_PATIENCE = 60.0
"""Seconds for which a database is copied again if its files change meanwhile."""
_LEFT_OUT = ("LOCK", "LOG")
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP)


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup is of.

    Args:
        store: folder of the store.
        made: UTC second.
        artifact: id of the artifact that the store serves; empty for a new store.
        files: name below the folder -> bytes and SHA-256.
    """

    store: str
    made: int
    artifact: str
    files: dict[str, tuple[int, str]]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(size for size, _ in self.files.values())


def backup(path: Path, dest: Path, *, shard: int | None = None) -> Backup:
    """Copy a store into a new folder; a process that owns it continues meanwhile.

    On the same disk tables are linked: they take no space until the store has other ones.

    Args:
        path: folder of the store.
        dest: must not be there.
        shard: copies this one alone, as a node's store that has no other.

    Raises:
        UsageError: there is no store, or it lacks the shard, or `dest` is there.
        StoreCorruptError: the store is damaged.
        StoreUnavailableError: `dest` cannot be written, or the store's files change all the time.
    """
    folders = [folder for folder in databases(path) if shard is None or folder == folder_of(path, shard)]
    if not folders:
        raise UsageError(f"{path} has no shard {shard}", expected="a shard that is there", fix="see its store.json")
    if dest.exists():
        raise UsageError(f"{dest} exists", expected="the name of a new folder", fix="name another one")
    with _building(dest) as store:
        if folders != [path]:
            one = {} if shard is None else {"own": [shard]}
            write_head(store, SHARDED, **{**_divided(path), **one})
        for folder in folders:
            _copy(folder, store / folder.relative_to(path))
        with _named(store, path):
            artifact = _opened_once(store)
        made = Backup(str(path), int(time.time()), artifact, _facts(store))
        replace_text(store / FACTS, json.dumps({"format": "lifelong-backup", "version": 1, **asdict(made)}) + "\n")
        put_in_place(store, dest)
    return made


def _divided(path: Path) -> dict[str, Any]:
    """What a store of shards says of them."""
    head = read_head(path) or {}
    return {name: value for name, value in head.items() if name in ("shards", "own", "partitioner")}


def restore(source: Path, path: Path, *, shard: int | None = None) -> Backup:
    """Make a store of a backup, which stays as it is.

    Args:
        source: what `backup` made.
        path: folder of the new store; nothing may be there.
        shard: brings back this one alone, also into a store that has other shards and that no process owns.

    Raises:
        UsageError: `source` is no backup, or something is at `path`.
        StoreLockedError: a process owns the store into which a shard goes.
        StoreCorruptError: the backup lacks a file, or one is not as it was, or leads out of its folder.
        StoreUnavailableError: `path` cannot be written.
    """
    made = read_backup(source)
    if shard is not None:
        return _restore_shard(source, path, shard, made)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UsageError(
            f"{path} exists, and a backup never overwrites anything",
            expected="the name of a new folder",
            fix="move it away, or name another folder",
        )
    with _building(path) as store:
        _copy_backup(source, store, made)
        with _named(store, source):
            _opened_once(store)
        put_in_place(store, path)
    return made


def _copy_backup(source: Path, store: Path, made: Backup) -> None:
    for name in made.files:
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, store / name)
    _check_copies(source, store, made)


def _restore_shard(source: Path, path: Path, shard: int, made: Backup) -> Backup:
    """Bring one shard of a backup into a store, or a new one; see `restore`."""
    out, now, head = folder_of(path, shard), _divided(source), read_head(path)
    made = replace(made, files={name: fact for name, fact in made.files.items() if Path(name).parts[0] == out.name})
    there = head or {"version": SHARDED, **now, "own": []}
    rule = [(of.get("shards"), of.get("partitioner", "crc32")) for of in (there, now)]
    if not made.files or out.exists() or rule[0] != rule[1]:
        raise UsageError(
            f"shard {shard} of {source} cannot be put into {path}",
            expected="a backup with this shard, and a store of as many shards, divided alike, that lacks it",
            fix="compare store.json of both, and move away what is there",
        )
    with held(path), _building(out) as store:
        _copy_backup(source, store, made)
        write_head(store, SHARDED, **{"partitioner": "crc32", **now, "own": [shard]})
        with _named(store, source):
            _opened_once(store)
        _check_alike(path, store / out.name)
        put_in_place(store / out.name, out)
        if "own" in there:
            # Last: until now it is a store without this shard.
            write_head(path, SHARDED, **{"partitioner": "crc32", **now, "own": sorted({*there["own"], shard})})
    return made


def _check_alike(path: Path, shard: Path) -> None:
    """Refuse a shard with memories of other artifacts than the shards of a store, or filled until another moment.

    Raises:
        UsageError: it is another one.
    """
    lists, moments = [], []
    for folder in [shard, *path.glob(f"{shard.name.partition('-')[0]}-*")][:2]:
        with contextlib.closing(RocksDbStore(folder, read_only=True)) as opened:
            listed, sources = opened.artifact_list(), dict(opened.scan(SOURCES))
        lists.append((listed.active, [(one.id, one.space, one.phase) for one in listed.artifacts]))
        moments.append(json.loads(sources.get(BACKFILL, b"{}")).get("until"))
    if lists[0] != lists[-1]:
        raise UsageError(
            f"{shard.name} has memories of other artifacts than {path}, or another one is served",
            expected="the same artifacts, built and switched in both stores",
            fix="make a backup after the switch, or switch this store, too",
        )
    if moments[0] != moments[-1]:
        # A store has one such moment, and its latest would hide events of the shard that came between the two.
        raise UsageError(
            f"{shard.name} was filled until {moments[0]}, and {path} until {moments[-1]}",
            expected="one moment for all shards of a store, as one `lifelong backfill` writes it",
            fix="restore it into a folder of its own, and serve it by another process",
        )


def read_backup(source: Path) -> Backup:
    """What a backup is of, when each of its files is in its folder.

    Raises:
        UsageError: it is none.
        StoreCorruptError: a file is missing, or is somewhere else.
    """
    try:
        facts = json.loads((source / FACTS).read_text())
        if facts["format"] != "lifelong-backup" or facts["version"] != 1:
            raise ValueError(f"{facts['format']} {facts['version']}")
        files = {str(name): (int(size), str(digest)) for name, (size, digest) in facts["files"].items()}
        made = Backup(facts["store"], facts["made"], facts["artifact"], files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{source} is not a backup: {FACTS} cannot be read ({error})",
            expected="a folder that `lifelong backup` made",
            fix="name the folder that `lifelong backup` wrote",
        ) from error
    folder = source.resolve()
    for name in made.files:
        # A link, `..` or an absolute name would copy what is no part of the backup.
        if (source / name).resolve() != folder / name or Path(name).is_absolute():
            raise _not_as_made(source / name, "is a link, or a name outside of the backup")
        if not (source / name).is_file():
            raise _not_as_made(source / name, "is missing")
    return made


def _check_copies(source: Path, copy: Path, made: Backup) -> None:
    """Compare the files that were copied with what they were.

    Raises:
        StoreCorruptError: one is another; names the backup's file.
    """
    for name, fact in made.files.items():
        now, was = _fact(copy / name), fact[0]
        if now != fact:
            differs = "another SHA-256" if now[0] == was else f"{now[0]:,} bytes, not {was:,}"
            raise _not_as_made(source / name, f"has {differs}")


def _not_as_made(path: Path, what: str) -> StoreCorruptError:
    expected = "each file of the backup as it was made"
    return StoreCorruptError(f"{path} {what}", expected=expected, fix="restore another backup")


def _facts(folder: Path) -> dict[str, tuple[int, str]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in (FACTS, *_LEFT_OUT))
    return {str(path.relative_to(folder)): _fact(path) for path in files}


def _fact(path: Path) -> tuple[int, str]:
    """Bytes and SHA-256 of a file."""
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _building(out: Path) -> Iterator[Path]:
    """A hidden folder for the copy of a store; first removes those that killed processes have left in the same place.

    Raises:
        StoreUnavailableError: it cannot be written.
    """
    try:
        for removed in remove_left(left_copies(out.parent)):
            logger.warning("removed %s, an unfinished copy of a store in %s", removed, out.parent)
        with building(out) as draft:
            store = draft / COPY
            store.mkdir()
            yield store
    except OSError as error:
        raise unwritable(out, error) from error


def _opened_once(store: Path) -> str:
    """Check a copy and bring it to rest; returns the artifact that it serves."""
    with contextlib.closing(open_folder(FolderUrl(store), read_only=False)) as opened:
        identity = opened.artifact_list().identity
    return "" if identity is None else identity.artifact_id


@contextlib.contextmanager
def _named(copy: Path, path: Path) -> Iterator[None]:
    """Name in an error what was copied, and not the copy."""
    try:
        yield
    except StoreCorruptError as error:
        found, fix = (text.replace(str(copy), str(path)) for text in (error.found, error.fix))
        raise StoreCorruptError(f"nothing was made: {found}", expected=error.expected, fix=fix) from error


def _copy(folder: Path, to: Path) -> None:
    """Copy one database, again until its files do not change meanwhile.

    Raises:
        StoreUnavailableError: they changed each time.
    """
    current, end = folder / "db" / "CURRENT", time.monotonic() + _PATIENCE
    while True:
        with contextlib.suppress(FileNotFoundError):
            before = current.read_bytes()
            _copy_files(folder, to)
            # The copy's list, too: it may have been copied just before another one took its place.
            if current.read_bytes() == before == (to / "db" / "CURRENT").read_bytes():
                return
        shutil.rmtree(to / "db", ignore_errors=True)
        if not current.exists() or time.monotonic() > end:
            raise StoreUnavailableError(
                f"the files of {folder} changed each time that they were copied for {_PATIENCE:.0f} s",
                fix="try again when the process that owns it has less to write",
            )


def _copy_files(folder: Path, to: Path) -> None:
    (to / "db").mkdir(parents=True, exist_ok=True)
    # First how far commits were acknowledged, then the log: it can only have grown.
    for name in (HEAD, ACKNOWLEDGED):
        if (folder / name).exists():
            shutil.copy2(folder / name, to / name)
    for path in sorted((folder / "db").iterdir()):
        if path.suffix == ".log" or path.name.startswith(_LEFT_OUT):
            continue
        (_link if path.suffix == ".sst" else shutil.copy2)(path, to / "db" / path.name)
    for path in sorted((folder / "db").glob("*.log")):
        shutil.copy2(path, to / "db" / path.name)


def _link(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copy2(path, to)
