"""Whether the write-ahead log of a RocksDB database is whole, and what is lost where it is not.

A log is files NUMBER.log of blocks of 32 KiB; each block holds pieces (7 bytes of header and a payload). A commit is
one batch: one piece, or several that follow one another. A batch begins with the number of its first change (its
sequence) and how many it has, so that each batch begins where the one before it ended, across files too.

RocksDB compares checksums. But it takes a piece with a damaged length for one that was cut, and some damaged kinds
for the end of the log, and then opens without the commits after it. What is checked here is what it does not look at:

    kind, length, place in the block     of each piece
    sequence                             each batch continues the one before
    the end                              only a batch that the end of its file cuts may be unfinished; none follows
    the files                            the last one that was noted, and none in between is missing

A batch that was cut was not acknowledged: the loss of power, or the kill, came before its commit returned.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = 2**15
_HEADER = struct.Struct("<IHB")
_START = struct.Struct("<QI")
_ALONE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_DELETE, _PUT, _DELETE_RANGE = 0, 1, 15
_NEAR = 2**32
"""Batches that follow within one file have sequences no further apart than this."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One commit in a log.

    Args:
        sequence: number of its first change.
        count: its changes.
        pieces: (start, end) of the parts of its payload in the file.
    """

    sequence: int
    count: int
    pieces: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, payload: bytes, pieces: tuple[tuple[int, int], ...] = ()) -> Batch:
        """The batch with a payload, or the first bytes of one."""
        sequence, count = _START.unpack_from(payload)
        return cls(sequence, count, pieces)

    @property
    def after(self) -> int:
        """Sequence of the batch that follows."""
        return self.sequence + self.count


@dataclass(frozen=True, slots=True)
class Fault:
    """Where a log is damaged.

    Args:
        number: of the file.
        place: byte of the file up to which all is whole.
        what: was found.
        sequence: the first change that is lost; None if the log does not say.
    """

    number: int
    place: int
    what: str
    sequence: int | None = None


@dataclass(slots=True)
class LogFile:
    """What one file holds.

    Args:
        number: in its name.
        batches: up to its end or to the fault.
        end: byte after the last whole batch.
        fault: what is damaged after it; empty if nothing is, or a batch is only cut.
    """

    number: int
    batches: list[Batch] = field(default_factory=list)
    end: int = 0
    fault: str = ""


def files(folder: Path) -> list[Path]:
    """The files of a database's log, in order."""
    return sorted((path for path in folder.glob("*.log") if path.stem.isdecimal()), key=lambda path: int(path.stem))


def find_fault(folder: Path, *, number: int = 0, sequence: int = 0, sums: bool = False) -> Fault | None:
    """The first place where a log is damaged, None if it is whole.

    Args:
        folder: of the database.
        number: of a file that was there; it must be there, or a later one.
        sequence: which the log must reach, if it holds anything.
        sums: whether checksums are compared too, which takes about a second for 10 MB.

    Raises:
        FileNotFoundError: a process that owns the database removed a file meanwhile.
    """
    expected: int | None = None
    found = files(folder)
    for path in found:
        log = read_log(path.read_bytes(), int(path.stem), sums=sums)
        for batch in log.batches:
            if expected not in (None, batch.sequence):
                what = f"it goes on with change {batch.sequence:,} where {expected:,} was expected"
                return Fault(log.number, _begin(batch), what, expected)
            expected = batch.after
        if log.fault:
            return Fault(log.number, log.end, log.fault, expected)
    last = int(found[-1].stem) if found else 0
    if last < number:
        return Fault(number, 0, "the file is missing", expected)
    if expected is not None and expected <= sequence:
        what = f"it ends with change {expected - 1:,}, and {sequence:,} was on the disk"
        return Fault(last, log.end, what, expected)
    return None


def named_fault(folder: Path, text: str) -> Fault | None:
    """The fault that RocksDB's error names: a file of the log that was finished and is missing, or shorter now."""
    found = re.search(r"log number: (\d+)", text)
    if found is None:
        return None
    number = int(found[1])
    path = folder / f"{number:06}.log"
    if not path.exists():
        return Fault(number, 0, "the file is missing")
    log = read_log(path.read_bytes(), number)
    return Fault(number, log.end, "the file is shorter than it was", log.batches[-1].after if log.batches else None)


def read_log(data: bytes, number: int = 0, *, sums: bool = False) -> LogFile:
    """The batches of one file, up to its end or to the first damage."""
    log, opened = LogFile(number), list[tuple[int, int]]()
    try:
        for kind, start, end in _pieces(data, log, sums=sums):
            if (kind in (_ALONE, _FIRST)) == bool(opened):
                raise _DamagedError("a batch in pieces lacks one")
            opened.append((start, end))
            if kind in (_ALONE, _LAST):
                log.batches.append(_batch(data, opened))
                log.end, opened = end, []
    except _DamagedError as error:
        log.fault = str(error)
    return log


def found_behind(data: bytes, start: int) -> list[bytes]:
    """Payloads of the whole batches after a damaged place; each block of a file begins with a piece."""
    found, opened, at = list[bytes](), list[bytes](), start
    while at + _HEADER.size <= len(data):
        if BLOCK - at % BLOCK < _HEADER.size:
            at += BLOCK - at % BLOCK
            continue
        total, length, kind = _HEADER.unpack_from(data, at)
        begin, end = at + _HEADER.size, at + _HEADER.size + length
        left = BLOCK - at % BLOCK
        if end - at > left or end > len(data) or not _ALONE <= kind <= _LAST:
            opened, at = [], at + left
            continue
        if checksum(data[at + 6 : end]) != total:
            opened, at = [], end
            continue
        opened = [data[begin:end]] if kind in (_ALONE, _FIRST) else [*opened, data[begin:end]] if opened else []
        if opened and kind in (_ALONE, _LAST):
            found.append(b"".join(opened))
            opened = []
        at = end
    return found


def changes(payload: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    """Key and value of each change of a batch, None for what it takes out; up to one of a kind that we do not write."""
    at = _START.size
    while at < len(payload):
        kind, at = payload[at], at + 1
        if kind not in (_DELETE, _PUT, _DELETE_RANGE):
            return
        key, at = _text(payload, at)
        value = None
        if kind != _DELETE:
            value, at = _text(payload, at)
        yield key, value if kind == _PUT else None


def _text(payload: bytes, at: int) -> tuple[bytes, int]:
    """Bytes that follow their length, and the place after them."""
    length = shift = 0
    while True:
        byte, at = payload[at], at + 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return payload[at : at + length], at + length
        shift += 7


class _DamagedError(Exception):
    """A file holds what no writer leaves there."""


def _begin(batch: Batch) -> int:
    return batch.pieces[0][0] - _HEADER.size


def _batch(data: bytes, pieces: list[tuple[int, int]]) -> Batch:
    first = b"".join(data[start:end] for start, end in pieces[: 1 + _START.size])[: _START.size]
    if len(first) < _START.size:
        raise _DamagedError("a batch is too short")
    return Batch.of(first, tuple(pieces))


def _pieces(data: bytes, log: LogFile, *, sums: bool) -> Iterator[tuple[int, int, int]]:
    """Kind, start and end of each payload, up to the end or to a piece that is cut.

    Raises:
        _DamagedError: something else is there.
    """
    at, size = 0, len(data)
    while at < size:
        left = BLOCK - at % BLOCK
        if left < _HEADER.size:
            at += left
            continue
        if size - at < _HEADER.size:
            return
        total, length, kind = _HEADER.unpack_from(data, at)
        end = at + _HEADER.size + length
        if not _ALONE <= kind <= _LAST or end - at > left:
            raise _DamagedError("no piece of a batch begins where one should")
        if end > size:
            if not _cut(data, at, log.batches[-1].after if log.batches else 0):
                raise _DamagedError("the length of a batch is wrong")
            return
        if sums and checksum(data[at + 6 : end]) != total:
            raise _DamagedError("the checksum of a batch is wrong")
        yield kind, at + _HEADER.size, end
        at = end


def _cut(data: bytes, at: int, expected: int) -> bool:
    """Whether the end of the file cuts a piece, and not a damaged length: then a whole piece would be there."""
    if checksum(data[at + 6 :]) == _HEADER.unpack_from(data, at)[0]:
        return False
    for place in range(at + 1, len(data) - _HEADER.size - _START.size):
        total, length, kind = _HEADER.unpack_from(data, place)
        end = place + _HEADER.size + length
        if kind not in (_ALONE, _FIRST) or end > len(data) or length < _START.size:
            continue
        sequence = _START.unpack_from(data, place + _HEADER.size)[0]
        if expected < sequence < expected + _NEAR and checksum(data[place + 6 : end]) == total:
            return False
    return True


def checksum(data: bytes) -> int:
    """The checksum of a piece's kind and payload: CRC-32C, masked as RocksDB keeps it.

    >>> hex(checksum(b"123456789"))
    '0xc78ab0e5'
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _table() -> list[int]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = (number >> 1) ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return table


_TABLE = _table()
