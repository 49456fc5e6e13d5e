"""Finished folders appear at once, whole, or not at all: when a process is killed, a disk is full, the power fails.

    .OUT.<token>.unfinished   being built, and locked by its process     --sync, exchange or rename-->   OUT

A killed process leaves its hidden folder behind, without the lock. The next run for the same place removes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from lifelong.errors import DataError

_EXCHANGE = 2
_HERE = -100
"""`RENAME_EXCHANGE` and `AT_FDCWD` of Linux."""


@contextlib.contextmanager
def building(out: Path) -> Iterator[Path]:
    """A hidden, locked folder on the same disk as `out`; removed at the end, whatever happens, if it is still there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.parent / f".{out.name}.{secrets.token_hex(6)}.unfinished"
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder
    finally:
        # Still locked: nobody takes it for the remains of a killed process.
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def remove_remains(out: Path) -> list[str]:
    """Remove what killed processes left while they built `out`.

    Returns:
        The name and size of each folder that was removed, for people.
    """
    removed = []
    for folder in unfinished(out):
        with _unlocked(folder) as free:
            if free:
                size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(f"{folder.name} ({size / 2**20:,.0f} MiB)")
    return removed


def in_use(out: Path) -> Path | None:
    """The hidden folder of a process that is building `out` now; None if there is none."""
    for folder in unfinished(out):
        with _unlocked(folder) as free:
            if not free:
                return folder
    return None


def unfinished(out: Path) -> list[Path]:
    """Hidden folders in which `out` is or was being built."""
    start, end = f".{out.name}.", ".unfinished"
    if not out.parent.is_dir():
        return []
    token = slice(len(start), -len(end))
    return sorted(
        path
        for path in out.parent.iterdir()
        if path.name.startswith(start)
        and path.name.endswith(end)
        and len(path.name[token]) == 12
        and path.is_dir()
        and not path.is_symlink()
    )


def put_in_place(folder: Path, out: Path) -> None:
    """Bring a finished folder to the disk and to its place; what was there takes its name, and is removed.

    Where the system can exchange two names (Linux), there is always a whole folder at `out`.

    Args:
        folder: finished, on the same disk as `out`.
        out: its place.

    Raises:
        OSError: the folder cannot be renamed; what was at `out` is there again.
    """
    sync(folder)
    if not out.exists():
        folder.rename(out)
    elif exchange(folder, out):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        _replace(folder, out)
    _sync_folder(out.parent)


def exchange(one: Path, other: Path) -> bool:
    """Let two folders change names in one step; False where the system or the disk cannot.

    Raises:
        OSError: one of them cannot be renamed at all.
    """
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    if call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def _replace(folder: Path, out: Path) -> None:
    """Two steps: a kill between them leaves nothing at `out`, and the earlier folder under a name that is kept."""
    old = out.with_name(f"{out.name}.replaced-{secrets.token_hex(3)}")
    out.rename(old)
    try:
        folder.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def sync(folder: Path) -> None:
    """Bring all files and folders below a folder to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            _sync_folder(path)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _unlocked(folder: Path) -> Iterator[bool]:
    """Whether no living process builds in a folder; nobody can begin to while this lasts."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(handle)


@contextlib.contextmanager
def full_disk(folder: Path, *, kept: str) -> Iterator[None]:
    """Say in plain words that the disk is full.

    Args:
        folder: what is written to.
        kept: what the user still has, and can do then.

    Raises:
        DataError: instead of the system's own error.
    """
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        # The library that writes weights has an error of its own.
        if not full and "no space left on device" not in str(error).lower():
            raise
        raise DataError(f"the disk that holds {folder} is full: {error}", expected="more room", fix=kept) from error
