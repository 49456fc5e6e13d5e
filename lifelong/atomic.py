"""Files and folders that are there whole or not at all, when a process is killed, a disk is full or the power fails.

    write_whole               FILE.new                  being written            --sync, rename-->               FILE
    building, put_in_place    .OUT.<token>.unfinished   being built and locked   --sync, exchange or rename-->   OUT

A killed process leaves its draft behind. That of a file is overwritten by the next writer; that of a folder has lost
its lock, and the next run for the same place removes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from lifelong.errors import DataError, UsageError

DRAFT = ".new"
"""Ending of a file that is being written."""
_EXCHANGE = 2
_HERE = -100
"""`RENAME_EXCHANGE` and `AT_FDCWD` of Linux."""


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Where to write a file; at the end it is brought to the disk and takes its name, or after an error is removed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with write_whole(Path(folder) / "names.txt") as draft:
    ...         _ = draft.write_text("ada")
    ...     (Path(folder) / "names.txt").read_text()
    'ada'
    """
    draft = path.with_name(path.name + DRAFT)
    try:
        yield draft
        # The content before the name: a disk may keep the two in the other order, and a power failure would leave an
        # empty file.
        sync(draft)
        draft.replace(path)
    finally:
        # After an error it holds half a file; otherwise it has taken its name and is not there.
        draft.unlink(missing_ok=True)
    # A new name is on the disk only when its folder is.
    sync(path.parent)


def replace_text(path: Path, text: str) -> None:
    """Write a text file that is there whole or, after a crash, as it was."""
    with write_whole(path) as draft:
        draft.write_text(text, encoding="utf-8")


def check_writable(path: Path) -> None:
    """Check, before something takes hours, that a place can be written to at its end.

    Raises:
        OSError: the nearest folder above it cannot be written to.
    """
    there = next(parent for parent in path.absolute().parents if parent.exists())
    # A mode says less than a trial: a disk may be read-only, and root is let in everywhere.
    with tempfile.TemporaryDirectory(dir=there, prefix=f".{path.name}."):
        pass


def check_folder(path: Path) -> None:
    """Check that a folder is or can be at a place, as far as what is there says.

    Raises:
        UsageError: a file is there, or in the place of a folder above it.

    >>> check_folder(Path("/tmp"))
    """
    taken = next((folder for folder in (path, *path.parents) if folder.exists() and not folder.is_dir()), None)
    if taken is not None:
        raise UsageError(f"{taken} is a file", expected="a folder, or a name that is free", fix="choose another place")


def check_file(path: Path) -> None:
    """Check that a file can be at a place, as far as what is there says, before the work that it is for.

    Raises:
        UsageError: a folder is there, or a file in the place of a folder above it.

    >>> check_file(Path("/tmp/result.json"))
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder", expected="a file, or a name that is free", fix="choose another place")
    check_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, and bring the names of the new ones to the disk.

    Raises:
        OSError: one cannot be made.
    """
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in new:
        sync(folder.parent)


@contextlib.contextmanager
def building(out: Path) -> Iterator[Path]:
    """A hidden, locked folder on the same disk as `out`; removed at the end unless it was put in place."""
    make_folder(out.parent)
    folder = out.parent / f".{out.name}.{secrets.token_hex(6)}.unfinished"
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    try:
        # A lock, and not a file with a process's number: the system releases it however the process ends.
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder
    finally:
        # It is still locked, so no other process takes it for the remains of a killed one.
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def remove_remains(out: Path) -> list[str]:
    """Remove what killed processes left while they built `out`; see `remove_left`."""
    return remove_left(unfinished(out))


def remove_left(folders: Iterable[Path]) -> list[str]:
    """Remove those of some hidden folders in which no living process builds.

    Returns:
        The name and size of each folder that was removed, for people.
    """
    removed = []
    for folder in folders:
        with unlocked(folder) as free:
            if free:
                size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(f"{folder.name} ({size / 2**20:,.0f} MiB)")
    return removed


def in_use(out: Path) -> Path | None:
    """The hidden folder of a process that is building `out` now; None if there is none."""
    for folder in unfinished(out):
        with unlocked(folder) as free:
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
        # As long as the token, so that a folder of somebody else that is named alike stays.
        and len(path.name[token]) == 12
        and path.is_dir()
        and not path.is_symlink()
    )


def put_in_place(folder: Path, out: Path) -> None:
    """Bring a finished folder to the disk and to its place, in exchange for the folder that was there, if any.

    Where the system can exchange two names (Linux), there is always a whole folder at `out`.

    Args:
        folder: finished, on the same disk as `out`.
        out: its place.

    Raises:
        OSError: the folder cannot be renamed; what was at `out` is there again.
    """
    # All of it before the name: what is at `out` after a power failure is whole.
    sync_tree(folder)
    if not out.exists():
        folder.rename(out)
    elif exchange(folder, out):
        # It holds what was at `out` until now.
        shutil.rmtree(folder, ignore_errors=True)
    else:
        _replace(folder, out)
    sync(out.parent)


def exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders in one step; False where the system or the disk cannot.

    Raises:
        OSError: one of them cannot be renamed at all.
    """
    try:
        # Python has no function for it; without `use_errno` the number of the error would be lost.
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    if call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    # The kernel has no such call, or the file system cannot do it: then two steps have to do.
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
        # What was there before is better than nothing.
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    """Bring all files and folders below a folder, and the folder itself, to the disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    # To read is enough for this, and a folder cannot be opened in another way.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def unlocked(folder: Path) -> Iterator[bool]:
    """Whether no living process builds in a folder or guards it; while the context lasts, none can begin to."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    # Another process may have removed it since it was listed.
    except FileNotFoundError:
        yield False
        return
    try:
        # Without waiting: a process may build there for hours.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(handle)


@contextlib.contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Keep a folder that is being used from being replaced; several processes may guard it.

    >>> with guarded(Path("/tmp")), unlocked(Path("/tmp")) as free:
    ...     free
    False
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        # Nothing waits: who replaces a folder holds its lock for a moment only.
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def full_disk(folder: Path, *, kept: str, room: str = "more room") -> Iterator[None]:
    """Say in plain words that the disk is full.

    Args:
        folder: what is written to.
        kept: what the user still has, and can do.
        room: how much room it takes.

    Raises:
        DataError: instead of the error of the system, or of a library that has one of its own.
    """
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        # Libraries such as DuckDB raise errors of their own, without the number.
        said = str(error).lower()
        if not full and "no space left" not in said and "max_temp_directory_size" not in said:
            raise
        text = str(error).partition("\n")[0]
        problem = f"the disk that holds {folder} is full: {text}"
        raise DataError(problem, expected=room, fix=kept) from error
