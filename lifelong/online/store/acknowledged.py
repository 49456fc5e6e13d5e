"""How far the commits of a database were acknowledged, so that a log without its last ones is found at opening.

FOLDER/acknowledged has two slots, written in turn, so that one is whole if a write of the other is cut:

    sequence number of RocksDB's last acknowledged change (8)   CRC-32 of it (4)   nothing (4)

RocksDB takes some damage for the end of its log: a commit whose length was changed looks like one that was cut. Such a
log opens, without the commits behind the damage, and then ends before the number here.

A number is written after its commit is on the disk, so it never names one that a loss of power may take. It is brought
to the disk itself once a second: after a kill it is exact, after a loss of power at most seconds behind.
"""

from __future__ import annotations

import os
import struct
import threading
import time as clock
import zlib
from pathlib import Path

from lifelong.atomic import write_whole

NAME = "acknowledged"
_SLOT, _SIZE = struct.Struct(">QI"), 16
_EVERY = 1.0
"""Seconds between two times that it waits for the disk."""


class Acknowledged:
    """The number of a database that this process owns; threads may share it.

    Args:
        path: folder of the database's store.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._last, self._slot = _newest(path)
        self._file, self._lock, self._synced = os.open(path / NAME, os.O_WRONLY), threading.Lock(), 0.0

    def note(self, sequence: int, *, sync: bool = False) -> None:
        """Write down a change that is on the disk.

        Raises:
            OSError: it cannot be written.
        """
        # Commits and a purge come from different threads, in another order than their numbers.
        with self._lock:
            if sequence > self._last:
                slot = 1 - self._slot
                os.pwrite(self._file, _packed(sequence), slot * _SIZE)
                self._last, self._slot = sequence, slot
            now = clock.monotonic()
            if sync or now - self._synced > _EVERY:
                os.fdatasync(self._file)
                self._synced = now

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def begin(path: Path) -> None:
    """Write the file of a new database.

    Raises:
        OSError: it cannot be written.
    """
    with write_whole(path / NAME) as draft:
        draft.write_bytes((_packed(0) + bytes(_SIZE - _SLOT.size)) * 2)


def last_acknowledged(path: Path) -> int:
    """The number of a store's database.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged.
    """
    return _newest(path)[0]


def _newest(path: Path) -> tuple[int, int]:
    """The larger number, and its slot."""
    data, found = (path / NAME).read_bytes(), []
    for slot in (0, 1):
        part = data[slot * _SIZE :][: _SLOT.size]
        if len(part) == _SLOT.size and part == _packed(sequence := _SLOT.unpack(part)[0]):
            found.append((sequence, slot))
    if not found:
        raise ValueError("neither of its two numbers fits its checksum")
    return max(found)


def _packed(sequence: int) -> bytes:
    return _SLOT.pack(sequence, zlib.crc32(sequence.to_bytes(8, "big")))
