"""Cells of a counting memory as the bytes of a record: `lifelong.tally.plan.CellPacking`, for many users at once.

Shapes: N users, K cells of all fields.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lifelong.dtypes import IntArray
from lifelong.errors import require
from lifelong.tally.plan import CellPacking

Cells = npt.NDArray[np.int16]
"""`[N, K, 2]`: the key less 2^15, and 256 times the level of the count plus the step of the age; zeros are an empty
cell. Each field's are sorted by key, empty ones last."""
Bits = npt.NDArray[np.uint8]


class PackedCells:
    """Packs cells, and unpacks them again, in compiled loops: `lifelong.tally.kernel`.

    Args:
        packing: the sizes.

    >>> packed = PackedCells(CellPacking(cells_F=(2,), values_F=(9,)))
    >>> cell_NKX = np.array([[[3 - 2**15, 513], [7 - 2**15, 256]]], np.int16)
    >>> packed.unpack(packed.pack(cell_NKX))[0].tolist()
    [[-32765, 513], [-32761, 256]]
    """

    def __init__(self, packing: CellPacking) -> None:
        require("numba", extra="serve", purpose="a memory that counts")
        # Only memories that count need Numba, which takes half a second to import.
        from lifelong.tally import kernel

        self.size: int = packing.size
        self._cells, self._kernel, self._packing = sum(packing.cells_F), kernel, kernel.packing_of(packing)

    def pack(self, cell_NKX: Cells) -> Bits:
        """`[N, size]` bytes.

        Raises:
            ValueError: a field does not have one of the keys, or they are not sorted.
        """
        found = np.zeros((len(cell_NKX), self.size), np.uint8)
        self.put(cell_NKX, found, 0)
        return found

    def put(self, cell_NKX: Cells, record_NR: Bits, offset: int) -> None:
        """Pack cells into records, from a byte on.

        Raises:
            ValueError: a field does not have one of the keys, or they are not sorted.
        """
        cell_NKX = np.ascontiguousarray(cell_NKX)
        wrong = self._kernel.pack(cell_NKX, self._packing, record_NR, offset, self._scratch())
        if wrong:
            raise ValueError("a key beyond its field's" if wrong == self._kernel.TOO_HIGH else "cells out of order")

    def _scratch(self) -> tuple[npt.NDArray[np.uint32], Bits, IntArray]:
        """Room for the loops; of each call its own, since threads share what is here."""
        piece_I = np.zeros(self.size // 4 + 3, np.uint32)
        return piece_I, piece_I.view(np.uint8), np.zeros(self._cells, np.int64)

    def unpack(self, stored: Bits) -> Cells:
        """The cells, sorted.

        Raises:
            ValueError: these bytes are not what `pack` makes.
        """
        cell_NKX = np.empty((len(stored), self._cells, 2), np.int16)
        self.take(stored, 0, cell_NKX, np.arange(len(stored)))
        return cell_NKX

    def take(self, record_NR: Bits, offset: int, cell_BKX: Cells, row_N: IntArray) -> None:
        """Unpack the cells of records, which begin at a byte, into some rows.

        Raises:
            ValueError: these bytes are not what `pack` makes.
        """
        # The kernel is compiled once, for bytes that cannot be written: those that came from a store.
        fixed_NR = record_NR.view()
        fixed_NR.flags.writeable = False
        wrong = self._kernel.unpack(fixed_NR, offset, self._packing, row_N, cell_BKX, self._scratch())
        if wrong == self._kernel.TOO_MANY:
            raise ValueError(f"other than {self._cells} keys")
        if wrong == self._kernel.TOO_HIGH:
            raise ValueError("a key beyond its field's")
