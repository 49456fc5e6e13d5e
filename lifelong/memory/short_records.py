"""Records of memories with many empty cells: the filled ones as they are, and none of the zeros after them.

    offset  0   header     24 bytes, see `lifelong.memory.codec`; version 2
            24  lengths    uint16 for each stretch: how many of its bytes follow
            ..  stretches  each without the zeros at its end

The stretches are the fields of the layout in their order, and instead of the one with the cells: those of each counted
field, 4 bytes a cell, sorted, empty ones last. A user's first events fill a few cells, levels of the clock and slots;
all else is zeros, which are most of a record of fixed length. A full memory is shorter with its cells packed.

Shapes: N records, B users, S stretches.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from itertools import repeat
from operator import ne
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lifelong.dtypes import IntArray
from lifelong.memory.packed_cells import PackedCells

Bytes = npt.NDArray[np.uint8]

VERSION = 2
CHECKSUM = slice(4, 8)
_HEADER, _LENGTH = 24, 2
_ALIGNED = 8
"""Bytes of the largest number of a field: each field begins at a multiple of it."""
_LONGEST = 2 ** (8 * _LENGTH) - 1


class Stretch(NamedTuple):
    """A part of a field.

    Args:
        name: of the field.
        begin: its first byte in the field of a user.
        end: the byte after its last one.
    """

    name: str
    begin: int
    end: int


class ShortRecords:
    """Writes and reads short records of one layout.

    Args:
        sizes: field -> bytes of one user, in the order of the layout; the cells' not packed.
        cells: name of the field of cells.
        packed: the cells.
        head: version, codec and reserved bytes: what every record begins with.
    """

    cells: str
    packed: PackedCells

    def __init__(self, sizes: Mapping[str, int], cells: str, packed: PackedCells, head: bytes) -> None:
        from lifelong.memory import cell_kernel

        self._kernel, self.cells, self.packed, self._head = cell_kernel, cells, packed, head
        self._stretches = [
            Stretch(name, begin, end)
            for name, size in sizes.items()
            for begin, end in (packed.stretches() if name == cells else [(0, size)])
        ]
        self._fields, self._size = dict[str, tuple[int, int]](), 0
        for name, size in sizes.items():
            self._fields[name] = self._size, size
            self._size += -(-size // _ALIGNED) * _ALIGNED
        keys = iter(packed.keys)
        stretch_SX = [
            (one.end - one.begin, next(keys) if one.name == cells else -1, first, one.begin, size)
            for one in self._stretches
            for first, size in [self._fields[one.name]]
        ]
        self._stretch_SX: IntArray = np.array(stretch_SX, np.int64)
        self._seed = zlib.crc32(head)
        self.least: int = _HEADER + _LENGTH * len(self._stretches)
        self.fits: bool = max(one.end - one.begin for one in self._stretches) <= _LONGEST

    def lengths(self, byte_NR: Mapping[str, Bytes], length_FN: IntArray) -> IntArray:
        """`[S, N]` bytes that are left of each stretch.

        Args:
            byte_NR: field -> the bytes of N users.
            length_FN: those of the cells' stretches.
        """
        found = []
        for name, some in byte_NR.items():
            if name == self.cells:
                found.append(length_FN)
            else:
                found.append(np.zeros((1, len(some)), np.int64))
                self._kernel.trim(some, found[-1][0])
        return np.concatenate(found)

    def sizes(self, length_SN: IntArray) -> IntArray:
        """Bytes of each record."""
        found: IntArray = self.least + length_SN.sum(axis=0)
        return found

    def encode(self, header_NR: Bytes, byte_NR: Mapping[str, Bytes], length_SN: IntArray) -> list[bytes]:
        """Records of N users.

        Args:
            header_NR: their headers, without version and checksum.
            byte_NR: field -> bytes, as for `lengths`.
            length_SN: what `lengths` gave.
        """
        size_N = self.sizes(length_SN)
        end_N = np.cumsum(size_N)
        start_N = end_N - size_N
        begin_NR = np.concatenate([header_NR, length_SN.T.astype("<u2", order="C").view(np.uint8)], axis=1)
        begin_NR[:, : len(self._head)] = np.frombuffer(self._head, np.uint8)
        out_I, place_N = np.empty(int(size_N.sum()), np.uint8), start_N.copy()
        self._kernel.gather(begin_NR, 0, np.full(len(size_N), self.least), place_N, out_I)
        for length_N, one in zip(length_SN, self._stretches, strict=True):
            self._kernel.gather(byte_NR[one.name], one.begin, length_N, place_N, out_I)
        starts, ends = start_N.tolist(), end_N.tolist()
        sum_N = np.array(self._sums(out_I.data, starts, ends), "<u4")
        out_I[start_N[:, None] + np.arange(CHECKSUM.start, CHECKSUM.stop)] = sum_N.view(np.uint8).reshape(-1, 4)
        whole = out_I.tobytes()
        return [whole[start:end] for start, end in zip(starts, ends, strict=True)]

    def _sums(self, view: memoryview, starts: Sequence[int], ends: Sequence[int]) -> list[int]:
        """Checksums of records that lie one after another."""
        rests = [view[start + CHECKSUM.stop : end] for start, end in zip(starts, ends, strict=True)]
        return list(map(zlib.crc32, rests, repeat(self._seed)))

    def decode(self, records: Sequence[bytes], row_N: IntArray, rows: int) -> tuple[Bytes, dict[str, Bytes]] | None:
        """What records hold, the cells not packed.

        Args:
            records: N of them.
            row_N: row of each.
            rows: how many there are; what is no record's is zeros.

        Returns:
            `[N, 24]` headers, and field -> the bytes of each row; None if not all records are what `encode` makes.

        Raises:
            ValueError: a field of cells does not have one of the keys.
        """
        sums = map(zlib.crc32, [memoryview(record)[CHECKSUM.stop :] for record in records], repeat(self._seed))
        if any(map(ne, sums, [int.from_bytes(record[CHECKSUM], "little") for record in records])):
            return None
        if not all(record.startswith(self._head) for record in records):
            return None
        whole_I, size_N = np.frombuffer(b"".join(records), np.uint8), np.array([*map(len, records)], np.int64)
        out_I = np.zeros(rows * self._size, np.uint8)
        wrong = self._kernel.scatter(whole_I, size_N, row_N, rows, self.least, self._stretch_SX, out_I)
        if wrong == self._kernel.TOO_HIGH:
            raise ValueError("a key beyond its field's")
        if wrong:
            return None
        header_NR = np.frombuffer(b"".join([record[:_HEADER] for record in records]), np.uint8)
        found = {
            name: out_I[rows * begin : rows * (begin + size)].reshape(rows, size)
            for name, (begin, size) in self._fields.items()
        }
        return header_NR.reshape(len(records), _HEADER), found


def bytes_of(values: npt.NDArray[Any]) -> Bytes:
    """`[B, R]` bytes of a field of B users; of one that lies in one piece they are its own."""
    values = np.ascontiguousarray(values)
    return values.view(np.uint8).reshape(len(values), -1) if values.size else np.zeros((len(values), 0), np.uint8)
