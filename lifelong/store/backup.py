"""Copies a store on this machine's disk, also while a process owns it, and makes a store of a copy.

    backup    tables (linked), then the log (copied) --same list of files as before?--> opened once --> DEST
    restore   DEST --every file there?--> copied --> opened once --> the new store

RocksDB never changes a table, only appends to its log, and each change of its files makes a new list (CURRENT names
it). So what was linked and copied while CURRENT stayed the same is what a kill of the owner would have left: every
commit that returned before the backup began, and of those that came meanwhile the first ones. Opening it looks the log
through and puts it into tables. Each shard is copied by itself, as after a kill: the positions of its own sources tell
how far it is.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lifelong.atomic import building, put_in_place, replace_text
from lifelong.errors import StoreCorruptError, StoreUnavailableError, UsageError
from lifelong.store.folder import HEAD, databases, unwritable
from lifelong.store.log_check import NOTE
from lifelong.store.sharded import open_folder
from lifelong.store.write_ahead_log import files

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
        files: name below the folder -> bytes.
    """

    store: str
    made: int
    artifact: str
    files: dict[str, int]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(self.files.values())


def backup(path: Path, dest: Path) -> Backup:
    """Copy a store into a new folder; a process that owns it continues meanwhile.

    On the same disk tables are linked: they take no space until the store has other ones.

    Args:
        path: folder of the store.
        dest: must not be there.

    Raises:
        UsageError: there is no store, or `dest` is there.
        StoreCorruptError: the store is damaged.
        StoreUnavailableError: `dest` cannot be written, or the store's files change all the time.
    """
    folders = databases(path)
    if dest.exists():
        raise UsageError(f"{dest} exists", expected="the name of a new folder", fix="name another one")
    try:
        with building(dest) as draft:
            store = draft / "store"
            store.mkdir()
            if folders != [path]:
                shutil.copy2(path / HEAD, store / HEAD)
            for folder in folders:
                _copy(folder, store / folder.relative_to(path))
            with _named(store, path):
                artifact = _opened_once(store)
            made = Backup(str(path), int(time.time()), artifact, _sizes(store))
            replace_text(store / FACTS, json.dumps({"format": "lifelong-backup", "version": 1, **asdict(made)}) + "\n")
            put_in_place(store, dest)
    except OSError as error:
        raise unwritable(dest, error) from error
    return made


def restore(source: Path, path: Path) -> Backup:
    """Make a store of a backup, which stays as it is.

    Args:
        source: what `backup` made.
        path: folder of the new store; nothing may be there.

    Raises:
        UsageError: `source` is no backup, or something is at `path`.
        StoreCorruptError: the backup lacks a file, or one is damaged.
        StoreUnavailableError: `path` cannot be written.
    """
    made = read_backup(source)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UsageError(
            f"{path} exists, and a backup never overwrites anything",
            expected="the name of a new folder",
            fix="move it away, or name another folder",
        )
    try:
        with building(path) as draft:
            store = draft / "store"
            shutil.copytree(source, store, ignore=shutil.ignore_patterns(FACTS))
            with _named(store, source):
                _opened_once(store)
            put_in_place(store, path)
    except OSError as error:
        raise unwritable(path, error) from error
    return made


def read_backup(source: Path) -> Backup:
    """What a backup is of, when each of its files is there.

    Raises:
        UsageError: it is none.
        StoreCorruptError: a file is missing, or is not as long as it was.
    """
    try:
        facts = json.loads((source / FACTS).read_text())
        if facts["format"] != "lifelong-backup" or facts["version"] != 1:
            raise ValueError(f"{facts['format']} {facts['version']}")
        made = Backup(facts["store"], facts["made"], facts["artifact"], dict(facts["files"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        expected = "a folder that `lifelong backup` made"
        raise UsageError(
            f"{source} is not a backup: {FACTS} cannot be read ({error})",
            expected=expected,
            fix="name the folder that `lifelong backup` wrote",
        ) from error
    found = _sizes(source)
    for name, size in made.files.items():
        if found.get(name) != size:
            state = "is missing" if name not in found else f"has {found[name]:,} bytes"
            raise StoreCorruptError(
                f"{source / name} {state}", expected=f"{size:,} bytes, as it was made", fix="take another backup"
            )
    return made


def _sizes(folder: Path) -> dict[str, int]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in (FACTS, *_LEFT_OUT))
    return {str(path.relative_to(folder)): path.stat().st_size for path in found}


def _opened_once(store: Path) -> str:
    """Check a copy and bring it to rest; returns the artifact that it serves."""
    with contextlib.closing(open_folder(store, None, read_only=False)) as opened:
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
    # First the note of how far the log is, then the log: it can only have grown.
    for name in (HEAD, NOTE):
        if (folder / name).exists():
            shutil.copy2(folder / name, to / name)
    logs = files(folder / "db")
    for path in sorted((folder / "db").iterdir()):
        if path in logs or path.name.startswith(_LEFT_OUT):
            continue
        (_link if path.suffix == ".sst" else shutil.copy2)(path, to / "db" / path.name)
    for path in files(folder / "db"):
        shutil.copy2(path, to / "db" / path.name)


def _link(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copy2(path, to)
